"""Loops: detectors with their published thresholds, and one decision made of them."""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from otoscope.errors import OptionError
from otoscope.outcomes.compression import compression_ratio
from otoscope.outcomes.repetition import is_unspaced, runs, units
from otoscope.outcomes.word_errors import language_code
from otoscope.showing import Shows

REPETITIVE = 2.4
"""Compression ratio above which Whisper takes a window's text for a loop (Radford et al. 2022, section 4.5)."""

REPETITIVE_TOKENS = 1.35
"""`token_compression_ratio` above which Transformers' documentation suggests to decode again."""

MANY_REPEATS = 5
"""Immediate copies of one n-gram from which a text is taken for a loop.

Published rules lie between 3 and 6. "No no no" has three copies and "1 1 1 1" four, and both are said every day; loops that
are cut off by the 448 positions of the decoder have dozens. Five is the least that leaves ordinary speech alone.
"""

LONGEST_NGRAM = 8
"""Longest n-gram whose copies are counted."""

FEW_WORDS = 0.4
"""Share of different words up to which NVIDIA's NeMo speech data processor takes a text for repeated n-grams."""

MANY_WORDS_PER_SECOND = 7.0
"""Words a second above which a text is too dense for speech."""

MANY_CHARACTERS_PER_SECOND = 40.0
"""Letters and digits a second above which NVIDIA's NeMo Curator takes a text for a hallucination (`max_char_rate`)."""

MANY_SYLLABLES_PER_SECOND = 15.0
"""The same where a character is a syllable (Chinese, Japanese): twice the 7.8 syllables a second of the quickest languages
in Pellegrino, Coupé and Marsico 2011. Our own rule."""

LOW_ENTROPY = 2.4
"""Entropy in nats of the last 32 tokens below which whisper.cpp decodes again (`entropy_thold`)."""

_ENTROPY_TOKENS = 32
_LONG_RUN = 8  # words
_LONG_CHARACTER_RUN = 16  # characters, about as many words in Chinese and Japanese
_ECHO = 4  # n of the n-grams that must be repeated, too, before a high compression ratio counts
_MANY_ECHOES = 0.5
_SYLLABIC = frozenset({"ja", "yue", "zh"})


