"""whisper-tiny.en writes the tokens that Hugging Face `generate` writes."""

from __future__ import annotations

from typing import Any

from benchmarks.figures import Figure
from benchmarks.parity import figures, measure

CLAIM = (
    "whisper-tiny.en: greedy token ids equal `generate` on all prepared recordings, batched and one by one, and the word error "
    "rate of its English speech is at most 3.5 %"
)
WER_LIMIT = 0.035
FIGURES = (
    *figures("whisper-tiny.en"),
    Figure("whisper-tiny.en: word error rate on its English speech", "english_wer", at_most=WER_LIMIT),
)


def run() -> dict[str, Any]:
    return measure("whisper-tiny.en")
