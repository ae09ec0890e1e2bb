"""A sweep as grids: one a part, layers from bottom to top, heads from left to right, less their control."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from otoscope.figures.contents import sweep_contents
from otoscope.figures.style import LARGE, SMALL, Palette, drawn, layer_ticks, plain_text
from otoscope.wording import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


_LESS = {"random components": "less random components'", "other cells": "less the other cells' mean"}


@drawn
def sweep_figure(colours: Palette, doc: Mapping[str, Any], measure: int = 0) -> Figure:
    """Draw one measure of a document of a sweep.

    The colour is the value less its control, so that the ground means "no better than any"; the number is the count, or the
    value. A frame and bold type mark what stands out. A cell that was not patched stays empty.

    Args:
        colours: The palette.
        doc: `SweepDoc.model_dump()`, or its `title`, `measures`, `grids` and `cells`.
        measure: Which measure.
    """
    from matplotlib.figure import Figure

    grids, told = doc["grids"], doc["measures"][measure]
    ratios = [max(2, len(grid["columns"])) for grid in grids]
    size = (1.9 + 0.5 * sum(ratios), 1.6 + 0.34 * max(len(grid["rows"]) for grid in grids))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(1, len(grids), squeeze=False, gridspec_kw={"width_ratios": ratios})[0]
    less = [_less(cell["values"][measure]) for cell in doc["cells"]]
    limit = 1.0 if told["unit"] == "share" else max(1e-9, *(abs(one) for one in less if one is not None), 0)
    for g, (ax, grid) in enumerate(zip(axes, grids, strict=True)):
        own = [(cell, value) for cell, value in zip(doc["cells"], less, strict=True) if cell["grid"] == g]
        _grid(ax, colours, grid, own, limit, measure)
    axes[0].set_ylabel("layer (from 0)")
    controlled = any(cell["values"][measure]["random"] is not None for cell in doc["cells"])
    label = plain_text(told["title"]) + (f", {_LESS[told['control']]}" if controlled else "")
    bar = figure.colorbar(axes[0].images[0], ax=list(axes), label=label, fraction=0.05, pad=0.02)
    bar.outline.set_visible(False)  # type: ignore[attr-defined]
    figure.suptitle(plain_text(doc["title"]), fontsize=LARGE)
    figure.supxlabel(f"frame: {plain_text(told['stands_out'])}", fontsize=SMALL)
    return figure


def patch_figure(result: Mapping[str, Any], **options: Any) -> Figure:
    """Draw a sweep; see `sweep_figure`.

    Args:
        result: `PatchResult.to_dict()` or `TokenResult.to_dict()`.
        options: `path`, `dark` and `measure`.
    """
    return sweep_figure({"title": sweep_title(result), **sweep_contents(result)}, **options)


def sweep_title(result: Mapping[str, Any]) -> str:
    """What was patched in what, and what was counted."""
    what = f"{result['options']['reference']['kind']} patches, {result['model']['name']}"
    if result["options"]["outcome"] == "token":
        return f"{what}: {counted(result['n_outcome'], 'token')}"
    return f"{what}: {result['options']['outcome']}, {result['n_outcome']} of {result['n_items']} recordings"


def _less(value: Mapping[str, Any]) -> float | None:
    return None if value["value"] is None else value["value"] - (value["random"] or 0.0)


def _grid(
    ax: Axes,
    colours: Palette,
    grid: Mapping[str, Any],
    cells: Sequence[tuple[Mapping[str, Any], float | None]],
    limit: float,
    measure: int,
) -> None:
    rows, columns = len(grid["rows"]), len(grid["columns"])
    shares = np.full((rows, columns), np.nan)
    cells = [(cell, less) for cell, less in cells if less is not None]
    for cell, less in cells:
        shares[cell["row"], cell["column"]] = less
    image = ax.imshow(shares, cmap=colours.changes(), vmin=-limit, vmax=limit, origin="lower", aspect="auto")
    for cell, less in cells:
        value = cell["values"][measure]
        text = f"{value['value']:+.1f}" if value["count"] is None else str(value["count"])
        ink = colours.on(image.to_rgba(np.array([less]))[0])
        x, y = cell["column"], cell["row"]
        weight = "bold" if value["stands_out"] else "normal"
        ax.text(x, y, text, ha="center", va="center", fontsize=SMALL, color=ink, fontweight=weight)
        if value["stands_out"]:
            ax.plot(*_frame(x, y), color=colours.mark, linewidth=1.6)
    ax.set_title(plain_text(grid["title"], 40))
    if grid["columns_name"]:
        layer_ticks(ax, list(range(columns)))
        ax.set_xlabel(f"{plain_text(grid['columns_name'])} (from 0)")
    else:
        ax.set_xticks([])
    ax.set_yticks(range(0, rows, max(1, rows // 16)))
    ax.tick_params(length=0)
    for side in ax.spines.values():
        side.set_visible(False)


def _frame(x: int, y: int) -> tuple[list[float], list[float]]:
    low, high = -0.46, 0.46
    return [x + low, x + high, x + high, x + low, x + low], [y + low, y + low, y + high, y + high, y + low]
