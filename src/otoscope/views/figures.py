"""Figures for papers, drawn from the JSON of a result: colour-blind-safe, readable in grey."""

from __future__ import annotations

import unicodedata
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otoscope.errors import OutputError
from otoscope.files import atomic_write, require_writable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = ("png", "svg", "pdf")

BLUE, ORANGE, GREEN, GREY, PURPLE = "#0072B2", "#D55E00", "#009E73", "#7f7f7f", "#CC79A7"
"""Okabe and Ito's colours, which most colour-blind people can tell apart."""


def new_figure(width: float = 6.4, height: float = 4.0) -> tuple[Figure, Axes]:
    """A figure without a window behind it, in the house's plain manner."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


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
    with (
        warnings.catch_warnings(),
        mpl.rc_context({"svg.hashsalt": "otoscope"}),
        atomic_write(path, "wb") as file,
    ):
        warnings.filterwarnings(
            "ignore", message="Glyph .* missing"
        )  # letters that the font lacks show as boxes
        figure.savefig(file, format=format, dpi=160, metadata=undated)


def plain_text(text: str, longest: int = 120) -> str:
    """Text that is drawn as it is: on one line, no formula begins in it, and controls and unpaired characters become a dot."""
    shown = "".join("·" if unicodedata.category(c)[0] == "C" or c in "\u2028\u2029" else c for c in text)
    shown = shown if len(shown) <= longest else f"{shown[: longest - 1]}…"
    return shown.replace("$", r"\$")


def probe_figure(curve: Mapping[str, Any]) -> Figure:
    """A probe's score over the layers with its interval, and its controls as lines.

    Args:
        curve: `ProbeCurve.to_dict()`.
    """
    figure, axes = new_figure()
    layers: Sequence[Mapping[str, Any]] = curve["layers"]
    x = [layer["layer"] for layer in layers]
    short = "accuracy" if curve["kind"] == "categorical" else "r2"
    score = [layer[curve["measure"]] for layer in layers]
    low, high = ([layer[end] for layer in layers] for end in ("ci_low", "ci_high"))
    axes.fill_between(x, low, high, color=BLUE, alpha=0.18, linewidth=0)
    axes.plot(x, score, color=BLUE, marker="o", label="probe, 95 % interval over groups")
    controls = (
        (f"control_{short}", "shuffled labels", GREY, ":"),
        (f"baseline_{short}", "mel statistics", ORANGE, "--"),
        (f"random_weights_{short}", "random weights", PURPLE, "-."),
    )
    for key, name, colour, style in controls:
        values = [layer[key] for layer in layers]
        if values[0] is not None:
            axes.plot(x, values, color=colour, linestyle=style, label=name)
    axes.set(xlabel="layer (from 0)", ylabel="balanced accuracy" if curve["kind"] == "categorical" else "R²")
    axes.set_xticks(x if len(x) <= 16 else x[::4])
    if curve["kind"] == "categorical":
        axes.set_ylim(0, 1.02)
    groups = f"{curve['n_groups']} groups" if curve["groups_disjoint"] else "groups shared"
    title = plain_text(f"{curve['label']}: {curve['site']} of {curve['model']}")
    axes.set_title(f"{title}\n{curve['n_items']} items, {groups}", fontsize=10)
    figure.legend(frameon=False, fontsize=8, loc="outside lower center", ncols=2)
    return figure


def lens_figure(language: str, summary: Mapping[str, Any], model: str) -> Figure:
    """What the decoder's layers know of the written token, and what is written from each encoder layer.

    Args:
        language: Of the recordings.
        summary: `CorpusLens.summary()`.
        model: The model's name.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    _lens_curves(left, summary["layers"])
    _type_bars(right, summary["encoder"])
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    title = f"{model}, {language}: {summary['recordings']} recordings, {summary['tokens']} tokens"
    figure.suptitle(plain_text(title), fontsize=10)
    return figure


