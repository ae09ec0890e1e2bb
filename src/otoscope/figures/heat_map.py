"""The logit lens as a heat map: tokens from left to right, layers from bottom to top."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from otoscope.errors import OptionError
from otoscope.figures.style import LARGE, SMALL, Palette, drawn, plain_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PANEL = 16  # tokens side by side
_MOST = 160  # tokens drawn at all
_LONGEST = 9  # characters of a cell


@drawn
def lens_figure(colours: Palette, tokens: Sequence[Mapping[str, Any]], title: str = "") -> Figure:
    """Draw the lens: each cell names the layer's most probable token, its colour is the written token's probability.

    A frame marks the saturation layer. At most 160 tokens are drawn, and the title says so.

    Args:
        colours: The palette.
        tokens: As in `Lens.to_dict()["tokens"]`: `text`, `saturation_layer` and `layers` with `top` and `p_final`.
        title: Above the picture.

    Raises:
        OptionError: There is no token.
    """
    from matplotlib.figure import Figure

    if not tokens:
        raise OptionError("No token was written, so there is nothing to draw.", "Leave --figure out.")
    layers, shown = len(tokens[0]["layers"]), min(len(tokens), _MOST)
    panels = [range(first, min(first + _PANEL, shown)) for first in range(0, shown, _PANEL)]
    size = (1.2 + 0.62 * min(shown, _PANEL), 0.7 + len(panels) * (0.6 + 0.22 * layers))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
    for ax, panel in zip(axes, panels, strict=True):
        _panel(ax, colours, tokens, panel, len(tokens) > _PANEL)
    label = "probability of the written token"
    bar = figure.colorbar(axes[0].images[0], ax=axes, label=label, fraction=0.03, pad=0.01)
    bar.outline.set_visible(False)  # type: ignore[attr-defined]
    cut = f" (the first {shown} of {len(tokens)} tokens)" if shown < len(tokens) else ""
    figure.suptitle(plain_text(title) + cut, fontsize=LARGE)
    return figure


def _panel(ax: Axes, colours: Palette, tokens: Sequence[Mapping[str, Any]], panel: range, full: bool) -> None:
    read = [tokens[i]["layers"] for i in panel]
    p = np.array([[layer["p_final"] for layer in one] for one in read]).T
    image = ax.imshow(p, cmap=colours.amounts(), vmin=0, vmax=1, aspect="auto", origin="lower")
    for x, i in enumerate(panel):
        for y, layer in enumerate(read[x]):
            text = plain_text(layer["top"][0]["text"], _LONGEST) if layer["top"] else ""
            ink = colours.on(image.cmap(p[y, x]))
            ax.text(x, y, text, ha="center", va="center", color=ink, fontsize=SMALL - 1)
        saturation = tokens[i]["saturation_layer"]
        if saturation is not None:
            ax.plot(*_frame(x, saturation), color=colours.series[1], linewidth=1.4)
    ax.set_xlim(-0.5, _PANEL - 0.5 if full else len(tokens) - 0.5)
    ax.set_xticks(range(len(panel)))
    ax.set_xticklabels([f"{plain_text(tokens[i]['text'], _LONGEST)}\n{i}" for i in panel])
    ax.set_yticks(range(0, len(p), max(1, len(p) // 16)))
    ax.set_ylabel("layer")
    ax.tick_params(length=0)
    for side in ax.spines.values():
        side.set_visible(False)


def _frame(x: int, y: int) -> tuple[list[float], list[float]]:
    low, high = -0.47, 0.47
    return [x + low, x + high, x + high, x + low, x + low], [y + low, y + low, y + high, y + high, y + low]
