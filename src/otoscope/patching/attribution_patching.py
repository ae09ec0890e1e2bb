"""Attribution patching: every cell of a sweep estimated to first order, from one forward and one backward pass.

The score of a cell is `(a_clean - a_corrupt) * gradient`, summed over the cell, with the gradient of the metric on the corrupted
run: an estimate of how far patching the clean activation in would move the metric; positive means that it raises it (Nanda 2023,
"Attribution patching"; TransformerLens' convention. Kramár et al. 2024, arXiv 2403.00745, take the opposite one: gradient on the
clean run, noise minus clean.)

A gradient through a saturated softmax vanishes, though another query could turn the head elsewhere. So for queries and keys the
softmax is not linearised: the pattern that the patched query or key would give is computed, and its difference is contracted with
the gradient of the pattern (AtP*'s "QK fix", section 3.1.1 there).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from otoscope.activations import ActivationCache, Edit, HookPoint
from otoscope.errors import OptionError, PointError
from otoscope.outcomes import bootstrap
from otoscope.patching.activation_patching import patch_cells, scene_of
from otoscope.patching.cells import Axis, Cells, clean_activation, point_of
from otoscope.patching.metrics import Metric, MetricFunction
from otoscope.patching.scene import Scene
from otoscope.showing import Shows

if TYPE_CHECKING:
    from torch import Tensor, nn

    from otoscope.models.base import Model

_LEAST = 1e-300  # of a softmax's denominator


def attribution_patch(
    model: Model,
    clean: Any,
    corrupt: Any,
    metric_fn: Metric | MetricFunction,
    activation_name: str,
    index_axis_names: Sequence[Axis],
    *,
    part: str | None = None,
    spans: Sequence[tuple[int, int]] | None = None,
    qk_fix: bool = True,
) -> Tensor:
    """Estimate what patching each cell would change; axes as in `generic_activation_patch`.

    Args:
        model: The model.
        clean: The clean input, or a cache of it, which must hold the patched points.
        corrupt: The corrupted input: what `Scene.of` takes, or a scene.
        metric_fn: A differentiable metric.
        activation_name: Short name, such as `resid_pre`, `z` or `q`.
        index_axis_names: Axes of the result, see `Cells`.
        part: A stack, an attention, or both joined by a dot.
        spans: Positions or frames that a cell covers together.
        qk_fix: For `q` and `k`, follow the softmax instead of its gradient. It reads scores and patterns of every layer.

    Returns:
        Estimated change of the metric, float64 on the CPU.

    Raises:
        OptionError: The axes do not fit, the runs differ in length, or the metric has no gradient.
        PointError: A point got no gradient, or the clean cache lacks it.
    """
    cells = Cells(activation_name, tuple(index_axis_names), part, None if spans is None else tuple(spans))
    return attribution_patches(model, clean, corrupt, metric_fn, [cells], qk_fix=qk_fix)[0]


def attribution_patches(
    model: Model,
    clean: Any,
    corrupt: Any,
    metric_fn: Metric | MetricFunction,
    sweeps: Sequence[Cells],
    *,
    qk_fix: bool = True,
) -> list[Tensor]:
    """Several sweeps from one forward and one backward pass; see `attribution_patch`.

    Raises:
        OptionError: As in `attribution_patch`.
        PointError: As in `attribution_patch`.
    """
    scene = scene_of(model, corrupt)
    points = [cells.points(model) for cells in sweeps]
    softmaxes = [
        _Softmax(scene, cells) if qk_fix and cells.activation_name in ("q", "k") else None for cells in sweeps
    ]
    names = [point.name for of_sweep in points for point in of_sweep]
    names += [name for softmax in softmaxes if softmax for name in softmax.names]
    run = _Run.of(scene, Metric.of(metric_fn), dict.fromkeys(names))
    cache = _cache_of(model, clean, [point.name for of_sweep in points for point in of_sweep])
    out = []
    for cells, of_sweep, softmax in zip(sweeps, points, softmaxes, strict=True):
        difference = [_difference(cache, run, point) for point in of_sweep]  # refuses other lengths, too
        cells.along(of_sweep, difference[0])  # refuses spans that do not fit
        if softmax is not None:
            out.append(softmax.total(of_sweep, cache, run))
            continue
        parts = [d * _double(run.gradients[p.name]) for d, p in zip(difference, of_sweep, strict=True)]
        out.append(cells.total(of_sweep, parts))
    return out


def _cache_of(model: Model, clean: Any, names: Sequence[str]) -> ActivationCache:
    return clean if isinstance(clean, ActivationCache) else scene_of(model, clean).read(dict.fromkeys(names))


def _double(x: Tensor) -> Tensor:
    return x.detach().cpu().double()


def _difference(cache: ActivationCache, run: _Run, point: HookPoint) -> Tensor:
    clean, corrupt = clean_activation(cache, point), run.values[point.name]
    if clean.shape != corrupt.shape:
        raise OptionError(
            f"{point.name} is {tuple(clean.shape)} in the clean run and {tuple(corrupt.shape)} in the corrupted one.",
            "Align the clean cache first: otoscope.patching.aligning.aligned_cache.",
        )
    return _double(clean) - _double(corrupt)


# Gradients -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Run:
    """The corrupted run: activations and the metric's gradients, by point."""

    values: dict[str, Tensor]
    gradients: dict[str, Tensor]

    @classmethod
    def of(cls, scene: Scene, metric: Metric, names: Iterable[str]) -> _Run:
        """One forward and one backward pass. A zero is added at each point and differentiated instead of the activation."""
        points = [scene.model.points[name] for name in names]
        zeros: dict[str, Tensor] = {}
        values: dict[str, Tensor] = {}

        def add_zero(x: Tensor, visit: Any) -> Tensor:
            zeros[visit.name] = torch.zeros_like(x, requires_grad=True)
            values[visit.name] = x.detach().clone()
            return x + zeros[visit.name]

        if any(point.needs_seam for point in points):
            scene = scene.seamed
        hooks = [(point.name, add_zero) for point in points]
        with _frozen(scene.model.hf), torch.enable_grad(), scene.model.hooks(hooks):
            score = metric(scene.rerun(points, positions=metric.positions)).sum()
            if not score.requires_grad:
                raise OptionError(
                    "The metric has no gradient.", "Compute it from the logits with torch alone."
                )
            found = torch.autograd.grad(score, list(zeros.values()), allow_unused=True)
        gradients = {name: g for name, g in zip(zeros, found, strict=True) if g is not None}
        for point in points:
            if point.name not in gradients:
                raise PointError(
                    f"{point.name} got no gradient: the metric does not depend on it.",
                    "Leave it out, or choose a metric that does.",
                )
        return cls(values, gradients)


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """Let no parameter ask for a gradient inside the block: only the activations' are wanted, and the rest costs memory."""
    asked = [parameter for parameter in module.parameters() if parameter.requires_grad]
    try:
        for parameter in asked:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in asked:
            parameter.requires_grad_(True)


