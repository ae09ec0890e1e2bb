"""Activation patching with TransformerLens' names: clean activations, one cell at a time, in the corrupted run.

Every cell is a row of a batch, and a batch begins at its first edited layer. Results hold the metric of the patched run, float64
on the CPU; by default the direction is denoising: what the clean run held is written into the corrupted run, and a cell that
carries the answer raises the metric toward the clean run's (Meng et al. 2022, arXiv 2202.05262; Heimersheim and Nanda 2024, arXiv
2404.15255).

| function | axes of the result |
|---|---|
| `get_act_patch_resid_pre`, `_resid_mid`, `_attn_out`, `_mlp_out` | layer, pos |
| `get_act_patch_attn_head_out_by_pos`, `_q_by_pos`, `_k_by_pos`, `_v_by_pos` | layer, pos, head_index |
| `get_act_patch_attn_head_out_all_pos`, `_q_all_pos`, `_k_all_pos`, `_v_all_pos` | layer, head_index |
| `get_act_patch_attn_head_pattern_by_pos` | layer, head_index, dest_pos |
| `get_act_patch_attn_head_pattern_all_pos` | layer, head_index |
| `get_act_patch_attn_head_pattern_dest_src_pos` | layer, head_index, dest_pos, src_pos |
| `get_act_patch_attn_head_all_pos_every` | out/q/k/v/pattern, layer, head_index |
| `get_act_patch_attn_head_by_pos_every` | out/q/k/v/pattern, layer, pos, head_index |
| `get_act_patch_block_every` | resid_pre/attn_out/mlp_out, layer, pos |

All take `(model, corrupted_tokens, clean_cache, patching_metric, *, part=None, spans=None, batch=None)`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from otoscope.activations import ActivationCache, Edit, HookPoint
from otoscope.errors import OptionError
from otoscope.models.decoding import batches
from otoscope.patching.cells import Axis, Cells, Index, clean_activation
from otoscope.patching.metrics import Metric, MetricFunction
from otoscope.patching.scene import Scene
from otoscope.progress import track

if TYPE_CHECKING:
    from torch import Tensor

    from otoscope.models.base import Model

PatchSetter = Callable[[HookPoint, Index, "Tensor"], Edit]
"""`(point, index, clean activation) -> Edit`. TransformerLens' setters change a tensor; here they say what is to be
changed, because many cells run side by side as rows of one batch, and the rows are numbered later. `index` tells what the cell
covers along each axis; the clean activation is the whole of that point, `(1, ...)`."""


def clean_patch_setter(point: HookPoint, index: Index, clean: Tensor) -> Edit:
    """Write the clean activation into the cell."""
    return Edit.replace(
        point.name,
        clean,
        heads=index.get("head_index"),
        positions=index.get("pos", index.get("dest_pos")),
        keys=index.get("src_pos"),
    )


def generic_activation_patch(
    model: Model,
    corrupted_tokens: Any,
    clean_cache: ActivationCache,
    patching_metric: Metric | MetricFunction,
    patch_setter: PatchSetter,
    activation_name: str,
    index_axis_names: Sequence[Axis],
    *,
    part: str | None = None,
    spans: Sequence[tuple[int, int]] | None = None,
    batch: int | None = None,
) -> Tensor:
    """Patch every cell of a sweep and score each patched run.

    Args:
        model: The model.
        corrupted_tokens: The corrupted input: what `Scene.of` takes, or a scene, so that several sweeps share its pass.
        clean_cache: Activations of the clean run, of one row; where it is of another length, aligned by `aligned_cache`.
        patching_metric: A `Metric`, or a function of one row's logits `(1, pos, vocab)` as in TransformerLens.
        patch_setter: What is done to a cell, such as `clean_patch_setter`.
        activation_name: Short name, such as `resid_pre`, `z` or `pattern`.
        index_axis_names: Axes of the result, see `Cells`.
        part: A stack (`encoder`), an attention (`cross_attn`), or both joined by a dot.
        spans: Positions or frames `(first, end)` that a cell covers together, `end` excluded; None: one by one.
        batch: Cells at once; None: `model.batch`.

    Returns:
        The metric of each patched run, one axis an index axis, float64 on the CPU.

    Raises:
        OptionError: The axes, part or spans do not fit the model, the runs differ in length, or the metric gives no number a row.
        PointError: The clean cache lacks a point.
        EditError: A setter's edit does not fit its point.
    """
    cells = Cells(activation_name, tuple(index_axis_names), part, None if spans is None else tuple(spans))
    scene = scene_of(model, corrupted_tokens)
    return patch_cells(scene, clean_cache, patching_metric, cells, patch_setter, batch=batch)


def scene_of(model: Model, inputs: Any) -> Scene:
    """A scene of inputs; a scene of this model is taken as it is.

    Raises:
        OptionError: It is a scene of another model, or has more than one row.
    """
    if not isinstance(inputs, Scene):
        return Scene.of(model, inputs)
    if inputs.model is not model:
        raise OptionError("The scene is of another model.", "Make it with Scene.of(model, inputs).")
    return inputs


def patch_cells(
    scene: Scene,
    clean_cache: ActivationCache,
    metric: Metric | MetricFunction,
    cells: Cells,
    setter: PatchSetter = clean_patch_setter,
    *,
    chosen: Sequence[int] | None = None,
    batch: int | None = None,
) -> Tensor:
    """Patch the cells of a sweep, or some of them; see `generic_activation_patch`.

    Args:
        scene: The corrupted run.
        clean_cache: Activations of the clean run.
        metric: The metric.
        cells: The cells.
        setter: What is done to a cell.
        chosen: Numbers of the cells to patch, as in the flattened result; None: all.
        batch: Cells at once; None: `model.batch`.

    Returns:
        The metric of each patched run, NaN where a cell was not chosen.

    Raises:
        OptionError: As in `generic_activation_patch`.
        PointError: The clean cache lacks a point.
        EditError: A setter's edit does not fit its point.
    """
    points, metric = cells.points(scene.model), Metric.of(metric)
    clean = [clean_activation(clean_cache, point) for point in points]
    _check_lengths(scene, points[0], clean[0])
    along = cells.along(points, clean[0])
    shape = [len(entries) for entries in along]
    where = np.stack(
        np.unravel_index(range(math.prod(shape)) if chosen is None else list(chosen), shape), axis=1
    )
    chunks = _chunks(scene, cells, points[0], where, batch or scene.model.batch)
    out = torch.full(shape, torch.nan, dtype=torch.float64)
    with track(f"Patching {cells.activation_name}", len(where), "cells") as task:
        for chunk in chunks:
            indices = [_index(cells, along, cell) for cell in chunk]
            layers = [index["layer"][0] for index in indices]
            edits = [[setter(points[i], index, clean[i])] for i, index in zip(layers, indices, strict=True)]
            out[tuple(np.stack(chunk, axis=1))] = metric.score(scene, edits).double().cpu()
            task.advance(len(chunk))
    return out


def _chunks(
    scene: Scene, cells: Cells, point: HookPoint, where: np.ndarray, size: int
) -> Iterator[list[np.ndarray]]:
    """Cells by layer, so that a batch begins as late as its first cell allows.

    Batches of an encoder are of one layer: its rows are so long that filling a batch saves less than starting late.
    """
    layer = cells.axes.index("layer")
    order = where[np.argsort(where[:, layer], kind="stable")]
    if point.stack == scene.text.stack:
        return batches(order, size)
    of_layers = (list(group) for _, group in groupby(order, key=lambda cell: cell[layer]))
    return (chunk for group in of_layers for chunk in batches(group, size))


def _index(cells: Cells, along: list[list[tuple[int, ...]]], cell: np.ndarray) -> Index:
    return {axis: along[i][cell[i]] for i, axis in enumerate(cells.axes)}


def _check_lengths(scene: Scene, point: HookPoint, clean: Tensor) -> None:
    """Refuse clean activations of another length: the same index would be another place."""
    for place, axis in enumerate(point.axes):
        there, here = clean.shape[place], _length(scene, point, axis)
        if here is not None and there != here:
            raise OptionError(
                f"The clean run has {there} entries along {axis} at {point.name}, the corrupted run {here}.",
                "Align the clean cache first: otoscope.patching.aligning.aligned_cache.",
            )


def _length(scene: Scene, point: HookPoint, axis: str) -> int | None:
    """Positions of the corrupted run along an axis; None where it is no axis of positions, or they are known only on the way."""
    if axis not in ("pos", "frame", "key", "source"):
        return None
    if axis != "source" and point.stack == scene.text.stack and axis != "frame":
        return scene.text.residuals[0].shape[1]
    if scene.audio is not None:
        return scene.audio.residuals[0].shape[1]
    return None if scene.text.session is None else scene.text.session.encoded.shape[1]


class Sweep(Protocol):
    """A named sweep; see `generic_activation_patch` for what it takes, gives and raises."""

    def __call__(
        self,
        model: Model,
        corrupted_tokens: Any,
        clean_cache: ActivationCache,
        patching_metric: Metric | MetricFunction,
        *,
        part: str | None = None,
        spans: Sequence[tuple[int, int]] | None = None,
        batch: int | None = None,
    ) -> Tensor:
        """Patch every cell and score each patched run."""
        ...


def _sweep(name: str, activation: str, axes: tuple[Axis, ...], what: str) -> Sweep:
    def sweep(
        model: Model,
        corrupted_tokens: Any,
        clean_cache: ActivationCache,
        patching_metric: Metric | MetricFunction,
        *,
        part: str | None = None,
        spans: Sequence[tuple[int, int]] | None = None,
        batch: int | None = None,
    ) -> Tensor:
        return generic_activation_patch(
            model, corrupted_tokens, clean_cache, patching_metric, clean_patch_setter, activation, axes,
            part=part, spans=spans, batch=batch,
        )  # fmt: skip

    sweep.__name__ = sweep.__qualname__ = name
    takes = "Arguments, result and errors are those of `generic_activation_patch`."
    sweep.__doc__ = f"Patch {what} -> `[{', '.join(axes)}]`.\n\n{takes}"
    return sweep


_BLOCK: tuple[Axis, ...] = ("layer", "pos")
_BY_POS: tuple[Axis, ...] = ("layer", "pos", "head_index")
_ALL_POS: tuple[Axis, ...] = ("layer", "head_index")

get_act_patch_resid_pre = _sweep(
    "get_act_patch_resid_pre", "resid_pre", _BLOCK, "the residual stream before each layer, by position"
)
get_act_patch_resid_mid = _sweep(
    "get_act_patch_resid_mid", "resid_mid", _BLOCK, "the residual stream after each attention, by position"
)
get_act_patch_attn_out = _sweep(
    "get_act_patch_attn_out", "attn_out", _BLOCK, "what each attention adds, by position"
)
get_act_patch_mlp_out = _sweep("get_act_patch_mlp_out", "mlp_out", _BLOCK, "what each MLP adds, by position")
get_act_patch_attn_head_out_by_pos = _sweep(
    "get_act_patch_attn_head_out_by_pos", "z", _BY_POS, "each head's output z, by position"
)
get_act_patch_attn_head_q_by_pos = _sweep(
    "get_act_patch_attn_head_q_by_pos", "q", _BY_POS, "each head's queries, by position"
)
get_act_patch_attn_head_k_by_pos = _sweep(
    "get_act_patch_attn_head_k_by_pos", "k", _BY_POS, "each key-value head's keys, by position"
)
get_act_patch_attn_head_v_by_pos = _sweep(
    "get_act_patch_attn_head_v_by_pos", "v", _BY_POS, "each key-value head's values, by position"
)
get_act_patch_attn_head_out_all_pos = _sweep(
    "get_act_patch_attn_head_out_all_pos", "z", _ALL_POS, "each head's output z, everywhere at once"
)
get_act_patch_attn_head_q_all_pos = _sweep(
    "get_act_patch_attn_head_q_all_pos", "q", _ALL_POS, "each head's queries, everywhere at once"
)
get_act_patch_attn_head_k_all_pos = _sweep(
    "get_act_patch_attn_head_k_all_pos", "k", _ALL_POS, "each key-value head's keys, everywhere at once"
)
get_act_patch_attn_head_v_all_pos = _sweep(
    "get_act_patch_attn_head_v_all_pos", "v", _ALL_POS, "each key-value head's values, everywhere at once"
)
get_act_patch_attn_head_pattern_by_pos = _sweep(
    "get_act_patch_attn_head_pattern_by_pos", "pattern", ("layer", "head_index", "dest_pos"),
    "each head's pattern, one row of it at a time",
)  # fmt: skip
get_act_patch_attn_head_pattern_all_pos = _sweep(
    "get_act_patch_attn_head_pattern_all_pos", "pattern", _ALL_POS, "each head's whole pattern"
)
get_act_patch_attn_head_pattern_dest_src_pos = _sweep(
    "get_act_patch_attn_head_pattern_dest_src_pos", "pattern", ("layer", "head_index", "dest_pos", "src_pos"),
    "each entry of each head's pattern",
)  # fmt: skip


def get_act_patch_attn_head_all_pos_every(
    model: Model,
    corrupted_tokens: Any,
    clean_cache: ActivationCache,
    patching_metric: Metric | MetricFunction,
    *,
    part: str | None = None,
    batch: int | None = None,
) -> Tensor:
    """Patch each head's output, queries, keys, values and pattern everywhere -> `[5, layer, head_index]`.

    With fewer key-value heads than heads, `k` and `v` are NaN from there on (TransformerLens writes 0).
    Arguments, result and errors are those of `generic_activation_patch`.
    """
    scene = scene_of(model, corrupted_tokens)
    sweeps = (
        get_act_patch_attn_head_out_all_pos, get_act_patch_attn_head_q_all_pos, get_act_patch_attn_head_k_all_pos,
        get_act_patch_attn_head_v_all_pos, get_act_patch_attn_head_pattern_all_pos,
    )  # fmt: skip
    return _stacked([f(model, scene, clean_cache, patching_metric, part=part, batch=batch) for f in sweeps])


def get_act_patch_attn_head_by_pos_every(
    model: Model,
    corrupted_tokens: Any,
    clean_cache: ActivationCache,
    patching_metric: Metric | MetricFunction,
    *,
    part: str | None = None,
    spans: Sequence[tuple[int, int]] | None = None,
    batch: int | None = None,
) -> Tensor:
    """Patch each head's output, queries, keys, values and pattern by position -> `[5, layer, pos, head_index]`.

    A pattern's position is the one that attends. With fewer key-value heads than heads, `k` and `v` are NaN from there on.
    Arguments, result and errors are those of `generic_activation_patch`.

    Raises:
        OptionError: It is a cross-attention, whose keys stand at frames and whose queries at tokens.
    """
    if "cross_attn" in (part or ""):
        raise OptionError(
            "The keys of a cross-attention stand at frames and its queries at tokens, so they do not stack.",
            "Patch them apart: get_act_patch_attn_head_k_by_pos and so on.",
        )
    scene = scene_of(model, corrupted_tokens)
    sweeps = (
        get_act_patch_attn_head_out_by_pos, get_act_patch_attn_head_q_by_pos, get_act_patch_attn_head_k_by_pos,
        get_act_patch_attn_head_v_by_pos, get_act_patch_attn_head_pattern_by_pos,
    )  # fmt: skip
    more = {"part": part, "spans": spans, "batch": batch}
    *out, pattern = [f(model, scene, clean_cache, patching_metric, **more) for f in sweeps]
    return _stacked([*out, pattern.transpose(1, 2)])


def _stacked(results: list[Tensor]) -> Tensor:
    heads = max(result.shape[-1] for result in results)
    pad = torch.nn.functional.pad
    return torch.stack([pad(result, (0, heads - result.shape[-1]), value=torch.nan) for result in results])


def get_act_patch_block_every(
    model: Model,
    corrupted_tokens: Any,
    clean_cache: ActivationCache,
    patching_metric: Metric | MetricFunction,
    *,
    part: str | None = None,
    spans: Sequence[tuple[int, int]] | None = None,
    batch: int | None = None,
) -> Tensor:
    """Patch the stream before each layer, what its attention adds and what its MLP adds -> `[3, layer, pos]`.

    Arguments, result and errors are those of `generic_activation_patch`.
    """
    scene = scene_of(model, corrupted_tokens)
    sweeps = (get_act_patch_resid_pre, get_act_patch_attn_out, get_act_patch_mlp_out)
    more = {"part": part, "spans": spans, "batch": batch}
    return torch.stack([f(model, scene, clean_cache, patching_metric, **more) for f in sweeps])
