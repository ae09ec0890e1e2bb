"""The neuron basis: a model's own MLP neurons as its features. Exact, and nothing is trained.

A neuron writes `a W_out[i]`. With a single projection, `a = act(z)` and `z = w.x + b`, and the slope is the secant
`s = act(z) / z`. A gated neuron is `a = act(g) u`; frozen are, by `gate`,

    frozen   the gate's factor: a = act(g) (w_up.x + b_up)
    up       the other factor:  a = (act(g) / g) u (w_gate.x + b_gate)
    half     half of each

All three sum to the activation. With the slopes frozen the MLP is linear and exact, so there is no error node.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch

from otoscope.dictionaries.base import Active, Dictionary, Reading, active_of
from otoscope.dictionaries.training.modules import Neurons
from otoscope.errors import OptionError
from otoscope.models.wiring import MlpWiring, stack_wiring

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from otoscope.models.base import Model

Gate = Literal["frozen", "up", "half"]


def secant(act: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """`act(z) / z`, and at 0 its limit, the derivative, taken from a small step on both sides."""
    step = torch.finfo(z.dtype).eps ** 0.5
    near = z.abs() < step
    around = (act(torch.full_like(z, step)) - act(torch.full_like(z, -step))) / (2 * step)
    return torch.where(near, around, act(z) / torch.where(near, torch.ones_like(z), z))


class NeuronBasis(Dictionary):
    """Every MLP neuron of a stack as a feature.

    Args:
        model: The model.
        stream: The stack's name; None: the one that writes.
        gate: What of a gated neuron is frozen; without meaning for the others.

    Raises:
        OptionError: `gate` is none of the three.
    """

    exact = True

    def __init__(self, model: Model, gate: Gate = "half", stream: str | None = None) -> None:
        if gate not in get_args(Gate):
            raise OptionError(f"There is no way {gate!r} to freeze a gate.", "Choose frozen, up or half.")
        self._mlps: list[MlpWiring] = [block.mlp for block in stack_wiring(model, stream).blocks]
        self.gate: Gate = gate
        self.layers, self.width = len(self._mlps), self._mlps[0].down.weight.shape[0]
        self._model = model

    @property
    def gated(self) -> bool:
        """Whether the model's MLPs are gated."""
        return self._mlps[0].up is not None

    def size(self, layer: int) -> int:
        """Neurons of a layer."""
        return self._mlps[layer].down.weight.shape[1]

    def encode(self, layer: int, x: Tensor) -> Active:
        """All neurons whose activation is not exactly zero, at MLP inputs `(pos, d_model)`."""
        mlp = self._mlps[layer]
        g = mlp.pre(x)
        slope = secant(mlp.act, g)
        if mlp.up is None:
            return active_of(layer, mlp.act(g), slope[..., None])
        act, u = mlp.act(g), mlp.up(x)
        return active_of(layer, act * u, self._slopes(act, slope * u))

    def _slopes(self, frozen: Tensor, up: Tensor) -> Tensor:
        if self.gate == "half":
            return torch.stack([up / 2, frozen / 2], dim=-1)
        return (frozen if self.gate == "frozen" else up)[..., None]

    def readings(self, layer: int) -> Sequence[Reading]:
        """The projections that the slopes belong to."""
        mlp = self._mlps[layer]
        pre = Reading(mlp.pre.weight, mlp.pre.bias)
        if mlp.up is None:
            return (pre,)
        up = Reading(mlp.up.weight, mlp.up.bias)
        return {"frozen": (up,), "up": (pre,), "half": (pre, up)}[self.gate]

    def decoder(self, layer: int, out: int, features: Tensor | None) -> Tensor:
        """Rows of the output projection."""
        rows = self._mlps[layer].down.weight.T
        return rows if features is None else rows[features]

    def bias(self, out: int) -> Tensor | None:
        """Bias of the output projection."""
        return self._mlps[out].down.bias

    def error(self, actives: Sequence[Active], out: int, x: Tensor, y: Tensor) -> Tensor:
        """Zero: the reconstruction is the MLP."""
        return torch.zeros_like(y)

    def check(self, model: Model, stream: str | None = None) -> None:
        """Refuse any model but the one whose neurons these are."""
        if model is not self._model:
            super().check(model)

    def describe(self) -> dict[str, Any]:
        """Kind, and what of a gated neuron is frozen."""
        return {"kind": "neurons", "gate": self.gate if self.gated else None, "features": self.size(0)}


def neurons_of(model: Model, stream: str | None = None) -> Callable[[int], Neurons]:
    """From a layer its neurons' weights, for a training that starts from them.

    Raises:
        OptionError: The MLPs are gated: no feature can read as their neurons do.
    """
    mlps = [block.mlp for block in stack_wiring(model, stream).blocks]
    if mlps[0].up is not None:
        raise OptionError("Gated neurons are no start for features.", "Start at random.")

    def weights(layer: int) -> Neurons:
        pre, down = mlps[layer].pre, mlps[layer].down
        bias = pre.weight.new_zeros(len(pre.weight)) if pre.bias is None else pre.bias
        return Neurons(pre.weight.detach(), bias.detach(), down.weight.detach().T)

    return weights