# The softmax ---------------------------------------------------------------------------------------------------------


class _Softmax:
    """Patches of queries or keys, followed through the softmax of their own head and linearised after it."""

    def __init__(self, scene: Scene, cells: Cells) -> None:
        self.scene, self.cells = scene.seamed, cells
        layers = range(len(cells.points(scene.model)))

        def named(name: str) -> list[HookPoint]:
            return [point_of(scene.model, name, layer, cells.part) for layer in layers]

        self.q, self.k, self.scores, self.pattern = map(named, ("q", "k", "attn_scores", "pattern"))
        self.names = [point.name for point in (*self.q, *self.k, *self.scores, *self.pattern)]

    def total(self, points: Sequence[HookPoint], cache: ActivationCache, run: _Run) -> Tensor:
        """Estimated changes in the axes of the cells."""
        patched = self._scores(points, cache, run)
        if self.cells.activation_name == "q":
            return self.cells.total(points, [self._of_queries(i, patched, run) for i in range(len(points))])
        parts = [self._of_keys(i, patched, run) for i in range(len(points))]
        return replace(self.cells, spans=None).total(points, parts)  # they are summed by span already

    def _scores(self, points: Sequence[HookPoint], cache: ActivationCache, run: _Run) -> list[Tensor]:
        """Scores that clean queries have with corrupted keys (or the other way round), at every layer from one pass.

        Queries and keys are set at every layer, so what happens between layers does not matter; rotation, norms, scale, cap and
        mask are the model's own.
        """
        patched = {point.name for point in points}
        edits = [
            Edit.replace(p.name, clean_activation(cache, p) if p.name in patched else run.values[p.name])
            for p in (*self.q, *self.k)
        ]
        model, hooked = self.scene.model, [*self.q, *self.k, *self.scores]
        with torch.no_grad(), model.editing(edits), model.capturing([p.name for p in self.scores]) as read:
            self.scene.rerun(hooked, positions=[-1])
        return [read[point.name] for point in self.scores]

    def _before(self, layer: int, run: _Run) -> tuple[Tensor, Tensor, Tensor]:
        """`(head, query, key)` each: scores less the log of their row's denominator, weights, and what weight on a key is worth
        more than on the average one.
        """
        logs = _double(run.values[self.scores[layer].name])[0]
        whole = logs.logsumexp(-1, keepdim=True)
        weights, gradient = (logs - whole).exp(), _double(run.gradients[self.pattern[layer].name])[0]
        return whole, weights, gradient - (gradient * weights).sum(-1, keepdim=True)

    def _of_queries(self, layer: int, patched: list[Tensor], run: _Run) -> Tensor:
        """`(1, query, head, 1)`: a query has its row of the softmax to itself."""
        _, _, worth = self._before(layer, run)
        change = (_double(patched[layer])[0].softmax(-1) * worth).sum(-1)
        return change.T[None, :, :, None]

    def _of_keys(self, layer: int, patched: list[Tensor], run: _Run) -> Tensor:
        """`(1, cell, key-value head, 1)`: a key, or several at once, changes every row that sees it.

        In a row the other keys share what the new weights leave: each new weight is relative to the old denominator, and all
        are divided by their sum. What the others hold is summed from both sides, because 1 less a weight near 1 is rounding.
        """
        whole, weights, worth = self._before(layer, run)
        new = _double(patched[layer])[0] - whole
        others, others_worth = _without(weights), _without(weights * worth)
        changes = []
        for a, b in self._covered(new.shape[-1]):
            most = new[..., a:b].amax(-1).clamp_min(0)  # divided out, so that nothing overflows
            grown, kept = (new[..., a:b] - most[..., None]).exp(), (-most).exp()
            numerator = (grown * worth[..., a:b]).sum(-1) + kept * others_worth(a, b)
            denominator = (grown.sum(-1) + kept * others(a, b)).clamp_min(_LEAST)
            changes.append((numerator / denominator).sum(-1))
        change = torch.stack(changes)  # (cell, head)
        return change.unflatten(1, (self.k[layer].heads or change.shape[1], -1)).sum(-1)[None, ..., None]

    def _covered(self, keys: int) -> Sequence[tuple[int, int]]:
        """The keys that each cell covers, `(first, end)`."""
        if not {"pos", "dest_pos"} & {*self.cells.axes}:
            return [(0, keys)]
        return self.cells.spans or [(i, i + 1) for i in range(keys)]


