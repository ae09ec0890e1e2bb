"""How much work a command is given."""

from __future__ import annotations

import math
from dataclasses import dataclass

from otoscope.planning.pieces import WINDOW, Pieces

TOKENS_A_SECOND = 2.6
"""Tokens of read English in a second: an estimate, on which the time of writing hangs."""


@dataclass(frozen=True)
class Job:
    """What a command is to do.

    Attributes:
        pieces: What the model's parts take.
        seconds: Of sound, in all.
        batch: Rows at once.
        units: Nodes of a trace, steps of a training, trials of a search; 0 where there are none to count.
        recordings: How many recordings the sound is in, each with windows of its own.
    """

    pieces: Pieces
    seconds: float
    batch: int
    units: int = 0
    recordings: int = 1

    @property
    def windows(self) -> int:
        """Windows of sound."""
        return self.recordings * max(1, math.ceil(self.seconds / self.recordings / WINDOW))

    @property
    def rows(self) -> int:
        """Windows at once."""
        return min(self.batch, self.windows)

    @property
    def tokens(self) -> int:
        """Tokens of a window's text."""
        return max(1, round(TOKENS_A_SECOND * self.seconds / self.windows))

    @property
    def length(self) -> int:
        """Positions of a window's text with its prompt."""
        return self.pieces.prompt + self.tokens
