"""The one style of all figures: sizes of one or two columns, colours that colour-blind people can tell apart, light and dark.

A figure is a function marked with `drawn`: it takes a `Palette` and what it draws, and gets `path` and `dark` from here.
"""

from __future__ import annotations

import unicodedata
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, cast

from otoscope.errors import OutputError
from otoscope.files import atomic_write, require_writable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

FORMATS = ("png", "svg", "pdf")

ONE_COLUMN, TWO_COLUMNS = 3.4, 7.0
"""Widths in inches; pictures of many cells may be wider."""

SMALL, MEDIUM, LARGE = 7, 8, 9
"""Sizes of type in points: cells and ticks, axes and legends, titles."""

Saved = Path | str | None
"""Where a figure is also written; None: nowhere."""


@dataclass(frozen=True)
class Palette:
    """Colours on one ground, as hexadecimal sRGB.

    Attributes:
        ink: Text and what is marked.
        muted: Text that stands back.
        line: Thin lines.
        paper: The ground.
        series: Lines, in order; grey comes last and is for what is least.
        amount: From nothing to much; lightness runs one way.
        change: From less to more, through the ground in the middle.
        mark: Frames.
        types: Of the six types of text.
    """

    ink: str
    muted: str
    line: str
    paper: str
    series: tuple[str, ...]
    amount: tuple[str, ...]
    change: tuple[str, ...]
    mark: str
    types: dict[str, str]

    def amounts(self) -> Colormap:
        """Colours from nothing to much."""
        return _map("amount", self.amount)

    def changes(self) -> Colormap:
        """Colours from less to more, symmetric about the middle."""
        return _map("change", self.change)

    def on(self, colour: Any) -> str:
        """Black or white, whichever reads better on a colour."""
        from matplotlib.colors import to_rgb

        light = luminance(*to_rgb(colour))
        return "#000000" if (light + 0.05) / 0.05 >= 1.05 / (light + 0.05) else "#ffffff"


LIGHT = Palette(
    ink="#1b2430",
    muted="#56616d",
    line="#c9c5bb",
    paper="#ffffff",
    series=("#0072b2", "#cf6a00", "#175c35", "#6d1f73", "#868686"),
    amount=("#f7f8f6", "#b7d9d6", "#6fb3b6", "#2f7f90", "#12506b"),
    change=("#a84800", "#e79a5b", "#ffffff", "#7fb0dd", "#1f5f9f"),
    mark="#1b2430",
    types={
        "empty": "#e6e6e6",
        "punctuation": "#b3b3b3",
        "event": "#f0e442",
        "loop": "#d55e00",
        "ungrounded": "#a8427e",
        "correct": "#0072b2",
    },
)
DARK = Palette(
    ink="#e7e9ea",
    muted="#a3adb6",
    line="#3d4751",
    paper="#11151a",
    series=("#56b4e9", "#ee5a2a", "#b4efc9", "#cf62b5", "#999fa5"),
    amount=("#141a20", "#16414f", "#24707b", "#5fae9f", "#d8e6b8"),
    change=("#f3a15f", "#9c5320", "#11151a", "#255f96", "#7fbdf0"),
    mark="#ffffff",
    types={
        "empty": "#3d4751",
        "punctuation": "#717b85",
        "event": "#f0e442",
        "loop": "#f08a4b",
        "ungrounded": "#e39ac6",
        "correct": "#56b4e9",
    },
)


def palette(dark: bool = False) -> Palette:
    """The colours on a dark or a light ground."""
    return DARK if dark else LIGHT


def luminance(red: float, green: float, blue: float) -> float:
    """Relative luminance of an sRGB colour (WCAG 2), channels 0 to 1."""
    channels = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (red, green, blue)]
    return 0.2126 * channels[0] + 0.7152 * channels[1] + 0.0722 * channels[2]


def _map(name: str, colours: tuple[str, ...]) -> Colormap:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list(name, list(colours))


