"""Transcoders: each layer's MLP rewritten as sparse features, `y = W_dec^T act(W_enc x + b_enc) + b_dec (+ W_skip x)`.

Source: Dunefsky, Chlenski and Nanda 2024; with a skip matrix, Paulo, Shabalin and Belrose 2025.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
class Transcoder:
    """One layer's features.

    Attributes:
        w_enc: `(feature, d_in)`.
        b_enc: `(feature,)`.
        w_dec: `(feature, d_out)`, a tensor or rows read from a file when they are needed.
        b_dec: `(d_out,)`.
        activation: Which features stay on.
        w_skip: `(d_out, d_in)`, applied as `x @ w_skip.T`, or None.
    """

    w_enc: Tensor
    b_enc: Tensor
    w_dec: Tensor | Rows
    b_dec: Tensor
    activation: Activation = field(default_factory=Activation)
    w_skip: Tensor | None = None

    def __post_init__(self) -> None:
        features, d_in = self.w_enc.shape
        d_out = len(self.b_dec)
        expected = {
            "b_enc": (self.b_enc, (features,)),
            "w_dec": (self.w_dec, (features, d_out)),
            "w_skip": (self.w_skip, (d_out, d_in)),
            "threshold": (self.activation.threshold, (features,)),
        }
        for name, (tensor, shape) in expected.items():
            if tensor is not None and tuple(tensor.shape) != shape:
                raise DictionaryError(
                    f"{name} of a transcoder has the shape {tuple(tensor.shape)}, not {shape}.",
                    "Check which way round the file stores it.",
                )
        for name in ("w_enc", "b_enc", "b_dec", "w_skip"):
            if (tensor := getattr(self, name)) is not None:
                require_finite(name, tensor)


class TranscoderSet(Dictionary):
    """One transcoder a layer, for all layers or some.

    Args:
        transcoders: By layer, from 0; a layer that is left out keeps its MLP as an error node.
        layers: Layers of the model; None: as many as there are transcoders.
        reads: Where features read.
        writes: Where they write.
        origin: Where it came from.

    Raises:
        DictionaryError: There is none, or their widths differ.
    """

    def __init__(
        self,
        transcoders: Mapping[int, Transcoder] | Sequence[Transcoder],
        *,
        layers: int | None = None,
        reads: Reads = "mlp_in",
        writes: Writes = "mlp_raw",
        origin: Origin | None = None,
    ) -> None:
        given = dict(transcoders) if isinstance(transcoders, Mapping) else dict(enumerate(transcoders))
        if not given:
            raise DictionaryError(
                "The dictionary has no layer.", "Name a folder with at least one transcoder."
            )
        widths = {len(t.b_dec) for t in given.values()} | {t.w_enc.shape[1] for t in given.values()}
        if len(widths) > 1:
            raise DictionaryError(
                f"The transcoders have different widths: {sorted(widths)}.", "Use those of one model."
            )
        self.transcoders = given
        self.layers, self.width = layers or max(given) + 1, widths.pop()
        self.reads, self.writes, self.origin = reads, writes, origin or Origin()

    def size(self, layer: int) -> int:
        """Features of a layer; 0 where there is no transcoder."""
        return len(self.transcoders[layer].w_enc) if layer in self.transcoders else 0

    def encode(self, layer: int, x: Tensor) -> Active:
        """Active features at inputs `(pos, d_in)`."""
        if layer not in self.transcoders:
            return active_of(layer, x.new_zeros(len(x), 0))
        t = self.transcoders[layer]
        return active_of(layer, t.activation(x @ t.w_enc.T + t.b_enc))

    def readings(self, layer: int) -> Sequence[Reading]:
        """The encoder."""
        return (Reading(self.transcoders[layer].w_enc, self.transcoders[layer].b_enc),)

    def decoder(self, layer: int, out: int, features: Tensor | None) -> Tensor:
        """Decoder rows."""
        return as_rows(self.transcoders[layer].w_dec)[features]

    def bias(self, out: int) -> Tensor | None:
        """Decoder bias."""
        return self.transcoders[out].b_dec if out in self.transcoders else None

    def skip(self, layer: int) -> Tensor | None:
        """Skip matrix, or None."""
        return self.transcoders[layer].w_skip if layer in self.transcoders else None

    def describe(self) -> dict[str, Any]:
        """Kind, activation, places and origin."""
        first = next(iter(self.transcoders.values()))
        return {
            "kind": "transcoders" if first.w_skip is None else "skip transcoders",
            "activation": first.activation.describe(),
            "features": len(first.w_enc),
            "reads": self.reads,
            "writes": self.writes,
            "name": self.origin.name,
        }
