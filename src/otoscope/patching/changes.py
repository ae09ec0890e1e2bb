"""What is done to a row while it is written: components mixed with a reference, and the control that only looks like it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from otoscope.activations import HookFunction, Visit
from otoscope.errors import OptionError
from otoscope.patching.components import Component
from otoscope.patching.references import Reference

if TYPE_CHECKING:
    from torch import Tensor

    from otoscope.models.base import Model


def check_alpha(alpha: float) -> None:
    """Refuse a share that is no number.

    Raises:
        OptionError: It is infinite or NaN.
    """
    if not math.isfinite(alpha):
        raise OptionError(f"alpha is {alpha}, which is no share.", "Give a finite number.")


@dataclass(frozen=True)
class Change:
    """Components whose output is patched: `(1 - alpha) * a + alpha * a_ref` (arXiv 2508.15882, component patching).

    Attributes:
        components: What is patched; several at once are a set.
        reference: What with.
        alpha: Share of the reference; may exceed 1. With `zero` and 1 it is ablation.
        random_direction: None, or the seed of a control: the output moves as far as the patch would move it, position by
            position, but in one random direction of the same space.
        start: Index of the first written token that is patched, from 0; earlier ones are as the model wrote them. From 0 on the
            prompt's positions are patched, too, and the encoder always is.
    """

    components: tuple[Component, ...]
    reference: Reference = field(default_factory=Reference)
    alpha: float = 1.0
    random_direction: int | None = None
    start: int = 0

    def __post_init__(self) -> None:
        check_alpha(self.alpha)

    def control(self, seed: int) -> Change:
        """The same in a random direction."""
        return replace(self, random_direction=seed)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        told: dict[str, Any] = {
            "components": [c.to_dict() for c in self.components],
            "reference": self.reference.to_dict(),
        }
        return told | {"alpha": self.alpha, "random_direction": self.random_direction, "start": self.start}


@dataclass(eq=False)
class _Cells:
    """What is patched at one point: entry i is a head (or the whole output) of a row."""

    rows: list[int] = field(default_factory=list)
    heads: list[int] = field(default_factory=list)
    alphas: list[float] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    seeds: list[int | None] = field(default_factory=list)
    directions: Tensor | None = None

    def add(self, row: int, component: Component, change: Change) -> None:
        self.rows.append(row)
        self.heads.append(-1 if component.head is None else component.head)
        self.alphas.append(change.alpha)
        self.starts.append(change.start)
        self.seeds.append(change.random_direction)


class Patcher:
    """Patches rows as the model runs, all rows of a point in one operation.

    Args:
        model: The model.
        changes: The change of each row, or None; all with the same reference.
        prompt: Length of the decoder's prompt, for changes that start later.
    """

    def __init__(self, model: Model, changes: Sequence[Change | None], prompt: int = 1) -> None:
        self.model = model
        self.first = prompt - 1  # the position that writes token 0
        self.reference = _one_reference(changes)
        self._cells: dict[str, _Cells] = {}
        self._heard: dict[str, Tensor] = {}
        self._listens = False
        for row, change in enumerate(changes):
            for component in change.components if change else ():
                self._cells.setdefault(component.point, _Cells()).add(row, component, change)  # type: ignore[arg-type]

    def hooks(self, stack: str) -> list[tuple[str, HookFunction]]:
        """Hooks for the points of one stack."""
        return [
            (name, partial(self._at, name)) for name in self._cells if self.model.points[name].stack == stack
        ]

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Inside the block the model hears the reference sound: its activations are kept, and nothing is changed."""
        self._listens = True
        try:
            yield
        finally:
            self._listens = False

    def _at(self, name: str, x: Tensor, visit: Visit) -> Tensor | None:
        if self._listens:
            frames = self.reference.frames
            aligned = frames is not None and self.model.points[name].axis("frame") == 1
            self._heard[name] = x.detach()[:, frames] if aligned else x.detach()
            return None
        cells = self._cells[name]
        local, chosen = _present(cells, len(x), visit)
        if not chosen:
            return None
        where = _index(x, local, [cells.heads[i] for i in chosen])
        a = x[where]
        new = self._patched(name, cells, chosen, where, a)
        out = x.clone()
        out[where] = self._from_the_start(cells, chosen, a, new, visit)
        return out

    def _patched(self, name: str, cells: _Cells, chosen: list[int], where: tuple, a: Tensor) -> Tensor:
        alpha = _column([cells.alphas[i] for i in chosen], a)
        new = (1 - alpha) * a + alpha * self._reference(name, where, a)
        seeds = [cells.seeds[i] for i in chosen]
        if all(seed is None for seed in seeds):
            return new
        if cells.directions is None:
            cells.directions = _directions(cells, a)
        elsewhere = a + (new - a).norm(dim=-1, keepdim=True) * cells.directions[chosen][:, None]
        is_control = _column([float(seed is not None) for seed in seeds], a).bool()
        return torch.where(is_control, elsewhere, new)

    def _reference(self, name: str, where: tuple, a: Tensor) -> Tensor:
        """What the patched cells `(cell, pos, width)` are mixed with."""
        if self.reference.kind == "zero":
            return torch.zeros_like(a)
        if self.reference.kind == "mean":
            means = self.reference.means
            if means is None or name not in means:
                raise OptionError(
                    f"There is no corpus mean of {name}.", "Compute it with otoscope.patching.means."
                )
            mean = means[name].to(a)
            return (mean[where[2]] if len(where) == 3 else mean.expand(len(a), -1))[:, None]
        heard = self._heard[name]
        return (
            heard.expand(int(where[0].max()) + 1, *heard.shape[1:])[where]
            if len(heard) == 1
            else heard[where]
        )

    def _from_the_start(
        self, cells: _Cells, chosen: list[int], a: Tensor, new: Tensor, visit: Visit
    ) -> Tensor:
        # What starts with the first token is patched in the prompt, too, whatever other rows do.
        begins = [self.first + cells.starts[i] if cells.starts[i] else 0 for i in chosen]
        if not any(begins) or visit.phase == "forward":
            return new
        position = visit.offset + torch.arange(a.shape[1], device=a.device)
        reached = position >= torch.tensor(begins, device=a.device)[:, None]
        return torch.where(reached[..., None], new, a)


