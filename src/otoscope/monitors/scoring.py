"""From what is read while a model writes to a risk for every token: the probes' running sums, the head and its calibration."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from otoscope.monitors.verdicts import TARGETS

if TYPE_CHECKING:
    from otoscope.monitors.features import Features
    from otoscope.monitors.monitor import Monitor
    from otoscope.monitors.reading import Block


@dataclass(eq=False)
class Progress:
    """One row under the eyes of a monitor.

    Attributes:
        risks: Risk of each step so far, the end token's included.
        parts: Probability of each of `TARGETS`, a row a step.
        alarm_token: Number of the first step (0-based) that is an alarm, or None; the step after the last token wrote the end.
    """

    risks: list[float] = field(default_factory=list)
    parts: list[list[float]] = field(default_factory=list)
    alarm_token: int | None = None

    @property
    def alarm(self) -> bool:
        """Whether any step is an alarm."""
        return self.alarm_token is not None

    @property
    def kind(self) -> str | None:
        """Which of `TARGETS` it is by now: a loop as soon as that is likelier than not, for many ring before they loop.

        Else what was likelier at the alarm; None without one.
        """
        if self.alarm_token is None:
            return None
        loop = TARGETS.index("loop")
        if max(parts[loop] for parts in self.parts) >= 0.5:
            return TARGETS[loop]
        return TARGETS[int(np.argmax(self.parts[self.alarm_token]))]

    @property
    def risk(self) -> float:
        """Of the text so far: the highest."""
        return max(self.risks, default=0.0)


@dataclass(eq=False)
class _State:
    """What one row's past leaves."""

    sums: np.ndarray  # (layer, probe)
    hidden: np.ndarray
    frames: np.ndarray | None = None  # (frame, probe)
    window: np.ndarray | None = None  # (probe,)
    features: np.ndarray | None = None  # (probe,), weighted sums of activations so far


class Scorer:
    """Risk of every step of some rows, block by block.

    Args:
        monitor: The monitor.
        features: The dictionary that it looks at, if it does: see `Monitor.features_of`.
    """

    def __init__(self, monitor: Monitor, features: Features | None = None) -> None:
        self.monitor, self.features = monitor, features
        self.rows: dict[int, Progress] = {}
        self._states: dict[int, _State] = {}

    def take(self, block: Block) -> Progress:
        """Go on with a row."""
        if block.first == 0:
            self.rows[block.row], self._states[block.row] = Progress(), self._begin(block)
        progress, state = self.rows[block.row], self._states[block.row]
        residual = block.residual.float().cpu().numpy().astype(np.float64)
        attention = block.attention.cpu().numpy().astype(np.float64)
        state.hidden, logits = self.monitor.head.advance(
            state.hidden, self._inputs(state, block, residual, attention)
        )
        parts = calibrated(logits, self.monitor.slope, self.monitor.offset)
        for i, risk in enumerate(joined_risk(parts).tolist()):
            progress.risks.append(risk)
            progress.parts.append(parts[i].tolist())
            if progress.alarm_token is None and risk >= self.monitor.threshold:
                progress.alarm_token = block.first + i
        return progress

    def _begin(self, block: Block) -> _State:
        probes = self.monitor.probes
        encoded = block.encoded.float().cpu().numpy()
        frames = encoded @ probes.heard.astype(np.float32) + probes.heard_bias
        window = encoded[: block.track.frames].mean(axis=0) @ probes.window + probes.window_bias
        zero = np.zeros(probes.bias.shape[1])
        return _State(np.zeros(probes.bias.shape), self.monitor.head.start(), frames, window, zero)

    def _inputs(self, state: _State, block: Block, residual: np.ndarray, attention: np.ndarray) -> np.ndarray:
        probes = self.monitor.probes
        layered = residual.transpose(1, 0, 2)  # (layer, step, d_model)
        sums = state.sums[:, None] + np.cumsum(layered @ probes.mean, axis=1)
        state.sums = sums[:, -1]
        counts = np.arange(block.first + 1, block.first + 1 + len(residual))[None, :, None]
        read = layered @ probes.now + sums / counts + probes.bias[:, None]
        assert state.frames is not None
        assert state.window is not None
        heard = attention @ state.frames
        told = self._told_by_features(state, block)
        return inputs_of(block.signals, read.transpose(1, 0, 2), heard, state.window, told)

    def _told_by_features(self, state: _State, block: Block) -> np.ndarray | None:
        probes = self.monitor.features
        if probes is None or self.features is None:
            return None
        read = {layer: x.float().cpu().numpy() for layer, x in block.read.items()}
        active = probes.activations(self.features, read)
        sums = state.features + np.cumsum(active @ probes.mean, axis=0)
        state.features = sums[-1]
        return probes.log_odds(active, sums, block.first)


def inputs_of(
    signals: np.ndarray,
    read: np.ndarray,
    heard: np.ndarray,
    window: np.ndarray,
    features: np.ndarray | None = None,
) -> np.ndarray:
    """Inputs of the head, `(step, input)`.

    Args:
        signals: `(step, signal)`.
        read: Log-odds of the probes of the residual stream, `(step, layer, probe)`.
        heard: Of what is attended to, `(step, probe)`.
        window: Of the whole window, `(probe,)`.
        features: Of a dictionary's features, `(step, probe)`, where there is one.
    """
    whole = np.broadcast_to(window, (len(signals), len(window)))
    more = [] if features is None else [features]
    return np.concatenate([signals, read.reshape(len(read), -1), heard, whole, *more], axis=1)


def calibrated(
    logits: np.ndarray, slope: np.ndarray | float = 1.0, offset: np.ndarray | float = 0.0
) -> np.ndarray:
    """Probabilities of logits `(..., target)` (Platt 1999); without slope and offset the logits are log-odds."""
    return 0.5 * (1 + np.tanh(0.5 * (logits * slope + offset)))


def joined_risk(parts: np.ndarray) -> np.ndarray:
    """Risk that a text is invented or loops: `(..., target)` to `(...)`, as if one said nothing of the other."""
    return 1 - np.prod(1 - parts, axis=-1)
