"""Which risk is an alarm: the threshold that keeps a promised rate of false alarms."""

from __future__ import annotations

import numpy as np

from otoscope.errors import OptionError


def conformal_threshold(risks: np.ndarray, rate: float) -> float:
    """Least threshold that at most a share `rate` of texts like these reaches, in expectation.

    Of n risks the one of rank ceil((n + 1) (1 - rate)), and a hair above it (Vovk et al. 2005); n must be at least 1 / rate - 1.

    Args:
        risks: Of texts of ordinary speech, `(text,)`.
        rate: Between 0 and 1.

    Raises:
        OptionError: The rate is not between 0 and 1, or too low for so few texts.
    """
    check_rate(rate)
    ranked = np.sort(risks)
    rank = int(np.ceil((len(ranked) + 1) * (1 - rate)))
    if rank > len(ranked):
        raise OptionError(
            f"{len(ranked)} texts of ordinary speech cannot promise a false-alarm rate of {rate:g}.",
            f"Ask for at least {1 / (len(ranked) + 1):.3f}, or fit a monitor with more ordinary speech.",
        )
    return float(np.nextafter(ranked[rank - 1], np.inf))


def check_rate(rate: float) -> None:
    """Refuse what is no share.

    Raises:
        OptionError: It is not between 0 and 1.
    """
    if not 0 < rate < 1:
        raise OptionError(
            f"A false-alarm rate of {rate:g} cannot be asked for.",
            "Choose a share between 0 and 1, such as 0.05.",
        )
