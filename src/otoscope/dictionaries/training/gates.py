"""Which features stay on, without a tensor of zeros; and JumpReLU with estimated gradients of its thresholds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.autograd import Function

from otoscope.dictionaries.training.sparse import Pattern

if TYPE_CHECKING:
    from torch import Tensor

_GROUPS = 8
"""Parts of a position's features of which each place sends its largest to the first round of a choice."""

_SAMPLE = 64
"""Positions from which the k-th largest of a whole batch is guessed."""

_BLOCK = 2**21
"""Pre-activations that are held at once: 8 MB in float32."""


class Before:
    """Pre-activations of a batch, computed a block of positions at a time and never held all together.

    A product that fits into the cache is chosen from before it goes to memory, and no memory is asked for at every step.

    Args:
        w_enc: `(feature, d_in)`.
        b_enc: `(feature,)`.
        x: `(pos, d_in)`.
    """

    def __init__(self, w_enc: Tensor, b_enc: Tensor, x: Tensor) -> None:
        self.w_enc, self.b_enc, self.x = w_enc, b_enc, x

    def __len__(self) -> int:
        return len(self.x)

    @property
    def features(self) -> int:
        """Features a position."""
        return len(self.w_enc)

    @property
    def rows(self) -> int:
        """Positions a block; the last may have fewer."""
        return max(1, min(len(self.x), max(64, _BLOCK // self.features)))

    def blocks(self) -> Iterator[Tensor]:
        """Blocks `(some pos, feature)` in order; each is overwritten by the next."""
        held = self.x.new_empty(self.rows, self.features)
        for part in self.x.split(self.rows):
            z = held[: len(part)]
            yield torch.mm(part, self.w_enc.T, out=z).add_(self.b_enc)

    def sample(self) -> Tensor:
        """Some of the positions, evenly spread: `(some pos, feature)`."""
        return torch.addmm(self.b_enc, self.x[:: max(1, len(self.x) // _SAMPLE)], self.w_enc.T)


Chosen = tuple[Pattern, "Tensor"]
"""Entries, and their pre-activations `(n,)`."""


def top_k(before: Before, k: int) -> Chosen:
    """The k largest of each position."""
    k = min(k, before.features)
    found = [_largest_of(z, k) for z in before.blocks()]
    feature = torch.cat([which for which, _ in found]).flatten()
    pos = torch.arange(len(before), device=feature.device).repeat_interleave(k)
    return Pattern(pos, feature, len(before), before.features), torch.cat([z for _, z in found]).flatten()


def _largest_of(z: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Indices and values `(n, k)` of the k largest of each row, in two rounds where that is less work.

    Of k groups whose maxima are the largest, none of the k largest entries is outside.
    """
    groups = z.shape[1] // _GROUPS
    if z.shape[1] % _GROUPS or groups < 2 * k:
        which = _largest(z, k)
        return which, z.gather(1, which)
    best = _largest(z.view(len(z), _GROUPS, groups).amax(dim=1), k)
    parts = torch.arange(0, z.shape[1], groups, device=z.device)
    candidates = (best[:, None] + parts[None, :, None]).flatten(1)
    values = z.gather(1, candidates)
    which = _largest(values, k)
    return candidates.gather(1, which), values.gather(1, which)


def _largest(z: Tensor, k: int) -> Tensor:
    """Indices `(n, k)` of the k largest of each row."""
    if z.device.type == "cpu":
        # NumPy partitions a row with vector instructions; torch's topk takes several times as long.
        least = np.partition(z.numpy(), z.shape[1] - k, axis=1)[:, z.shape[1] - k, None]
        found = (z >= torch.from_numpy(least)).nonzero()[:, 1]
        if len(found) == len(z) * k:  # or else some are equal to the k-th
            return found.view(len(z), k)
    return z.topk(k, dim=-1, sorted=False).indices


def batch_top_k(before: Before, k: int) -> Chosen:
    """The positive ones among the `k * pos` largest of all positions together.

    A guess from some of the positions leaves few candidates, so that nothing is held and nothing sorted.
    """
    budget, some = k * len(before), before.sample().flatten()
    # Half as much again as is needed: the positions of the sample are not quite like the others.
    rank = min(len(some), int(1.5 * budget * len(some) / (len(before) * before.features)) + 1)
    guess = max(0.0, float(some.kthvalue(len(some) - rank + 1).values))
    pattern, z = above(before, guess)
    if len(z) < budget and guess > 0:
        pattern, z = above(before, 0.0)
    if len(z) <= budget:
        return pattern, z
    kept = z.topk(budget, sorted=False).indices.sort().values
    return Pattern(pattern.pos[kept], pattern.feature[kept], len(before), before.features), z[kept]


def above(before: Before, threshold: Tensor | float) -> Chosen:
    """All that are above a threshold, one number or one a feature."""
    found, values, first = [], [], 0
    for z in before.blocks():
        at = (z > threshold).flatten().nonzero().flatten()
        values.append(z.flatten()[at])
        found.append(at + first)
        first += z.numel()
    at = torch.cat(found)
    pos = at.div(before.features, rounding_mode="floor")
    return Pattern(pos, at - pos * before.features, len(before), before.features), torch.cat(values)


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
