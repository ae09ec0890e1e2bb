"""The whole test suite by `make test`, on the cores that are there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure
from benchmarks.measure import seconds

CLAIM = "`make test` once everything is installed and fetched: at most 20 minutes, and nothing fails"
FIGURES = (
    Figure("`make test`, everything installed and fetched", "minutes", at_most=20, unit="minutes"),
    Figure("its tests that failed", "failed", at_most=0),
)


def run() -> dict[str, Any]:
    told = []

    def test() -> None:
        told.append(
            subprocess.run(
                ["make", "--no-print-directory", "test"],
                cwd=Path(__file__).parents[1],
                capture_output=True,
                text=True,
                check=False,
            )
        )

    minutes = round(seconds(test) / 60, 1)
    return {"minutes": minutes, **counts(told[0].returncode, told[0].stdout)}


def counts(code: int, output: str) -> dict[str, int]:
    """How many tests passed, failed and were skipped, by the last line of pytest's output.

    Raises:
        RuntimeError: They did not run to their end, or none passed: that is no measurement.
    """
    end = output.strip().splitlines()[-1] if output.strip() else ""
    found = {what: int(number) for number, what in re.findall(r"(\d+) (passed|failed|skipped|error)", end)}
    failed = found.get("failed", 0) + found.get("error", 0)
    if not found.get("passed") or bool(code) != bool(failed):
        raise RuntimeError(f"`make test` ended with exit code {code}: {output[-2000:]}")
    return {"passed": found["passed"], "failed": failed, "skipped": found.get("skipped", 0)}
