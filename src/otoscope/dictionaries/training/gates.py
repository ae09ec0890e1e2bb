"""Which features stay on, without a tensor of zeros; and JumpReLU with estimated gradients of its thresholds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.autograd import Function

from otoscope.dictionaries.training.sparse import Pattern

if TYPE_CHECKING:
    from torch import Tensor

_SAMPLE = 64
"""Rows from which the k-th largest of a whole batch is guessed."""


def top_k(z: Tensor, k: int) -> tuple[Pattern, Tensor]:
    """The k largest of each position.

    Args:
        z: `(pos, feature)`.
        k: How many.

    Returns:
        The entries, and their pre-activations `(pos * k,)`.
    """
    k = min(k, z.shape[1])
    best = z.topk(k, dim=-1, sorted=False)
    pos = torch.arange(len(z), device=z.device).repeat_interleave(k)
    return Pattern(pos, best.indices.flatten(), *z.shape), best.values.flatten()


def batch_top_k(z: Tensor, k: int) -> tuple[Pattern, Tensor]:
    """The positive ones among the `k * pos` largest of all positions together; see `top_k`.

    A guess from some of the rows leaves few candidates, so that the whole batch is passed over once and never sorted.
    """
    flat, budget = z.flatten(), k * len(z)
    some = z[:: max(1, len(z) // _SAMPLE)].flatten()
    # Half as much again as is needed: the rows of the sample are not quite like the others.
    rank = min(len(some), int(1.5 * budget * len(some) / len(flat)) + 1)
    guess = max(0.0, float(some.kthvalue(len(some) - rank + 1).values))
    at = (flat > guess).nonzero().flatten()
    if len(at) < budget and guess > 0:
        at = (flat > 0).nonzero().flatten()
    if len(at) > budget:
        kept = flat[at].topk(budget, sorted=False).indices
        at = at[kept].sort().values
    return _entries(z, at)


def above(z: Tensor, threshold: Tensor | float) -> tuple[Pattern, Tensor]:
    """All that are above a threshold, one number or one a feature; see `top_k`."""
    return _entries(z, (z > threshold).flatten().nonzero().flatten())


def _entries(z: Tensor, at: Tensor) -> tuple[Pattern, Tensor]:
    pos = at.div(z.shape[1], rounding_mode="floor")
    return Pattern(pos, at - pos * z.shape[1], *z.shape), z.flatten()[at]


class _Jump(Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(z, threshold)
        ctx.bandwidth = bandwidth
        return z * (z > threshold)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        z, threshold = ctx.saved_tensors
        near = _rectangle(z, threshold, ctx.bandwidth)
        return grads[0] * (z > threshold), -grads[0] * threshold * near, None


class _Step(Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(z, threshold)
        ctx.bandwidth = bandwidth
        return (z > threshold).to(z.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        z, threshold = ctx.saved_tensors
        return None, -grads[0] * _rectangle(z, threshold, ctx.bandwidth), None


def _rectangle(z: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
    """Density of a window of one bandwidth around the threshold."""
    return ((z - threshold).abs() < bandwidth / 2).to(z.dtype) / bandwidth


def jump(z: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
    """`z [z > threshold]`; the threshold's gradient is estimated from the entries within half a bandwidth of it.

    Source: Rajamanoharan et al. 2024, "Jumping Ahead", equations 11 and 12, with a rectangle as kernel.
    """
    return _Jump.apply(z, threshold, bandwidth)  # type: ignore[return-value]


def step(z: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
    """`[z > threshold]`, of which L0 is the sum; its gradient is the threshold's alone, estimated as in `jump`."""
    return _Step.apply(z, threshold, bandwidth)  # type: ignore[return-value]
