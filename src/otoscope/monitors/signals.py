"""What a monitor looks at while one row writes: numbers of each step, from what is known when the token is chosen.

A step is one choice of a token, the end token included. Steps may come one by one or many at once: the signals are the same.

- `sure`: log-probability of the likeliest token; `sure_mean`, `sure_least`: its mean so far, and its least value among the last
  eight steps.
- `rate`: tokens so far against seconds of sound; `silence`: log-odds of the no-speech token, the same at every step.
- `echo`: how many of the last tokens repeat, one by one, those a fixed distance before them; `copies`: how often that distance
  goes into them; `rounds`: the longest echo so far among those of at least four rounds (five copies); `fresh`: different tokens
  among the last 32. All but `fresh` are logarithms, of one more.
- Cross-attention of the alignment heads, averaged over them: `spread`, its entropy; `peak`, its largest weight; `reach`, its
  centre, as a share of the sound; `step`, how far that moved; `behind`, how far it lies behind the furthest so far;
  `again`, the share that falls on frames which were attended to before; `beyond`, the share beyond the sound, on the padding.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from otoscope.outcomes import MANY_REPEATS

TOKEN_SIGNALS = ("sure", "sure_mean", "sure_least", "rate", "silence")
TEXT_SIGNALS = ("echo", "copies", "rounds", "fresh")
ATTENTION_SIGNALS = ("spread", "peak", "reach", "step", "behind", "again", "beyond")
SIGNALS = (*TOKEN_SIGNALS, *TEXT_SIGNALS, *ATTENTION_SIGNALS)
"""Names of the columns that `Track.advance` gives, in order."""

LONGEST_PERIOD = 48
"""Longest distance, in tokens, over which a repetition is looked for."""

_FRAME = 0.02  # seconds
_ROUNDS = MANY_REPEATS - 1
_RECENT = 8  # steps
_PERIODS = np.arange(1, LONGEST_PERIOD + 1)
_TEXT, _ATTENTION = len(TOKEN_SIGNALS), len(TOKEN_SIGNALS) + len(TEXT_SIGNALS)  # where these columns begin
_WINDOW = 32  # tokens


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
        out = np.empty((len(sure), len(SIGNALS)))
        for i, value in enumerate(sure.tolist()):
            if self.steps:
                self._write(written[i])
            self.steps += 1
            self._sum += value
            self._recent = [*self._recent[1 - _RECENT :], value]
            rate = self.steps / max(self.frames * _FRAME, 1.0)
            out[i, :_TEXT] = value, self._sum / self.steps, min(self._recent), rate, self.silence
            out[i, _TEXT:_ATTENTION] = self._repetition()
        out[:, _ATTENTION:] = self._attention(attention)
        return out

    def _write(self, token: int) -> None:
        """Note a token: over each distance, how many tokens up to this one equal the one so far before them."""
        before = self.tokens[: -LONGEST_PERIOD - 1 : -1]
        same = np.zeros(LONGEST_PERIOD, dtype=np.int64)
        same[: len(before)] = np.array(before, dtype=np.int64) == token
        self._echoes = (self._echoes + 1) * same
        self.tokens.append(token)
        full = self._echoes[self._echoes >= _ROUNDS * _PERIODS]
        self._rounds = max(self._rounds, int(full.max(initial=0)))

    def _repetition(self) -> tuple[float, float, float, float]:
        copies = float((self._echoes / _PERIODS).max())
        recent = self.tokens[-_WINDOW:]
        fresh = len(set(recent)) / len(recent) if recent else 1.0
        return np.log1p(int(self._echoes.max())), np.log1p(copies), np.log1p(self._rounds), fresh

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
