"""What a patched run is judged by: one number a row, read from the logits of a few positions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from otoscope.activations import Edit
from otoscope.errors import OptionError

if TYPE_CHECKING:
    from torch import Tensor

    from otoscope.patching.scene import Scene

MetricFunction = Callable[["Tensor"], "Tensor"]
"""Logits to one number a row."""

_SAME = 1e-6
"""Two scores closer than this share of the larger one are the same: a distance of rounding errors is no scale."""


@dataclass(frozen=True)
class Metric:
    """A number a row, and where it is read.

    Attributes:
        function: `logits (row, position, vocab) -> (row,)`; the positions are the listed ones, in this order.
        positions: Positions whose logits it reads, counted from 0, or from the end if negative; None: all of them. Only these are
            unembedded, and the logits at a position are of the token after it.
    """

    function: MetricFunction
    positions: tuple[int, ...] | None = None

    @classmethod
    def of(cls, metric: Metric | MetricFunction) -> Metric:
        """A metric, or a function as TransformerLens takes them, which is called with the logits of one row `(1, pos, vocab)`.

        Such a function may give a number or `(1,)`; it never sees several rows, because many average over them.
        """
        if isinstance(metric, Metric):
            return metric
        function = metric
        return cls(
            lambda logits: torch.stack([torch.as_tensor(function(row[None])).reshape(()) for row in logits])
        )

    def __call__(self, logits: Tensor) -> Tensor:
        """Numbers `(row,)` of logits `(row, position, vocab)` at the metric's own positions.

        Raises:
            OptionError: The function does not give one number a row.
        """
        values = self.function(logits)
        if values.shape != logits.shape[:1]:
            raise OptionError(
                f"The metric gave shape {tuple(values.shape)} for {len(logits)} rows.",
                "Let it give one number for each row of logits (row, position, vocab).",
            )
        return values

    def score(self, scene: Scene, edits: Sequence[Sequence[Edit]] = ((),)) -> Tensor:
        """Numbers `(row,)` of a scene with each row's own edits in place; by default of the unedited run.

        Raises:
            EditError: An edit does not fit its point.
            OptionError: The function does not give one number a row.
        """
        with torch.no_grad():
            return self(scene.logits(edits, self.positions))


def _precise(logits: Tensor) -> Tensor:
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def logit_difference(answer: int, other: int, position: int = -1) -> Metric:
    """The logit of one token minus that of another.

    Args:
        answer: Id of the token that the clean run prefers.
        other: Id of the other.
        position: Position that writes them; -1 is the last.
    """
    return Metric(lambda logits: _precise(logits[:, 0, answer]) - _precise(logits[:, 0, other]), (position,))


def token_logprob(token: int, position: int = -1) -> Metric:
    """The log-probability of a token in nats, of the model's own distribution without suppressed tokens.

    Args:
        token: Its id.
        position: Position that writes it; -1 is the last.
    """
    return Metric(lambda logits: _precise(logits[:, 0]).log_softmax(dim=-1)[:, token], (position,))


def recovery(metric: Metric | MetricFunction, corrupt: Scene | float, clean: Scene | float) -> Metric:
    """A metric on the scale where the corrupted run scores 0 and the clean run 1; it may leave both ends.

    Args:
        metric: The metric.
        corrupt: The corrupted run, or its score.
        clean: The clean run, or its score.

    Raises:
        OptionError: Both runs score the same, so there is nothing to recover.
    """
    inner = Metric.of(metric)
    low, high = (x if isinstance(x, (int, float)) else float(inner.score(x)) for x in (corrupt, clean))
    if not abs(high - low) > _SAME * max(abs(low), abs(high)):  # not: NaN is refused, too
        raise OptionError(
            f"The clean run and the corrupted run both score {low:.6g}, so there is nothing to recover.",
            "Choose a pair that the metric tells apart, or another metric or position.",
        )
    return Metric(lambda logits: (inner.function(logits) - low) / (high - low), inner.positions)
