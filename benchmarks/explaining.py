"""`otoscope explain` on jfk takes under 60 s and 2 GB on two cores, its page under 3 MB; the time of each stage is told."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure
from benchmarks.measure import otoscope

CLAIM = "`otoscope explain` on jfk (11 s), whole process: under 60 s and 2 GB with whisper-tiny.en, and its page is under 3 MB"
FIGURES = (
    Figure(
        "`otoscope explain` of 11 s, whisper-tiny.en, whole process",
        "whisper-tiny.en/seconds",
        at_most=60,
        unit="s",
    ),
    Figure("its peak memory", "whisper-tiny.en/peak_gb", at_most=2, unit="GB"),
    Figure("its page, one file", "whisper-tiny.en/page_mb", at_most=3, unit="MB"),
)


def run() -> dict[str, Any]:
    return {name: _one(name) for name in ("whisper-tiny.en", "whisper-base")}


def _one(model: str) -> dict[str, Any]:
    from otoscope.audio.samples import sample

    with tempfile.TemporaryDirectory() as folder:
        page, numbers = Path(folder) / "page.html", Path(folder) / "numbers.json"
        took = otoscope(
            [
                "explain",
                str(sample("jfk")),
                "--model",
                model,
                "--out",
                str(page),
                "--json",
                str(numbers),
                "--quiet",
            ]
        )
        stages = {t["stage"]: t["seconds"] for t in json.loads(numbers.read_text())["timings"]}
        return {
            "seconds": round(took.seconds, 2),
            "peak_gb": took.peak_gb,
            "page_mb": round(page.stat().st_size / 1e6, 2),
            "stages": stages,
        }
