"""Edits baked into weights: the same model without a hook, where that can be had exactly.

Every edit that is an affine map of what enters or leaves a linear layer, at every row, position and step, is a change of that
layer's weight and bias. With `y = W x + b`:

- what enters it becomes `M x + c`: the weight becomes `W M`, the bias `b + W c` (gates of heads, whose outputs enter `out_proj`);
- what leaves it becomes `M y + c`: the weight becomes `M W`, the bias `M b + c` (gates, projections and steering of a sublayer);
- a vector that is added to the stream right behind it is added to its bias.

All is computed in float64 and rounded once, to the precision of the weights. What is none of these is left out with its reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from otoscope.activations import Edit, HookPoint
from otoscope.errors import ModelError
from otoscope.mending.features import FeatureGate
from otoscope.mending.repair import Repair
from otoscope.models.whisper import SpeechModel

if TYPE_CHECKING:
    from torch import Tensor, nn

    from otoscope.models.base import Model

_STREAM = {
    "hook_resid_mid": "self_attn.out_proj",
    "hook_resid_mid_cross": "encoder_attn.out_proj",
    "hook_resid_post": "fc2",
}
"""Points of Whisper's stream, and what of their layer writes into it last before them."""


@dataclass(frozen=True, eq=False)
class LeftOut:
    """A change that no change of weights can stand for.

    Attributes:
        change: An edit, or features that are scaled.
        why: Why not.
    """

    change: Edit | FeatureGate
    why: str

    def __str__(self) -> str:
        what = self.change.op if isinstance(self.change, Edit) else "features"
        return f"{what} at {self.change.point}: {self.why}"


@dataclass(frozen=True, eq=False)
class Baked:
    """A repair as weights.

    Attributes:
        weights: New values of parameters, by Hugging Face's names; the repair's own among them.
        left: What must be applied while the model runs.
    """

    weights: dict[str, Tensor]
    left: tuple[LeftOut, ...]


@dataclass(frozen=True, eq=False)
class _Affine:
    """`x -> x @ matrix.T + shift`, in float64, over the whole last axis."""

    matrix: Tensor
    shift: Tensor


class _CannotBake(Exception):  # noqa: N818 - a way out, not an error
    """Says why."""


def bake(model: Model, repair: Repair) -> Baked:
    """The weights under which the model computes what it computes under the repair's edits.

    Args:
        model: The model that the repair was made for, unchanged.
        repair: The repair. Its loop breaker is no edit and stays out of this.

    Raises:
        OptionError: The repair is for another model.
        ModelError: The model is no Whisper model.
    """
    repair.require_fit(model)
    if not isinstance(model, SpeechModel):
        raise ModelError(
            f"{model.origin.name} is no Whisper model, and only those can be baked.",
            "Apply the repair with hooks.",
        )
    weights = dict(repair.weights)
    order = {name: i for i, name in enumerate(model.points)}
    active = "how much it changes hangs on which features are active"
    left = [LeftOut(gate, active) for gate in repair.features]
    for edit in sorted(repair.edits, key=lambda e: order[model.points.canonical(e.point)]):
        try:
            _refuse_conditions(edit, repair)
            weights |= _baked(model, edit, weights)
        except _CannotBake as reason:
            left.append(LeftOut(edit, str(reason)))
    return Baked(weights, tuple(left))


def _refuse_conditions(edit: Edit, repair: Repair) -> None:
    if repair.when == "alarm":
        raise _CannotBake("it acts in alarm alone, and weights know no alarm")
    for place in ("positions", "steps", "keys"):
        if getattr(edit, place) is not None:
            raise _CannotBake(f"it acts at certain {place} alone, and weights act at all")


