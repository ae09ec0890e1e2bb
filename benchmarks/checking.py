"""The whole test suite, as `make test` runs it, on the cores that are there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure
from benchmarks.measure import seconds

CLAIM = (
    "`make test` once everything is installed and fetched: at most 20 minutes on two cores, and nothing fails"
)
FIGURES = (
    Figure("`make test`, everything installed and fetched", "minutes", at_most=20, unit="minutes"),
    Figure("its tests that failed", "failed", at_most=0),
)


def run() -> dict[str, Any]:
    told = {}

    def test() -> None:
        command = [sys.executable, "-m", "pytest", "-q"]
        told["end"] = (
            subprocess.run(
                command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False
            )
            .stdout.strip()
            .splitlines()[-1]
        )

    took = seconds(test)
    counts = {
        what: int(number) for number, what in re.findall(r"(\d+) (passed|failed|skipped|error)", told["end"])
    }
    return {
        "minutes": round(took / 60, 1),
        "passed": counts.get("passed", 0),
        "failed": counts.get("failed", 0) + counts.get("error", 0),
        "skipped": counts.get("skipped", 0),
    }
