"""What a dictionary is: features that read at one place of a layer and write into one or several layers.

A feature's activation is written as an affine reading of its input with frozen gates,

    a = sum_k slope_k (w_k . x + b_k),

so that the same code attributes to the features of a transcoder (one reading, slope 1 while the feature is active) and to
the model's own neurons (the secant slope of their activation function; two readings where the MLP is gated).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch

from otoscope.errors import DictionaryError

if TYPE_CHECKING:
    from torch import Tensor

    from otoscope.models.base import Model

Reads = Literal["mlp_in", "normalized", "resid_mid", "point"]
"""Where features read: after the norm's gain and bias; after the division only; the raw stream; or, of an SAE, one point
that its result names."""

Writes = Literal["mlp_raw", "mlp_out", "point"]
"""Where features write: before a post-norm of the MLP, or after it (the same place in families without one); or, of an SAE,
the point that they read."""

_CHUNK = 2**23
"""Numbers in a moderate piece of memory: 32 MB in float32."""


@dataclass(frozen=True, eq=False)
class Active:
    """The active features of one layer, sorted by position, then feature.

    Attributes:
        layer: Layer they read at, from 0.
        starts: `(pos + 1,)` where each position's features begin; int64.
        feature: `(n,)` index in the layer's dictionary; int64.
        activation: `(n,)`.
        slopes: `(n, k)` frozen factors of the dictionary's `k` readings.
        dense: Every feature is active at every position, in order.
    """

    layer: int
    starts: Tensor
    feature: Tensor
    activation: Tensor
    slopes: Tensor
    dense: bool = False

    def __len__(self) -> int:
        return len(self.feature)

    @property
    def pos(self) -> Tensor:
        """`(n,)` position of each feature."""
        counts = self.starts.diff()
        return torch.repeat_interleave(torch.arange(len(counts)), counts)

    def at(self, pos: int) -> slice:
        """The entries of one position."""
        return slice(int(self.starts[pos]), int(self.starts[pos + 1]))

    def chunks(self, positions: int, width: int) -> Iterator[tuple[int, int]]:
        """Runs of the first positions whose features, each with `width` numbers, fit into a moderate piece of memory.

        Args:
            positions: How many of the positions.
            width: Numbers a feature needs.

        Yields:
            First position and the one after the last; runs without features are left out.
        """
        counts = self.starts.diff()[:positions].tolist()
        first, most = 0, 0
        for pos, count in enumerate(counts):
            fuller = max(most, count)
            if pos > first and (pos + 1 - first) * fuller * width > _CHUNK:
                if most:
                    yield first, pos
                first, most = pos, count
            else:
                most = fuller
        if most:
            yield first, len(counts)

    def only(self, keep: Tensor) -> Active:
        """The entries of a boolean mask `(n,)`."""
        counts = torch.zeros(len(self.starts) - 1, dtype=torch.int64).index_add_(
            0, self.pos[keep], keep[keep].long()
        )
        starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        return Active(self.layer, starts, self.feature[keep], self.activation[keep], self.slopes[keep])


def active_of(layer: int, activations: Tensor, slopes: Tensor | None = None) -> Active:
    """The nonzero entries of dense activations.

    Args:
        layer: Layer, from 0.
        activations: `(pos, feature)`.
        slopes: `(pos, feature, k)`; None: one reading of slope 1.
    """
    on = activations != 0
    dense = bool(on.all())
    pos, feature = on.nonzero(as_tuple=True)
    counts = on.sum(dim=1)
    starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    values = activations[on]
    kept = values.new_ones(len(values), 1) if slopes is None else slopes[pos, feature]
    return Active(layer, starts, feature, values, kept, dense)


@dataclass(frozen=True, eq=False)
class Reading:
    """Affine readings of a layer: `x @ weight.T + bias`.

    Attributes:
        weight: `(feature, d_in)`.
        bias: `(feature,)`, or None for zero.
    """

    weight: Tensor
    bias: Tensor | None


class Dictionary(ABC):
    """Features of a stack of layers.

    Attributes:
        layers: Number of layers of the model it is for.
        width: Width of the residual stream.
        reads: Where its features read.
        writes: Where they write.
        exact: Reconstruction is the MLP's output itself, so that there are no error nodes.
    """

    layers: int
    width: int
    reads: Reads = "mlp_in"
    writes: Writes = "mlp_raw"
    exact: bool = False

    @abstractmethod
    def size(self, layer: int) -> int:
        """Features of a layer; 0 where it has none."""

    @abstractmethod
    def encode(self, layer: int, x: Tensor) -> Active:
        """The features that are active at inputs `(pos, d_in)`."""

    @abstractmethod
    def readings(self, layer: int) -> Sequence[Reading]:
        """The readings whose sum, times the slopes, is the activation."""

    @abstractmethod
    def decoder(self, layer: int, out: int, features: Tensor | None) -> Tensor:
        """Write vectors `(n, d_out)` of features of `layer` into layer `out`; None: of all features, as a view."""

    def targets(self, layer: int) -> tuple[int, ...]:
        """Layers that features of `layer` write to."""
        return (layer,)

    def sources(self, out: int) -> tuple[int, ...]:
        """Layers whose features write to layer `out`."""
        return tuple(layer for layer in range(out + 1) if self.size(layer) and out in self.targets(layer))

    def bias(self, out: int) -> Tensor | None:
        """What is added to the reconstruction of layer `out` whatever the features `(d_out,)`."""
        return None

    def skip(self, layer: int) -> Tensor | None:
        """A linear path around the features, `x @ skip.T` with skip `(d_out, d_in)`, or None."""
        return None

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What a result records about it: kind and conventions, JSON-ready."""

    # What follows from the above -------------------------------------------------------------------------------------

    def directions(self, active: Active, which: Tensor) -> tuple[Tensor, Tensor]:
        """Frozen readings of some active features.

        Args:
            active: Of one layer.
            which: `(n,)` entries of `active`.

        Returns:
            Vectors `(n, d_in)` and constants `(n,)`: the activation is `vector . x + constant`.
        """
        feature, slopes = active.feature[which], active.slopes[which]
        readings = self.readings(active.layer)
        vector = sum(slopes[:, k, None] * r.weight[feature] for k, r in enumerate(readings))
        constant = sum(
            (slopes[:, k] * r.bias[feature] for k, r in enumerate(readings) if r.bias is not None),
            start=slopes.new_zeros(len(which)),
        )
        return vector, constant  # type: ignore[return-value]

    def activations(self, layer: int, x: Tensor, pos: Tensor, feature: Tensor) -> Tensor:
        """Activations `(n,)` of some features at some of the inputs `(pos, d_in)`; zero where a feature is not active."""
        active, size = self.encode(layer, x), self.size(layer)
        if active.dense:
            return active.activation.view(-1, size)[pos, feature]
        keys, wanted = active.pos * size + active.feature, pos * size + feature
        at = torch.searchsorted(keys, wanted).clamp_max(max(len(keys) - 1, 0))
        if not len(keys):
            return x.new_zeros(len(wanted))
        return torch.where(keys[at] == wanted, active.activation[at], 0.0)

    def written(self, active: Active, out: int) -> Tensor:
        """What the active features of one layer write into layer `out`: `(pos, d_out)`."""
        if active.dense:
            return active.activation.view(len(active.starts) - 1, -1) @ self.decoder(active.layer, out, None)
        total = active.activation.new_zeros(len(active.starts) - 1, self.width)
        pos = active.pos
        for first, last in active.chunks(len(total), self.width):
            here = slice(int(active.starts[first]), int(active.starts[last]))
            rows = self.decoder(active.layer, out, active.feature[here]) * active.activation[here, None]
            total.index_add_(0, pos[here], rows)
        return total

    def reconstruct(self, actives: Sequence[Active], out: int, x: Tensor) -> Tensor:
        """The MLP output of layer `out` as the dictionary has it.

        Args:
            actives: Of every layer.
            out: Layer.
            x: Its input `(pos, d_in)`, for the skip path.

        Returns:
            `(pos, d_out)`.
        """
        total = x.new_zeros(len(x), self.width)
        for layer in self.sources(out):
            total = total + self.written(actives[layer], out)
        bias, skip = self.bias(out), self.skip(out)
        total = total if bias is None else total + bias
        return total if skip is None else total + x @ skip.T

    def error(self, actives: Sequence[Active], out: int, x: Tensor, y: Tensor) -> Tensor:
        """What the reconstruction misses of the MLP output `y`: `(pos, d_out)`."""
        return y - self.reconstruct(actives, out, x)

    def check(self, model: Model, stream: str | None = None) -> None:
        """Refuse a model that the dictionary is not for.

        Args:
            model: The model.
            stream: The stack whose MLPs it is of, by its name in the point table; None: the one that writes.

        Raises:
            DictionaryError: Width or number of layers differ, or a tensor is not finite.
        """
        width, layers = model_shape(model, stream)
        if self.width != width:
            raise DictionaryError(
                f"The dictionary reads and writes {self.width} dimensions, {model.origin.name} has {width}.",
                "Use a dictionary that was trained on this model.",
            )
        if self.layers != layers:
            raise DictionaryError(
                f"The dictionary is for {self.layers} layers, {model.origin.name} has {layers}.",
                "Use a dictionary that was trained on this model.",
            )


def model_shape(model: Model, stream: str | None = None) -> tuple[int, int]:
    """Width of the stream and number of layers of a stack; None: of the one that writes."""
    stream = stream or next(iter(model.points.stacks))
    prefix = model.points.stacks[stream]
    width = model.points[f"{prefix}.0.hook_resid_pre"].width
    return int(width or 0), len(model.hf.get_submodule(model.points.layers[stream]))  # type: ignore[arg-type]


def require_finite(name: str, tensor: Tensor) -> None:
    """Refuse weights that hold NaN or infinity.

    Raises:
        DictionaryError: They do.
    """
    if not torch.isfinite(tensor).all():
        raise DictionaryError(
            f"{name} of the dictionary holds values that are not finite.", "Fetch or train it again."
        )


@dataclass(frozen=True)
class Origin:
    """Where a dictionary came from.

    Attributes:
        name: As it was asked for.
        format: Format it was read from.
        details: What its files said, JSON-ready.
    """

    name: str = "in memory"
    format: str = "none"
    details: dict[str, Any] = field(default_factory=dict)
