"""What it saves to use freed memory again (`otoscope.machine`), on one command with batches of windows.

Both sides are `otoscope transcribe` in a process of its own, in turns. One has an environment that says something to glibc, so
that otoscope says nothing more; what it says, `MALLOC_PERTURB_=0`, is what holds anyway.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure
from benchmarks.measure import alternately, otoscope

CLAIM = (
    "`otoscope transcribe` of 48 recordings of 3 s (whisper-base, batch 8), whole process, takes less time than with glibc as it "
    "is, and no more memory"
)
FIGURES = (
    Figure(
        "Freed memory used again: time of `otoscope transcribe` over that with glibc as it is",
        "ratio_median",
        at_most=1,
    ),
    Figure("its peak memory over that with glibc as it is", "memory_ratio", at_most=1.05),
)
CLIPS, TURNS = 48, 5


def run() -> dict[str, Any]:
    peaks: dict[str, list[float]] = {"ours": [], "plain": []}
    plain = os.environ | {"MALLOC_PERTURB_": "0"}
    ours = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    for environment in (ours, plain):
        environment.pop("THP_MEM_ALLOC_ENABLE", None)
    with tempfile.TemporaryDirectory() as folder:
        _recordings(Path(folder))

        def timed(side: str, environment: dict[str, str]) -> float:
            told = [
                "transcribe",
                folder,
                "--model",
                "whisper-base",
                "--language",
                "en",
                "--batch",
                "8",
                "--quiet",
            ]
            took = otoscope(told, environment)
            peaks[side].append(took.peak)
            return took.seconds

        timed("ours", ours), timed("plain", plain)  # warm
        pair = alternately(lambda: timed("ours", ours), lambda: timed("plain", plain), TURNS)
    gb = {f"{side}_gb": round(max(found) / 1e9, 2) for side, found in peaks.items()}
    return pair.to_dict() | gb | {"memory_ratio": round(max(peaks["ours"]) / max(peaks["plain"]), 3)}


def _recordings(folder: Path) -> None:
    import numpy as np
    import soundfile

    from otoscope.audio import read
    from otoscope.audio.samples import sample

    names = ("jfk", "austen-0870", "austen-0880", "austen-0890")
    sound = np.resize(np.concatenate([read(sample(name)).samples for name in names]), CLIPS * 3 * 16_000)
    for number, samples in enumerate(np.split(sound, CLIPS)):
        soundfile.write(folder / f"{number:02}.flac", samples, 16_000)
