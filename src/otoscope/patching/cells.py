"""What a sweep goes over: one activation in every layer, cut into cells along named axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, get_args

import torch

from otoscope.activations import ActivationCache, HookPoint
from otoscope.errors import OptionError
from otoscope.models.replay import layers_of

if TYPE_CHECKING:
    from torch import Tensor

    from otoscope.models.base import Model

Axis = Literal["layer", "pos", "head_index", "dest_pos", "src_pos"]
Index = dict[Axis, tuple[int, ...]]
"""Where a cell is: what it covers along each axis of its sweep. A span covers several positions, everything else one."""

_POINT_AXES: dict[str, tuple[str, ...]] = {
    "pos": ("pos", "frame"),
    "dest_pos": ("pos", "frame"),
    "head_index": ("head",),
    "src_pos": ("key", "source"),
}
_OF_THE_STREAM = (
    "resid_pre",
    "resid_mid",
    "resid_mid_cross",
    "resid_post",
    "attn_out",
    "cross_attn_out",
    "mlp_out",
)
_AFTER_CROSS = {"attn_out": "cross_attn_out", "resid_mid": "resid_mid_cross"}
_ATTENTIONS = ("attn", "self_attn", "cross_attn")


def point_of(model: Model, name: str, layer: int, part: str | None = None) -> HookPoint:
    """A layer's point by its short name.

    Args:
        model: The model.
        name: `resid_pre`, `attn_out`, `z`, `pattern` and so on.
        layer: Layer, 0-based.
        part: A stack (`encoder`), an attention (`cross_attn`), or both joined by a dot. With `cross_attn`, `attn_out` is what the
            cross-attention adds and `resid_mid` the stream after it.

    Raises:
        OptionError: The model has no such part.
        PointError: There is no such point.
    """
    words = [word for word in (part or "").split(".") if word]
    unknown = [word for word in words if word not in (*model.points.stacks, *_ATTENTIONS)]
    if unknown:
        known = (*model.points.stacks, *_ATTENTIONS)
        raise OptionError(
            f"There is no part {unknown[0]!r} in this model.", f"Choose of: {', '.join(known)}."
        )
    if name in _OF_THE_STREAM:
        name = _AFTER_CROSS.get(name, name) if "cross_attn" in words else name
        words = [word for word in words if word in model.points.stacks]
    return model.points[model.points.short(name, layer, ".".join(words) or None)]


@dataclass(frozen=True)
class Cells:
    """The cells of a sweep.

    Attributes:
        activation_name: Short name of the activation, such as `resid_pre`, `z` or `pattern`.
        axes: Axes of the result, `layer` among them; what is not an axis is covered whole. `pos` and `dest_pos` are positions of
            the text or frames of an encoder, whichever the point has, and `src_pos` where attention looks. `head_index` counts
            key-value heads for `k` and `v`.
        part: Which stack or attention, see `point_of`.
        spans: `(first, end)` positions, `end` excluded: a cell covers a span instead of one position. Where a point has frames
            beside text positions (cross-attention patterns), spans are of frames.
    """

    activation_name: str
    axes: tuple[Axis, ...]
    part: str | None = None
    spans: tuple[tuple[int, int], ...] | None = None

    def __post_init__(self) -> None:
        wrong = [axis for axis in self.axes if axis not in get_args(Axis)]
        if wrong or "layer" not in self.axes or len(set(self.axes)) < len(self.axes):
            raise OptionError(
                f"The axes {', '.join(self.axes) or 'none'} are not those of a sweep.",
                f"Name layer, and each of {', '.join(get_args(Axis)[1:])} at most once.",
            )

    def points(self, model: Model) -> list[HookPoint]:
        """The point of every layer.

        Raises:
            OptionError: The model has no such part, or the point lacks an axis.
            PointError: There is no such point.
        """
        first = point_of(model, self.activation_name, 0, self.part)
        for axis in self.axes:
            if axis != "layer" and first.axis(*_POINT_AXES[axis]) is None:
                raise OptionError(f"{first.name} has no {axis}.", f"Its axes are {', '.join(first.axes)}.")
        layers = range(len(layers_of(model, first.stack)))
        return [point_of(model, self.activation_name, layer, self.part) for layer in layers]

    def along(self, points: Sequence[HookPoint], activation: Tensor) -> list[list[tuple[int, ...]]]:
        """For each axis, what each of its entries covers.

        Args:
            points: The points.
            activation: The activation of one of them, which tells the sizes.

        Raises:
            OptionError: A span is empty or reaches beyond the positions.
        """
        out: list[list[tuple[int, ...]]] = []
        for axis in self.axes:
            place = None if axis == "layer" else points[0].axis(*_POINT_AXES[axis])
            size = len(points) if place is None else activation.shape[place]
            spans = self._spans(points[0], place)
            _check_spans(spans, size)
            out.append([(i,) for i in range(size)] if spans is None else [tuple(range(*s)) for s in spans])
        return out

    def total(self, points: Sequence[HookPoint], contributions: Sequence[Tensor]) -> Tensor:
        """Contributions of single numbers, one tensor a layer in the point's own axes, summed within each cell."""
        layers = [self._total(point, part) for point, part in zip(points, contributions, strict=True)]
        return torch.stack(layers).movedim(0, self.axes.index("layer"))

    def _total(self, point: HookPoint, contribution: Tensor) -> Tensor:
        kept = [
            place for a in self.axes if a != "layer" and (place := point.axis(*_POINT_AXES[a])) is not None
        ]
        for place in kept:
            spans = self._spans(point, place)
            if spans is not None:
                parts = [contribution.narrow(place, a, b - a).sum(place) for a, b in spans]
                contribution = torch.stack(parts, dim=place)
        rest = [place for place in range(contribution.dim()) if place not in kept]
        return contribution.permute(*kept, *rest).flatten(len(kept)).sum(-1)

    def _spans(self, point: HookPoint, place: int | None) -> tuple[tuple[int, int], ...] | None:
        """Spans along an axis of a point; text positions have none where there are frames beside them."""
        if place is None or point.axes[place] == "head":
            return None
        beside = point.axes[place] == "pos" and point.axis("frame", "source") is not None
        return None if beside else self.spans


def _check_spans(spans: Sequence[tuple[int, int]] | None, size: int) -> None:
    wrong = next((span for span in spans or () if not 0 <= span[0] < span[1] <= size), None)
    if wrong or (spans is not None and not spans):
        raise OptionError(
            f"The span {wrong} does not lie within {size} positions." if wrong else "There are no spans.",
            "Give (first, end) pairs counted from 0, end excluded.",
        )


def clean_activation(cache: ActivationCache, point: HookPoint) -> Tensor:
    """The activation of the clean run's only row, `(1, ...)`.

    Raises:
        OptionError: The cache holds several rows.
        PointError: The point was not read.
    """
    value = cache[point.name]
    if point.axes[0] == "batch" and len(value) != 1:
        raise OptionError(f"The clean cache holds {len(value)} rows.", "Run the clean input alone.")
    return value


def equal_spans(count: int, length: int) -> list[tuple[int, int]]:
    """`length` positions cut into `count` spans of about the same size, in order.

    Raises:
        OptionError: There are more spans than positions, or none.
    """
    if not 0 < count <= length:
        raise OptionError(f"{length} positions cannot be cut into {count} spans.", f"Choose 1 to {length}.")
    edges = [math.floor(i * length / count) for i in range(count + 1)]
    return list(pairwise(edges))
