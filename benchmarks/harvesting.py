"""What harvesting vectors for dictionaries costs beside running the model over the same windows.

Windows of 30 s are joined from the sample recordings. Plain is the model alone: log-mel and encoder, and for the decoder the
greedy transcripts, too. Harvesting keeps what every MLP reads and writes, on disk: three shards, each written while the next is
computed. Both in turns, in one process, after a warm-up each; what was kept is removed afterwards.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure
from benchmarks.measure import alternately, seconds

CLAIM = "Harvesting all MLPs of whisper-tiny.en over 48 windows takes at most 1.1 times as long as running the model over them"
FIGURES = tuple(
    Figure(f"All MLPs of the {stack} harvested over running it", f"{stack}/ratio_median", at_most=1.1)
    for stack in ("encoder", "decoder")
)
WINDOWS, BATCH, TURNS = 48, 8, 5


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

    def harvested(stack: str, folder: Path) -> None:
        places = places_of(model, f"{stack}_blocks.*.mlp")
        harvest_places(model, windows, places, folder / "vectors", batch=BATCH, dtype="float16")

    def timed(stack: str) -> float:
        with tempfile.TemporaryDirectory() as folder:
            return seconds(lambda: harvested(stack, Path(folder)))

    told: dict[str, Any] = {}
    for stack in ("encoder", "decoder"):
        plain(stack), timed(stack)  # warm
        pair = alternately(
            lambda stack=stack: timed(stack), lambda stack=stack: seconds(lambda: plain(stack)), TURNS
        )
        told[stack] = pair.to_dict() | {
            "windows_a_second": round(WINDOWS / pair.ours_median, 2),
            "hours_of_sound_an_hour": round(WINDOWS * 30 / pair.ours_median, 1),
        }
    told["encoder"]["bytes_an_hour_of_sound"] = 3600 * 50 * 8 * 384 * 2
    return told


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
