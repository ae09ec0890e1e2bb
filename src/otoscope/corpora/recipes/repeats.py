"""Things that are really said again and again: whoever treats loops must leave them alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np

from otoscope.audio import Clip, info
from otoscope.audio.samples import sample
from otoscope.corpora.item import Item
from otoscope.corpora.recipes.recipe import (
    Recipe,
    Sound,
    require_counts,
    require_known,
    rng_of,
)
from otoscope.corpora.recipes.voices import VOICES, say
from otoscope.corpora.targets import items
from otoscope.errors import OptionError

KINDS = ("word", "phrase", "clip", "second")
TIMES = (2, 12)
"""Least and greatest number of repetitions."""

_WORDS = (
    "no yes stop never please again faster slowly hello goodbye forward water louder always really "
    "hurry careful tomorrow nothing seven red left home wonderful"
)
WORDS = tuple(_WORDS.split())
PHRASES = (
    "I do not know",
    "come over here",
    "one more time",
    "that is not fair",
    "turn to the left",
    "look at the sky",
    "keep on walking",
    "leave me alone",
    "ring the bell",
    "we will see",
    "day after day",
    "give it to me",
    "wait for the train",
    "row the boat",
    "all of you",
    "hold the line",
)

_LONGEST = 28.0  # seconds: all within one window of Whisper
_SAMPLES = ("jfk", "austen-0870", "austen-0880", "austen-0890")


@dataclass(frozen=True, kw_only=True)
class Repeats(Recipe):
    """Words, phrases, whole clips and single seconds of speech, 2 to 12 times, as long as they fit into 28 s.

    word and phrase: one utterance of espeak-ng in which the unit is said again and again. clip: a short recording with its text,
    copied. second: one second cut out of a recording, copied; what is said in it is not known, so its text is not, either.

    Labels: kind, unit (the words that are repeated, or the recording), times; speaker where espeak-ng speaks.

    Attributes:
        kinds: Among word, phrase, clip and second; None takes all, clip if there is a corpus for it.
        count: Recordings of each kind.
        speech: A corpus for clip and second; without it, seconds come from the sample recordings.
    """

    name: ClassVar[str] = "repeats"
    pace: ClassVar[float] = 0.03
    source_of: ClassVar[str | None] = "speech"

    kinds: tuple[str, ...] | None = None
    count: int = 20
    speech: Path | None = None

    def sounds(self) -> list[Sound]:
        """`count` recordings of each kind."""
        kinds = self.kinds or tuple(k for k in KINDS if k != "clip" or self.speech)
        require_known("kind", kinds, KINDS)
        require_counts(count=self.count)
        corpus = (
            items(self.speech)
            if self.speech
            else [Item(f"{n}.flac", sample(n), language="en") for n in _SAMPLES]
        )
        short = (
            [item for item in corpus if item.text and _seconds(item) <= _LONGEST / 2]
            if "clip" in kinds
            else []
        )
        if "clip" in kinds and not short:
            raise OptionError(
                "There are no short recordings with a text to repeat.", "Give a corpus of them with --speech."
            )
        return [self._sound(kind, number, corpus, short) for kind in kinds for number in range(self.count)]

    def _sound(self, kind: str, number: int, corpus: list[Item], short: list[Item]) -> Sound:
        rng = rng_of(self.seed, kind, number)
        name, times = f"{kind}-{number:04d}", int(rng.integers(TIMES[0], TIMES[1] + 1))
        if kind in ("word", "phrase"):
            return _spoken(name, kind, times, rng)
        if kind == "second":
            item = corpus[rng.integers(len(corpus))]
            start = float(rng.uniform(0, max(0.0, _seconds(item) - 1)))
            make = partial(_copied, item, times, start, 1.0)
            return Sound(
                name, make, float(times), None, item.language, _labels(kind, item.audio_filepath, times)
            )
        item = short[rng.integers(len(short))]
        times = min(times, int(_LONGEST // _seconds(item)))
        text, make = " ".join([item.text or ""] * times), partial(_copied, item, times, 0.0, None)
        return Sound(name, make, times * _seconds(item), text, item.language, _labels(kind, item.text, times))


def _spoken(name: str, kind: str, times: int, rng: np.random.Generator) -> Sound:
    units = WORDS if kind == "word" else PHRASES
    unit, voice = units[rng.integers(len(units))], str(rng.choice(VOICES))
    said = ", ".join([unit] * times)
    text = said[0].upper() + said[1:] + "."
    labels = _labels(kind, unit, times) | {"speaker": voice}
    seconds = 0.4 * len(text.split())
    return Sound(name, partial(say, text, "en-us", voice), seconds, text, "en", labels)


def _labels(kind: str, unit: str | None, times: int) -> dict[str, object]:
    return {"kind": kind, "unit": unit, "times": times}


def _seconds(item: Item) -> float:
    return item.duration or info(item.path).duration or 0.0


def _copied(item: Item, times: int, start: float, seconds: float | None) -> Clip:
    clip = item.clip()
    if seconds is not None:
        clip = clip.span(min(start, max(0.0, clip.duration - seconds)), start + seconds)
    return Clip(np.tile(clip.samples, times))
