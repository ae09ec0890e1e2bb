"""Decoder rows, in memory or read from a safetensors file when they are needed.

A cross-layer transcoder's decoders are its bulk, and one prompt needs a few hundred of their rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch

if TYPE_CHECKING:
    from torch import Tensor


class Rows(Protocol):
    """`(feature, d_out)`, indexed by features."""

    @property
    def shape(self) -> tuple[int, ...]:
        """`(feature, d_out)`."""
        ...

    def __getitem__(self, features: Tensor | None) -> Tensor:
        """Rows `(n, d_out)` of features, or of all."""
        ...


@dataclass(frozen=True, eq=False)
class TensorRows:
    """Rows of a tensor."""

    tensor: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """`(feature, d_out)`."""
        return tuple(self.tensor.shape)

    def __getitem__(self, features: Tensor | None) -> Tensor:
        """Rows of features, or all of them as they are."""
        return self.tensor if features is None else self.tensor[features]


@dataclass(frozen=True, eq=False)
class FileRows:
    """Rows of one tensor of a safetensors file; rows once read are kept.

    Attributes:
        path: The file.
        name: The tensor, `(feature, d_out)`, or `(feature, layer, d_out)` with `part`.
        part: Index on the middle axis, or None.
        dtype: Precision to read in.
    """

    path: Path
    name: str
    part: int | None = None
    dtype: torch.dtype = torch.float32
    _kept: dict[int, Tensor] = field(default_factory=dict, repr=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """`(feature, d_out)`."""
        from safetensors import safe_open

        with safe_open(self.path, framework="pt") as file:
            whole = file.get_slice(self.name).get_shape()
        return (whole[0], whole[-1])

    def __getitem__(self, features: Tensor | None) -> Tensor:
        """Rows of features; None reads the whole tensor."""
        from safetensors import safe_open

        wanted = torch.arange(self.shape[0]) if features is None else features
        missing = sorted({int(i) for i in wanted} - self._kept.keys())
        if missing:
            with safe_open(self.path, framework="pt") as file:
                source = file.get_slice(self.name)
                for i in missing:
                    row = source[i : i + 1] if self.part is None else source[i : i + 1, self.part]
                    self._kept[i] = row[0].to(self.dtype)
        if not len(wanted):
            return torch.zeros(0, self.shape[1], dtype=self.dtype)
        return torch.stack([self._kept[int(i)] for i in wanted])


def as_rows(rows: Tensor | Rows) -> Rows:
    """Rows, whatever they are kept in."""
    return TensorRows(rows) if isinstance(rows, torch.Tensor) else rows
