"""What to change: declarative edits of activations, per batch row.

An `Edit` names a point, says where (rows, heads, positions, keys, decoding steps) and what to do there. It is a frozen
value: it can be stored, compared in a table, applied around any forward call, and many edits with different rows ride in
one batch without touching each other.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch

from otoscope.errors import EditError
from otoscope.files import atomic_write

if TYPE_CHECKING:
    from torch import Tensor

    from otoscope.activations.points import HookPoint

Operation = Literal["zero", "mean", "mix", "scale", "add", "project_out", "replace"]
_PLACES = ("rows", "heads", "positions", "keys", "steps")
_AXIS_OF_PLACE = {
    "rows": ("batch",),
    "heads": ("head",),
    "positions": ("pos", "frame"),
    "keys": ("key", "source"),
}


@dataclass(frozen=True)
class Visit:
    """When and for whom a hook fires.

    Attributes:
        name: Canonical point name.
        layer: Layer, 0-based, or None.
        step: Decoding step: 0 is the prompt (prefill) or any forward without a cache, 1 the first step after it.
        offset: Absolute position of the first position in this call.
        phase: `forward` (no cache), `detect_language` (Whisper's one-token call), `prefill` or `decode`.
        rows: Original row of each batch row, once finished rows have left the batch; None: rows are as given.
    """

    name: str
    layer: int | None
    step: int
    offset: int
    phase: Literal["forward", "detect_language", "prefill", "decode"]
    rows: tuple[int, ...] | None = None


@dataclass(frozen=True, eq=False)
class Edit:
    """One change of one activation. Build with `Edit.zero(...)`, `Edit.scale(...)` and so on.

    Attributes:
        point: Hook point name.
        op: What to do (see the constructors).
        value: Tensor operand, aligned with the point's axes from the right (as in broadcasting). If it has a position axis
            it is read at absolute positions; if it has a batch axis, at original rows; an axis of size 1 is repeated.
        alpha: Share of the reference in `mix`; factor in `scale`.
        rows: Batch rows, None for all. In beam search a row is one beam.
        heads: Heads, 0-based, None for all.
        positions: Absolute positions (decoder or text tokens, prompt included; encoder frames of 20 ms), None for all.
        keys: Absolute source positions, for attention scores and patterns and for rotated keys.
        steps: Decoding steps, None for all.
    """

    point: str
    op: Operation
    value: Tensor | None = None
    alpha: float = 1.0
    rows: tuple[int, ...] | None = None
    heads: tuple[int, ...] | None = None
    positions: tuple[int, ...] | None = None
    keys: tuple[int, ...] | None = None
    steps: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        for name in _PLACES:
            place = getattr(self, name)
            if place is None:
                continue
            place = (int(place),) if isinstance(place, Integral) else tuple(int(i) for i in place)
            if any(i < 0 for i in place):
                raise EditError(
                    f"{name}={place} has a negative index.",
                    "Count from 0; the end of a growing text is not known.",
                )
            object.__setattr__(self, name, place)
        self._check_operands()

    def _check_operands(self) -> None:
        if self.op not in get_args(Operation):
            raise EditError(
                f"There is no operation {self.op!r}.", f"Choose one of: {', '.join(get_args(Operation))}."
            )
        if self.op not in ("zero", "scale") and self.value is None:
            raise EditError(f"The operation {self.op!r} needs a value.", "Pass the tensor to use.")
        if not math.isfinite(self.alpha):
            raise EditError(f"alpha={self.alpha} is not finite.", "Choose a finite number.")
        # Minus infinity is a fair replacement of a score: it cuts the attention off.
        if self.value is not None and self.op != "replace" and not torch.isfinite(self.value).all():
            raise EditError(
                f"The value of this {self.op!r} edit is not finite.", "Check the reference it came from."
            )

    @classmethod
    def zero(cls, point: str, **where: Any) -> Edit:
        """Set to zero (ablation)."""
        return cls(point, "zero", **where)

    @classmethod
    def mean(cls, point: str, mean: Tensor, **where: Any) -> Edit:
        """Set to a mean activation (mean ablation)."""
        return cls(point, "mean", mean, **where)

    @classmethod
    def mix(cls, point: str, reference: Tensor, alpha: float, **where: Any) -> Edit:
        """`(1 - alpha) * a + alpha * reference`; alpha may exceed 1."""
        return cls(point, "mix", reference, alpha, **where)

    @classmethod
    def scale(cls, point: str, factor: float, **where: Any) -> Edit:
        """Multiply by `factor` (a head gate)."""
        return cls(point, "scale", None, factor, **where)

    @classmethod
    def add(cls, point: str, vector: Tensor, **where: Any) -> Edit:
        """Add a vector (steering)."""
        return cls(point, "add", vector, **where)

    @classmethod
    def project_out(cls, point: str, basis: Tensor, **where: Any) -> Edit:
        """Remove the span of `basis` `(k, width)` or `(width,)` from the last axis (direction ablation)."""
        rows = torch.atleast_2d(basis)
        if not torch.isfinite(rows).all():
            raise EditError("The basis to project out is not finite.", "Check the directions it came from.")
        _, s, v = torch.linalg.svd(rows.double(), full_matrices=False)
        kept = v[s > s.max().clamp_min(1e-30) * 1e-10]
        return cls(point, "project_out", kept.to(basis.dtype), **where)

    @classmethod
    def replace(cls, point: str, value: Tensor, **where: Any) -> Edit:
        """Set to `value` (activation patching)."""
        return cls(point, "replace", value, **where)

    def at_rows(self, *rows: int) -> Edit:
        """The same edit, for these batch rows."""
        return replace(self, rows=rows)

    def check(self, point: HookPoint) -> None:
        """Refuse what cannot work on this point before any forward pass.

        Raises:
            EditError: The point cannot be written, a place addresses an axis the point lacks, a head is out of range, the
                value does not fit, or a step is asked for that the point never sees.
        """
        if point.why_not_writable:
            raise EditError(
                f"{point.name} cannot be written: {point.why_not_writable}",
                "Edit the point it names instead.",
            )
        for place, axes in _AXIS_OF_PLACE.items():
            if getattr(self, place) is not None and point.axis(*axes) is None:
                raise EditError(
                    f"{point.name} has no {axes[0]} axis, so {place} cannot be chosen.",
                    f"Its axes are {', '.join(point.axes)}.",
                )
        if self.heads and point.heads is not None and max(self.heads) >= point.heads:
            raise EditError(
                f"Head {max(self.heads)} is out of range: {point.name} has {point.heads} heads.",
                f"Choose 0 to {point.heads - 1} (heads are counted from 0).",
            )
        if point.runs_once and self.steps is not None and 0 not in self.steps:
            raise EditError(
                f"{point.name} is computed once, at step 0, and kept, "
                f"so an edit from step {min(self.steps, default=1)} on has no effect.",
                "Leave steps out, or edit a point of the decoder that runs at every step, such as cross_attn.hook_z.",
            )
        if self.value is not None:
            self._check_value(point, self.value)

    def _check_value(self, point: HookPoint, value: Tensor) -> None:
        last = value.shape[-1] if value.dim() else 1
        too_many = value.dim() > len(point.axes) or (self.op == "project_out" and value.dim() != 2)
        if too_many or (point.width and last not in (1, point.width)):
            raise EditError(
                f"A value of shape {tuple(value.shape)} does not fit {point.name} "
                f"(axes {', '.join(point.axes)}; last axis {point.width}).",
                "Align it with the last axes, as in broadcasting.",
            )

    def applies(self, visit: Visit) -> bool:
        """Whether the visit's decoding step is one of the edit's."""
        return self.steps is None or visit.step in self.steps

    def __call__(self, x: Tensor, point: HookPoint, visit: Visit, *, owned: bool = False) -> Tensor | None:
        """The edited activation.

        Args:
            x: Canonical activation; left as it is unless `owned`.
            point: The point it was met at.
            visit: When and for which rows.
            owned: `x` is the result of an earlier edit and may be written into: many edits then share one copy.

        Returns:
            A new tensor of the same shape, or None when no addressed row or position is present in this call.

        Raises:
            EditError: A row is not in the batch, or the value does not reach an addressed position or row.
        """
        if not self.applies(visit):
            return None
        region = self._region(x, point, visit)
        if region is None:
            return None
        if all(index is None for index in region):
            return self._operate(x, self._operand(x, point, visit, region))
        index = _grid(region, x)
        out = x if owned and not x.requires_grad else x.clone()
        out[index] = self._operate(x[index], self._operand(x, point, visit, region))
        return out

    def _region(self, x: Tensor, point: HookPoint, visit: Visit) -> list[list[int] | None] | None:
        """Local indices along every axis, None for a whole axis; None altogether when nothing is hit."""
        region: list[list[int] | None] = [None] * x.dim()
        for place, axes in _AXIS_OF_PLACE.items():
            wanted, axis = getattr(self, place), point.axis(*axes)
            if wanted is None or axis is None:
                continue
            region[axis] = _locate(place, wanted, x.shape[axis], visit, _first(point, axis, x, visit))
            if not region[axis]:
                return None
        return region

    def _operand(
        self, x: Tensor, point: HookPoint, visit: Visit, region: list[list[int] | None]
    ) -> Tensor | None:
        """The value, cut to the region this call sees, broadcastable to it."""
        if self.value is None:
            return None
        value = self.value.to(x)
        if self.op == "project_out":
            return value
        first = x.dim() - value.dim()
        for axis in range(first, x.dim()):
            name, size = point.axes[axis], value.shape[axis - first]
            if size == 1:
                continue
            wanted = _absolute(name, region[axis], x.shape[axis], visit, _first(point, axis, x, visit))
            fixed = name not in ("pos", "batch", "key") and size != x.shape[axis]
            if fixed or max(wanted) >= size:
                raise EditError(
                    f"The value for {point.name} has {size} entries along {name}, which does not fit: "
                    f"entries up to {max(wanted)} are needed, of {x.shape[axis]} here.",
                    "Give as many as the activation has, or one to repeat, or choose rows and positions that it covers.",
                )
            value = value.index_select(axis - first, torch.tensor(wanted, device=value.device))
        return value

    def _operate(self, a: Tensor, value: Tensor | None) -> Tensor:
        if self.op == "zero":
            return torch.zeros_like(a)
        if self.op == "scale":
            return a * self.alpha
        assert value is not None
        if self.op == "add":
            return a + value
        if self.op == "mix":
            return (1 - self.alpha) * a + self.alpha * value
        if self.op == "project_out":
            return a - (a @ value.T) @ value
        return value.expand_as(a).clone()  # mean, replace

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready description without the tensor (`value` becomes its shape)."""
        out: dict[str, Any] = {"point": self.point, "op": self.op, "alpha": self.alpha}
        out |= {name: list(place) for name in _PLACES if (place := getattr(self, name)) is not None}
        if self.value is not None:
            out["value_shape"] = list(self.value.shape)
        return out


def _first(point: HookPoint, axis: int, x: Tensor, visit: Visit) -> int:
    """Absolute index of the first entry along an axis: text goes on from the cache, whose oldest keys a sliding window drops."""
    name = point.axes[axis]
    if name == "pos":
        return visit.offset
    if name != "key" or visit.phase != "decode":
        return 0
    pos = point.axis("pos")
    new = 1 if pos is None else x.shape[pos]
    return max(0, visit.offset + new - x.shape[axis])


def _locate(place: str, wanted: Sequence[int], size: int, visit: Visit, first: int) -> list[int]:
    """Local indices of the wanted rows, heads, positions or keys in this call."""
    if place == "rows" and visit.rows is not None:
        return [i for i, row in enumerate(visit.rows) if row in wanted]
    if place == "rows" and max(wanted, default=0) >= size:
        raise EditError(
            f"Row {max(wanted)} is not in a batch of {size}.",
            "Rows are counted from 0; make the batch large enough.",
        )
    return [i - first for i in wanted if 0 <= i - first < size]


def _absolute(axis: str, local: list[int] | None, size: int, visit: Visit, first: int) -> list[int]:
    """Where a value is read: absolute positions and original rows for local indices."""
    local = list(range(size)) if local is None else local
    if axis == "batch" and visit.rows is not None:
        return [visit.rows[i] for i in local]
    return [i + first for i in local]


def _grid(region: list[list[int] | None], x: Tensor) -> tuple[Tensor, ...]:
    """Index tensors that broadcast to the chosen block; whole axes at the end are left out."""
    used = max(axis for axis, index in enumerate(region) if index is not None) + 1
    return tuple(
        torch.as_tensor(index if index is not None else range(x.shape[axis]), device=x.device).view(
            [-1 if i == axis else 1 for i in range(used)]
        )
        for axis, index in enumerate(region[:used])
    )


def save_edits(edits: Iterable[Edit], path: Path | str) -> None:
    """Write edits to one safetensors file: tensors by index, everything else as JSON in the header.

    Raises:
        OutputError: The path cannot be written.
    """
    from safetensors.torch import save

    edits = list(edits)
    # Copies, because the format refuses tensors that share memory, and edits of several rows often share one value.
    tensors = {
        str(i): e.value.detach().clone(memory_format=torch.contiguous_format)
        for i, e in enumerate(edits)
        if e.value is not None
    }
    data = save(tensors, metadata={"otoscope_edits": json.dumps([e.to_dict() for e in edits])})
    with atomic_write(path, "wb") as file:
        file.write(data)


def load_edits(path: Path | str) -> list[Edit]:
    """Read edits written by `save_edits`.

    Raises:
        EditError: The file holds no edits.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            rows = json.loads((file.metadata() or {})["otoscope_edits"])
            known = {f.name for f in fields(Edit)} - {"value"}
            return [
                Edit(
                    value=file.get_tensor(str(i)) if "value_shape" in row else None,
                    **{k: v for k, v in row.items() if k in known},
                )
                for i, row in enumerate(rows)
            ]
    except (SafetensorError, KeyError, ValueError, OSError, TypeError) as error:
        raise EditError(
            f"{path} holds no edits: {error}.", "Write one with otoscope.activations.save_edits."
        ) from error
