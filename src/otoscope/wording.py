"""How numbers are said where people read them: in tables, reports and sentences."""

from __future__ import annotations


def number(value: float | None, digits: int = 3) -> str:
    """A number, or a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def duration(seconds: float) -> str:
    """How long something takes, in the unit that people would say it in."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"


def counted(count: int, what: str) -> str:
    """How many there are of something, which is given as of one: `1 window`, `2 windows`."""
    return f"{count} {what}{'' if count == 1 else 's'}"