def _lens_curves(axes: Axes, layers: Sequence[Mapping[str, Any]]) -> None:
    x = [layer["layer"] for layer in layers]
    shown = (
        ("p_final", "probability of the written token", BLUE, "-"),
        ("saturated", "share of tokens saturated", GREEN, "--"),
        ("cosine", "cosine of the candidates", PURPLE, "-."),
        ("phoneme_error", "phoneme error of the candidates (may leave the picture)", ORANGE, ":"),
    )
    for key, name, colour, style in shown:
        there = [layer[key] for layer in layers if layer.get(key) and layer[key]["mean"] is not None]
        if len(there) == len(layers) and there:
            low, high = ([cell[end] for cell in there] for end in ("ci_low", "ci_high"))
            axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
            axes.plot(
                x, [cell["mean"] for cell in there], color=colour, linestyle=style, marker="o", label=name
            )
    axes.set(xlabel="decoder layer (from 0)", ylim=(-0.02, 1.6), xticks=x if len(x) <= 16 else x[::4])
    axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.14))


TYPE_COLOURS = {
    "empty": "#d9d9d9",
    "punctuation": "#a6a6a6",
    "event": "#F0E442",
    "loop": ORANGE,
    "ungrounded": PURPLE,
    "correct": BLUE,
}


def _type_bars(axes: Axes, layers: Sequence[Mapping[str, Any]]) -> None:
    x = [layer["layer"] for layer in layers]
    bottom = [0.0] * len(layers)
    for kind, colour in TYPE_COLOURS.items():
        share = [layer["types"][kind]["rate"] or 0.0 for layer in layers]
        axes.bar(x, share, bottom=bottom, color=colour, label=kind, edgecolor="white", linewidth=0.5)
        bottom = [b + s for b, s in zip(bottom, share, strict=True)]
    axes.set(
        xlabel="encoder layer (from 0)", ylabel="share of recordings", xticks=x if len(x) <= 16 else x[::4]
    )
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def detection_figure(task: Mapping[str, Any], model: str) -> Figure:
    """AUC of the probes over the decoder's layers, with the built-in signals as lines.

    Args:
        task: One of the tasks of `study hallucination`.
        model: The model's name.
    """
    figure, axes = new_figure()
    for (pool, curve), colour in zip(task["curves"].items(), (BLUE, GREEN), strict=False):
        x = [layer["layer"] for layer in curve["layers"]]
        low, high = zip(*(layer["auc_interval"] for layer in curve["layers"]), strict=True)
        axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
        named = {"end": "state that writes end-of-text", "mean": "mean over the text's states"}[pool]
        axes.plot(
            x, [layer["auc"] for layer in curve["layers"]], color=colour, marker="o", label=f"probe: {named}"
        )
        axes.set_xticks(x if len(x) <= 16 else x[::4])
    styles = (("--", ORANGE), ("-.", PURPLE), (":", GREY), ((0, (1, 4)), GREY))
    for (name, signal), (style, colour) in zip(task["signals"].items(), styles, strict=False):
        axes.axhline(signal["auc"], color=colour, linestyle=style, label=name)
    axes.set(xlabel="decoder layer (from 0)", ylabel="AUC", ylim=(0, 1.02))
    n = task["used"]
    counted = f"{n['yes']} against {n['no']}{', lengths matched' if task['lengths_matched'] else ''}"
    axes.set_title(f"{plain_text(task['task'])}: {plain_text(model)}\n{counted}", fontsize=10)
    figure.legend(frameon=False, fontsize=8, loc="outside lower center", ncols=2)
    return figure


def study_figures(results: Mapping[str, Any]) -> dict[str, Figure]:
    """The figures of a study by file stem.

    Args:
        results: What the study's `results.json` holds.
    """
    model = results["model"]["name"]
    if results["study"] == "probes":
        return {
            f"{one['property']}-{_stem(one['corpus'])}": probe_figure(
                one | {"label": f"{one['label']} ({one['corpus']})"}
            )
            for one in results["findings"]
        }
    if results["study"] == "lens":
        return {
            f"lens-{name}": lens_figure(name, found, model) for name, found in results["languages"].items()
        }
    if results["study"] == "why":
        return {}  # its graphs are looked at on a page
    if "sweeps" in results:
        from otoscope.views.patch_figure import patch_figure

        drawn = {name: sweep for name, sweep in results["sweeps"].items() if sweep["n_outcome"]}
        return {f"sweep-{_stem(name)}": patch_figure(sweep) for name, sweep in drawn.items()}
    return {f"telling-{task['label']}": detection_figure(task, model) for task in results["tasks"]}


def _stem(name: str) -> str:
    """A name that is safe in every folder."""
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in name)[:60]
