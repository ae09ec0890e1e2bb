"""`import otoscope` takes under half a second, interpreter start included."""

from __future__ import annotations

import statistics
import subprocess
import sys
from typing import Any

from benchmarks.figures import Figure
from benchmarks.measure import seconds

CLAIM = "`import otoscope` and `otoscope --help`, whole process: under 0.5 s"
FIGURES = (
    Figure("`import otoscope`, whole process", "import_seconds", at_most=0.5, unit="s"),
    Figure("`otoscope --help`, whole process", "help_seconds", at_most=0.5, unit="s"),
)


def run() -> dict[str, Any]:
    def median(*arguments: str) -> float:
        command = [sys.executable, *arguments]
        times = [seconds(lambda: subprocess.run(command, check=True, capture_output=True)) for _ in range(7)]
        return round(statistics.median(times), 3)

    imported, helped, bare = (
        median("-c", "import otoscope"),
        median("-m", "otoscope", "--help"),
        median("-c", "pass"),
    )
    return {
        "import_seconds": imported,
        "help_seconds": helped,
        "bare_python_seconds": bare,
    }