def _without(x: Tensor) -> Callable[[int, int], Tensor]:
    """Sums over the last axis that leave a span out."""
    zero = x.new_zeros((*x.shape[:-1], 1))
    before = torch.cat([zero, x.cumsum(-1)], dim=-1)
    after = torch.cat([x.flip(-1).cumsum(-1).flip(-1), zero], dim=-1)
    return lambda a, b: before[..., a] + after[..., b]


# Against the exact sweep ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Agreement(Shows):
    """How well an attribution tells what exact patching finds. Intervals are 95 %, bootstrapped over cells.

    Attributes:
        n: Cells that were compared.
        pearson: Correlation of the values.
        pearson_interval: Its interval.
        spearman: Correlation of the ranks.
        spearman_interval: Its interval.
        top: How many of the largest cells by magnitude are looked at.
        found: Share of the exact ones among the attribution's.
    """

    n: int
    pearson: float
    pearson_interval: tuple[float, float]
    spearman: float
    spearman_interval: tuple[float, float]
    top: int
    found: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def agreement(
    attribution: Tensor, exact: Tensor, *, unpatched: float = 0.0, top: int = 10, seed: int = 0
) -> Agreement:
    """Compare an attribution with the exact sweep of the same cells.

    Neighbouring cells resemble each other, so the intervals are narrower than those of new inputs would be.

    Args:
        attribution: Estimated changes.
        exact: Metric of the patched runs, of the same shape; cells that are NaN were not run and are left out.
        unpatched: Metric of the corrupted run, which the exact values are changes from; 0 for a `recovery`.
        top: Largest cells by magnitude to look for.
        seed: Of the bootstrap.

    Raises:
        OptionError: The shapes differ, fewer than three cells were run, or all have the same value.
    """
    if attribution.shape != exact.shape:
        raise OptionError(
            f"The attribution has shape {tuple(attribution.shape)}, the sweep {tuple(exact.shape)}.",
            "Compare sweeps over the same cells.",
        )
    there = ~exact.isnan()
    a, b = attribution[there].double().numpy(), exact[there].double().numpy() - unpatched
    if len(a) < 3 or a.std() == 0 or b.std() == 0:
        raise OptionError(
            f"{len(a)} cells, or cells of one value, cannot be correlated.", "Compare more cells."
        )
    k = min(top, len(a))
    largest = [set(np.argsort(-np.abs(x), kind="stable")[:k].tolist()) for x in (a, b)]
    return Agreement(
        len(a), _pearson(a, b), bootstrap(_pearson, a, b, seed=seed), _spearman(a, b), bootstrap(_spearman, a, b, seed=seed),
        k, len(largest[0] & largest[1]) / k,
    )  # fmt: skip


