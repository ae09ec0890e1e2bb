"""What `otoscope models check --plan` predicts of a command is what the command takes, within a factor.

Seconds are the processor's, of one thread: so other programs that run at the same time change little.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure
from benchmarks.measure import SILENT

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
ALONE = dict(os.environ) | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def run() -> dict[str, Any]:
    out: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for model in MODELS:
            for command, (arguments, work) in _jobs(Path(folder) / model, model).items():
                predicted = _predicted(model, command, work)
                seconds, peak = _measured([command, *arguments, "--model", model, "--quiet"])
                out[f"{model}, {command}"] = {
                    "seconds": [round(predicted["seconds"], 1), round(seconds, 1)],
                    "time_ratio": round(predicted["seconds"] / seconds, 2),
                    "gb": [round(predicted["peak_bytes"] / 1e9, 2), round(peak / 1e9, 2)],
                    "memory_ratio": round(predicted["peak_bytes"] / peak, 2),
                }
                print(f"{model}, {command}: {out[f'{model}, {command}']}", flush=True)
    times, memories = ([v[name] for v in out.values()] for name in ("time_ratio", "memory_ratio"))
    return out | {"worst_time_factor": _factor(times), "worst_memory_factor": _factor(memories)}


def _factor(ratios: list[float]) -> float:
    return round(max(max(r, 1 / r) for r in ratios), 2)


def _jobs(folder: Path, model: str) -> dict[str, tuple[list[str], dict[str, Any]]]:
    """The commands, and what a plan is told of their work."""
    from otoscope.audio import read
    from otoscope.audio.samples import sample

    folder.mkdir(parents=True)
    clip = str(sample("jfk"))
    clips = [str(sample(name)) for name in ("jfk", "austen-0870", "austen-0880", "austen-0890")]
    total = sum(read(each).duration for each in clips)
    voices, lines = folder / "voices", [{"audio_filepath": each} for each in clips]
    manifest = folder / "clips.jsonl"
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    made = [
        "corpus",
        "make",
        "voices",
        "--out",
        str(voices),
        "--accents",
        "en-us",
        "--sentences",
        "4",
        "--quiet",
    ]
    subprocess.run(
        [sys.executable, "-m", "otoscope", *made], check=True, env=ALONE, stdout=subprocess.DEVNULL
    )
    count = len((voices / "manifest.jsonl").read_text().splitlines())
    one = {"seconds": 11}
    store = ["--store", str(folder / "store")]
    learned = ["--point", "encoder_blocks.2.hook_resid_post", "--kind", "sae", "--steps", "50"]
    return {
        "transcribe": ([clip], one),
        "explain": ([clip, "--out", str(folder / "page.html")], one),
        "lens": ([clip], one),
        "trace": ([clip], one),
        "monitor": (["run", clip], one),
        "probe": (
            [str(voices / "manifest.jsonl"), "--label", "gender", *store],
            {"seconds": 3 * count, "recordings": count},
        ),
        "features": (
            [
                "train",
                str(manifest),
                "--out",
                str(folder / "sae"),
                *learned,
                *["--store", str(folder / "vectors")],
            ],
            {"seconds": total, "recordings": len(clips), "units": 50},
        ),
        "patch": (
            [str(_loop(folder, model)), "--out", str(folder / "sweep"), "--price", str(manifest)],
            {"seconds": 30},
        ),
    }


def _loop(folder: Path, model: str) -> Path:
    """A manifest with one recording that the model writes as a loop."""
    from benchmarks.patching_generative import looping
    from otoscope.corpora import write_manifest
    from otoscope.models.loading import load_model

    found = looping(load_model(model), 1, str(folder / "loops"))
    path = folder / "loop.jsonl"
    write_manifest(found[:1], path)
    return path


def _predicted(model: str, command: str, work: dict[str, Any]) -> dict[str, Any]:
    options = [part for name, value in work.items() for part in (f"--{name}", str(value))]
    told = [
        sys.executable,
        "-m",
        "otoscope",
        "models",
        "check",
        model,
        "--plan",
        command,
        *options,
        "--json",
        "-",
        "--quiet",
    ]
    return json.loads(subprocess.run(told, check=True, env=ALONE, capture_output=True, text=True).stdout)


def _measured(arguments: list[str]) -> tuple[float, float]:
    """Seconds of the processor, and the greatest memory in bytes, of a whole process."""
    command = [sys.executable, "-m", "otoscope", *arguments]
    pid = os.posix_spawn(sys.executable, command, ALONE, file_actions=SILENT)
    _, status, usage = os.wait4(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, " ".join(command)
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024.0


if __name__ == "__main__":
    print(json.dumps(run(), indent=1))
