"""What watching costs: transcribing under the monitor that comes with otoscope beside transcribing alone."""

from __future__ import annotations

from typing import Any

from benchmarks.figures import Figure
from benchmarks.measure import clips, side_by_side

CLAIM = "A monitor makes decoding at most 1.03 times as long, one recording at a time and in batches of 8"
_WAYS = {
    f"{name}, batch {batch}": (name, batch)
    for name in ("whisper-tiny.en", "whisper-base")
    for batch in (1, 8)
}
FIGURES = tuple(
    Figure(f"{way}: transcribing under a monitor", f"{way}/ratio_median", at_most=1.03) for way in _WAYS
)


def run() -> dict[str, Any]:
    return {way: _one(*which) for way, which in _WAYS.items()}


def _one(name: str, batch: int) -> dict[str, Any]:
    import otoscope as oto
    from otoscope.models.transcripts import DecodeOptions
    from otoscope.monitors.monitor import Monitor
    from otoscope.monitors.running import watch_all

    model = oto.load_model(name)
    monitor, heard, options = Monitor.shipped(model), clips(8), DecodeOptions(language="en")
    texts: list[list[str]] = [[], []]

    def watched() -> None:
        texts[0] = [one.transcript.text for one in watch_all(model, heard, monitor, options, batch=batch)]  # type: ignore[union-attr]

    def alone() -> None:
        texts[1] = [one.text for one in oto.transcribe_all(model, heard, options, batch=batch)]

    pair = side_by_side(watched, alone, runs=5)
    return pair.to_dict() | {"clips": len(heard), "same_texts": texts[0] == texts[1]}
