"""Curves over layers: probes with their controls, lenses over a corpus, detection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from otoscope.figures.contents import lens_panels, probe_panel
from otoscope.figures.style import (
    LARGE,
    ONE_COLUMN,
    Palette,
    drawn,
    layer_ticks,
    new_figure,
    plain_text,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DASHES = ("-", "--", "-.", ":", (0, (1, 4)))
_ABREAST = 3  # pictures side by side
_MARKERS = ("o", "s", "^", "D", None)


@drawn
def curve_figure(colours: Palette, doc: Mapping[str, Any]) -> Figure:
    """Draw every picture of a document of curves, side by side.

    Args:
        colours: The palette.
        doc: `CurveDoc.model_dump()`.
    """
    from matplotlib.figure import Figure

    panels = doc["panels"]
    columns = min(max(len(panels), 1), _ABREAST)
    rows = -(-max(len(panels), 1) // columns)
    longest = max((len(panel["series"]) for panel in panels), default=0)
    wide = ONE_COLUMN * (1.5 if len(panels) == 1 else 1)
    figure = Figure(figsize=(wide * columns, 0.4 + rows * (2.6 + 0.15 * longest)), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax, panel in zip(axes, panels, strict=False):
        (_shares if panel["form"] == "shares" else _lines)(ax, colours, panel)
        if len(panels) > 1:
            ax.set_title(plain_text(panel["title"], 44))
    for ax in axes[len(panels) :]:
        ax.set_axis_off()
    figure.suptitle(plain_text(doc["title"], 60 if len(panels) == 1 else 110), fontsize=LARGE)
    return figure


def _lines(axes: Axes, colours: Palette, panel: Mapping[str, Any]) -> None:
    layers = sorted({point["x"] for series in panel["series"] for point in series["points"]})
    order = {"score": list(colours.series[:1]) + list(colours.series[2:4]), "control": list(colours.series)}
    scores = controls = 0
    for series in panel["series"]:
        points = series["points"]
        x = [point["x"] for point in points]
        if series["role"] == "score":
            colour, dash = order["score"][scores % 3], _DASHES[0]
            marker, scores = _MARKERS[scores % 4], scores + 1
        else:  # controls begin with grey, dotted
            colour, dash = colours.series[(4, 1, 3, 2)[controls % 4]], _DASHES[(3, 1, 2, 4)[controls % 4]]
            marker, controls = None, controls + 1
        banded = [point for point in points if point["low"] is not None and point["high"] is not None]
        if banded:
            low, high = ([point[end] for point in banded] for end in ("low", "high"))
            axes.fill_between([p["x"] for p in banded], low, high, color=colour, alpha=0.18, linewidth=0)
        name = plain_text(series["name"], 60) + (", 95 % interval" if banded and scores == 1 else "")
        y = [point["y"] for point in points]
        axes.plot(x, y, color=colour, linestyle=dash, marker=marker, label=name)
    axes.set(xlabel=plain_text(panel["x_name"]), ylabel=plain_text(panel["y_name"]))
    if panel["y_low"] is not None and panel["y_high"] is not None:
        room = 0.02 * (panel["y_high"] - panel["y_low"])
        axes.set_ylim(panel["y_low"] - room, panel["y_high"] + room)
    layer_ticks(axes, layers)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=1)


def _shares(axes: Axes, colours: Palette, panel: Mapping[str, Any]) -> None:
    layers = sorted({point["x"] for series in panel["series"] for point in series["points"]})
    bottom = dict.fromkeys(layers, 0.0)
    for i, series in enumerate(panel["series"]):
        colour = colours.types.get(series["name"]) or colours.series[i % len(colours.series)]
        x = [point["x"] for point in series["points"]]
        share = [point["y"] for point in series["points"]]
        axes.bar(
            x, share, bottom=[bottom[layer] for layer in x], color=colour, label=plain_text(series["name"], 40),
            edgecolor=colours.paper, linewidth=0.6,
        )  # fmt: skip
        for layer, value in zip(x, share, strict=True):
            bottom[layer] += value
    axes.set(xlabel=plain_text(panel["x_name"]), ylabel=plain_text(panel["y_name"]))
    layer_ticks(axes, layers)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)


@drawn
def detection_figure(colours: Palette, task: Mapping[str, Any], model: str) -> Figure:
    """AUC of the probes over the decoder's layers, with the built-in signals as lines.

    Args:
        colours: The palette.
        task: One of the tasks of `study hallucination`.
        model: The model's name.
    """
    figure, axes = new_figure()
    blue, orange, green, purple, grey = colours.series
    for (pool, curve), colour in zip(task["curves"].items(), (blue, green), strict=False):
        x = [layer["layer"] for layer in curve["layers"]]
        low, high = zip(*(layer["auc_interval"] for layer in curve["layers"]), strict=True)
        axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
        named = {"end": "state that writes end-of-text", "mean": "mean over the text's states"}[pool]
        auc = [layer["auc"] for layer in curve["layers"]]
        axes.plot(x, auc, color=colour, marker="o", label=f"probe: {named}")
        layer_ticks(axes, x)
    styles: Sequence[Any] = (("--", orange), ("-.", purple), (":", grey), ((0, (1, 4)), grey))
    for (name, signal), (style, colour) in zip(task["signals"].items(), styles, strict=False):
        axes.axhline(signal["auc"], color=colour, linestyle=style, label=name)
    axes.set(xlabel="decoder layer (from 0)", ylabel="AUC", ylim=(0, 1.02))
    n = task["used"]
    counted = f"{n['yes']} against {n['no']}{', lengths matched' if task['lengths_matched'] else ''}"
    axes.set_title(f"{plain_text(task['task'])}: {plain_text(model)}\n{counted}")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def probe_figure(curve: Mapping[str, Any], **options: Any) -> Figure:
    """A probe's score over the layers with its interval, and its controls as lines.

    Args:
        curve: `ProbeCurve.to_dict()`.
        options: `path` and `dark`.
    """
    groups = f"{curve['n_groups']} groups" if curve["groups_disjoint"] else "groups shared"
    title = f"{curve['label']}: {curve['site']} of {curve['model']}, {curve['n_items']} items, {groups}"
    return curve_figure({"title": title, "panels": [probe_panel(curve)]}, **options)


def lens_curves(language: str, summary: Mapping[str, Any], model: str, **options: Any) -> Figure:
    """What the decoder's layers know of the written token, and what is written from each encoder layer.

    Args:
        language: Of the recordings.
        summary: `CorpusLens.summary()`.
        model: The model's name.
        options: `path` and `dark`.
    """
    title = f"{model}: {summary['recordings']} recordings, {summary['tokens']} tokens"
    return curve_figure({"title": title, "panels": lens_panels(language, summary)}, **options)
