"""What a picture of a result contains, as plain data: the same for a figure and for a page.

Each function takes the JSON of a result and gives the fields of a document's part (`CurvePanel`, `SweepGrid` and so on).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_LEVEL = 0.05
"""Level of the tests below which a component is told apart from random ones."""

_HELD_OUT = "The same probe, fitted and tested in the same way, "
_CONTROLS = (
    ("control", "shuffled labels", f"{_HELD_OUT}on labels that were shuffled: what it scores by chance."),
    ("baseline", "mel statistics", f"{_HELD_OUT}on statistics of the mel spectrogram: what the sound tells without the model."),
    ("random_weights", "random weights", f"{_HELD_OUT}on the same architecture with random weights."),
)  # fmt: skip


def probe_panel(curve: Mapping[str, Any]) -> dict[str, Any]:
    """A probe's score over the layers and its controls.

    Args:
        curve: `ProbeCurve.to_dict()`.
    """
    layers, categorical = curve["layers"], curve["kind"] == "categorical"
    short = "accuracy" if categorical else "r2"
    score = [
        _point(layer["layer"], layer[curve["measure"]], layer["ci_low"], layer["ci_high"]) for layer in layers
    ]
    series = [
        {"name": "probe", "role": "score", "about": "On items whose group the probe never met; the band is the 95 % interval "
         "over groups.", "points": score}
    ]  # fmt: skip
    if categorical:
        chance = 1 / max(len(curve["classes"]), 1)
        series.append(
            _control(
                "chance", f"One in {len(curve['classes'])} classes.", {one["layer"]: chance for one in layers}
            )
        )
    for key, name, about in _CONTROLS:
        series.append(_control(name, about, {one["layer"]: one[f"{key}_{short}"] for one in layers}))
    return {
        "title": str(curve["label"]),
        "about": f"{'Balanced accuracy' if categorical else 'R²'} of one linear probe a layer, held out.",
        "form": "lines",
        "x_name": "layer (from 0)",
        "y_name": "balanced accuracy" if categorical else "R²",
        "y_low": 0.0 if categorical else None,
        "y_high": 1.0 if categorical else None,
        "series": [one for one in series if one["points"]],
    }


def _control(name: str, about: str, values: Mapping[int, float | None]) -> dict[str, Any]:
    points = [_point(layer, value) for layer, value in values.items() if value is not None]
    return {"name": name, "role": "control", "about": about, "points": points}


def _point(
    x: int, y: float, low: float | None = None, high: float | None = None, n: int | None = None
) -> dict[str, Any]:
    return {"x": x, "y": y, "low": low, "high": high, "n": n}


def lens_panels(language: str, summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the decoder's layers know of the written token, and what is written from each encoder layer.

    Args:
        language: Of the recordings.
        summary: `CorpusLens.summary()`.
    """
    shown = (
        ("p_final", "probability of the written token", "Read at each layer as if it were the last."),
        ("saturated", "share of tokens saturated", "From this layer on the written token stays on top."),
        ("cosine", "cosine of the candidates", "Of the five candidates' static vectors with the written token's."),
        ("phoneme_error", "phoneme error of the candidates", "Against the written token's phonemes; may exceed 1."),
    )  # fmt: skip
    lines = []
    for key, name, about in shown:
        points = [
            _point(layer["layer"], cell["mean"], cell["ci_low"], cell["ci_high"], cell["n"])
            for layer in summary["layers"]
            if (cell := layer.get(key)) and cell["mean"] is not None
        ]
        if points:
            lines.append({"name": name, "role": "score", "about": about, "points": points})
    where = f"{language}: " if language else ""
    panels = [
        {"title": f"{where}decoder", "about": "Means over tokens; bands are 95 % intervals over recordings.", "form": "lines",
         "x_name": "decoder layer (from 0)", "y_name": "mean over tokens", "y_low": None, "y_high": None, "series": lines}
    ]  # fmt: skip
    if summary["encoder"]:
        panels.append(_types_panel(where, summary["encoder"]))
    return panels if lines else panels[1:]


