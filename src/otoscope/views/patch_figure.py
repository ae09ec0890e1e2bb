"""A sweep as grids: one a part, layers from bottom to top, heads from left to right, with the random baseline marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from otoscope.views.figures import plain_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARK = "#d55e00"


def patch_figure(result: Mapping[str, Any]) -> Figure:
    """Draw a sweep.

    The colour is the share of items that the component restores less what a random other component of its kind does, so that
    white means "no better than any"; the number is the count. A frame marks a component whose corrected p-value is at most 0.05.
    Of `--outcome token` the colour is the change of the token's log-probability (or logit difference), and a frame marks changes
    larger than the random direction's.

    Args:
        result: `PatchResult.to_dict()` or `TokenResult.to_dict()`.
    """
    from matplotlib.figure import Figure

    effects: Sequence[Mapping[str, Any]] = result["effects"]
    parts = list(dict.fromkeys(_part(e) for e in effects))
    tokens = result["options"]["outcome"] == "token"
    values = [_value(e, tokens) for e in effects]
    limit = max(1e-9, *(abs(v) for v in values)) if tokens else 1.0
    width = sum(max(2, _columns(effects, part)) for part in parts)
    layers = 1 + max(_layer(e) for e in effects)
    figure = Figure(figsize=(2.2 + 0.62 * width, 1.9 + 0.42 * layers), layout="constrained")
    ratios = [max(2, _columns(effects, part)) for part in parts]
    axes = figure.subplots(1, len(parts), squeeze=False, sharey=True, gridspec_kw={"width_ratios": ratios})[0]
    for ax, part in zip(axes, parts, strict=True):
        _grid(ax, part, [e for e in effects if _part(e) == part], limit, tokens)
    axes[0].set_ylabel("layer (from 0)")
    label = (
        f"change of {result['measure'].replace('_', ' ')}"
        if tokens
        else "share restored, less random components'"
    )
    figure.colorbar(axes[0].images[0], ax=list(axes), label=label, fraction=0.05, pad=0.02)
    figure.suptitle(plain_text(_title(result, tokens)), fontsize=10)
    framed = (
        "larger than 95 % of its kind and than a random direction" if tokens else "corrected p at most 0.05"
    )
    figure.supxlabel(f"number: {'change' if tokens else 'recordings restored'}; frame: {framed}", fontsize=8)
    return figure


def _title(result: Mapping[str, Any], tokens: bool) -> str:
    what = f"{result['options']['reference']['kind']} patches, {result['model']['name']}"
    if tokens:
        return f"{what}: {result['n_outcome']} token{'' if result['n_outcome'] == 1 else 's'}"
    return f"{what}: {result['options']['outcome']}, {result['n_outcome']} of {result['n_items']} recordings"


def _grid(ax: Axes, part: str, effects: Sequence[Mapping[str, Any]], limit: float, tokens: bool) -> None:
    layers = 1 + max(_layer(e) for e in effects)
    grid = np.full((layers, _columns(effects, part)), np.nan)
    for e in effects:
        grid[_layer(e), e["head"] or 0] = _value(e, tokens)
    ax.imshow(grid, cmap="PuOr_r", vmin=-limit, vmax=limit, origin="lower", aspect="auto")
    for e in effects:
        x, y, value = e["head"] or 0, _layer(e), _value(e, tokens)
        colour = "white" if abs(value) > 0.7 * limit else "black"
        text = f"{value:+.1f}" if tokens else str(e["restored"])
        ax.text(x, y, text, ha="center", va="center", fontsize=8, color=colour)
        if _stands_out(e, tokens):
            ax.plot(*_frame(x, y), color=_MARK, linewidth=1.8)
    ax.set_title(part, fontsize=9)
    heads = effects[0]["head"] is not None
    ax.set_xticks(range(grid.shape[1]) if heads else [])
    ax.set_xlabel("head (from 0)" if heads else "")
    ax.set_yticks(range(0, layers, max(1, layers // 16)))
    ax.tick_params(length=0, labelsize=8)
    for side in ax.spines.values():
        side.set_visible(False)


def _value(e: Mapping[str, Any], tokens: bool) -> float:
    if tokens:
        return float(e["change"])
    return (e["restored"] / e["n"] if e["n"] else 0.0) - (e["restored_random_rate"] or 0.0)


def _stands_out(e: Mapping[str, Any], tokens: bool) -> bool:
    if tokens:
        return e["p_value"] <= 0.05 and abs(e["change"]) > abs(e["direction_change"])
    return e["p_adjusted"] is not None and e["p_adjusted"] <= 0.05


def _part(e: Mapping[str, Any]) -> str:
    prefix, _, part = e["component"].rpartition(".")
    return f"{prefix.rpartition('.')[0].removesuffix('_blocks').removesuffix('.blocks')} {part}"


def _layer(e: Mapping[str, Any]) -> int:
    return int(e["component"].rpartition(".")[0].rpartition(".")[2])


def _columns(effects: Sequence[Mapping[str, Any]], part: str) -> int:
    return 1 + max((e["head"] or 0) for e in effects if _part(e) == part)


def _frame(x: int, y: int) -> tuple[list[float], list[float]]:
    low, high = -0.46, 0.46
    return [x + low, x + high, x + high, x + low, x + low], [y + low, y + low, y + high, y + high, y + low]
