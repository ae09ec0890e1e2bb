"""Immediate repetitions: the same n words one after the other."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from otoscope.outcomes.scripts import script_of
from otoscope.outcomes.word_errors import UNSPACED_LANGUAGES, language_code

_UNSPACED_SCRIPTS = frozenset({"Han", "Kana", "Lao", "Myanmar", "Thai"})


@dataclass(frozen=True)
class Run:
    """An n-gram and how often it stands there without a gap.

    Attributes:
        ngram: The repeated words, or characters in languages written without spaces.
        repeats: How many copies follow each other, at least 2.
        start: Index of the first unit of the first copy, from 0.
    """

    ngram: tuple[str, ...]
    repeats: int
    start: int

    @property
    def length(self) -> int:
        """Units that the copies take together."""
        return len(self.ngram) * self.repeats


def is_unspaced(text: str, language: str | None) -> bool:
    """Whether characters are to be counted in place of words: by the language, without one by the script."""
    code = language_code(language)
    return code in UNSPACED_LANGUAGES if code else script_of(text) in _UNSPACED_SCRIPTS


def units(text: str, language: str | None = None) -> list[str]:
    """The words of a text without case and punctuation; characters in languages written without spaces.

    Not Whisper's normalisation, which makes one number of "one one one one".
    """
    text = unicodedata.normalize("NFKC", text).casefold()
    if is_unspaced(text, language):
        return [character for character in text if character.isalnum()]
    words = ("".join(filter(_in_word, word)) for word in text.split())
    return [word for word in words if any(map(str.isalnum, word))]


def runs(words: Sequence[str], longest: int) -> list[Run]:
    """For each n from 1 to `longest` the run of most copies (the first of several), where one n-gram repeats at all.

    Args:
        words: Words or characters, see `units`.
        longest: Greatest n.
    """
    numbers: dict[str, int] = {}
    ids = np.array([numbers.setdefault(unit, len(numbers)) for unit in words], dtype=np.int64)
    found = []
    for n in range(1, min(longest, len(ids) // 2) + 1):
        start, same = _longest_true(ids[n:] == ids[:-n])
        if same >= n:  # the n units after the first copy equal it
            found.append(Run(tuple(words[start : start + n]), same // n + 1, start))
    return found


def _longest_true(flags: np.ndarray) -> tuple[int, int]:
    """Start and length of the longest stretch of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    if not len(edges):
        return 0, 0
    starts, lengths = edges[::2], edges[1::2] - edges[::2]
    best = int(lengths.argmax())
    return int(starts[best]), int(lengths[best])


def _in_word(character: str) -> bool:
    """Letters, digits and the marks that belong to them (vowel signs of Indic scripts)."""
    return character.isalnum() or unicodedata.category(character)[0] == "M"
