"""What a monitor looks at while one row writes: numbers of each step, from what is known when the token is chosen.

A step is one choice of a token, the end token included. Steps may come one by one or many at once: the signals are the same.

- `sure`: log-probability of the likeliest token; `sure_mean`, `sure_least`: its mean so far, and its least value among the last
  eight steps.
- `rate`: tokens so far against seconds of sound; `silence`: log-odds of the no-speech token, the same at every step.
- `echo`: how many of the last tokens repeat, one by one, those a fixed distance before them; `copies`: how often that distance
  goes into them; `rounds`: the longest echo so far among those of at least four rounds (five copies); `fresh`: different tokens
  among the last 32; `long`: tokens so far; `stale`: how many of their trigrams stood in the text before. All but `fresh` are
  logarithms, of one more.
- Cross-attention of the alignment heads, averaged over them: `spread`, its entropy; `peak`, its largest weight; `reach`, its
  centre, as a share of the sound; `step`, how far that moved; `behind`, how far it lies behind the furthest so far;
  `again`, the share that falls on frames which were attended to before; `beyond`, the share beyond the sound, on the padding.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from otoscope.outcomes import MANY_REPEATS

TOKEN_SIGNALS = ("sure", "sure_mean", "sure_least", "rate", "silence")
TEXT_SIGNALS = ("echo", "copies", "rounds", "fresh", "long", "stale")
ATTENTION_SIGNALS = ("spread", "peak", "reach", "step", "behind", "again", "beyond")
SIGNALS = (*TOKEN_SIGNALS, *TEXT_SIGNALS, *ATTENTION_SIGNALS)
"""Names of the columns that `Track.advance` gives, in order."""

LONGEST = 160
"""Steps of a text that a monitor is fitted on: loops go on as they are."""

LONGEST_PERIOD = 48
"""Longest distance, in tokens, over which a repetition is looked for."""

_FRAME = 0.02  # seconds
_ROUNDS = MANY_REPEATS - 1
_RECENT = 8  # steps
_PERIODS = np.arange(1, LONGEST_PERIOD + 1)
_WINDOW = 32  # tokens
_NOTHING = (0.0, 0.0, 0.0, 1.0, 0.0, 0.0)  # of an empty text nothing repeats, and all is fresh


@dataclass(eq=False)
class Track:
    """One row under way: what its past steps leave for the next ones.

    Attributes:
        frames: Frames that belong to the sound.
        silence: Log-odds of the no-speech token.
        steps: Steps so far.
        tokens: Tokens written so far, as far as they are known.
    """

    frames: int
    silence: float = 0.0
    steps: int = 0
    tokens: list[int] = field(default_factory=list)
    _sum: float = 0.0
    _recent: list[float] = field(default_factory=list)
    _echoes: np.ndarray = field(default_factory=lambda: np.zeros(LONGEST_PERIOD, dtype=np.int64))
    _rounds: int = 0
    _trigrams: set[tuple[int, ...]] = field(default_factory=set)
    _stale: int = 0
    _centre: float = 0.0
    _furthest: float = 0.0
    _attended: np.ndarray | None = None

    def advance(self, sure: np.ndarray, attention: np.ndarray, written: list[int]) -> np.ndarray:
        """Signals of some new steps.

        Args:
            sure: Log-probability of the likeliest token, `(step,)`.
            attention: Mean attention of the alignment heads over all frames of the window, `(step, frame)`.
            written: The token written just before each step; for the first step of a text, anything.

        Returns:
            `(step, signal)`, columns as in `SIGNALS`.
        """
        before, self.steps = self.steps, self.steps + len(sure)
        columns = [
            *self._certainty(sure, before),
            *self._repetition(written if before else written[1:], len(sure)),
        ]
        return np.concatenate([np.stack(columns, axis=1), self._attention(attention)], axis=1)

    def _certainty(self, sure: np.ndarray, before: int) -> list[np.ndarray]:
        """The `TOKEN_SIGNALS`, each `(step,)`."""
        count = len(sure)
        sums = np.cumsum(np.r_[self._sum, sure])[1:]
        known = np.r_[np.full(_RECENT - 1 - len(self._recent), np.inf), self._recent, sure]
        least = sliding_window_view(known, _RECENT).min(axis=1)
        self._sum, self._recent = float(sums[-1]), [*self._recent, *sure.tolist()][1 - _RECENT :]
        steps = np.arange(before + 1, self.steps + 1)
        rate = steps / max(self.frames * _FRAME, 1.0)
        return [sure, sums / steps, least, rate, np.full(count, self.silence)]

    def _repetition(self, written: list[int], count: int) -> list[np.ndarray]:
        """Note tokens; the `TEXT_SIGNALS` of the last `count` steps, each `(step,)`, none of them knowing a token yet unwritten.

        Over each distance, an echo is how many tokens up to a step equal the one so far before them.
        """
        start = np.tile(np.array(_NOTHING)[:, None], count - len(written))
        if not written:
            return list(start)
        unknown = [-1] * (LONGEST_PERIOD - len(self.tokens))  # equal to no token
        known = np.array([*unknown, *self.tokens[-LONGEST_PERIOD:], *written], dtype=np.int64)
        spans = sliding_window_view(known, LONGEST_PERIOD + 1)  # (token, before and up to it)
        same = spans[:, -2::-1] == spans[:, -1:]
        numbers = np.arange(1, len(written) + 1)[:, None]
        broken = np.maximum.accumulate(np.where(same, 0, numbers), axis=0)  # where it last broke; 0: not here
        echoes = numbers - broken + np.where(broken == 0, self._echoes, 0)
        full = np.where(echoes >= _ROUNDS * _PERIODS, echoes, 0).max(axis=1, initial=0)
        rounds = np.maximum.accumulate(np.r_[self._rounds, full])[1:]
        self.tokens += written
        ends = range(len(self.tokens) - len(written) + 1, len(self.tokens) + 1)
        recent = [self.tokens[max(end - _WINDOW, 0) : end] for end in ends]
        told = np.stack(
            [
                np.log1p(echoes.max(axis=1)),
                np.log1p((echoes / _PERIODS).max(axis=1)),
                np.log1p(rounds),
                np.array([len(set(tokens)) / len(tokens) for tokens in recent]),
                np.log1p(np.array(ends)),
                np.log1p([self._stale_by(end) for end in ends]),
            ]
        )
        self._echoes, self._rounds = echoes[-1], int(rounds[-1])
        return list(np.concatenate([start, told], axis=1))

    def _stale_by(self, end: int) -> int:
        """Trigrams that had been written before, once the token before `end` is; to be called for each end in turn."""
        trigram = tuple(self.tokens[max(end - 3, 0) : end])
        self._stale += trigram in self._trigrams
        self._trigrams.add(trigram)
        return self._stale

    def _attention(self, attention: np.ndarray) -> np.ndarray:
        """`(step, 7)` of attention `(step, frame)`."""
        heard = attention[:, : self.frames].astype(np.float64)
        on_sound = np.maximum(heard.sum(axis=1), 1e-9)
        share = heard / on_sound[:, None]
        centres = share @ np.arange(self.frames) / max(self.frames - 1, 1)
        if self._attended is None:
            self._attended = np.zeros(self.frames)
            self._centre = float(centres[0])
        past = self._attended + np.cumsum(share, axis=0) - share
        self._attended = self._attended + share.sum(axis=0)
        before = np.r_[self._centre, centres[:-1]]
        furthest = np.maximum.accumulate(np.r_[self._furthest, centres])[1:]
        self._centre, self._furthest = float(centres[-1]), float(furthest[-1])
        spread = -(share * np.log(share + 1e-12)).sum(axis=1) / np.log(max(self.frames, 2))
        again = np.minimum(share, past).sum(axis=1)
        return np.stack(
            [spread, share.max(axis=1), centres, centres - before, furthest - centres, again, 1 - on_sound],
            axis=1,
        )
