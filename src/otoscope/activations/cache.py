"""What was read: activations by canonical name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from otoscope.errors import PointError
from otoscope.showing import Shows

if TYPE_CHECKING:
    from torch import Tensor

    from otoscope.activations.edits import Visit
    from otoscope.activations.points import PointTable

GRADIENT = "_grad"
"""What a gradient's name ends with."""


class ActivationCache(Mapping[str, "Tensor"], Shows):
    """Activations by name, one entry a visit.

    `cache["decoder_blocks.3.hook_resid_post"]` and `cache["resid_post", 3]` are the same tensor. A point visited several
    times (once a decoding step) gives its visits joined along the position axis, language detection left out; `visits` gives
    all of them apart, and `moments` tells when and for which rows each was.

    Attributes:
        points: The table that names were resolved with.
        attention: Attention implementation that ran, such as `sdpa`, or `otoscope` for the eager seam.
    """

    def __init__(self, points: PointTable, attention: str) -> None:
        self.points = points
        self.attention = attention
        self._visits: dict[str, list[Tensor]] = {}
        self._moments: dict[str, list[Visit]] = {}

    def store(self, name: str, activation: Tensor, visit: Visit) -> None:
        """Keep one visit's activation (already detached and copied)."""
        self._visits.setdefault(name, []).append(activation)
        self._moments.setdefault(name, []).append(visit)

    def visits(self, name: str) -> list[Tensor]:
        """Every visit of a point, in order: prefill first, then one a decoding step.

        Raises:
            PointError: The point was not read.
        """
        return self._visits[self._read(name)]

    def moments(self, name: str) -> list[Visit]:
        """Step, offset, phase and rows of every visit of a point, in the order of `visits`.

        Raises:
            PointError: The point was not read.
        """
        return self._moments[self._read(name)]

    def _read(self, name: str) -> str:
        plain = name.removesuffix(GRADIENT)
        key = name if name in self._visits else self.points.canonical(plain) + name[len(plain) :]
        if key not in self._visits:
            raise PointError(
                f"{key} was not read.", "Add it to names_filter, and run the model inside the block."
            )
        return key

    def __getitem__(self, key: str | tuple) -> Tensor:
        name = self.points.short(*key) if isinstance(key, tuple) else key
        visits = self.visits(name)
        if len(visits) > 1:
            phases = [moment.phase for moment in self.moments(name)]
            visits = [v for v, phase in zip(visits, phases, strict=True) if phase != "detect_language"]
        if len(visits) == 1:
            return visits[0]
        import torch

        axis = self.points[name.removesuffix(GRADIENT)].axis("pos", "frame")
        shapes = {v.shape[:axis] + v.shape[axis + 1 :] for v in visits} if axis is not None else set()
        if axis is None or len(shapes) != 1:
            raise PointError(
                f"{name} was visited {len(visits)} times with shapes that do not join.",
                "Take them apart: cache.visits(name).",
            )
        return torch.cat(visits, dim=axis)

    def __contains__(self, key: object) -> bool:
        try:
            self.visits(self.points.short(*key) if isinstance(key, tuple) else str(key))
        except PointError:
            return False
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(self._visits)

    def __len__(self) -> int:
        return len(self._visits)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(v.nbytes for visits in self._visits.values() for v in visits)

    def __repr__(self) -> str:
        return f"ActivationCache({len(self)} points, {self.nbytes / 2**20:.1f} MiB, attention={self.attention!r})"

    def card(self) -> dict[str, Any]:
        """Points and their shapes, as the fields of a card."""
        rows = [
            [name, " + ".join(str(tuple(v.shape)) for v in visits[:3]) + (" + …" if len(visits) > 3 else "")]
            for name, visits in self._visits.items()
        ]
        table = {"head": ["point", "shape"], "rows": rows[:12], "count": len(rows)}
        return {"title": repr(self), "table": table}
