"""The figures that a claim stands on: where each is in the results, and its limit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Paths = str | tuple[str, ...]
"""Where something is in a result, names joined by slashes; or several such places."""


@dataclass(frozen=True)
class Figure:
    """One row of the table of claims. Without a limit nothing is claimed, and the figure is told for what it is.

    Attributes:
        says: What is claimed, in words.
        paths: Where the figure is; of several places the worst counts.
        at_most: Its limit from above.
        at_least: Its limit from below: a number, True, or other places in the result, of which the largest counts.
        unit: Unit, if it has one.
    """

    says: str
    paths: Paths
    at_most: float | None = None
    at_least: float | Paths | None = None
    unit: str = ""

    def reached(self, result: Mapping[str, Any]) -> float | None:
        """The figure in a result; None where any of its places holds none."""
        found = _values(result, self.paths)
        if any(_missing(value) for value in found):
            return None
        return max(found) if self.at_most is not None else min(found)

    def limit(self, result: Mapping[str, Any]) -> float | None:
        """The number that it is held to; None where that was to be measured and was not."""
        limit = self.at_least if self.at_most is None else self.at_most
        if not isinstance(limit, (str, tuple)):
            return limit
        found = _values(result, limit)
        return None if any(_missing(value) for value in found) else max(found)

    def holds(self, result: Mapping[str, Any]) -> bool | None:
        """Whether it keeps its limit; None where it was not measured."""
        reached, limit = self.reached(result), self.limit(result)
        if reached is None or not self.claims:
            return None if reached is None else True
        if limit is None:
            return None
        return bool(reached <= limit if self.at_most is not None else reached >= limit)

    @property
    def claims(self) -> bool:
        """Whether it has a limit."""
        return self.at_most is not None or self.at_least is not None

    def row(self, result: Mapping[str, Any]) -> tuple[str, str, str, str]:
        """What is claimed, its limit, what was reached, and whether that holds, in words."""
        side, limit = "at least" if self.at_most is None else "at most", self.limit(result)
        asked = "yes" if limit is True else f"{side} {spelled(limit, self.unit)}" if self.claims else "none"
        missing = f"not measured: {result['not_measured']}" if "not_measured" in result else "not measured"
        verdict = {True: "holds" if self.claims else "no claim", False: "**does not hold**", None: missing}[
            self.holds(result)
        ]
        return self.says, asked, spelled(self.reached(result), self.unit), verdict


def spelled(value: float | None, unit: str = "") -> str:
    """A figure as people write it."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    number = f"{value:,.0f}" if value == round(value) or abs(value) >= 1000 else f"{value:.4g}"
    return f"{number} {unit}".strip()


def _missing(value: Any) -> bool:
    """None, or not a number: of that nothing is more or less."""
    return value is None or value != value


def _values(result: Mapping[str, Any], paths: Paths) -> list[Any]:
    return [_at(result, path) for path in ((paths,) if isinstance(paths, str) else paths)]


def _at(result: Mapping[str, Any], path: str) -> Any:
    value: Any = result
    for name in path.split("/"):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value
