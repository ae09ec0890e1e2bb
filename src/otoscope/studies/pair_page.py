"""Patches of one clean and one corrupted run as a document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from otoscope.documents.sweep import SweepDoc
from otoscope.errors import OptionError
from otoscope.studies.patch_page import SEVERAL
from otoscope.versions import versions

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from otoscope.models.base import Model


def pair_doc(
    model: Model,
    sweeps: Mapping[str, ArrayLike],
    axes: Sequence[str],
    *,
    title: str,
    unpatched: float = 0.0,
    places: Sequence[str] | None = None,
) -> SweepDoc:
    """Exact and attribution patches of one pair of runs as a document.

    Args:
        model: The model.
        sweeps: Results of the same cells by name, such as `{"exact": ..., "attribution": ...}`; NaN where a cell was not patched.
            `attribution_patch` tells changes, an exact sweep the metric itself.
        axes: Names of the axes, as in the sweep; `layer` first, then one or two more. Of two more each head has its own grid.
        title: What the pair is.
        unpatched: The metric of the corrupted run, which exact sweeps are told less of.
        places: What the positions are called, such as tokens; None: their numbers.

    Raises:
        OptionError: The axes do not fit, or nothing was patched.
    """
    arrays = {name: np.asarray(values, dtype=float) for name, values in sweeps.items()}
    shapes = {array.shape for array in arrays.values()}
    if (
        len(shapes) != 1
        or len(next(iter(shapes))) != len(axes)
        or axes[0] != "layer"
        or len(axes) not in (2, 3)
    ):
        raise OptionError(
            "These results do not make one grid.",
            "Give sweeps of the same cells over layer and one or two more axes.",
        )
    measures = list(arrays)
    stacked = np.stack(
        [array if name == "attribution" else array - unpatched for name, array in arrays.items()]
    )
    stacked = stacked[..., None] if len(axes) == 2 else stacked
    if axes[-1] != "head_index" and len(axes) == 3:
        stacked, axes = np.swapaxes(stacked, 2, 3), (axes[0], axes[2], axes[1])
    patched = np.asarray(np.isfinite(stacked).any(axis=0))
    if not patched.any():
        raise OptionError("No cell was patched.", "Give at least one sweep that is not all NaN.")
    grids, cells = _pair_grids(stacked, patched, axes, places)
    first = int(np.isfinite(stacked).any(axis=(1, 2, 3)).argmax())  # the first sweep that has values
    strongest = max(cells, key=lambda cell: abs(cell["values"][first]["value"] or 0.0))
    value = strongest["values"][first]["value"]
    return SweepDoc.model_validate(
        {
            "title": title,
            "model": model.origin.name,
            "headline": f"The strongest cell ({measures[first]}) is {strongest['label']}: {value:+.2f}.",
            "about": f"One pair of runs; {int(patched.sum())} cells over {' by '.join(axes)}, each patched alone.",
            "items_name": "pair",
            "measures": [
                {"name": name, "title": f"{name}: change of the metric", "unit": "metric", "control": "other cells",
                 "random": "the mean of all other cells of this sweep",
                 "stands_out": "its change is among the largest 5 % of this sweep"}
                for name in measures
            ],
            "grids": grids,
            "cells": cells,
            "settings": {"axes": ", ".join(axes), "unpatched": unpatched},
            "versions": versions(),
            "notes": [
                "One pair tells of that pair. Intervals need many.",
                "Attribution estimates an effect to first order; where it and the exact patch differ, the exact one holds.",
            ],
        }
    )  # fmt: skip


def _pair_grids(
    stacked: np.ndarray, patched: np.ndarray, axes: Sequence[str], places: Sequence[str] | None
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Grids, one a last index, and cells; `stacked` is `(measure, layer, column, grid)`."""
    column = "head" if axes[1] == "head_index" else "position"
    names = [str(i) for i in range(stacked.shape[2])]
    if places is not None and column == "position":
        names = [f"{i} {place}" for i, place in enumerate(places)][: len(names)]
    several = len(axes) == 3
    grids = [
        {"title": f"head {g}" if several else f"layer by {column}", "rows": [str(i) for i in range(stacked.shape[1])],
         "columns_name": column, "columns": names}
        for g in range(stacked.shape[3])
    ]  # fmt: skip
    sizes = [np.abs(of[np.isfinite(of)]) for of in stacked]
    beyond = [np.quantile(size, 0.95) if len(size) >= SEVERAL else np.inf for size in sizes]
    cells = []
    for layer, x, g in zip(*np.nonzero(patched), strict=True):
        label = f"layer {layer}, {column} {names[x]}" + (f", head {g}" if several else "")
        values = [
            _pair_value(of, float(of[layer, x, g]), float(limit))
            for of, limit in zip(stacked, beyond, strict=True)
        ]
        cells.append(
            {
                "grid": int(g),
                "row": int(layer),
                "column": int(x),
                "component": label,
                "label": label,
                "values": values,
            }
        )
    return grids, cells


def _pair_value(of: np.ndarray, value: float, limit: float) -> dict[str, Any]:
    if not np.isfinite(value):
        return {"value": None, "n": 0, "stands_out": False}
    count = int(np.isfinite(of).sum())
    others = None if count < 2 else float((np.nansum(of) - value) / (count - 1))
    return {"value": value, "n": 1, "random": others, "stands_out": abs(value) > limit}