def _settings(colours: Palette) -> dict[str, Any]:
    """Matplotlib's settings; text stays text in SVG and PDF, so that a paper's own tools can edit it."""
    ink, muted = colours.ink, colours.muted
    return {
        "figure.facecolor": colours.paper, "axes.facecolor": colours.paper, "savefig.facecolor": colours.paper,
        "text.color": ink, "axes.labelcolor": ink, "axes.edgecolor": muted, "xtick.color": muted, "ytick.color": muted,
        "xtick.labelcolor": ink, "ytick.labelcolor": ink, "axes.titlesize": LARGE, "figure.titlesize": LARGE,
        "axes.labelsize": MEDIUM, "xtick.labelsize": SMALL, "ytick.labelsize": SMALL, "legend.fontsize": SMALL,
        "legend.frameon": False, "font.size": MEDIUM, "font.family": "sans-serif", "axes.linewidth": 0.7, "lines.linewidth": 1.4,
        "lines.markersize": 3.5, "axes.spines.top": False, "axes.spines.right": False, "figure.constrained_layout.use": True,
        "svg.fonttype": "none", "pdf.fonttype": 42, "text.parse_math": False,
    }  # fmt: skip


P = ParamSpec("P")


def drawn(make: Callable[Concatenate[Palette, P], Figure]) -> Callable[..., Figure]:
    """Draw in the house's style: the function gets its colours, and callers may give `path` and `dark`."""

    @wraps(make)
    def draw(*args: Any, path: Saved = None, dark: bool = False, **kwargs: Any) -> Figure:
        import matplotlib as mpl

        if path is not None:
            require_figure(path)
        colours = palette(dark)
        with mpl.rc_context(cast("Any", _settings(colours))):
            figure = make(colours, *args, **kwargs)
            for axes in figure.axes:  # ticks are made when they are needed, long after these settings
                axes.tick_params(which="both", color=colours.muted, labelcolor=colours.ink)
        if path is not None:
            save_figure(figure, path)
        return figure

    return draw


def new_figure(width: float = TWO_COLUMNS, height: float = 3.6) -> tuple[Figure, Axes]:
    """A figure with one picture in it, and no window behind it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def require_figure(path: Path | str) -> None:
    """Refuse early a figure that cannot be written.

    Raises:
        OutputError: Its name ends in none of .png, .svg and .pdf, or the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower().removeprefix(".") not in FORMATS:
        raise OutputError(f"{path} is no figure's name.", "Let it end in .png, .svg or .pdf.")
    require_writable(path)


def save_figure(figure: Figure, path: Path | str) -> None:
    """Write a figure, the same bytes for the same figure; the file's ending says in which format.

    Raises:
        OutputError: See `require_figure`.
    """
    import matplotlib as mpl

    path = Path(path)
    require_figure(path)
    format = path.suffix.lower().removeprefix(".")
    undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(format)
    settings = {"svg.hashsalt": "otoscope", "svg.fonttype": "none", "pdf.fonttype": 42}
    with warnings.catch_warnings(), mpl.rc_context(cast("Any", settings)), atomic_write(path, "wb") as file:
        warnings.filterwarnings(
            "ignore", message="Glyph .* missing"
        )  # letters that the font lacks show as boxes
        figure.savefig(file, format=format, dpi=200, metadata=undated, facecolor=figure.get_facecolor())


def plain_text(text: str, longest: int = 120) -> str:
    """Text that steers nothing: on one line, controls and unpaired characters as a dot, a token's leading blank too, shortened.

    The figures' style turns formulas off, so a dollar sign is one.
    """
    shown = "".join(
        "·" if unicodedata.category(c)[0] == "C" or (c.isspace() and c != " ") else c for c in text
    )
    shown = f"·{shown[1:]}" if shown.startswith(" ") else shown
    return shown if len(shown) <= longest else f"{shown[: longest - 1]}…"


def layer_ticks(axes: Axes, layers: list[int]) -> None:
    """Whole layers along x, not too many of them."""
    axes.set_xticks(layers if len(layers) <= 16 else layers[:: (len(layers) + 11) // 12])
