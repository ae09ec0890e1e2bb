"""Genuine repetition: was it written as often as it was said?"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from otoscope.outcomes.repetition import Run, runs, units
from otoscope.showing import Shows

_LONGEST_UNIT = 100  # words of one copy
_TOLERANCE = 5
_ALIKE = 0.5


@dataclass(frozen=True)
class RepeatFidelity(Shows):
    """How often a repeated phrase was said and written.

    Attributes:
        ngram: The phrase, by words (characters in languages written without spaces).
        true_repeats: Copies that follow each other in the reference, at least 2.
        predicted_repeats: Copies that follow each other in the hypothesis; 1 when it stands there alone, 0 when it
            does not.
    """

    ngram: tuple[str, ...]
    true_repeats: int
    predicted_repeats: int

    @property
    def over_generation(self) -> float:
        """Predicted over true repeats: 1 is right, more is a loop, less is a repetition that was swallowed."""
        return self.predicted_repeats / self.true_repeats

    @property
    def kept(self) -> bool:
        """Whether the repetition survived: at most a fifth of the true copies too many or too few, rounded down.

        Two to four copies must be exact, five to nine may be off by one, twelve by two: nobody counts twelve
        copies better by ear, and a first copy is easily misheard.
        """
        return abs(self.predicted_repeats - self.true_repeats) <= self.true_repeats // _TOLERANCE

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: the counts, `over_generation` and `kept`."""
        values = asdict(self) | {"ngram": list(self.ngram)}
        return values | {"over_generation": self.over_generation, "kept": self.kept}


def repeat_fidelity(reference: str, hypothesis: str, language: str | None = None) -> RepeatFidelity | None:
    """Compare the longest immediate repetition of a reference with what a hypothesis made of it.

    A phrase that is misheard the same way each time counts as repeated, if at most half of its characters are wrong:
    the hypothesis' own longest repetition then stands for it.

    Args:
        reference: What was said.
        hypothesis: What was written.
        language: Language code.

    Returns:
        The comparison, or None when the reference repeats nothing immediately.

    Source: the over-generation ratio, predicted over true repeats on speech with genuine reduplication.
    """
    said = _longest_run(units(reference, language))
    if said is None:
        return None
    written = units(hypothesis, language)
    copies = _copies(said.ngram, written)
    own = _longest_run(written)
    if own and _are_alike(said.ngram, own.ngram):
        copies = max(copies, own.repeats)
    return RepeatFidelity(said.ngram, said.repeats, copies)


def _longest_run(words: list[str]) -> Run | None:
    """The repetition that takes most words; of equal ones the shortest phrase, said most often."""
    return max(runs(words, _LONGEST_UNIT), key=lambda run: (run.length, run.repeats), default=None)


def _copies(ngram: tuple[str, ...], words: list[str]) -> int:
    """The most copies of an n-gram that follow each other in `words`."""
    n, best = len(ngram), 0
    ending = [0] * (len(words) + 1)  # copies that follow each other and end before word i
    for end in range(n, len(words) + 1):
        if tuple(words[end - n : end]) == ngram:
            ending[end] = ending[end - n] + 1
            best = max(best, ending[end])
    return best


def _are_alike(a: tuple[str, ...], b: tuple[str, ...]) -> bool:
    from jiwer import cer

    return cer(" ".join(a), " ".join(b)) <= _ALIKE
