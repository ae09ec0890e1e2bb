"""The units of training: inputs and targets centred and scaled, and what undoes it in the weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from otoscope.dictionaries.training.config import Centre, TrainConfig


@dataclass(frozen=True, eq=False)
class Units:
    """Of one layer: `(x - shift) * scale` is encoded, `y * gain` is reconstructed.

    Attributes:
        shift: `(d_in,)`.
        scale: `(d_in,)`.
        gain: `()`.
        centre: `(d_out,)` of the scaled targets, from which the decoder's bias starts.
        start: `(d_in,)` of the scaled inputs, at which the encoder starts with pre-activations of zero.
        variance: `()` summed variance of the scaled targets over their dimensions: a loss of 1 explains nothing.
    """

    shift: Tensor
    scale: Tensor
    gain: Tensor
    centre: Tensor
    start: Tensor
    variance: Tensor


def measure_units(x: Tensor, y: Tensor, config: TrainConfig) -> Units:
    """Units of one layer from a sample.

    Args:
        x: Inputs `(n, d_in)`.
        y: Targets `(n, d_out)`.
        config: For `scaling` and `centre`.
    """
    x, y = x.double(), y.double()
    middle = _centre(x, config.centre)
    per_dimension = x.var(dim=0, unbiased=False)
    total = (y - y.mean(dim=0)).square().sum(dim=1).mean()
    if config.scaling == "none":
        shift, scale, gain = torch.zeros_like(middle), torch.ones_like(middle), torch.ones_like(total)
    else:
        shift, gain = middle, _inverse_root(total / y.shape[1])
        mean = per_dimension.mean()
        # A dimension that hardly moves is not blown up into noise.
        spread = per_dimension.clamp_min(1e-4 * float(mean)) if config.scaling == "standard" else mean
        scale = _inverse_root(spread).expand_as(middle)
    return Units(
        shift,
        scale.clone(),
        gain,
        _centre(y, config.centre) * gain,
        (middle - shift) * scale,
        (total * gain.square()).clamp_min(torch.finfo(torch.float32).tiny),
    )


def _inverse_root(variance: Tensor) -> Tensor:
    """`1 / sqrt(variance)`; 1 where nothing varies."""
    return torch.where(variance > 0, variance, 1.0).rsqrt()


def _centre(x: Tensor, which: Centre) -> Tensor:
    if which == "zero":
        return x.new_zeros(x.shape[1])
    return x.mean(dim=0) if which == "mean" else geometric_median(x)


def geometric_median(x: Tensor, steps: int = 100, tolerance: float = 1e-8) -> Tensor:
    """The point `(d,)` from which the distances to all of `x` `(n, d)` are least in sum, by Weiszfeld's iteration."""
    guess = x.mean(dim=0)
    for _ in range(steps):
        distance = (x - guess).norm(dim=1).clamp_min(1e-12)
        better = (x / distance[:, None]).sum(dim=0) / (1 / distance).sum()
        moved = (better - guess).norm()
        guess = better
        if moved <= tolerance * guess.norm().clamp_min(1e-12):
            break
    return guess
