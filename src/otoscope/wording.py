"""How numbers are said where people read them: in tables, reports and sentences."""

from __future__ import annotations


def number(value: float | None, digits: int = 3) -> str:
    """A number, or a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def counted(count: int, what: str) -> str:
    """How many there are of something, which is given as of one: `1 window`, `2 windows`."""
    return f"{count} {what}{'' if count == 1 else 's'}"
