"""Activation functions of dictionaries: ReLU, JumpReLU, TopK and BatchTopK.

All are gates: an active feature's activation is its pre-activation, so its slope is 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch

from otoscope.errors import DictionaryError

if TYPE_CHECKING:
    from torch import Tensor

Kind = Literal["relu", "jumprelu", "topk", "batchtopk"]


@dataclass(frozen=True, eq=False)
class Activation:
    """Which features of `z` stay on.

    Attributes:
        kind: `relu`; `jumprelu`: `z [z > threshold]` (Rajamanoharan et al. 2024); `topk`: the k largest at each position
            (Gao et al. 2024); `batchtopk`: the k largest a position on average, over all positions (Bussmann et al. 2024).
        k: Features kept, for the last two.
        threshold: `(feature,)` for `jumprelu`.
        signed: Whether a kept value may be negative (circuit-tracer's TopK); otherwise ReLU follows (SAELens).
    """

    kind: Kind = "relu"
    k: int | None = None
    threshold: Tensor | None = None
    signed: bool = False

    def __post_init__(self) -> None:
        if self.kind in ("topk", "batchtopk") and not (self.k and self.k > 0):
            raise DictionaryError(
                f"A {self.kind} dictionary needs k, not {self.k}.", "Say how many features stay on."
            )
        if self.kind == "jumprelu" and self.threshold is None:
            raise DictionaryError("A jumprelu dictionary needs thresholds.", "Add the tensor `threshold`.")

    def __call__(self, z: Tensor) -> Tensor:
        """Activations of pre-activations `(pos, feature)`."""
        if self.kind == "relu":
            return z.relu()
        if self.kind == "jumprelu" and self.threshold is not None:
            return z * (z > self.threshold)
        kept = torch.zeros_like(z)
        flat, k = (
            (z, min(int(self.k or 0), z.shape[-1])) if self.kind == "topk" else (z.flatten(), self._budget(z))
        )
        best = flat.topk(k, dim=-1)
        values = best.values if self.signed else best.values.relu()
        return kept.view(flat.shape).scatter_(-1, best.indices, values).view(z.shape)

    def _budget(self, z: Tensor) -> int:
        return min(int(self.k or 0) * len(z), z.numel())

    def describe(self) -> dict[str, Any]:
        """JSON-ready: `kind`, and `k` and `signed` where they matter."""
        more = {"k": self.k, "signed": self.signed} if self.kind in ("topk", "batchtopk") else {}
        return {"kind": self.kind} | more
