"""Transcription beside openai-whisper and faster-whisper: the same texts, and how long each takes.

All have the same weights in float32, decode greedily without timestamps, voice detection or fallback to other temperatures, and
are given English as the language. Each runs in a process of its own (`peers/*_transcribing.py`). otoscope's transcripts hold the
times and probabilities of words besides, which the others were not asked for.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.figures import Figure

CLAIM = (
    "Transcription of 16 clips, one by one and in one batch, beside openai-whisper 20250625 and faster-whisper 1.2.1 (float32): "
    "the same texts, in at most the time of openai-whisper; no time is claimed beside faster-whisper, whose engine is written "
    "for speed alone"
)
RATIO, CLIPS, BATCH, NEW = 1.0, 16, 16, 224
MODELS = {"whisper_tiny_en": "whisper-tiny.en", "whisper_base": "whisper-base"}
PEERS = {"openai_whisper": "openai-whisper", "faster_whisper": "faster-whisper"}
WORKS = {"one_by_one": "one by one", "batch": "in a batch"}
FIGURES = (
    *(
        Figure(f"{name}, {how}: time over openai-whisper's", f"{model}/openai_whisper/{work}/ratio_median", at_most=RATIO)
        for model, name in MODELS.items() for work, how in WORKS.items()
    ),
    *(
        Figure(f"{name}, {how}: time over faster-whisper's", f"{model}/faster_whisper/{work}/ratio_median")
        for model, name in MODELS.items() for work, how in WORKS.items()
    ),
    *(
        Figure(
            f"{name}: texts of {CLIPS} clips the same as {spelled}'s",
            tuple(f"{model}/{peer}/{work}/same" for work in WORKS),
            at_least=CLIPS,
        )
        for model, name in MODELS.items() for peer, spelled in PEERS.items()
    ),
)  # fmt: skip
RUNS = {"one_by_one": 5, "batch": 5}


def run() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        return {model: _one(name, Path(folder) / model) for model, name in MODELS.items()}


def _one(name: str, folder: Path) -> dict[str, Any]:
    from benchmarks.peers.answers import same_rows
    from benchmarks.peers.workers import OWN, NotInstalledError, Side, compared, not_measured

    folder.mkdir()
    job, found = _job(name, folder), {}
    with Side(OWN, "otoscope_transcribing.py", job, (OWN, "torch", "transformers")) as ours:
        for peer, distribution in PEERS.items():
            engine = "ctranslate2" if peer == "faster_whisper" else "torch"
            try:
                side = Side(peer, f"{peer}_transcribing.py", job, (distribution, engine))
            except NotInstalledError as error:
                found[peer] = not_measured(error)
                continue
            with side:
                told = {work: compared(ours, side, work, same_rows, RUNS[work]) for work in WORKS}
                found[peer] = {**told, "versions": side.versions}
        return {"seconds_of_sound": job["seconds"], **found, "versions": ours.versions}


def _job(name: str, folder: Path) -> dict[str, Any]:
    from otoscope.mending.exporting import export_ctranslate2, export_transformers
    from otoscope.mending.repair import Repair
    from otoscope.models.loading import load_model

    heard = _english()
    np.savez(folder / "sounds.npz", **{f"{i:03}": clip.samples for i, clip in enumerate(heard)})
    model = load_model(name, dtype="float32")
    export_transformers(model, Repair.of(model, "nothing"), folder / "model")
    export_ctranslate2(folder / "model", folder / "ctranslate2")
    return {
        "folder": str(folder), "model": str(folder / "model"), "ctranslate2": str(folder / "ctranslate2"),
        "sounds": str(folder / "sounds.npz"), "seconds": round(sum(clip.duration for clip in heard), 1),
        "language": "en" if model.is_multilingual else None, "batch": BATCH, "new": NEW,
        "prompt": len(model.prompt()), "suppress": list(model.hf.generation_config.suppress_tokens or []),
        "threads": int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)),
    }  # fmt: skip


def _english() -> list[Any]:
    """Prepared English recordings of at most 30 s, or else the shipped samples."""
    from benchmarks.measure import PREPARED, clips
    from otoscope.corpora import read_manifest

    if not PREPARED.exists():
        return clips(CLIPS)
    spoken = [item for item in read_manifest(PREPARED) if item.language == "en"]
    found = (item.clip() for item in spoken[:: max(1, len(spoken) // CLIPS)])
    return [clip for clip in found if clip.duration <= 30][:CLIPS]
