"""What is true of a text that was written: what a monitor learns to tell, and is judged by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from otoscope.corpora import Item
from otoscope.monitors.signals import LONGEST_PERIOD
from otoscope.outcomes import OutputType, error_rates, output_type
from otoscope.patching.judging import is_sound
from otoscope.patching.price import is_repeat

TARGETS = ("invented", "loop")
"""What a monitor tells: a text that is made up or badly wrong, and one that loops."""

RIGHT_WER = 0.3
"""Word error rate up to which a text counts as ordinary: errors that anybody makes."""

CLEAN_SNR = 10.0
"""Signal-to-noise ratio in dB from which speech counts as ordinary."""

_YES, _NO = ("yes", "true", "1"), ("no", "false", "0")


@dataclass(frozen=True)
class Verdict:
    """What is true of one text; None where it cannot be known.

    Attributes:
        invented: Words where none were said, or, of speech, hardly any of those that were said.
        loop: A loop that was not said as one.
        ordinary: Whether it is ordinary speech, on which a monitor should keep quiet.
    """

    invented: bool | None
    loop: bool | None
    ordinary: bool

    @property
    def bad(self) -> bool | None:
        """Whether an alarm would be right."""
        if self.invented or self.loop:
            return True
        return None if self.invented is None or self.loop is None else False


def verdict(item: Item, written: str, language: str | None) -> Verdict:
    """Judge a text by the reference, or by the labels `invented` and `loop` (yes or no) where they are given.

    Args:
        item: The recording, with its `text` ("" or the label `speech: no` where nobody speaks; None where nothing is known).
        written: What was written.
        language: Language code.
    """
    kind = output_type(
        written, reference=item.text, language=item.language or language, is_speech=not is_sound(item)
    )
    speech = bool(item.text) and not is_sound(item)
    loop: bool | None = kind is OutputType.LOOP
    invented = _invented(item, written, language, kind, speech)
    given = {name: _given(item, name) for name in TARGETS}
    return Verdict(
        invented if given["invented"] is None else given["invented"],
        loop if given["loop"] is None else given["loop"],
        is_ordinary(item),
    )


def is_ordinary(item: Item) -> bool:
    """Whether it is clear speech with its text, in which nothing is said again and again."""
    speech = bool(item.text) and not is_sound(item)
    return speech and not is_repeat(item) and _snr(item) >= CLEAN_SNR


def possible(item: Item) -> dict[str, frozenset[bool]]:
    """Answers that can turn out to be true of a text, by `TARGETS` and `ordinary`; none where nobody will know."""
    given = {name: _given(item, name) for name in TARGETS}
    known = {"invented": item.text is not None or is_sound(item), "loop": True}
    either = {name: frozenset((True, False) if known[name] else ()) for name in TARGETS}
    told = {name: either[name] if (v := given[name]) is None else frozenset((v,)) for name in TARGETS}
    return told | {"ordinary": frozenset((is_ordinary(item),))}


def _invented(
    item: Item, written: str, language: str | None, kind: OutputType | None, speech: bool
) -> bool | None:
    if kind is None or (kind is OutputType.LOOP and item.text is None and not is_sound(item)):
        return None
    if kind in (OutputType.UNGROUNDED, OutputType.LOOP):
        return True
    if not speech:
        return False
    if kind is OutputType.CORRECT:
        wer = error_rates([item.text or ""], [written], item.language or language).wer
        return False if wer is None or wer <= RIGHT_WER else None
    return None  # speech that was passed over: wrong, but nothing is made up


def _given(item: Item, name: str) -> bool | None:
    told = str(item.labels.get(name, "")).casefold()
    return True if told in _YES else False if told in _NO else None


def _snr(item: Item) -> float:
    told = item.labels.get("snr_db")
    return float(told) if isinstance(told, int | float) else np.inf


def loop_onset(tokens: list[int]) -> int | None:
    """Index (0-based) of the first token of the second copy of what repeats longest; None where nothing does."""
    ids = np.array(tokens)
    best, onset = 0, None
    for period in range(1, min(LONGEST_PERIOD, len(ids) // 2) + 1):
        same = np.r_[False, ids[period:] == ids[:-period], False].astype(np.int8)
        edges = np.flatnonzero(np.diff(same))
        starts, lengths = edges[::2], edges[1::2] - edges[::2]
        if len(lengths) and lengths.max() >= period and lengths.max() > best:
            best, onset = int(lengths.max()), int(starts[lengths.argmax()]) + period
    return onset
