"""Cross-layer transcoders: a feature reads at one layer and writes to that layer and every later one.

`y_l = sum_{k<=l} W_dec^{k->l}^T a_k + b_dec,l`. Source: Ameisen et al. 2025, "Circuit Tracing", methods.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from otoscope.dictionaries.activation import Activation
from otoscope.dictionaries.base import (
    Active,
    Dictionary,
    Origin,
    Reading,
    Reads,
    Writes,
    active_of,
    require_finite,
)
from otoscope.dictionaries.rows import Rows, as_rows
from otoscope.errors import DictionaryError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class CrossLayer:
    """The features that read at one layer.

    Attributes:
        w_enc: `(feature, d_in)`.
        b_enc: `(feature,)`.
        w_dec: One `(feature, d_out)` for each layer from its own to the last.
        b_dec: `(d_out,)`, of the reconstruction of its own layer.
        activation: Which features stay on.
        w_skip: `(d_out, d_in)` from its layer's input to its layer's output, or None.
    """

    w_enc: Tensor
    b_enc: Tensor
    w_dec: Sequence[Tensor | Rows]
    b_dec: Tensor
    activation: Activation = field(default_factory=Activation)
    w_skip: Tensor | None = None

    def __post_init__(self) -> None:
        for name in ("w_enc", "b_enc", "b_dec", "w_skip"):
            if (tensor := getattr(self, name)) is not None:
                require_finite(name, tensor)
        shape = (len(self.w_enc), len(self.b_dec))
        for rows in self.w_dec:
            if tuple(rows.shape) != shape:
                raise DictionaryError(
                    f"A decoder of a cross-layer transcoder has the shape {tuple(rows.shape)}, not {shape}.",
                    "Check which way round the file stores it.",
                )


class CrossLayerTranscoder(Dictionary):
    """Cross-layer transcoder of a whole stack.

    Args:
        parts: One a layer.
        reads: Where features read.
        writes: Where they write.
        origin: Where it came from.

    Raises:
        DictionaryError: A layer does not write to itself and every later layer.
    """

    def __init__(
        self,
        parts: Sequence[CrossLayer],
        *,
        reads: Reads = "mlp_in",
        writes: Writes = "mlp_raw",
        origin: Origin | None = None,
    ) -> None:
        if not parts:
            raise DictionaryError("The dictionary has no layer.", "Name a folder with at least one.")
        self.parts = tuple(parts)
        self.layers, self.width = len(parts), len(parts[0].b_dec)
        self.reads, self.writes, self.origin = reads, writes, origin or Origin()
        for layer, part in enumerate(parts):
            if len(part.w_dec) != self.layers - layer:
                raise DictionaryError(
                    f"Layer {layer} writes to {len(part.w_dec)} layers, not to the {self.layers - layer} from itself on.",
                    "Check that the files of all layers are there.",
                )

    def size(self, layer: int) -> int:
        """Features of a layer."""
        return len(self.parts[layer].w_enc)

    def encode(self, layer: int, x: Tensor) -> Active:
        """Active features at inputs `(pos, d_in)`."""
        part = self.parts[layer]
        return active_of(layer, part.activation(x @ part.w_enc.T + part.b_enc))

    def readings(self, layer: int) -> Sequence[Reading]:
        """The encoder."""
        return (Reading(self.parts[layer].w_enc, self.parts[layer].b_enc),)

    def targets(self, layer: int) -> tuple[int, ...]:
        """Its own layer and all later ones."""
        return tuple(range(layer, self.layers))

    def decoder(self, layer: int, out: int, features: Tensor | None) -> Tensor:
        """Rows of the decoder from `layer` to `out`."""
        return as_rows(self.parts[layer].w_dec[out - layer])[features]

    def bias(self, out: int) -> Tensor | None:
        """Bias of a layer's reconstruction."""
        return self.parts[out].b_dec

    def skip(self, layer: int) -> Tensor | None:
        """Skip matrix, or None."""
        return self.parts[layer].w_skip

    def describe(self) -> dict[str, Any]:
        """Kind, activation, places and origin."""
        first = self.parts[0]
        return {
            "kind": "cross-layer transcoder",
            "activation": first.activation.describe(),
            "features": len(first.w_enc),
            "reads": self.reads,
            "writes": self.writes,
            "name": self.origin.name,
        }