def _one_reference(changes: Sequence[Change | None]) -> Reference:
    different = {change.reference for change in changes if change}
    if len(different) > 1:
        raise OptionError(
            "Rows of one batch have different references.", "Patch them one reference at a time."
        )
    return next(iter(different), Reference())


def _present(cells: _Cells, rows: int, visit: Visit) -> tuple[list[int], list[int]]:
    """Local rows of the cells that are in this batch, and which cells they are."""
    now = {row: i for i, row in enumerate(range(rows) if visit.rows is None else visit.rows)}
    chosen = [i for i, row in enumerate(cells.rows) if row in now]
    return [now[cells.rows[i]] for i in chosen], chosen


def _index(x: Tensor, rows: list[int], heads: list[int]) -> tuple:
    row = torch.tensor(rows, device=x.device)
    return (row,) if x.dim() == 3 else (row, slice(None), torch.tensor(heads, device=x.device))


def _column(values: Sequence[float], a: Tensor) -> Tensor:
    return torch.tensor(values, dtype=a.dtype, device=a.device)[:, None, None]


def _directions(cells: _Cells, a: Tensor) -> Tensor:
    """A unit vector `(cell, width)` for each cell, from its seed, row's place left aside."""
    drawn = [
        torch.randn(a.shape[-1], generator=torch.Generator().manual_seed(seed or 0), dtype=torch.float64)
        for seed in cells.seeds
    ]
    units = torch.stack([v / v.norm() for v in drawn])
    return units.to(a)
