"""whisper-base, languages detected, writes the tokens that Hugging Face `generate` writes."""

from __future__ import annotations

from typing import Any

from benchmarks.parity import figures, measure

CLAIM = "whisper-base: greedy token ids equal `generate` on all prepared recordings, batched and one by one"
FIGURES = figures("whisper-base")


def run() -> dict[str, Any]:
    return measure("whisper-base")
