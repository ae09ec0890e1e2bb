"""What `otoscope models check --plan` predicts of a command is what the command takes, within a factor.

Seconds are the processor's, of one thread: so other programs that run at the same time change little.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure
from benchmarks.measure import otoscope

TIME, MEMORY = 2.0, 1.5
CLAIM = (
    f"Predicted over measured, each long command on whisper-tiny.en and whisper-base: time within a factor of {TIME:g}, "
    f"peak memory within {MEMORY:g}"
)
FIGURES = (
    Figure(
        "A plan's seconds, over or under what is measured", "worst_time_factor", at_most=TIME, unit="times"
    ),
    Figure(
        "A plan's memory, over or under what is measured", "worst_memory_factor", at_most=MEMORY, unit="times"
    ),
)
MODELS = ("whisper-tiny.en", "whisper-base")
THREADS = 1
ALONE = dict(os.environ) | dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(THREADS))


PREDICTING = """
import json, sys
from otoscope.models.loading import load_model
from otoscope.planning.commands import plan
from otoscope.planning.machine import measured
for model, command, work in json.loads(sys.argv[1]):
    print(json.dumps(plan(load_model(model, "meta"), command, measured(), **work).to_dict()))
"""


def run() -> dict[str, Any]:
    out: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        jobs = [(model, *job) for model in MODELS for job in _jobs(Path(folder) / model, model)]
        plans = _predicted([(model, command, work) for model, command, _, work in jobs])
        for (model, command, arguments, _), predicted in zip(jobs, plans, strict=True):
            took = otoscope([command, *arguments(), "--model", model, "--quiet"], ALONE)
            found = {
                "seconds": [round(predicted["seconds"], 1), round(took.processor, 1)],
                "time_ratio": round(predicted["seconds"] / took.processor, 2),
                "gb": [round(predicted["peak_bytes"] / 1e9, 2), took.peak_gb],
                "memory_ratio": round(predicted["peak_bytes"] / took.peak, 2),
            }
            out[f"{model}, {command}"] = found
            print(f"{model}, {command}: {found}", flush=True)
    times, memories = ([v[name] for v in out.values()] for name in ("time_ratio", "memory_ratio"))
    return out | {"worst_time_factor": _factor(times), "worst_memory_factor": _factor(memories)}


def _factor(ratios: list[float]) -> float:
    return round(max(max(r, 1 / r) for r in ratios), 2)


Job = tuple[str, Callable[[], list[str]], dict[str, Any]]


def _jobs(folder: Path, model: str) -> list[Job]:
    """The commands, their arguments when it is their turn, and what a plan is told of their work."""
    from otoscope.audio import info
    from otoscope.audio.samples import sample

    folder.mkdir(parents=True)
    clips = [str(sample(name)) for name in ("jfk", "austen-0870", "austen-0880", "austen-0890")]
    total = sum(info(each).duration or 0.0 for each in clips)
    manifest = folder / "clips.jsonl"
    manifest.write_text("".join(json.dumps({"audio_filepath": each}) + "\n" for each in clips))
    clip, one = clips[0], {"seconds": 11}
    trained = ["train", str(manifest), "--out", str(folder / "sae"), "--store", str(folder / "vectors"), *SAE]
    swept = ["--out", str(folder / "sweep"), "--price", str(manifest)]
    return [
        ("transcribe", lambda: [clip], one),
        ("trace", lambda: [clip], one),
        ("lens", lambda: [clip], one),
        ("explain", lambda: [clip, "--out", str(folder / "page.html"), "--force"], one),
        ("monitor", lambda: ["run", clip], one),
        ("features", lambda: trained, {"seconds": total, "recordings": len(clips), "units": 50}),
        (
            "probe",
            lambda: [_voices(folder), "--label", "gender", "--store", str(folder / "store")],
            {"seconds": 72, "recordings": 24},
        ),
        ("patch", lambda: [_loop(folder, model), *swept], {"seconds": 30}),
    ]


SAE = ["--point", "encoder_blocks.2.hook_resid_post", "--kind", "sae", "--steps", "50"]


def _voices(folder: Path) -> str:
    """A corpus of 24 short recordings with known voices."""
    voices = ["--voices", "f1,f2,f3,m1,m2,m3", "--accents", "en-us", "--sentences", "4"]
    otoscope(["corpus", "make", "voices", "--out", str(folder / "voices"), *voices, "--quiet"], ALONE)
    return str(folder / "voices" / "manifest.jsonl")


LOOPING = """
import sys
from benchmarks.patching_generative import looping
from otoscope.corpora import write_manifest
from otoscope.models.loading import load_model
write_manifest(looping(load_model(sys.argv[1]), 1, sys.argv[2])[:1], sys.argv[3])
"""


def _loop(folder: Path, model: str) -> str:
    """A manifest with one recording that the model writes as a loop."""
    path = str(folder / "loop.jsonl")
    subprocess.run([sys.executable, "-c", LOOPING, model, str(folder / "loops"), path], check=True, env=ALONE)
    return path


def _predicted(jobs: list[tuple[str, str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Plans, made in a process of their own: what this one holds would count as its children's."""
    command = [sys.executable, "-c", PREDICTING, json.dumps(jobs)]
    done = subprocess.run(command, check=True, env=ALONE, stdout=subprocess.PIPE, text=True)
    return [json.loads(line) for line in done.stdout.splitlines()]
