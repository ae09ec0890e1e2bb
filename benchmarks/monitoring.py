"""What watching costs: transcribing under the monitor that comes with otoscope beside transcribing alone."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from benchmarks.figures import Figure
from benchmarks.measure import clips, seconds

Way = Callable[[], None]

CLAIM = (
    "A monitor makes decoding at most 1.03 times as long, one recording at a time and in batches of 8 (processor time of one "
    "thread)"
)
RUNS = 7
_WAYS = {
    f"{name}, batch {batch}": (name, batch)
    for name in ("whisper-tiny.en", "whisper-base")
    for batch in (1, 8)
}
FIGURES = tuple(Figure(f"{way}: transcribing under a monitor", f"{way}/ratio", at_most=1.03) for way in _WAYS)


def run() -> dict[str, Any]:
    return {way: _one(*which) for way, which in _WAYS.items()}


def _one(name: str, batch: int) -> dict[str, Any]:
    """Every batch with and without, in turns. The work is the same each time and all else only adds to it: the least of each side
    counts. Runs differ by more than what is looked for; the ratio of each run's sums is told beside it.
    """
    import torch

    import otoscope as oto
    from otoscope.monitors.monitor import Monitor

    torch.set_num_threads(1)
    model = oto.load_model(name)
    monitor, heard = Monitor.shipped(model), clips(8)
    batches = [
        _ways_of(model, monitor, heard[first : first + batch]) for first in range(0, len(heard), batch)
    ]
    for way in (way for ways in batches for way in ways):
        way()
    runs = [[_in_turns(ways, run % 2) for ways in batches] for run in range(RUNS)]
    watched, alone = (sum(min(run[i][side] for run in runs) for i in range(len(batches))) for side in (0, 1))
    ratios = [sum(w for w, _ in run) / sum(a for _, a in run) for run in runs]
    return {
        "alone_seconds": round(alone, 3),
        "ratio": round(watched / alone, 4),
        "ratio_of_runs_median": round(statistics.median(ratios), 4),
        "ratio_of_runs_min": round(min(ratios), 4),
        "ratio_of_runs_max": round(max(ratios), 4),
        "recordings": len(heard),
        "runs": RUNS,
    }


def _in_turns(ways: tuple[Way, Way], alone_first: int) -> tuple[float, float]:
    """Seconds of the processor: watched, alone."""
    spent = {way: seconds(way, time.process_time) for way in (reversed(ways) if alone_first else ways)}
    return spent[ways[0]], spent[ways[1]]


def _ways_of(model: Any, monitor: Any, heard: list[Any]) -> tuple[Way, Way]:
    """A batch watched, and alone; the texts must be the same."""
    import otoscope as oto
    from otoscope.models.transcripts import DecodeOptions
    from otoscope.monitors.running import watch_all

    options, batch = DecodeOptions(language="en"), len(heard)
    texts: set[tuple[str, ...]] = set()

    def watched() -> None:
        found = watch_all(model, heard, monitor, options, batch=batch)
        texts.add(tuple(one.transcript.text for one in found))  # type: ignore[union-attr]

    def alone() -> None:
        texts.add(tuple(one.text for one in oto.transcribe_all(model, heard, options, batch=batch)))
        assert len(texts) == 1

    return watched, alone
