"""A corpus is transcribed, pooled at every layer and probed in hardly more time than it takes to transcribe it.

Its memory is compared with that of 500 clips: 256 make a shard, and a process reaches its level in the second. What has to grow
with the corpus is what a probe reads, the vectors of one layer at a time, and the list of the items.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.figures import Figure

CLAIM = (
    "2,000 clips of 3 s (whisper-tiny.en): transcribed, all encoder and decoder layers pooled, and two labels probed within "
    "1.15 times the plain transcription; at most 1.1 times the peak memory of 500 clips"
)
FIGURES = (
    Figure("2,000 clips transcribed, pooled and probed, over transcribing them", "ratio", at_most=1.15),
    Figure("its peak memory over that of 500 clips", "memory_ratio", at_most=1.1),
)
FEW, MANY = 500, 2000

JOB = """
import json, os, resource, sys, time
from otoscope.corpora import items
from otoscope.models.families import untrained
from otoscope.models.loading import load_model
from otoscope.models.transcribing import transcribe_all
from otoscope.probes.harvesting import Pools, harvest
from otoscope.probes.probing import ProbeOptions, probe
from otoscope.progress import Silence, reporting_to

def peak():
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 3)

def resident():
    return round(int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e9, 3)

class Shards(Silence):
    peaks, residents = [], []
    def start(self, label, total, unit):
        return self if label.startswith("Harvesting") else Silence()
    def advance(self, amount=1):
        if amount:
            self.peaks.append(peak())
            self.residents.append(resident())

what, manifest, store = sys.argv[1:]
model, corpus = load_model("whisper-tiny.en"), items(manifest)
list(transcribe_all(model, corpus[:16]))  # warm up
seconds, layer_mb = {}, None
with reporting_to(Shards()):
    start = time.perf_counter()
    if what == "plain":
        words = sum(len(t.words) for t in transcribe_all(model, corpus))
    elif what == "random":
        harvest(untrained(model), corpus[:250], store, Pools(("mean",)))
        words = None
    else:
        found = harvest(model, corpus, store, Pools(("mean",), ("mean", "end")))
        seconds["harvest"] = time.perf_counter() - start
        words = sum(len(text.split()) for text in found.index["written"])
        for label, site, pool in (("noisy", "encoder", "mean"), ("noisy", "decoder", "end")):
            probe(found, corpus, label, ProbeOptions(site=site, pool=pool))
    seconds["total"] = time.perf_counter() - start
if what == "pooled":
    layer_mb = found.read("decoder.end.3").nbytes / 1e6
by_shard = {"peak": Shards.peaks, "resident": Shards.residents}
print(json.dumps({"seconds": seconds, "peak_gb": peak(), "by_shard": by_shard, "layer_mb": layer_mb, "words": words}))
"""


def run() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        few, many = (_corpus(root / str(count), count) for count in (FEW, MANY))
        plain = _measured("plain", many, root / "none")
        pooled = _measured("pooled", many, root / "store")
        small = _measured("pooled", few, root / "small")
        random = _measured("random", few, root / "random")
    ratio = pooled["seconds"]["total"] / plain["seconds"]["total"]
    memory = pooled["peak_gb"] / small["peak_gb"]
    return {
        "transcription_seconds": round(plain["seconds"]["total"], 1),
        "pooled_and_probed_seconds": round(pooled["seconds"]["total"], 1),
        "of_that_harvest_seconds": round(pooled["seconds"]["harvest"], 1),
        "ratio": round(ratio, 3),
        "words": [plain["words"], pooled["words"]],
        "peak_gb": {
            "plain": plain["peak_gb"],
            f"{MANY}_clips": pooled["peak_gb"],
            f"{FEW}_clips": small["peak_gb"],
        },
        "memory_ratio": round(memory, 3),
        "gb_after_each_shard": pooled["by_shard"],
        "vectors_of_a_layer_mb": round(pooled["layer_mb"], 1),
        "random_weights_encoder_seconds_for_250": round(random["seconds"]["total"], 1),
    }


def _measured(what: str, manifest: Path, store: Path) -> dict[str, Any]:
    import subprocess

    command = [sys.executable, "-c", JOB, what, str(manifest), str(store)]
    return json.loads(
        subprocess.run(command, check=True, capture_output=True, text=True, env=dict(os.environ)).stdout
    )


def _corpus(folder: Path, count: int) -> Path:
    """Spans of 3 s of the sample recordings, every second one in noise, by twenty "speakers" (for the folds)."""
    import soundfile

    from otoscope.audio import mix, read, white_noise
    from otoscope.audio.samples import NAMES, sample

    folder.mkdir()
    sound = np.concatenate([read(sample(name)).samples for name in NAMES])
    rng = np.random.default_rng(0)
    lines = []
    for i in range(count):
        from otoscope.audio import Clip

        start = int(rng.integers(len(sound) - 48_000))
        clip = Clip(sound[start : start + 48_000].copy())
        noisy = i % 2 == 1
        if noisy:
            clip = mix(clip, white_noise(3.0, seed=i), float(rng.uniform(0, 20)))
        name = f"{i:04d}.flac"
        soundfile.write(folder / name, np.clip(clip.samples, -1, 1), 16_000)
        lines.append({"audio_filepath": name, "noisy": "yes" if noisy else "no", "speaker": f"s{i % 20}"})
    manifest = folder / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return manifest
