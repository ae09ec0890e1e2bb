"""Whisper beside nnsight: the same activations, effects and tokens, and how long both take.

Both have the same checkpoint, the same features and the same build of torch and Transformers, each in a process of its own
(`peers/nnsight_whisper.py`, `peers/otoscope_whisper.py`). nnsight patches as otoscope does, many heads in the rows of one batch,
and encodes each sound once: the loop over heads that its guides show would be slower.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.figures import Figure

CLAIM = (
    "Beside nnsight 0.8.1 on whisper-tiny.en: all residual streams of four clips, the 24 cross-attention heads patched from one "
    "clip into another, and `generate` with a head zeroed: the same numbers (1e-3) and tokens, in at most 1.05 of its time"
)
RATIO, AGREE = 1.05, 1e-3
FIGURES = (
    *(
        Figure(f"{what}: time over nnsight's", f"{work}/ratio_median", at_most=RATIO)
        for work, what in (
            ("capture", "Residual streams of four clips"),
            ("patch_heads", "24 heads patched"),
            ("generate", "`generate` with a head zeroed"),
        )
    ),
    Figure("Streams: largest difference from nnsight's", "capture/largest_difference", at_most=AGREE),
    Figure("Patched heads: largest difference in logits from nnsight's", "patch_heads/largest_difference", at_most=AGREE),
    Figure("Tokens of four clips the same as nnsight's", "generate/same", at_least=4),
)  # fmt: skip
RUNS = {"plain": 7, "capture": 21, "patch_heads": 7, "generate": 7}
VERSIONS = ("torch", "transformers")


def run() -> dict[str, Any]:
    from benchmarks.peers.answers import largest_difference, same_rows
    from benchmarks.peers.workers import OWN, NotInstalledError, Side, compared, not_measured

    with tempfile.TemporaryDirectory() as folder:
        job = _job(Path(folder))
        try:
            theirs = Side("nnsight", "nnsight_whisper.py", job, ("nnsight", *VERSIONS))
        except NotInstalledError as error:
            return not_measured(error)
        with theirs, Side(OWN, "otoscope_whisper.py", job, (OWN, *VERSIONS)) as ours:
            judge = {"capture": largest_difference, "patch_heads": largest_difference, "generate": same_rows}
            found = {work: compared(ours, theirs, work, judge[work], RUNS[work]) for work in judge}
            versions = {"ours": ours.versions, "theirs": theirs.versions}
            plain = [ours.seconds("plain") for _ in range(RUNS["plain"])]
    return {**found, "plain_forward_pass_seconds": round(float(np.median(plain)), 4), "versions": versions}


def _job(folder: Path) -> dict[str, Any]:
    """Four clips with one text: the first is patched into the second."""
    from benchmarks.measure import clips
    from otoscope.models.loading import load_model
    from otoscope.models.transcribing import transcribe

    model = load_model("whisper-tiny.en", dtype="float32")
    model.hf.save_pretrained(folder / "model")
    model.processor.save_pretrained(folder / "model")
    heard = clips(4)[:4]
    np.save(folder / "features.npy", model.features(heard).numpy())
    first, second = (transcribe(model, clip).ids for clip in heard[:2])
    return {
        "folder": str(folder), "model": str(folder / "model"), "features": str(folder / "features.npy"),
        "tokens": [*model.prompt(), *first[:24]], "answer": first[24 % len(first)], "other": second[-1], "new": 60,
    }  # fmt: skip
