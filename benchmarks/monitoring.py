"""What watching costs: transcribing under the monitor that comes with otoscope beside transcribing alone."""

from __future__ import annotations

import time
from typing import Any

from benchmarks.figures import Figure
from benchmarks.measure import Pair, clips, side_by_side

CLAIM = (
    "A monitor makes decoding at most 1.03 times as long, one recording at a time and in batches of 8 (processor time of one "
    "thread)"
)
RUNS = 5
_WAYS = {
    f"{name}, batch {batch}": (name, batch)
    for name in ("whisper-tiny.en", "whisper-base")
    for batch in (1, 8)
}
FIGURES = tuple(Figure(f"{way}: transcribing under a monitor", f"{way}/ratio", at_most=1.03) for way in _WAYS)


def run() -> dict[str, Any]:
    return {way: _one(*which) for way, which in _WAYS.items()}


def _one(name: str, batch: int) -> dict[str, Any]:
    """The median ratio of every batch, weighed by its time: in a short pair little drift falls between its sides."""
    import torch

    import otoscope as oto
    from otoscope.monitors.monitor import Monitor

    torch.set_num_threads(1)
    model = oto.load_model(name)
    monitor, heard = Monitor.shipped(model), clips(8)
    pairs = [_pair(model, monitor, heard[first : first + batch]) for first in range(0, len(heard), batch)]
    alone = sum(pair.theirs_median for pair in pairs)
    watched = sum(pair.ratio_median * pair.theirs_median for pair in pairs)
    return {
        "alone_seconds": round(alone, 3),
        "ratio": round(watched / alone, 4),
        "ratios_of_batches": sorted(round(pair.ratio_median, 3) for pair in pairs),
        "recordings": len(heard),
        "runs": RUNS,
    }


def _pair(model: Any, monitor: Any, heard: list[Any]) -> Pair:
    import otoscope as oto
    from otoscope.models.transcripts import DecodeOptions
    from otoscope.monitors.running import watch_all

    options, batch = DecodeOptions(language="en"), len(heard)
    texts: list[list[str]] = [[], []]

    def watched() -> None:
        found = watch_all(model, heard, monitor, options, batch=batch)
        texts[0] = [one.transcript.text for one in found]  # type: ignore[union-attr]

    def alone() -> None:
        texts[1] = [one.text for one in oto.transcribe_all(model, heard, options, batch=batch)]

    pair = side_by_side(watched, alone, RUNS, time.process_time)
    assert texts[0] == texts[1]
    return pair
