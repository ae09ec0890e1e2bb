"""Sound that keeps coming, cut into segments at its pauses."""

from __future__ import annotations

from collections import deque

import numpy as np

from otoscope.audio.clip import SAMPLING_RATE
from otoscope.audio.reading import HOP, Samples, quietest
from otoscope.errors import OptionError

SILENT = 4e-9
"""Mean square up to which sound is digital silence: the last two steps of 16 bits, as dither leaves them."""

SHORTEST_PAUSE = 0.2
"""Seconds: a shorter gap lies within a word."""

_QUIET = 0.01  # of the loudest 0.2 s so far, in mean square: 20 dB below it
_LOUD_HOPS = 20
_SHORT, _LONGER = 1000, 3  # hops; a segment that is shorter ends after a pause so many times as long
_LEAD = 100  # hops of digital silence before the first sound, beyond which they are dropped ...
_LEAD_KEPT = 20  # ... down to these


class Segmenter:
    """Takes sound piece by piece and says where its first segment ends.

    A segment ends in the quietest 0.2 s of a pause, or, like a window of `otoscope.audio.windows`, in the quietest 0.2 s of the
    last `search` seconds before it gets longer than `seconds`. A pause is quiet against the loudest part of its own segment: in
    steady noise there is none. Before 10 s it must last three times as long, for people pause within sentences, and a recogniser
    does better with what was said before. Where a segment ends depends on the sound alone, never on the pieces in which it came.

    Attributes:
        start: Samples that have been taken away: where what is here begins.
        count: Samples that are here.
        cut: Where the first segment ends, in samples from `start`, or None where that is not known yet.
        known: Samples of all that came, from the first, that told where.

    Args:
        seconds: The longest a segment may be.
        pause: Seconds of quiet that end a segment of 10 s or more; None: only its length does, as in `windows`.
        search: How far back from the longest end to look for a quiet place, in seconds.

    Raises:
        OptionError: The pause is shorter than 0.2 s.
    """

    def __init__(self, seconds: float = 30.0, pause: float | None = 1.0, search: float = 5.0) -> None:
        if pause is not None and not SHORTEST_PAUSE <= pause < seconds:
            raise OptionError(
                f"A pause of {pause:g} s cannot end a segment of at most {seconds:g} s.",
                f"Choose at least {SHORTEST_PAUSE:g} s, and less than a segment.",
            )
        self.size = round(seconds * SAMPLING_RATE)
        self.start, self.count = 0, 0
        self.cut: int | None = None
        self.known = 0
        self._reach = min(round(search * SAMPLING_RATE), self.size)
        self._pause = None if pause is None else round(pause * SAMPLING_RATE) // HOP
        self._blocks: list[Samples] = []
        self._floor = 0.0
        self._unmeasured = np.empty(0, np.float32)
        self._energies: list[float] = []
        self._restart()

    @property
    def room(self) -> int:
        """Samples that may still come before a segment has to be taken away."""
        return max(self.size + 1 - self.count, 0)

    @property
    def audible(self) -> float:
        """Seconds of what is here that are not digital silence."""
        return self._audible * HOP / SAMPLING_RATE

    @property
    def is_tail(self) -> bool:
        """Whether all that is here is the rest of the pause that ended the last segment."""
        short = self._pause is not None and self.count <= self._pause * HOP
        return short and max(self._energies, default=0.0) < self._floor

    def feed(self, samples: Samples) -> None:
        """Take the next samples, `(n,)` at 16 kHz."""
        self._blocks.append(samples)
        self.count += len(samples)
        joined = np.concatenate([self._unmeasured, samples])
        whole = len(joined) // HOP * HOP
        energies = np.square(joined[:whole], dtype=np.float64).reshape(-1, HOP).mean(axis=1)
        self._unmeasured = joined[whole:].copy()
        self._energies += energies.tolist()
        self._audible += int((energies > SILENT).sum())
        self._scan()

    def peek(self) -> Samples:
        """All that is here, `(count,)`."""
        self._blocks = [np.concatenate([np.empty(0, np.float32), *self._blocks])]
        return self._blocks[0]

    def take(self, count: int) -> Samples:
        """Remove the first samples: up to `cut`, or all of them.

        Returns:
            `(count,)`; what follows is the begin of the next segment.
        """
        taken = self.peek()[:count].copy()
        self._floor = _QUIET * self._loudest if self._quiet else 0.0
        self._drop(count)
        self._restart()
        self._scan()
        return taken

    def _drop(self, count: int) -> None:
        self._blocks = [self.peek()[count:].copy()]
        self.start, self.count = self.start + count, self.count - count
        self._energies = self._energies[count // HOP :]

    def _restart(self) -> None:
        self.cut = None
        self._scanned, self._loudest, self._quiet = 0, 0.0, 0
        self._recent: deque[float] = deque(maxlen=_LOUD_HOPS)
        self._audible = sum(energy > SILENT for energy in self._energies)

    def _scan(self) -> None:
        """Go on looking for the end of the first segment, hop by hop."""
        while self.cut is None and self._scanned < min(len(self._energies), self.size // HOP):
            self._follow(self._energies[self._scanned])
            self._scanned += 1
            if self._pause is None:
                continue
            needed = self._pause * (1 if self._scanned >= _SHORT else _LONGER)
            if self._quiet >= needed:
                self._end(self._scanned * HOP, needed * HOP)
            elif self._scanned >= _LEAD and not self._loudest:
                self._drop((_LEAD - _LEAD_KEPT) * HOP)
                self._scanned = _LEAD_KEPT
        if self.cut is None and self.count > self.size:
            self._end(self.size, self._reach)

    def _end(self, known: int, reach: int) -> None:
        self.cut, self.known = quietest(self.peek()[:known], reach), self.start + known

    def _follow(self, energy: float) -> None:
        """Note one hop."""
        self._recent.append(energy if energy > SILENT else 0.0)
        self._loudest = max(self._loudest, sum(self._recent) / _LOUD_HOPS)
        self._quiet = self._quiet + 1 if energy < _QUIET * self._loudest else 0


def is_silent(samples: Samples) -> bool:
    """Whether sound is digital silence, `(n,)`."""
    return float(np.square(samples, dtype=np.float64).mean()) <= SILENT