def _baked(model: Model, edit: Edit, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """New values of the parameters that stand for one edit."""
    point = model.points[edit.point]
    short = point.name.rpartition(".")[2]
    if short in _STREAM or short == "hook_resid_pre":
        return _into_stream(model, edit, point, short, weights)
    path = _linear(model, point)
    linear = _Linear.of(model, path, weights)
    affine = _affine(edit, point, linear.width(point.at))
    return linear.after_input(affine) if point.at == "input" else linear.after_output(affine)


def _into_stream(
    model: Model, edit: Edit, point: HookPoint, short: str, weights: dict[str, Tensor]
) -> dict[str, Tensor]:
    if edit.op != "add":
        raise _CannotBake(
            "it changes the whole residual stream, to which every earlier layer has added, and no weight writes that sum"
        )
    owner, writer = point.module, _STREAM.get(short, "fc2")
    if short == "hook_resid_pre":
        path, _, layer = owner.rpartition(".")
        if layer == "0":
            raise _CannotBake("it acts before the first layer, where no linear layer has a bias")
        owner = f"{path}.{int(layer) - 1}"
    elif short != "hook_resid_post":
        owner = owner.rpartition(".")[0]
    linear = _Linear.of(model, f"{owner}.{writer}", weights)
    return linear.after_output(_affine(edit, point, linear.width("output")))


def _linear(model: Model, point: HookPoint) -> str:
    """Path of the linear layer whose input or output the point is."""
    if point.at not in ("input", "output"):
        raise _CannotBake("it acts inside of the attention, between queries, keys and values")
    module = model.hf.get_submodule(point.module)
    if isinstance(module, torch.nn.Linear):
        return point.module
    if point.at == "output" and isinstance(getattr(module, "out_proj", None), torch.nn.Linear):
        return f"{point.module}.out_proj"
    raise _CannotBake(f"{point.name} is neither what enters nor what leaves a linear layer")


@dataclass(frozen=True, eq=False)
class _Linear:
    """A linear layer in float64, as earlier edits have left it."""

    path: str
    weight: Tensor
    bias: Tensor | None
    kind: torch.dtype

    @classmethod
    def of(cls, model: Model, path: str, weights: dict[str, Tensor]) -> _Linear:
        module: nn.Module = model.hf.get_submodule(path)
        own = {name: parameter.detach() for name, parameter in module.named_parameters()}
        own = {name: weights.get(f"{path}.{name}", value) for name, value in own.items()}
        if f"{path}.weight" not in dict(model.hf.named_parameters()):
            raise _CannotBake(f"{path} shares its weight with the embeddings")
        bias = own.get("bias")
        kind = model.dtype
        # On the processor, whatever the model is on: not every accelerator knows float64.
        return cls(path, own["weight"].cpu().double(), None if bias is None else bias.cpu().double(), kind)

    def width(self, side: str) -> int:
        return self.weight.shape[1 if side == "input" else 0]

    def after_input(self, map_: _Affine) -> dict[str, Tensor]:
        return self._new(self.weight @ map_.matrix, self.weight @ map_.shift, self.bias)

    def after_output(self, map_: _Affine) -> dict[str, Tensor]:
        bias = None if self.bias is None else map_.matrix @ self.bias
        return self._new(map_.matrix @ self.weight, map_.shift, bias)

    def _new(self, weight: Tensor, shift: Tensor, bias: Tensor | None) -> dict[str, Tensor]:
        if bias is None:
            if shift.any():
                raise _CannotBake(f"{self.path} has no bias that could take what is added")
            return {f"{self.path}.weight": weight.to(self.kind)}
        return {
            f"{self.path}.weight": weight.to(self.kind),
            f"{self.path}.bias": (bias + shift).to(self.kind),
        }


def _affine(edit: Edit, point: HookPoint, width: int) -> _Affine:
    """The edit as a map of the whole width, heads side by side."""
    heads = point.heads or 1
    size = width // heads
    matrix = torch.eye(width, dtype=torch.float64)
    shift = torch.zeros(width, dtype=torch.float64)
    values = _values(edit, point, heads, size)
    for head in range(heads) if edit.heads is None else edit.heads:
        part = slice(head * size, (head + 1) * size)
        matrix[part, part], shift[part] = _operation(edit, size, values[head])
    return _Affine(matrix, shift)


def _values(edit: Edit, point: HookPoint, heads: int, size: int) -> Sequence[Tensor | None]:
    """The operand of each head: a vector `(size,)`, or a basis `(k, size)` to project out."""
    if edit.value is None:
        return [None] * heads
    value = edit.value.detach().double().cpu()
    if edit.op == "project_out":
        return [value] * heads
    value = torch.atleast_1d(value)
    of_heads = "head" in point.axes
    lead = value.shape[:-2] if of_heads else value.shape[:-1]
    if any(n != 1 for n in lead):
        raise _CannotBake("its value differs from position to position or from row to row")
    value = value.reshape(value.shape[-2:] if of_heads and value.dim() > 1 else value.shape[-1:])
    return list(value.expand(heads, size))


def _operation(edit: Edit, size: int, value: Tensor | None) -> tuple[Tensor, Tensor]:
    one, nothing = torch.eye(size, dtype=torch.float64), torch.zeros(size, dtype=torch.float64)
    if edit.op == "zero":
        return 0 * one, nothing
    if edit.op == "scale":
        return edit.alpha * one, nothing
    assert value is not None
    if edit.op == "add":
        return one, value
    if edit.op == "mix":
        return (1 - edit.alpha) * one, edit.alpha * value
    if edit.op == "project_out":
        return one - value.T @ value, nothing
    return 0 * one, value  # mean, replace
