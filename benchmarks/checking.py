"""`make demo` and `make test` in a fresh clone with nothing installed and nothing fetched, each in one go."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure
from benchmarks.measure import SHARED_AUDIO, seconds

CLAIM = (
    "In a fresh clone `make demo`, which installs and fetches, ends on the page of a clip; then `make test` takes at most 20 "
    "minutes, and nothing fails"
)
FIGURES = (
    Figure("`make demo` in a fresh clone, nothing fetched", "demo_minutes", unit="minutes"),
    Figure("`make test` after it", "minutes", at_most=20, unit="minutes"),
    Figure("its tests that failed", "failed", at_most=0),
)


_CARRIED = (
    "PYTHONPATH",
    "PYTHONHOME",
    "PYTHONDONTWRITEBYTECODE",
    "VIRTUAL_ENV",
    "MAKE",
    "MFLAGS",
    "OMP_",
    "MKL_",
)
"""What this process was started with and a bare machine has not."""


def run() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        clone, root = Path(folder) / "otoscope", Path(__file__).parents[1]
        subprocess.run(["git", "clone", "--quiet", str(root), str(clone)], check=True)
        caches = {name: str(Path(folder) / name) for name in ("OTOSCOPE_CACHE", "PIP_CACHE_DIR", "HF_HOME")}
        bare = {name: value for name, value in os.environ.items() if not name.startswith(_CARRIED)} | caches
        bare["OTOSCOPE_SHARED_AUDIO"] = str(SHARED_AUDIO.resolve())
        demo, demo_minutes, _ = _made("demo", clone, bare)
        if demo.returncode or not (clone / "jfk.explain.html").is_file():
            raise RuntimeError(f"`make demo` ended with exit code {demo.returncode}: {demo.stderr[-2000:]}")
        test, minutes, busy = _made("test", clone, bare)
        commit = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=clone, capture_output=True, text=True, check=True
        )
    which = re.findall(r"^(?:FAILED|ERROR) (\S+)", test.stdout, re.M)
    return {
        "commit": commit.stdout.strip(),
        "demo_minutes": demo_minutes,
        "minutes": minutes,
        "cores_busy": busy,
        **counts(test.returncode, test.stdout),
        **({"which": which} if which else {}),
    }


def _made(
    what: str, clone: Path, environment: dict[str, str]
) -> tuple[subprocess.CompletedProcess[str], float, float]:
    """What `make` gave, the minutes it took, and how many cores it kept busy on average."""
    command, told = ["make", "--no-print-directory", what], []

    def make() -> None:
        told.append(
            subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True, check=False)
        )

    before = _processor_seconds()
    took = seconds(make)
    return told[0], round(took / 60, 1), round((_processor_seconds() - before) / took, 2)


def _processor_seconds() -> float:
    """Of all processes that this one started and that have ended."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


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
