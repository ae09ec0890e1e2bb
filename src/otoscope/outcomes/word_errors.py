"""Word and character error rates under Whisper's text normalisation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from otoscope.outcomes.intervals import bootstrap

if TYPE_CHECKING:
    from jiwer import AlignmentChunk

UNSPACED_LANGUAGES = frozenset({"zh", "ja", "th", "lo", "my", "yue"})
"""Languages written without spaces, where Whisper's evaluation counts every character as a word."""


@dataclass(frozen=True)
class ErrorRates:
    """How far hypotheses are from their references, counts summed over all utterances.

    Attributes:
        wer: Word errors over reference words; None when the references hold no words.
        cer: Character errors over reference characters; None when the references hold none.
        wer_interval: 95 % interval of the WER over utterances; None when `wer` is, and of a single one.
        insertions: Words that only the hypotheses have.
        deletions: Words that only the references have.
        substitutions: Words that were replaced.
        reference_words: Words in the references.
        n: Number of utterances.
    """

    wer: float | None
    cer: float | None
    wer_interval: tuple[float, float] | None
    insertions: int
    deletions: int
    substitutions: int
    reference_words: int
    n: int

    @property
    def insertion_rate(self) -> float | None:
        """Insertions over reference words: what invented text raises. None when the references hold no words."""
        return _ratio(self.insertions, self.reference_words)

    @property
    def deletion_rate(self) -> float | None:
        """Deletions over reference words; None when the references hold no words."""
        return _ratio(self.deletions, self.reference_words)

    @property
    def substitution_rate(self) -> float | None:
        """Substitutions over reference words; None when the references hold no words."""
        return _ratio(self.substitutions, self.reference_words)


def language_code(language: str | None) -> str:
    """The language of a tag without its region, in lower case ("en" of "en-GB"); "" without a language."""
    return (language or "").lower().replace("_", "-").split("-")[0]


def normaliser(language: str | None) -> Callable[[str], str]:
    """The function that strips a text of what should not count as an error (case, punctuation, spelling).

    Whisper's English rules for English, its basic ones for everything else (None included); languages written
    without spaces are split into characters. What has neither letter nor digit is no word and is dropped: the
    English rules leave a lone "." of an ellipsis behind.

    Args:
        language: Language code, a region may follow ("en", "en-GB").

    Source: Radford et al. 2022, appendix C.
    """
    return _normaliser(language_code(language))


def error_rates(references: Sequence[str], hypotheses: Sequence[str], language: str | None) -> ErrorRates:
    """WER and CER of utterances in one language.

    A hypothesis for an empty reference counts as insertions, in the total too.

    The interval is the percentile bootstrap over utterances (1000 resamples, fixed seed): Bisani and Ney
    2004, "Bootstrap estimates for confidence intervals in ASR performance evaluation".

    Args:
        references: What was said.
        hypotheses: What was written, in the same order.
        language: Language code that decides the normalisation; see `normaliser`.

    Raises:
        ValueError: The two differ in length.
    """
    return _rates([_Pair.of(*texts, language) for texts in zip(references, hypotheses, strict=True)])


def error_rates_by_language(utterances: Iterable[tuple[str, str, str | None]]) -> dict[str, ErrorRates]:
    """WER and CER in total and of each language.

    Args:
        utterances: Reference, hypothesis and language code of each.

    Returns:
        "total" (each utterance normalised by its own language, counts pooled), then the languages in
        alphabetical order; utterances without a language are under "unknown".
    """
    pairs: dict[str, list[_Pair]] = {}
    for reference, hypothesis, language in utterances:
        pairs.setdefault(language or "unknown", []).append(_Pair.of(reference, hypothesis, language))
    total = _rates([pair for group in pairs.values() for pair in group])
    return {"total": total} | {language: _rates(pairs[language]) for language in sorted(pairs)}


def alignment(reference: str, hypothesis: str, language: str | None) -> str:
    """One utterance word by word, to be read: reference above hypothesis, and I, D or S under what differs.

    Words are as they are counted, normalised; characters in languages written without spaces. Columns are characters,
    so wide ones (Chinese) need a font of even width. Two texts without words give the empty string.

    Args:
        reference: What was said.
        hypothesis: What was written.
        language: Language code that decides the normalisation; see `normaliser`.
    """
    from jiwer import process_words, visualize_alignment

    words = _Pair.of(reference, hypothesis, language).words
    if not any(words):
        return ""
    lines = visualize_alignment(process_words(*words), show_measures=False, skip_correct=False).splitlines()
    return "\n".join(
        line.rstrip() for line in lines if line.startswith(("REF:", "HYP:", "     ")) and line.strip()
    )


@dataclass(frozen=True)
class _Pair:
    """A normalised reference and hypothesis, for counting words and for counting characters."""

    words: tuple[str, str]
    characters: tuple[str, str]

    @classmethod
    def of(cls, reference: str, hypothesis: str, language: str | None) -> _Pair:
        normalise = normaliser(language)
        words = normalise(reference), normalise(hypothesis)
        if language_code(language) not in UNSPACED_LANGUAGES:
            return cls(words, words)
        # The spaces there only mark the split into characters; as characters they would halve the rate.
        return cls(words, (words[0].replace(" ", ""), words[1].replace(" ", "")))


def _rates(pairs: list[_Pair]) -> ErrorRates:
    from jiwer import process_characters, process_words

    if not pairs:
        return ErrorRates(None, None, None, 0, 0, 0, 0, 0)
    words = process_words([pair.words[0] for pair in pairs], [pair.words[1] for pair in pairs])
    characters = process_characters(
        [pair.characters[0] for pair in pairs], [pair.characters[1] for pair in pairs]
    )
    errors = np.array([_errors(chunks) for chunks in words.alignments])
    lengths = np.array([len(reference) for reference in words.references])
    return ErrorRates(
        wer=_ratio(int(errors.sum()), int(lengths.sum())),
        cer=_ratio(
            characters.insertions + characters.deletions + characters.substitutions,
            characters.hits + characters.deletions + characters.substitutions,
        ),
        wer_interval=_interval(errors, lengths),
        insertions=words.insertions,
        deletions=words.deletions,
        substitutions=words.substitutions,
        reference_words=int(lengths.sum()),
        n=len(pairs),
    )


def _errors(chunks: Sequence[AlignmentChunk]) -> int:
    return sum(
        max(chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx)
        for chunk in chunks
        if chunk.type != "equal"
    )


def _ratio(errors: int, length: int) -> float | None:
    return errors / length if length else None


def _interval(errors: np.ndarray, lengths: np.ndarray) -> tuple[float, float] | None:
    """95 % percentile bootstrap of sum(errors) / sum(lengths); draws without a single word are left out.

    One utterance can only be drawn again, which says nothing about others: it has no interval.
    """
    if len(lengths) < 2 or not lengths.any():
        return None
    return bootstrap(lambda errors, lengths: errors.sum() / lengths.sum(), errors, lengths)


@cache
def _normaliser(code: str) -> Callable[[str], str]:
    from whisper_normalizer.basic import BasicTextNormalizer
    from whisper_normalizer.english import EnglishTextNormalizer

    normalise = (
        EnglishTextNormalizer()
        if code == "en"
        else BasicTextNormalizer(split_letters=code in UNSPACED_LANGUAGES)
    )

    def words_of(text: str) -> str:
        return " ".join(word for word in normalise(text).split() if any(map(str.isalnum, word)))

    return words_of
