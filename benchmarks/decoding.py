"""Batched decoding is at least as fast as Hugging Face `generate`, on the same clips with the same tokens out."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.figures import Figure
from benchmarks.measure import clips, side_by_side

CLAIM = "Greedy transcription of a batch of 16 (word times included) over `generate` (no word times): ratio at most 1"
_BATCH = 16
_MODELS = ("whisper-tiny.en", "whisper-base")
FIGURES = tuple(
    figure
    for name in _MODELS
    for figure in (
        Figure(
            f"{name}: transcription of 16 clips, with word times, over `generate`",
            f"{name}/ratio_median",
            at_most=1.0,
        ),
        Figure(f"{name}: clips with the same tokens as `generate`", f"{name}/same_tokens", at_least=_BATCH),
    )
)


def run() -> dict[str, Any]:
    return {name: _one(name) for name in _MODELS}


def _one(name: str) -> dict[str, Any]:
    import otoscope as oto

    model = oto.load_model(name)
    heard = clips(
        _BATCH
    )  # one batch, so that sorting by length, which `generate` does not do, counts for nothing
    ours: list[list[int]] = []
    theirs: list[list[int]] = []

    def transcribe() -> None:
        ours[:] = [t.ids for t in oto.transcribe_all(model, heard, batch=_BATCH)]

    def generate() -> None:
        theirs.clear()
        for i in range(0, len(heard), _BATCH):
            with torch.no_grad():
                rows = model.hf.generate(model.features(heard[i : i + _BATCH])).tolist()
            theirs.extend([token for token in row if token < model.end_token] for row in rows)

    pair = side_by_side(transcribe, generate, runs=3)
    same = sum(a == b for a, b in zip(ours, theirs, strict=True))
    return pair.to_dict() | {"clips": len(heard), "same_tokens": same}
