"""Sorting what was written into six types."""

from __future__ import annotations

import re
from enum import StrEnum

from otoscope.outcomes.loops import is_loop
from otoscope.outcomes.word_errors import error_rates, normaliser

CORRECT_WER = 0.5
"""Word error rate up to which a text counts as what was said: no more was wrong or missing than there was to say."""

CORRECT_CER = 0.25
"""Character error rate up to which it does, too: for short texts whose words are spelt or split otherwise."""

# A bracket that was never closed runs to the end: decoding may stop within an event.
_EVENTS = re.compile(r"\([^()]*(?:\)|$)|\[[^\[\]]*(?:\]|$)|（[^（）]*(?:）|$)|【[^【】]*(?:】|$)|\*[^*]+\*")
_NOTES = re.compile("[♩♪♫♬🎵🎶🎼]")


class OutputType(StrEnum):
    """What kind of text was written.

    The types of the encoder lens in arXiv 2508.15882, and bracketed sound events.

    Attributes:
        EMPTY: Nothing but whitespace.
        PUNCTUATION: No letter, no digit, no note: ".", "...", "!!!!".
        EVENT: Nothing but bracketed sound events or notes: "(water running)", "[Music]", "*sighs*", "♪".
        LOOP: A loop, see `LoopSigns.is_loop`, that was not said as one.
        UNGROUNDED: Words, but not what was said.
        CORRECT: What was said.
    """

    EMPTY = "empty"
    PUNCTUATION = "punctuation"
    EVENT = "event"
    LOOP = "loop"
    UNGROUNDED = "ungrounded"
    CORRECT = "correct"


def output_type(
    text: str, *, reference: str | None = None, language: str | None = None, is_speech: bool = True
) -> OutputType | None:
    """The type of a text.

    Correct is a word error rate of at most 0.5, or a character error rate of at most 0.25, under Whisper's normalisation.
    The encoder lens asks whether a layer already knows what was said, and half-garbled sentences of late layers do
    ("ask not what your country can do for your"); text that merely fits the language shares few words with the
    reference. The rate counts missing words as errors: "you" for a sentence that has "you" in it is not correct, and
    neither is a transcript that stops before its half. Such a cut text is filed under ungrounded, for want of a seventh type.

    A text that loops is correct only if the reference loops, too: a right sentence with a loop behind it is a loop.

    Args:
        text: What was written.
        reference: What was said; for a lens, what the model finally wrote. One without words means that nothing was said.
        language: Language code.
        is_speech: False when nothing was said, whatever the reference.

    Returns:
        The type; None when the text has words and does not loop, and there is no reference to judge it by.
    """
    bare = _without_words(text)
    if bare is not None:
        return bare
    said = reference if is_speech else ""
    loops = is_loop(text, language=language)
    if loops and not (said and is_loop(said, language=language)):
        return OutputType.LOOP
    if said is None:
        return None
    if has_words(said) and _is_near(said, text, language):
        return OutputType.CORRECT
    return OutputType.LOOP if loops else OutputType.UNGROUNDED


def has_words(text: str) -> bool:
    """Whether anything but punctuation, notes and bracketed sound events is written."""
    return any(map(str.isalnum, _EVENTS.sub(" ", text)))


def _without_words(text: str) -> OutputType | None:
    if not text.strip():
        return OutputType.EMPTY
    if any(map(str.isalnum, text)):
        return None if has_words(text) or is_loop(text) else OutputType.EVENT
    return OutputType.EVENT if _NOTES.search(text) else OutputType.PUNCTUATION


def _is_near(said: str, written: str, language: str | None) -> bool:
    rates = error_rates([said], [written], language)
    if rates.wer is None:  # normalisation left nothing of the reference: "um"
        return not normaliser(language)(written)
    return rates.wer <= CORRECT_WER or (rates.cer is not None and rates.cer <= CORRECT_CER)