def _pearson(a: np.ndarray, b: np.ndarray) -> float:
    with np.errstate(all="ignore"):  # a draw may hold one cell alone; the bootstrap leaves it out
        return float(np.corrcoef(a, b)[0, 1])


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    from scipy.stats import rankdata

    return _pearson(rankdata(a), rankdata(b))


@dataclass(frozen=True, eq=False)
class Screen:
    """Attribution for all cells, exact patching for some.

    Attributes:
        attribution: Estimated change of every cell.
        exact: Exact change of the cells that were run, NaN elsewhere.
        top: The cells of largest attribution, as indices into the result, by the magnitude of their exact change.
        others: Cells drawn from the rest: what they do exactly tells what the attribution overlooks.
        overlooked: How many of the others have a larger exact change than the median of the top.
        agreement: Over the cells that were run.
    """

    attribution: Tensor
    exact: Tensor
    top: list[tuple[int, ...]]
    others: list[tuple[int, ...]]
    overlooked: int
    agreement: Agreement


def screen(
    model: Model,
    clean: Any,
    corrupt: Any,
    metric: Metric | MetricFunction,
    activation_name: str,
    index_axis_names: Sequence[Axis],
    *,
    top: int = 20,
    others: int = 20,
    part: str | None = None,
    spans: Sequence[tuple[int, int]] | None = None,
    batch: int | None = None,
    seed: int = 0,
) -> Screen:
    """Estimate every cell, and run exactly those that the estimate puts on top, with a sample of the rest beside them.

    Args:
        model: The model.
        clean: The clean input, or a cache of it.
        corrupt: The corrupted input, or a scene.
        metric: A differentiable metric.
        activation_name: Short name of the activation.
        index_axis_names: Axes of the result, see `Cells`.
        top: Cells of largest attribution to run.
        others: Cells to draw from the rest and run, too.
        part: A stack, an attention, or both joined by a dot.
        spans: Positions or frames that a cell covers together.
        batch: Cells at once; None: `model.batch`.
        seed: Of the draw and the bootstrap.

    Raises:
        OptionError: As in `attribution_patch` and `agreement`.
        PointError: As in `attribution_patch`.
    """
    cells = Cells(activation_name, tuple(index_axis_names), part, None if spans is None else tuple(spans))
    scene = scene_of(model, corrupt)
    cache = _cache_of(model, clean, [point.name for point in cells.points(model)])
    attribution = attribution_patches(model, cache, scene, metric, [cells])[0]
    best, drawn = _chosen(attribution, top, others, seed)
    exact = patch_cells(scene, cache, metric, cells, chosen=[*best, *drawn], batch=batch)
    exact -= float(Metric.of(metric).score(scene))
    size = exact.flatten().abs()
    best.sort(key=lambda i: -float(size[i]))
    overlooked = int((size[drawn] > size[best].median()).sum())
    where = [
        [tuple(map(int, np.unravel_index(i, exact.shape))) for i in cells_of] for cells_of in (best, drawn)
    ]
    agreed = agreement(attribution, exact, top=max(top // 2, 1), seed=seed)
    return Screen(attribution, exact, where[0], where[1], overlooked, agreed)


def _chosen(attribution: Tensor, top: int, others: int, seed: int) -> tuple[list[int], list[int]]:
    """Numbers of the cells of largest attribution, and of some drawn from the rest."""
    ranked = attribution.flatten().abs().argsort(descending=True).tolist()
    rest = ranked[top:]
    drawn = np.random.default_rng(seed).choice(rest, min(others, len(rest)), replace=False) if rest else []
    return ranked[:top], [int(i) for i in drawn]
