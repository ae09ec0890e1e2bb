"""Rates with their uncertainty: Wilson's interval for counts, the bootstrap for everything else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from otoscope.showing import Shows


def wilson(count: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion, sensible for few trials and for shares near 0 and 1.

    Args:
        count: How often it happened.
        n: How often it could have happened. Of 0 trials nothing is known: the interval is 0 to 1.
        level: Coverage, above 0 and below 1.

    Raises:
        ValueError: `count` is not within 0 and `n`, or `level` not within 0 and 1.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    if not 0 <= count <= n:
        raise ValueError(f"{count} of {n} is no proportion")
    z = _two_sided(level)
    if n == 0:
        return 0.0, 1.0
    centre = (count + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * sqrt(count * (n - count) / n + z * z / 4)
    # At 0 and at n the formula gives the bound exactly; only rounding could miss it.
    return (0.0 if count == 0 else centre - half), (1.0 if count == n else centre + half)


@dataclass(frozen=True)
class Rate(Shows):
    """How often something happened among `n` cases.

    Args:
        count: Cases in which it happened, 0 to `n`.
        n: All cases.

    Raises:
        ValueError: `count` is not within 0 and `n`.
    """

    count: int
    n: int

    def __post_init__(self) -> None:
        if not 0 <= self.count <= self.n:
            raise ValueError(f"{self.count} of {self.n} is no proportion")

    @classmethod
    def of(cls, happened: Sequence[bool]) -> Rate:
        """The rate of True."""
        return cls(sum(map(bool, happened)), len(happened))

    @property
    def rate(self) -> float | None:
        """Share of cases, 0 to 1; None without cases."""
        return self.count / self.n if self.n else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Wilson's 95 % interval; None without cases."""
        return wilson(self.count, self.n) if self.n else None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: `count`, `n`, `rate`, `ci_low`, `ci_high` (the last three null without cases)."""
        low, high = self.interval or (None, None)
        return {"count": self.count, "n": self.n, "rate": self.rate, "ci_low": low, "ci_high": high}


def bootstrap(
    statistic: Callable[..., float],
    *arrays: ArrayLike,
    groups: Iterable[Any] | None = None,
    strata: Iterable[Any] | None = None,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a statistic over utterances, or over whole groups of them.

    Utterances of one speaker resemble each other: drawing them one by one makes an interval too narrow. With
    `groups`, whole speakers are drawn with all their utterances (the cluster bootstrap). With `strata`, as many
    utterances (or groups) are drawn from each stratum as it has, so that a comparison of two conditions keeps both.
    A single utterance or group can only be drawn again: its interval has no width and says nothing.

    Args:
        statistic: Gets the drawn rows of each array, in the order of `arrays`, and gives a number. Draws for which it
            is not finite (a rate without a single word, an AUC of one class) are left out.
        arrays: One row an utterance; all of the same length, drawn together.
        groups: The group of each utterance, such as its speaker.
        strata: The stratum of each utterance, such as its language; a group lies in one stratum.
        resamples: Number of draws.
        seed: The same seed gives the same interval.
        level: Coverage, above 0 and below 1.

    Returns:
        Lower and upper bound.

    Raises:
        ValueError: There are no rows, lengths differ, a group lies in two strata, `level` is not within 0 and 1, or
            the statistic is finite for no draw.

    Source: Efron 1979; over utterances, Bisani and Ney 2004; over clusters, Davison and Hinkley 1997, section 3.8.
    """
    _two_sided(level)
    data = [np.asarray(array) for array in arrays]
    strata_of_units = _strata(data, groups, strata)
    if all(len(units.sizes) == 1 for units in strata_of_units):
        resamples = 1  # all draws are the same
    rng = np.random.default_rng(seed)
    draws = (np.concatenate([units.draw(rng) for units in strata_of_units]) for _ in range(resamples))
    with np.errstate(divide="ignore", invalid="ignore"):
        values = np.array([float(statistic(*(array[rows] for array in data))) for rows in draws])
    values = values[np.isfinite(values)]
    if not len(values):
        raise ValueError("the statistic is finite for no draw")
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _two_sided(level: float) -> float:
    if not 0 < level < 1:
        raise ValueError(f"level is {level}, not within 0 and 1")
    return NormalDist().inv_cdf((1 + level) / 2)


@dataclass(frozen=True)
class _Units:
    """The units of one stratum: unit `i` is `sizes[i]` rows, from `rows[starts[i]]` on."""

    rows: np.ndarray
    starts: np.ndarray
    sizes: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray, groups: np.ndarray) -> _Units:
        order = np.argsort(groups, kind="stable")
        _, starts, sizes = np.unique(groups[order], return_index=True, return_counts=True)
        return cls(rows[order], starts, sizes)

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """The rows of as many units as there are, drawn with replacement."""
        chosen = rng.integers(len(self.sizes), size=len(self.sizes))
        if len(self.rows) == len(self.sizes):  # each unit is one row
            return self.rows[self.starts[chosen]]
        sizes = self.sizes[chosen]
        ends = sizes.cumsum()
        return self.rows[np.arange(ends[-1]) + np.repeat(self.starts[chosen] - (ends - sizes), sizes)]


def _strata(
    data: list[np.ndarray], groups: Iterable[Any] | None, strata: Iterable[Any] | None
) -> list[_Units]:
    n = len(data[0]) if data else 0
    group = np.arange(n) if groups is None else _codes(groups)
    stratum = np.zeros(n, int) if strata is None else _codes(strata)
    if not n or any(len(array) != n for array in [*data, group, stratum]):
        raise ValueError("the bootstrap needs rows, and as many in each array and label")
    if len(np.unique(np.stack([group, stratum]), axis=1).T) != len(np.unique(group)):
        raise ValueError("a group lies in two strata")
    rows = [np.flatnonzero(stratum == code) for code in np.unique(stratum)]
    return [_Units.of(own, group[own]) for own in rows]


def _codes(labels: Iterable[Any]) -> np.ndarray:
    """Labels of any kind as whole numbers, in order of first appearance."""
    numbers: dict[Any, int] = {}
    return np.array([numbers.setdefault(label, len(numbers)) for label in labels], dtype=int)
