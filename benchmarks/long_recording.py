"""A recording of hours is transcribed in memory that does not grow with its length."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.figures import Figure
from benchmarks.measure import otoscope

CLAIM = "`otoscope transcribe` of 4 hours (whisper-tiny.en), whole process: at most 1.2 times the peak memory of half an hour"
FIGURES = (
    Figure(
        "`otoscope transcribe`: peak memory of 4 hours over that of half an hour", "memory_ratio", at_most=1.2
    ),
)


def run() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        short, long = (_measured(Path(folder), hours) for hours in (0.5, 4.0))
    ratio = round(long["peak_gb"] / short["peak_gb"], 3)
    return {"half_hour": short, "four_hours": long, "memory_ratio": ratio}


def _measured(folder: Path, hours: float) -> dict[str, float]:
    audio, out = folder / f"{hours}.flac", folder / f"{hours}.json"
    _write(audio, hours)
    took = otoscope(["transcribe", str(audio), "--json", str(out), "--quiet"])
    item = json.loads(out.read_text())["items"][0]
    assert abs(item["duration"] - 3600 * hours) < 30
    return {
        "seconds": round(took.seconds, 1),
        "times_real_time": round(3600 * hours / took.seconds, 1),
        "peak_gb": took.peak_gb,
        "windows": len(item["segments"]),
    }


def _write(path: Path, hours: float) -> None:
    """The sample clips with pauses, over and over, 16 kHz."""
    import soundfile

    from otoscope.audio import read
    from otoscope.audio.samples import sample

    pause = np.zeros(12_000, np.float32)
    names = ("jfk", "austen-0870", "austen-0880", "austen-0890")
    block = np.concatenate([part for name in names for part in (read(sample(name)).samples, pause)])
    with soundfile.SoundFile(path, "w", 16_000, 1, format="FLAC") as file:
        left = int(hours * 3600 * 16_000)
        while left > 0:
            file.write(block[:left])
            left -= len(block)
