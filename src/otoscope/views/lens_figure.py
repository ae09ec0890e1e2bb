"""The logit lens as a heat map: tokens from left to right, layers from bottom to top."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from otoscope.errors import OptionError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from otoscope.lenses.logit_lens import LensReading

_PANEL = 16  # tokens side by side
_MOST = 160  # tokens drawn at all
_LONGEST = 9  # characters of a cell


def lens_heat_map(
    reading: LensReading, ids: Sequence[int], texts: Mapping[int, str], title: str = ""
) -> Figure:
    """Draw the lens: each cell names the layer's most probable token, its colour is the written token's probability.

    A frame marks the saturation layer. At most 160 tokens are drawn, and the title says so.

    Args:
        reading: The lens.
        ids: Written tokens.
        texts: Text of every token that occurs.
        title: Above the picture.

    Raises:
        OptionError: There is no token.
    """
    from matplotlib.figure import Figure

    if not len(ids):
        raise OptionError("No token was written, so there is nothing to draw.", "Leave --figure out.")
    layers, shown = len(reading.p_final), min(len(ids), _MOST)
    panels = [range(first, min(first + _PANEL, shown)) for first in range(0, shown, _PANEL)]
    size = (1.4 + 0.82 * min(shown, _PANEL), 0.8 + len(panels) * (0.75 + 0.27 * layers))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
    for ax, panel in zip(axes, panels, strict=True):
        _panel(ax, reading, ids, texts, panel)
    figure.colorbar(
        axes[0].images[0], ax=axes, label="probability of the written token", fraction=0.03, pad=0.01
    )
    cut = f" (the first {shown} of {len(ids)} tokens)" if shown < len(ids) else ""
    figure.suptitle(_plain(title, 120) + cut, fontsize=10, parse_math=False)
    return figure


def _panel(
    ax: Axes, reading: LensReading, ids: Sequence[int], texts: Mapping[int, str], panel: range
) -> None:
    layers = len(reading.p_final)
    p = reading.p_final[:, panel.start : panel.stop].double().numpy()
    ax.imshow(
        p, cmap="cividis", vmin=0, vmax=1, aspect="auto", origin="lower"
    )  # made for colour-blind readers, too
    for x, token in enumerate(panel):
        for layer in range(layers):
            colour = "black" if p[layer, x] > 0.45 else "white"
            text = _plain(texts[int(reading.top_ids[layer, token, 0])], _LONGEST)
            ax.text(x, layer, text, ha="center", va="center", color=colour, fontsize=7, parse_math=False)
        saturation = reading.saturation[token]
        if saturation is not None:
            ax.plot(*_frame(x, saturation), color="#d55e00", linewidth=1.6)
    ax.set_xlim(-0.5, _PANEL - 0.5 if len(ids) > _PANEL else len(ids) - 0.5)
    ax.set_xticks(range(len(panel)))
    labels = [f"{_plain(texts[ids[token]], _LONGEST)}\n{token}" for token in panel]
    ax.set_xticklabels(labels, fontsize=8, parse_math=False)
    step = max(1, layers // 16)
    ax.set_yticks(range(0, layers, step))
    ax.set_ylabel("layer", fontsize=8)
    ax.tick_params(length=0, labelsize=8)
    for side in ax.spines.values():
        side.set_visible(False)


def _frame(x: int, y: int) -> tuple[list[float], list[float]]:
    low, high = -0.47, 0.47
    return [x + low, x + high, x + high, x + low, x + low], [y + low, y + low, y + high, y + high, y + low]


def _plain(text: str, longest: int) -> str:
    """Text on one line that steers nothing: controls become a middle dot, a begin of a word keeps its blank as one."""
    shown = "".join(
        "·" if unicodedata.category(c)[0] == "C" or (c.isspace() and c != " ") else c for c in text
    )
    shown = f"·{shown[1:]}" if shown.startswith(" ") else shown
    return shown if len(shown) <= longest else f"{shown[: longest - 1]}…"
