"""What a study leaves behind: `results.json`, `report.md` and figures, in one directory."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from otoscope.files import atomic_write, output_error

RESULTS, REPORT = "results.json", "report.md"


def prepare(out: Path | str) -> Path:
    """The study's directory, made if it is not there.

    Raises:
        OutputError: It cannot be made.
    """
    out = Path(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(out, error) from error
    return out


def write_results(out: Path, results: Mapping[str, Any]) -> None:
    """Write `results.json`."""
    with atomic_write(out / RESULTS) as file:
        json.dump(results, file, ensure_ascii=False, allow_nan=False, indent=1)
        file.write("\n")


def write_report(out: Path, title: str, parts: Sequence[str]) -> None:
    """Write `report.md`: a title and paragraphs or tables."""
    with atomic_write(out / REPORT) as file:
        file.write("\n\n".join([f"# {title}", *parts]) + "\n")


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; what would break it is escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(value: object) -> str:
    return str(value).replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def number(value: float | None, digits: int = 3) -> str:
    """A number, or a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def interval(low: float | None, high: float | None, digits: int = 3) -> str:
    """`low to high`, or a dash."""
    return "–" if low is None or high is None else f"{low:.{digits}f} to {high:.{digits}f}"


def percent(rate: Mapping[str, Any]) -> str:
    """`12.3 % (10.1–14.9; 37 of 300)` from `Rate.to_dict()`."""
    if rate["rate"] is None:
        return "– (no cases)"
    low, high = 100 * rate["ci_low"], 100 * rate["ci_high"]
    return f"{100 * rate['rate']:.1f} % ({low:.1f}–{high:.1f}; {rate['count']} of {rate['n']})"
