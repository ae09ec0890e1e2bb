"""Recordings one after another in windows as long as a recogniser hears, in an order that is drawn.

A recogniser computes a whole window, however short the recording in it: joined, a corpus of short recordings is read many times
faster, and is heard at all places of the window and after every text.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from otoscope.audio import SAMPLING_RATE, Clip
from otoscope.corpora.item import Item
from otoscope.errors import AudioError

_PAUSES = (0.1, 0.8)
"""Seconds of silence between two recordings."""


@dataclass(frozen=True)
class Joined(Item):
    """Recordings one after another, with silence between them.

    Attributes:
        parts: The recordings.
        pauses: Seconds of silence after each.
    """

    parts: tuple[Item, ...] = ()
    pauses: tuple[float, ...] = ()

    def clip(self) -> Clip:
        """All of it that can be read; see `Item.clip`."""
        pieces: list[np.ndarray] = []
        problem: AudioError | None = None
        for part, pause in zip(self.parts, self.pauses, strict=True):
            try:
                pieces += [part.clip().samples, np.zeros(round(pause * SAMPLING_RATE), dtype=np.float32)]
            except AudioError as error:  # one that is broken does not take the others with it
                problem = error
        if problem is not None and not pieces:
            raise problem
        return Clip(np.concatenate(pieces), source=self.audio_filepath, labels=self.labels)

    def windows(self, seconds: float = 30.0) -> Iterator[Clip]:
        """All of it, cut off where the window ends."""
        clip = self.clip()
        yield replace(clip, samples=clip.samples[: round(seconds * SAMPLING_RATE)])

    def file_stamp(self) -> list[int]:
        """The stamps of all parts."""
        return [number for part in self.parts for number in part.file_stamp()]


def joined(items: Sequence[Item], seconds: float = 30.0, times: int = 1, seed: int = 0) -> list[Joined]:
    """Every recording `times` over, joined with others of its language.

    Args:
        items: Recordings whose durations are known; those without, and longer ones than a window, are left out.
        seconds: Length of a window.
        times: How often each recording appears, every time among others.
        seed: Of orders and pauses.

    Returns:
        The windows. Recordings that share the label `source`, such as copies with different noise, never meet in one.
    """
    rng = random.Random(seed)
    found: list[Joined] = []
    for language in sorted({item.language or "" for item in items}):
        mine = [i for i in items if (i.language or "") == language and 0 < (i.duration or 0) <= seconds]
        for _ in range(times):
            found += _windows(rng.sample(mine, len(mine)), seconds, rng)
    return found


def _windows(order: Sequence[Item], seconds: float, rng: random.Random) -> Iterator[Joined]:
    waiting = list(order)
    while waiting:
        parts: list[Item] = []
        pauses: list[float] = []
        left: list[Item] = []
        room, sources = seconds, set()
        for item in waiting:
            source = item.labels.get("source", item.audio_filepath)
            length = item.duration or 0.0
            if length > room or source in sources:
                left.append(item)
                continue
            pauses.append(round(rng.uniform(*_PAUSES), 3))
            parts.append(item)
            sources.add(source)
            room -= length + pauses[-1]
            if room < 1:
                left += waiting[len(parts) + len(left) :]
                break
        yield _joined(parts, pauses)
        waiting = left


def _joined(parts: Sequence[Item], pauses: Sequence[float]) -> Joined:
    return Joined(
        audio_filepath=" + ".join(part.audio_filepath for part in parts),
        path=Path(),
        text=" ".join(part.text or "" for part in parts).strip() or None,
        duration=sum(part.duration or 0.0 for part in parts) + sum(pauses),
        language=parts[0].language,
        parts=tuple(parts),
        pauses=tuple(pauses),
    )
