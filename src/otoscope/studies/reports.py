"""What a study leaves behind: `results.json`, `report.md` and figures, in one directory."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otoscope.files import atomic_write
from otoscope.runs import Run

if TYPE_CHECKING:
    from otoscope.models.base import Model

RESULTS, REPORT = "results.json", "report.md"


@contextmanager
def study_directory(
    out: Path | str, name: str, model: Model, data: Sequence[Path | str], seed: int
) -> Iterator[Path]:
    """The study's directory for the length of the block, made if it is not there; the same study goes on in it.

    Raises:
        OptionError: It belongs to another study, model, data or seed.
        OutputError: It holds other files, another process works in it, or it cannot be made.
    """
    facts = {key: value for key, value in model.describe().items() if key not in ("device", "source")}
    settings = {
        "study": name,
        "model": facts,
        "data": [str(Path(path).resolve()) for path in data],
        "seed": seed,
    }
    with Run.opened(out, "study", settings) as run:
        yield run.path


def write_results(out: Path, results: Mapping[str, Any]) -> None:
    """Write `results.json`."""
    with atomic_write(out / RESULTS) as file:
        json.dump(results, file, allow_nan=False, indent=1)  # ASCII: labels need not be Unicode
        file.write("\n")


def write_report(out: Path, title: str, parts: Sequence[str]) -> None:
    """Write `report.md`: a title and paragraphs or tables."""
    with atomic_write(out / REPORT) as file:
        file.write("\n\n".join([f"# {title}", *parts]) + "\n")


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; what would break it is escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(cell, line)) + " |" for line in lines)


def cell(value: object) -> str:
    """Text on one line that is neither Markdown's table nor HTML."""
    line = " ".join(str(value).encode("utf-8", "backslashreplace").decode().split())
    return line.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def interval(low: float | None, high: float | None, digits: int = 3) -> str:
    """`low to high`, or a dash."""
    return "–" if low is None or high is None else f"{low:.{digits}f} to {high:.{digits}f}"


def percent(rate: Mapping[str, Any]) -> str:
    """`12.3 % (10.1–14.9; 37 of 300)` from `Rate.to_dict()`."""
    if rate["rate"] is None:
        return "– (no cases)"
    low, high = 100 * rate["ci_low"], 100 * rate["ci_high"]
    return f"{100 * rate['rate']:.1f} % ({low:.1f}–{high:.1f}; {rate['count']} of {rate['n']})"