def _types_panel(where: str, layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    series = [
        {
            "name": kind,
            "role": "score",
            "about": None,
            "points": [
                _point(one["layer"], r["rate"], r["ci_low"], r["ci_high"], r["n"])
                for one in layers
                if (r := one["types"][kind])["rate"] is not None
            ],
        }
        for kind in layers[0]["types"]
    ]
    return {
        "title": f"{where}written from each encoder layer",
        "about": "What the decoder writes when it listens to one encoder layer, by type of text; shares of recordings.",
        "form": "shares",
        "x_name": "encoder layer (from 0)",
        "y_name": "share of recordings",
        "y_low": 0.0,
        "y_high": 1.0,
        "series": series,
    }


# Sweeps over components --------------------------------------------------------------------------------------------------


def sweep_contents(result: Mapping[str, Any]) -> dict[str, Any]:
    """Measures, grids and cells of a sweep.

    Args:
        result: `PatchResult.to_dict()` or `TokenResult.to_dict()`.

    Returns:
        `measures`, `grids` and `cells`; cells in the order of the result's effects.
    """
    effects: Sequence[Mapping[str, Any]] = result["effects"]
    tokens = result["options"]["outcome"] == "token"
    measures = [_token_measure(result)] if tokens else list(_corpus_measures())
    values = [[_token_value(e)] if tokens else [_rate(e, "restored_"), _rate(e, "")] for e in effects]
    return {"measures": measures} | grid_contents(effects, values)


def grid_contents(
    effects: Sequence[Mapping[str, Any]], values: Sequence[Sequence[Mapping[str, Any]]]
) -> dict[str, Any]:
    """Grids, one a part of a stack, and cells of components.

    Args:
        effects: `component`, `head` and `label` of each.
        values: Each one's values.
    """
    parts = list(dict.fromkeys(map(_part, effects)))
    grids = []
    for part in parts:
        own = [e for e in effects if _part(e) == part]
        heads = sorted({e["head"] for e in own if e["head"] is not None})
        grids.append(
            {
                "title": part if heads else f"{part}, whole",
                "rows": [str(layer) for layer in range(1 + max(map(_layer, own)))],
                "columns_name": "head" if heads else "",
                "columns": [str(head) for head in range(1 + max(heads))] if heads else ["block"],
            }
        )
    cells = [
        {"grid": parts.index(_part(e)), "row": _layer(e), "column": e["head"] or 0, "component": e["component"],
         "label": e["label"], "values": list(value)}
        for e, value in zip(effects, values, strict=True)
    ]  # fmt: skip
    return {"grids": grids, "cells": cells}


def _corpus_measures() -> Sequence[dict[str, str]]:
    random = "the share that a random other component of its kind does on the same recordings"
    rule = "its restoring on the discovery half has a corrected p of at most 0.05"
    return (
        {
            "name": "restored",
            "title": "share restored",
            "unit": "share",
            "control": "random components",
            "random": random,
            "stands_out": rule,
        },
        {
            "name": "resolved",
            "title": "share resolved",
            "unit": "share",
            "control": "random components",
            "random": random,
            "stands_out": rule,
        },
    )


def _token_measure(result: Mapping[str, Any]) -> dict[str, str]:
    logprob = result["measure"] == "logprob"
    return {
        "name": "change",
        "title": "change of log p" if logprob else "change of the logit difference",
        "unit": "nats" if logprob else "logits",
        "control": "random components",
        "random": "the mean change by a random other component of its kind",
        "stands_out": "its change is among the largest 5 % of its kind and larger than that of a random direction",
    }


def _rate(e: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    test = e["test"]
    name = "restored" if prefix else "resolved"
    return {
        "value": e[f"{prefix}rate"],
        "low": e[f"{prefix}ci_low"],
        "high": e[f"{prefix}ci_high"],
        "count": e[name],
        "n": e["n"],
        "random": e[f"{prefix}random_rate"],
        "direction": e[f"{prefix}direction_rate"],
        "p": e[f"{prefix}p_value"],
        "p_adjusted": e["p_adjusted"] if prefix else None,
        "test": test[f"{prefix}rate"],
        "test_n": test["n"],
        "stands_out": e["p_adjusted"] is not None and e["p_adjusted"] <= _LEVEL,
    }


def _token_value(e: Mapping[str, Any]) -> dict[str, Any]:
    p = e["p_value"]
    return {
        "value": e["change"],
        "low": e["ci_low"],
        "high": e["ci_high"],
        "count": None,
        "n": e["n"],
        "random": e["random_change"],
        "direction": e["direction_change"],
        "p": p,
        "p_adjusted": e["p_adjusted"],
        "test": e["test"]["change"],
        "test_n": e["test"]["n"],
        "stands_out": p is not None and p <= _LEVEL and abs(e["change"]) > abs(e["direction_change"]),
    }


def _part(e: Mapping[str, Any]) -> str:
    prefix, _, part = e["component"].rpartition(".")
    return f"{prefix.rpartition('.')[0].removesuffix('_blocks').removesuffix('.blocks')} {part}".strip()


def _layer(e: Mapping[str, Any]) -> int:
    return int(e["component"].rpartition(".")[0].rpartition(".")[2])