@dataclass(frozen=True)
class LoopSigns(Shows):
    """What each loop detector says about one text; None where it cannot be computed.

    Words are those of `otoscope.outcomes.repetition.units`: characters in languages written without spaces.

    Attributes:
        compression_ratio: UTF-8 bytes over their zlib bytes.
        token_ratio: The same of packed token ids; needs `token_ids` and `vocab_size`.
        repeats: Copies of the n-gram (n from 1 to 8) that stands most often without a gap; 1 when nothing repeats.
        ngram: That n-gram.
        run_length: Words that its copies take together.
        unique_words: Different words over words; None for languages written without spaces.
        unique_4grams: Different 4-grams over 4-grams of words; None below four words.
        words_per_second: None for languages written without spaces, or when `seconds` is not known.
        characters_per_second: Letters and digits a second; None when `seconds` is not known.
        token_entropy: Entropy in nats of the counts of the last 32 tokens; None for 32 tokens and less.
        unspaced: Whether characters were counted in place of words.
        words: Number of words.
        language: Language code without its region, or None.
    """

    compression_ratio: float
    token_ratio: float | None
    repeats: int | None
    ngram: tuple[str, ...] | None
    run_length: int | None
    unique_words: float | None
    unique_4grams: float | None
    words_per_second: float | None
    characters_per_second: float | None
    token_entropy: float | None
    words: int
    unspaced: bool
    language: str | None

    @property
    def fired(self) -> tuple[str, ...]:
        """Names of the detectors that are beyond their published threshold, each by itself."""
        fast = MANY_SYLLABLES_PER_SECOND if self.language in _SYLLABIC else MANY_CHARACTERS_PER_SECOND
        beyond = {
            "compression_ratio": self.compression_ratio > REPETITIVE,
            "token_ratio": (self.token_ratio or 0) > REPETITIVE_TOKENS,
            "repeats": (self.repeats or 0) >= MANY_REPEATS,
            "unique_words": self.unique_words is not None and self.unique_words <= FEW_WORDS,
            "words_per_second": (self.words_per_second or 0) > MANY_WORDS_PER_SECOND,
            "characters_per_second": (self.characters_per_second or 0) > fast,
            "token_entropy": self.token_entropy is not None and self.token_entropy < LOW_ENTROPY,
        }
        return tuple(name for name, is_beyond in beyond.items() if is_beyond)

    @property
    def is_loop(self) -> bool:
        """The one decision: does this text loop?

        Yes, if an n-gram stands there five times or more without a gap and its copies take at least 8 words (16
        characters in languages written without spaces). Yes, too, if the compression ratio is above 2.4, the text has
        that many words and at most half of its 4-grams are different; a text of less than four words needs the ratio
        alone. The first rule finds exact loops early; the second loops of long sentences, loops that change a word
        now and then, and loops of letters or signs ("hahahaha...").

        The length keeps "no no no no no" and "1 1 1 1 1" from counting. The 4-grams keep what compresses well
        without repeating itself from counting: an hour of speech, counting aloud in long number words, scripts
        whose letters take three bytes.

        Only the text decides, so that one text has one verdict, whatever else was recorded. Neither confidence nor
        the no-speech probability has a say: loops are often written with high confidence. And a phrase that was truly
        spoken twelve times is a loop *in the text*; whether it was spoken, only a reference can tell
        (`repeat_fidelity`). The other signs are reported, not counted: on short ordinary texts they fire too easily.
        """
        long = _LONG_CHARACTER_RUN if self.unspaced else _LONG_RUN
        if (self.repeats or 0) >= MANY_REPEATS and (self.run_length or 0) >= long:
            return True
        echoes = self.unique_4grams is None or (self.unique_4grams <= _MANY_ECHOES and self.words >= long)
        return self.compression_ratio > REPETITIVE and echoes

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: the values, `fired` and `is_loop`."""
        values = asdict(self) | {"ngram": list(self.ngram) if self.ngram else None}
        return values | {"fired": list(self.fired), "is_loop": self.is_loop}


def loop_signs(
    text: str,
    *,
    language: str | None = None,
    token_ids: Sequence[int] | None = None,
    vocab_size: int | None = None,
    seconds: float | None = None,
) -> LoopSigns:
    """Put every loop detector to one text.

    The thresholds are made for the text of one decoding window (30 s). Judge the windows of a long recording one by one.

    Args:
        text: What was written.
        language: Language code, a region may follow. Without one the script tells whether words have spaces.
        token_ids: Ids of the written tokens, without prompt and end token.
        vocab_size: Size of the vocabulary, for the token ratio.
        seconds: Duration of the audio, for the rates.
    """
    words = units(text, language)
    unspaced = is_unspaced(text, language)
    run = max(runs(words, LONGEST_NGRAM), key=lambda run: run.repeats, default=None)
    a_second = 1 / seconds if seconds and seconds > 0 else None
    return LoopSigns(
        compression_ratio=compression_ratio(text),
        token_ratio=token_compression_ratio(token_ids, vocab_size) if token_ids and vocab_size else None,
        repeats=run.repeats if run else 1 if words else None,
        ngram=run.ngram if run else None,
        run_length=run.length if run else None,
        unique_words=None if unspaced else _distinct(words, 1),
        unique_4grams=_distinct(words, _ECHO),
        words_per_second=len(words) * a_second if a_second and not unspaced else None,
        characters_per_second=sum(map(str.isalnum, text)) * a_second if a_second else None,
        token_entropy=tail_entropy(token_ids) if token_ids else None,
        words=len(words),
        unspaced=unspaced,
        language=language_code(language) or None,
    )


Detector = Literal["combined", "compression", "ngram"]


def is_loop(text: str, detector: Detector = "combined", language: str | None = None) -> bool:
    """Whether a text loops, by one detector.

    Args:
        text: What was written in one decoding window.
        detector: "combined" is `LoopSigns.is_loop`; "compression" Whisper's ratio above 2.4; "ngram" five or more
            immediate copies of an n-gram, however short.
        language: Language code.

    Raises:
        OptionError: There is no such detector.
    """
    if detector not in get_args(Detector):
        raise OptionError(
            f"There is no loop detector {detector!r}.", f"Choose one of {', '.join(get_args(Detector))}."
        )
    signs = loop_signs(text, language=language)
    verdicts = {
        "combined": signs.is_loop,
        "compression": "compression_ratio" in signs.fired,
        "ngram": "repeats" in signs.fired,
    }
    return verdicts[detector]


def token_compression_ratio(token_ids: Sequence[int], vocab_size: int) -> float:
    """Transformers' own ratio: bytes of packed token ids over their zlib bytes; 0 without tokens.

    Each id takes floor(log2(vocabulary) / 8) + 1 bytes, little-endian. It is much lower than the ratio of the text, and the
    two thresholds must not be exchanged.

    Args:
        token_ids: Written tokens.
        vocab_size: Size of the vocabulary.

    Raises:
        ValueError: An id does not lie in the vocabulary.

    Source: Transformers' `WhisperGenerationMixin._retrieve_compression_ratio`.
    """
    if any(not 0 <= token < vocab_size for token in token_ids):
        raise ValueError(f"a token lies outside of the vocabulary of {vocab_size}")
    width = int(math.log2(vocab_size) / 8) + 1
    packed = b"".join(int(token).to_bytes(width, "little") for token in token_ids)
    return len(packed) / len(zlib.compress(packed))


def tail_entropy(token_ids: Sequence[int]) -> float | None:
    """Entropy in nats of the counts of the last 32 tokens (at most ln 32 = 3.47); None for 32 tokens and less.

    Source: whisper.cpp's `whisper_sequence_score`, which asks only sequences of more than 32 tokens.
    """
    if len(token_ids) <= _ENTROPY_TOKENS:
        return None
    shares = [count / _ENTROPY_TOKENS for count in Counter(token_ids[-_ENTROPY_TOKENS:]).values()]
    return -sum(share * math.log(share) for share in shares)


def _distinct(words: Sequence[str], n: int) -> float | None:
    """Different n-grams over n-grams."""
    ngrams = list(zip(*(words[i:] for i in range(n)), strict=False))
    return len(set(ngrams)) / len(ngrams) if ngrams else None
