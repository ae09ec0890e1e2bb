"""Capturing all residual points costs at most 5 % over a plain forward pass."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.figures import Figure
from benchmarks.measure import clips, side_by_side

CLAIM = (
    "Capture of every residual point over a plain forward pass, whisper-tiny.en, 4 clips: ratio at most 1.05"
)
FIGURES = (
    Figure(
        "Capture of every residual point over a plain forward pass, whisper-tiny.en",
        "ratio_median",
        at_most=1.05,
    ),
)


def run() -> dict[str, Any]:
    import otoscope as oto

    model = oto.load_model("whisper-tiny.en")
    inputs = model.inputs(clips(4)[:4], tokens=[*model.prompt(), *range(1000, 1024)])
    points = [name for name in model.points if "hook_resid" in name]

    def plain() -> None:
        with torch.no_grad():
            model.forward(inputs)

    def captured() -> None:
        _, cache = model.run_with_cache(inputs, points)
        assert len(cache) == len(points)

    pair = side_by_side(captured, plain, runs=15)
    return pair.to_dict() | {"points": len(points)}
