"""What harvesting vectors for dictionaries costs beside running the model over the same windows.

Windows of 30 s are joined from the sample recordings. Plain is the model alone: log-mel and encoder, and for the decoder the
greedy transcripts, too. Harvesting keeps what every MLP reads and writes, on disk. Both in turns, in one process.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure

CLAIM = "Harvesting all MLPs of whisper-tiny.en over 16 windows takes at most 1.1 times as long as running the model over them"
FIGURES = tuple(
    Figure(f"All MLPs of the {stack} harvested over running it", f"{stack}/ratio", at_most=1.1)
    for stack in ("encoder", "decoder")
)
WINDOWS, BATCH, TURNS = 16, 8, 5


def run() -> dict[str, Any]:
    import torch

    import otoscope as oto
    from otoscope.dictionaries.harvesting import harvest_places
    from otoscope.dictionaries.places import places_of
    from otoscope.models.decoding import DecoderSession, batches, decode, prompts_for
    from otoscope.models.transcripts import DecodeOptions

    model, windows = oto.load_model(), _windows()
    options = DecodeOptions()

    def plain(stack: str) -> None:
        for chunk in batches(windows, BATCH):
            clips = [next(item.windows(30.0)) for item in chunk]
            with torch.no_grad():
                encoded = model.encode(model.features(clips))
                if stack == "decoder":
                    prompts = prompts_for(model, ["en"] * len(clips), options)
                    decode(model, DecoderSession(model, encoded), prompts, options)

    def harvested(stack: str) -> None:
        with tempfile.TemporaryDirectory() as folder:
            places = places_of(model, f"{stack}_blocks.*.mlp")
            harvest_places(model, windows, places, Path(folder) / "vectors", batch=BATCH, dtype="float16")

    told: dict[str, Any] = {}
    for stack in ("encoder", "decoder"):
        plain(stack)  # warm
        seconds: dict[str, list[float]] = {"plain": [], "harvested": []}
        for _ in range(TURNS):
            seconds["plain"].append(_timed(plain, stack))
            seconds["harvested"].append(_timed(harvested, stack))
        median = {name: statistics.median(times) for name, times in seconds.items()}
        told[stack] = {
            "seconds": seconds,
            "ratio": median["harvested"] / median["plain"],
            "windows_a_second": WINDOWS / median["harvested"],
            "hours_of_sound_an_hour": WINDOWS * 30 / median["harvested"],
        }
    told["encoder"]["bytes_an_hour_of_sound"] = 3600 * 50 * 8 * 384 * 2
    return told


def _timed(work: Callable[[str], None], stack: str) -> float:
    start = time.perf_counter()
    work(stack)
    return time.perf_counter() - start


def _windows() -> list[Any]:
    import otoscope as oto
    from otoscope.audio import info
    from otoscope.corpora import Item, joined

    names = ("jfk", "austen-0870", "austen-0880", "austen-0890")
    items = [
        Item(f"{name}-{i}", oto.sample(name), duration=info(oto.sample(name)).duration, language="en")
        for i in range(WINDOWS)
        for name in names
    ]
    return joined(items, 30.0)[:WINDOWS]
