"""Synthetic speakers whose gender, accent and words are known, each combined with each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

from otoscope.audio import Clip, espeak
from otoscope.corpora.recipes.recipe import Recipe, Sound, require_counts, require_known, rng_of
from otoscope.corpora.recipes.sentences import CARRIER, CATEGORIES, LANGUAGES, SENTENCES
from otoscope.errors import OptionError

ACCENTS = (
    "en-us",
    "en-us-nyc",
    "en-gb",
    "en-gb-x-rp",
    "en-gb-x-gbclan",
    "en-gb-x-gbcwmd",
    "en-gb-scotland",
    "en-029",
)
VOICES = ("f1", "f2", "f3", "f4", "f5", "linda", "m1", "m2", "m3", "m4", "m7", "m8")
"""Six women and six men whose pitch or timbre differs clearly; see `espeak.variants` for more."""

What = Literal["sentences", "categories", "languages"]


def say(text: str, accent: str, voice: str) -> Clip:
    """A sentence in a voice; what the recipes that need speech have in common."""
    return espeak.speak(text, accent=accent, variant=voice)


@dataclass(frozen=True, kw_only=True)
class Voices(Recipe):
    """Speech by espeak-ng for probes of gender, accent, speaker, language and meaning.

    The design is crossed: every voice says the same things in every accent, so no label tells another. `speaker` is the voice,
    whatever its accent: whoever probes gender must hold out speakers, not recordings. Accent is a factor of its own, the
    same voice having all of them.

    Labels: speaker, gender, accent, voice (espeak-ng's full name), and sentence (a number within the language) or word and
    category.

    Attributes:
        what: English sentences, words of ten semantic categories in a carrier sentence, or sentences of eight languages.
        voices: Variants of espeak-ng.
        accents: English accents; None takes eight for sentences and American English for categories. Languages have one each.
        sentences: How many sentences every voice says in every accent or language; for categories, words of each category.
    """

    name: ClassVar[str] = "voices"
    pace: ClassVar[float] = 0.01

    what: What = "sentences"
    voices: tuple[str, ...] = VOICES
    accents: tuple[str, ...] | None = None
    sentences: int | None = None

    def sounds(self) -> list[Sound]:
        """Every voice with every accent and text."""
        if self.what == "languages" and self.accents is not None:
            raise OptionError("Every language has an accent of its own.", "Leave the accents out.")
        require_known("voice", self.voices, list(espeak.variants()))
        require_known("accent", self._accents(), list(espeak.accents()))
        require_counts(sentences=self._count())
        return [
            self._sound(voice, accent, language, text, key, dict(labels))
            for accent, language, key, text, labels in self._texts()
            for voice in self.voices
        ]

    def _accents(self) -> tuple[str, ...]:
        if self.accents is not None:
            return self.accents
        return ACCENTS if self.what == "sentences" else ("en-us",)

    def _count(self) -> int:
        return (
            self.sentences
            if self.sentences is not None
            else {"sentences": 6, "categories": 12, "languages": 6}[self.what]
        )

    def _texts(self) -> Iterator[tuple[str, str, str, str, Mapping[str, object]]]:
        """Accent, language, key, text and labels."""
        if self.what == "languages":
            for language, (accent, sentences) in LANGUAGES.items():
                for number in self._chosen(
                    len(sentences), "languages"
                ):  # the same meanings in every language
                    yield accent, language, f"{number:02d}", sentences[number], {"sentence": number}
        elif self.what == "categories":
            for accent in self._accents():
                for category, words in CATEGORIES.items():
                    for word in (words[i] for i in self._chosen(len(words), category)):
                        labels = {"category": category, "word": word}
                        yield accent, "en", word, CARRIER.format(word=word), labels
        else:
            for accent in self._accents():
                for number in self._chosen(len(SENTENCES), "sentences"):
                    yield accent, "en", f"{number:02d}", SENTENCES[number], {"sentence": number}

    def _chosen(self, of: int, what: str) -> list[int]:
        return sorted(int(i) for i in rng_of(self.seed, what).permutation(of)[: self._count()])

    def _sound(
        self, voice: str, accent: str, language: str, text: str, key: str, labels: dict[str, object]
    ) -> Sound:
        return Sound(
            name=f"{accent}-{_safe(voice)}-{key}",
            make=partial(say, text, accent, voice),
            seconds=0.4 * (1 + len(text.split())),
            text=text,
            language=language,
            labels={
                "speaker": voice,
                "gender": espeak.variants()[voice],
                "accent": accent,
                "voice": f"{accent}+{voice}",
                **labels,
            },
        )


def _safe(voice: str) -> str:
    return voice.replace(" ", "_")
