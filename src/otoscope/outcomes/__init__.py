"""What was written, judged from the text alone."""

from __future__ import annotations

from otoscope.outcomes.compression import compression_ratio
from otoscope.outcomes.word_errors import (
    UNSPACED_LANGUAGES,
    ErrorRates,
    error_rates,
    error_rates_by_language,
    normaliser,
)

__all__ = [
    "UNSPACED_LANGUAGES",
    "ErrorRates",
    "compression_ratio",
    "error_rates",
    "error_rates_by_language",
    "normaliser",
]
