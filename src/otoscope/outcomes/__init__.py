"""What was written, judged from the text and its tokens alone."""

from __future__ import annotations

from otoscope.outcomes.compression import compression_ratio
from otoscope.outcomes.hallucination import NO_SPEECH, SURE, HallucinationRates, Written, hallucination_rates
from otoscope.outcomes.intervals import Rate, bootstrap, wilson
from otoscope.outcomes.loops import (
    MANY_REPEATS,
    REPETITIVE,
    Detector,
    LoopSigns,
    is_loop,
    loop_signs,
    tail_entropy,
    token_compression_ratio,
)
from otoscope.outcomes.output_types import CORRECT_CER, CORRECT_WER, OutputType, has_words, output_type
from otoscope.outcomes.repeats import RepeatFidelity, repeat_fidelity
from otoscope.outcomes.repetition import Run
from otoscope.outcomes.scripts import script_mismatch, script_of
from otoscope.outcomes.word_errors import (
    UNSPACED_LANGUAGES,
    ErrorRates,
    alignment,
    error_rates,
    error_rates_by_language,
    language_code,
    normaliser,
)

__all__ = [
    "CORRECT_CER",
    "CORRECT_WER",
    "MANY_REPEATS",
    "NO_SPEECH",
    "REPETITIVE",
    "SURE",
    "UNSPACED_LANGUAGES",
    "Detector",
    "ErrorRates",
    "HallucinationRates",
    "LoopSigns",
    "OutputType",
    "Rate",
    "RepeatFidelity",
    "Run",
    "Written",
    "alignment",
    "bootstrap",
    "compression_ratio",
    "error_rates",
    "error_rates_by_language",
    "hallucination_rates",
    "has_words",
    "is_loop",
    "language_code",
    "loop_signs",
    "normaliser",
    "output_type",
    "repeat_fidelity",
    "script_mismatch",
    "script_of",
    "tail_entropy",
    "token_compression_ratio",
    "wilson",
]
