"""Decoder rows, in memory or read from a safetensors file when they are needed.

A cross-layer transcoder's decoders are its bulk, and one prompt needs a few hundred of their rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

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


class FileRows:
    """Rows of one tensor of a safetensors file; rows once read are kept.

    Args:
        path: The file.
        name: The tensor, `(feature, d_out)`, or `(feature, layer, d_out)` with `part`.
        part: Index on the middle axis, or None.
        dtype: Precision to read in.
    """

    def __init__(
        self, path: Path, name: str, part: int | None = None, dtype: torch.dtype = torch.float32
    ) -> None:
        self.path, self.name, self.part, self.dtype = path, name, part, dtype
        self._kept: Tensor | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """`(feature, d_out)`."""
        return self._shape

    @cached_property
    def _shape(self) -> tuple[int, ...]:
        from safetensors import safe_open

        with safe_open(self.path, framework="pt") as file:
            whole = file.get_slice(self.name).get_shape()
        return (whole[0], whole[-1])

    @cached_property
    def _slot(self) -> Tensor:
        """Of every feature, its row among those that are kept, or -1."""
        return torch.full((self.shape[0],), -1)

    def __getitem__(self, features: Tensor | None) -> Tensor:
        """Rows of features; None reads the whole tensor."""
        wanted = torch.arange(self.shape[0]) if features is None else features
        missing = wanted[self._slot[wanted] < 0].unique()
        kept = self._kept
        if len(missing) or kept is None:
            kept = self._kept = self._with(missing, kept)
        in_order = features is None and torch.equal(self._slot, wanted)
        return kept if in_order else kept[self._slot[wanted]]

    def _with(self, missing: Tensor, kept: Tensor | None) -> Tensor:
        """What is kept, and some more rows from the file."""
        from safetensors import safe_open

        kept = torch.zeros(0, self.shape[1], dtype=self.dtype) if kept is None else kept
        if not len(missing):
            return kept
        with safe_open(self.path, framework="pt") as file:
            source = file.get_slice(self.name)
            runs = missing.tensor_split((missing.diff() > 1).nonzero().flatten() + 1)
            read = [self._run(source, int(run[0]), int(run[-1]) + 1) for run in runs]
        self._slot[missing] = torch.arange(len(kept), len(kept) + len(missing))
        return torch.cat([kept, *read])

    def _run(self, source: Any, first: int, last: int) -> Tensor:
        rows = source[first:last] if self.part is None else source[first:last, self.part]
        return rows.to(self.dtype)


def as_rows(rows: Tensor | Rows) -> Rows:
    """Rows, whatever they are kept in."""
    return TensorRows(rows) if isinstance(rows, torch.Tensor) else rows
