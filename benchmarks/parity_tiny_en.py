"""whisper-tiny.en writes the tokens that Hugging Face `generate` writes."""

from __future__ import annotations

from typing import Any

from benchmarks.parity import figures, measure

CLAIM = (
    "whisper-tiny.en: greedy token ids equal `generate` on all prepared recordings, batched and one by one"
)
FIGURES = figures("whisper-tiny.en")


def run() -> dict[str, Any]:
    return measure("whisper-tiny.en", wer_limit=0.035)
