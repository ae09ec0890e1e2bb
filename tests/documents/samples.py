"""Small documents made by hand; `label` stands wherever text from outside does."""

from otoscope.documents.curve import CurveDoc
from otoscope.documents.lens import LensDoc
from otoscope.documents.sweep import SweepDoc

LAYERS, HEADS = 3, 4


def a_sweep(label="jfk.flac", items=3):
    """Heads of three layers and one MLP; head 1 of layer 2 stands out."""
    cells = []
    for layer in range(LAYERS):
        for head in range(HEADS):
            best = (layer, head) == (2, 1)
            value = {"value": 1.0 if best else (layer + head) / 9, "low": 0.1, "high": 1.0,
                     "count": items if best else 1,
                     "n": items, "random": 0.25,
                     "direction": 0.1, "p": 0.01 if best else 0.6, "p_adjusted": 0.02 if best else 1.0,
                     "test": 0.5, "test_n": 1, "stands_out": best}  # fmt: skip
            resolved = value | {"value": 1.0, "count": items}
            outcomes = [
                {"item": i, "verdict": "restored" if best else "unchanged", "text": int(best)}
                for i in range(items)
            ]
            cells.append(
                {"grid": 0, "row": layer, "column": head, "component": f"decoder_blocks.{layer}.cross_attn",
                 "label": f"DL{layer}H{head} cross-attn", "winner": best, "values": [value, resolved], "outcomes": outcomes,
                 "price": 0.8 if best else None}
            )  # fmt: skip
    return SweepDoc.model_validate(
        {
            "title": label, "model": label, "headline": label or "x", "about": label,
            "measures": [
                {"name": name, "title": f"share {name}", "unit": "share", "control": "random components",
                 "random": "what others do", "stands_out": "p is small"}
                for name in ("restored", "resolved")
            ],
            "grids": [{"title": label, "rows": ["0", "1", "2"], "columns_name": "head", "columns": ["0", "1", "2", "3"]}],
            "cells": cells,
            "items": [{"name": label, "before": label, "half": "test" if i else "discovery"} for i in range(items)],
            "texts": [f"the same {label}", f"what was said {label}"],
            "price_name": "rise of the error rate",
            "prices": [{"label": label, "rows": [(label, "0.03", "0.85")]}],
            "notes": [label],
            "settings": {"alpha": 1.0},
        }
    )  # fmt: skip


def a_curve(label="gender", layers=5):
    """One probe with two controls, and shares of two types."""
    score = [
        {"x": i, "y": 0.6 + 0.08 * i, "low": 0.5 + 0.08 * i, "high": 0.65 + 0.08 * i} for i in range(layers)
    ]
    flat = [{"x": i, "y": 0.5} for i in range(layers)]
    lines = [
        {"name": "probe", "role": "score", "about": label, "points": score},
        {"name": "shuffled labels", "role": "control", "points": flat},
        {"name": label[:200] or "x", "role": "control", "points": [p | {"y": 0.55} for p in flat]},
    ]
    shares = [
        {"name": name, "role": "score", "points": [p | {"y": share} for p in flat]}
        for name, share in (("loop", 0.25), ("correct", 0.75))
    ]
    return CurveDoc.model_validate(
        {
            "title": label, "model": "m", "headline": label, "about": label, "cautions": [label],
            "panels": [
                {"title": label, "about": label, "form": "lines", "x_name": "layer", "y_name": "accuracy", "y_low": 0,
                 "y_high": 1, "series": lines},
                {"title": "types", "about": "of texts", "form": "shares", "x_name": "layer", "y_name": "share", "series": shares},
            ],
            "notes": [label],
        }
    )  # fmt: skip


def a_lens(label="word", tokens=4, layers=3):
    """Tokens that settle at layer 1, with two candidates a layer."""
    read = [
        {
            "index": i, "saturation_layer": 1,
            "layers": [
                {"layer": layer, "p_final": (layer + 1) / 4, "rank_final": 2 - layer, "entropy": 3.0 - layer,
                 "top": [{"id": 7 if layer else 8, "text": label if layer else "rival", "p": 0.5},
                         {"id": 9, "text": "third", "p": 0.2}]}
                for layer in range(layers)
            ],
        }
        for i in range(tokens)
    ]  # fmt: skip
    return LensDoc.model_validate(
        {
            "title": label, "model": label, "text": label, "notes": [label],
            "tokens": [{"index": i, "id": 7, "text": label} for i in range(tokens)],
            "logit_lens": {"layers": layers, "tokens": read},
            "encoder_lens": [
                {"layer": 0, "text": label, "is_final_text": False, "type": "loop"},
                {"layer": 1, "text": label, "is_final_text": True, "type": "correct"},
            ],
            "typed_against": "transcript",
        }
    )  # fmt: skip
