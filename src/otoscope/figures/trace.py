"""What made a word, on the spectrogram: which sounds spoke for it and against it, and what each stretch of time supplied."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from otoscope.errors import OptionError
from otoscope.figures.style import LARGE, SMALL, TWO_COLUMNS, Palette, drawn, plain_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LONGEST = 14
"""Characters of a segment's label."""

_SMOOTH = (3, 5)
"""Mel bands and columns over which parts are averaged: single cells of 10 ms say little to the eye."""


@drawn
def trace_figure(
    colours: Palette,
    mel: np.ndarray,
    parts: np.ndarray,
    supplied: Sequence[float],
    spans: Sequence[Sequence[float]],
    labels: Sequence[str],
    seconds: float,
    title: str,
) -> Figure:
    """Draw one word's sound.

    Args:
        colours: The palette.
        mel: Log-mel spectrogram `(mel, column)`, columns of 10 ms.
        parts: What each of its places supplied, `(mel, column)`, in logits.
        supplied: What each segment supplied along all paths, in logits.
        spans: Begin and end of each segment in seconds.
        labels: What each segment is called.
        seconds: Length of the recording; what is behind it is left out.
        title: Above the picture.

    Raises:
        OptionError: There is no sound.
    """
    from matplotlib.figure import Figure

    columns = min(round(100 * seconds), mel.shape[1])
    if columns < 1:
        raise OptionError("There is no sound to draw.", "Leave --figure out.")
    width = min(max(TWO_COLUMNS, 1.1 * seconds), 22.0)
    figure = Figure(figsize=(width, 5.0), layout="constrained")
    bars, sound = figure.subplots(2, 1, sharex=True, height_ratios=(1, 1.6))
    _draw_segments(bars, colours, supplied, spans, labels, columns / 100)
    _draw_parts(figure, sound, colours, mel[:, :columns], _smoothed(parts)[:, :columns], columns / 100)
    figure.suptitle(plain_text(title, 140), fontsize=LARGE)
    return figure


def _draw_segments(
    axes: Axes,
    colours: Palette,
    supplied: Sequence[float],
    spans: Sequence[Sequence[float]],
    labels: Sequence[str],
    seconds: float,
) -> None:
    shown = [i for i, (begin, _) in enumerate(spans) if begin < seconds]
    top = max((abs(supplied[i]) for i in shown), default=0.0) or 1.0
    for i in shown:
        begin, end = spans[i][0], min(spans[i][1], seconds)
        colour = colours.series[0] if supplied[i] >= 0 else colours.series[1]
        axes.bar(
            begin,
            supplied[i],
            end - begin,
            align="edge",
            color=colour,
            edgecolor=colours.paper,
            linewidth=0.6,
        )
        label = plain_text(labels[i], _LONGEST)
        if label and label not in ("between words", "padding"):
            axes.text(
                (begin + end) / 2, max(supplied[i], 0.0) + 0.04 * top, label, ha="center", va="bottom",
                fontsize=SMALL, rotation=60,
            )  # fmt: skip
    axes.axhline(0, color=colours.ink, linewidth=0.6)
    axes.set_ylim(
        min(0.0, *(supplied[i] for i in shown)) - 0.1 * top,
        max(0.0, *(supplied[i] for i in shown)) + 0.75 * top,
    )
    axes.set_ylabel("logits, all paths")


def _draw_parts(
    figure: Figure, axes: Axes, colours: Palette, mel: np.ndarray, parts: np.ndarray, seconds: float
) -> None:
    where = (0.0, seconds, 0.0, float(len(mel)))
    axes.imshow(
        mel,
        aspect="auto",
        origin="lower",
        extent=where,
        cmap="Greys" if colours.paper == "#ffffff" else "Greys_r",
        alpha=0.9,
    )
    most = float(np.quantile(np.abs(parts), 0.999)) or 1.0
    strength = np.clip(np.abs(parts) / most, 0, 1)
    drawn = axes.imshow(
        parts, aspect="auto", origin="lower", extent=where, cmap=colours.changes(), vmin=-most, vmax=most, alpha=strength**0.5,
    )  # fmt: skip
    bar = figure.colorbar(drawn, ax=axes, fraction=0.03, pad=0.01)
    bar.set_label("against  –  for (logits a cell)")
    axes.set(xlabel="seconds", ylabel="mel band")


def _smoothed(parts: np.ndarray) -> np.ndarray:
    """Averages over neighbours; the sum is nearly kept."""
    out = parts.astype(np.float64)
    for axis, size in enumerate(_SMOOTH):
        kernel = np.ones(size) / size
        out = np.apply_along_axis(lambda row, kernel=kernel: np.convolve(row, kernel, mode="same"), axis, out)
    return out
