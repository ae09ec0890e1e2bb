"""Texts read aloud by synthetic voices: as much and as varied speech as there are texts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from otoscope.audio import Clip, espeak
from otoscope.corpora.item import Item
from otoscope.corpora.recipes.recipe import Recipe, Sound, require_counts, require_known, rng_of
from otoscope.corpora.recipes.voices import ACCENTS, VOICES
from otoscope.corpora.targets import items_or_texts
from otoscope.errors import OptionError

_RATES, _PITCHES = (140, 200), (35, 65)
_WORDS = (3, 40)
"""Fewest and most words of a recording."""


@dataclass(frozen=True, kw_only=True)
class Spoken(Recipe):
    """Sentences of some texts, each read by a voice of espeak-ng with an accent, a pace and a pitch that are drawn.

    A text is cut into sentences, of which those of 3 to 40 words are read. Recognisers hear formant voices worse than people:
    such speech varies what is said, and is no measure of how well they hear.

    Labels: speaker, gender, accent, rate, pitch, those of the text, and text_number (from 0), by which the sentences of one text
    can be held together.

    Attributes:
        source: The texts: a `.txt` file, one a line, or a manifest with `text`.
        count: Recordings, drawn from all sentences; None: every sentence.
        voices: Variants of espeak-ng.
        accents: English accents of espeak-ng.
    """

    name: ClassVar[str] = "spoken"
    pace: ClassVar[float] = 0.03
    source_of: ClassVar[str | None] = "source"

    source: Path | None = None
    count: int | None = 1000
    voices: tuple[str, ...] = VOICES
    accents: tuple[str, ...] = ACCENTS

    def sounds(self) -> list[Sound]:
        """The sentences that were drawn, in the order of the texts."""
        if self.source is None:
            raise OptionError("There are no texts to read.", "Name a corpus of texts.")
        require_known("voice", self.voices, list(espeak.variants()))
        require_known("accent", self.accents, list(espeak.accents()))
        require_counts(count=1 if self.count is None else self.count)
        found = [
            (number, item, sentence)
            for number, item in enumerate(items_or_texts(self.source))
            for sentence in _sentences(item.text or "")
        ]
        if not found:
            raise OptionError(f"{self.source} holds no sentence of 3 to 40 words.", "Give it prose.")
        order = rng_of(self.seed, "spoken").permutation(len(found))[: self.count]
        return [self._sound(place, *found[i]) for place, i in enumerate(sorted(int(i) for i in order))]

    def _sound(self, place: int, number: int, item: Item, sentence: str) -> Sound:
        rng = rng_of(self.seed, "spoken", number, sentence)
        voice, accent = str(rng.choice(self.voices)), str(rng.choice(self.accents))
        rate, pitch = int(rng.integers(*_RATES)), int(rng.integers(*_PITCHES))
        return Sound(
            name=f"{place:05d}",
            make=partial(_say, sentence, accent, voice, rate, pitch),
            seconds=0.4 * len(sentence.split()),
            text=sentence,
            language="en",
            labels=dict(item.labels)
            | {"speaker": voice, "gender": espeak.variants()[voice], "accent": accent, "rate": rate, "pitch": pitch}
            | {"text_number": number, "kind": "speech"},
        )  # fmt: skip


def _say(text: str, accent: str, voice: str, rate: int, pitch: int) -> Clip:
    return espeak.speak(text, accent=accent, variant=voice, rate=rate, pitch=pitch)


def _sentences(text: str) -> list[str]:
    pieces = re.split(r"(?<=[.!?])[\"')]*\s+(?=[\"'(A-Z])", text)
    return [p for p in pieces if _WORDS[0] <= len(p.split()) <= _WORDS[1] and re.search(r"[a-z]{2}", p)]
