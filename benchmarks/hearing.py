"""Graphs from audio frames to words: time and memory on one clip, and how both grow with its length and with nodes.

Every graph is made in a process of its own, in the neuron basis, in float32; times are of the whole call after loading, the
listening included. The two models take turns.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure
from benchmarks.measure import alternately

CLAIM = (
    "jfk (11 s) with 500 decoder features: encoder closed under 10 s; 100 of them carried into the encoder and 200 encoder "
    "features over word segments under 120 s and 4 GB (whisper-tiny.en, two cores); whisper-base at most 3 times that"
)
FIGURES = (
    Figure(
        "Graph of a word of 11 s, encoder closed, whisper-tiny.en",
        "whisper_tiny_en/closed/seconds",
        at_most=10,
        unit="s",
    ),
    Figure("the same carried into the encoder", "whisper_tiny_en/opened/seconds", at_most=120, unit="s"),
    Figure("its peak memory", "whisper_tiny_en/opened/gb", at_most=4, unit="GB"),
    Figure(
        "whisper-base over whisper-tiny.en, both ways",
        ("base_over_tiny_en/closed/ratio_median", "base_over_tiny_en/opened/ratio_median"),
        at_most=3,
    ),
)
WAYS, TURNS = {"closed": 0, "opened": 200}, 3
LENGTHS, NODES, ENCODER_NODES = (3, 6, 11, 20, 30), (125, 250, 500, 1000), (50, 100, 200, 400)
FIGURE = Path(__file__).parents[1] / "docs" / "images" / "tracing-a-recording-cost.png"

JOB = """
import json, resource, sys, time
import numpy as np, torch
from otoscope.audio import Clip, read
from otoscope.audio.samples import sample
from otoscope.circuits.speech import trace_speech
from otoscope.circuits.speech_tracing import SpeechSettings
from otoscope.models.loading import load_model

job = json.loads(sys.argv[1])
model = load_model(job["model"], dtype="float32")
clips = [read(sample(name)).samples for name in ("jfk", "austen-0890", "austen-0870", "austen-0880", "jfk")]
sound = clips[0] if job["seconds"] is None else np.concatenate(clips)[: round(job["seconds"] * 16000)]
settings = SpeechSettings(nodes=job["nodes"], encoder_nodes=job["encoder_nodes"])
start = time.perf_counter()
graph = trace_speech(model, Clip(sound), "end" if job["seconds"] else "country", settings=settings)
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
print(json.dumps({"seconds": seconds, "gb": peak, "tokens": len(graph.tokens), "edges": len(graph.weights)}))
"""


def run() -> dict[str, Any]:
    sides = {way: _in_turns(encoder_nodes) for way, encoder_nodes in WAYS.items()}
    tiny, base = (
        {way: side[name] for way, side in sides.items()} for name in ("whisper-tiny.en", "whisper-base")
    )
    lengths = {s: graph("whisper-tiny.en", seconds=s) for s in LENGTHS}
    nodes = {n: graph("whisper-tiny.en", nodes=n) for n in NODES}
    encoder = {n: graph("whisper-tiny.en", encoder_nodes=n) for n in ENCODER_NODES}
    _draw(lengths, nodes, encoder)
    return {
        "whisper_tiny_en": _rounded(tiny),
        "whisper_base": _rounded(base),
        "base_over_tiny_en": {way: side["ratio"] for way, side in sides.items()},
        "seconds_of_sound": _rounded(lengths),
        "decoder_features": _rounded(nodes),
        "encoder_features": _rounded(encoder),
        "whisper_large_v3_estimated": _large(base["opened"]["seconds"] - base["closed"]["seconds"]),
    }


def _in_turns(encoder_nodes: int) -> dict[str, Any]:
    """The graph of both models, the median of its seconds and the most memory, and the ratio of their times."""
    made: dict[str, list[dict[str, float]]] = {"whisper-base": [], "whisper-tiny.en": []}

    def timed(name: str) -> float:
        made[name].append(graph(name, encoder_nodes=encoder_nodes))
        return made[name][-1]["seconds"]

    pair = alternately(lambda: timed("whisper-base"), lambda: timed("whisper-tiny.en"), TURNS)
    return {"ratio": pair.to_dict()} | {
        name: runs[-1] | {"seconds": statistics.median(run["seconds"] for run in runs), "gb": max(run["gb"] for run in runs)}
        for name, runs in made.items()
    }  # fmt: skip


def graph(
    model: str, nodes: int = 500, encoder_nodes: int = 0, seconds: float | None = None
) -> dict[str, float]:
    job = {"model": model, "nodes": nodes, "encoder_nodes": encoder_nodes, "seconds": seconds}
    done = subprocess.run([sys.executable, "-c", JOB, json.dumps(job)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return json.loads(done.stdout.strip().splitlines()[-1])


def operations(layers: int, d: int, features: int, rows: int, frames: int = 1500) -> float:
    """Floating point operations of so many rows through an encoder.

    Of each layer and row `2 frames d features` to read the features' write vectors, `4 frames d^2` for the adjoints of values and
    outputs, and `2 frames^2 d` to move along the patterns.
    """
    each = 2 * frames * d * features + 4 * frames * d * d + 2 * frames * frames * d
    return float(rows * layers * each)


def _large(base_seconds: float) -> dict[str, Any]:
    """whisper-large-v3 from the rate that whisper-base's opened encoder reached here, and for a GPU of 30 TFLOP/s in float32."""
    base = (
        operations(6, 512, 2048, 101) + operations(6, 512, 2048, 200) / 2
    )  # rows of features begin at their layer
    large = operations(32, 1280, 5120, 101) + operations(32, 1280, 5120, 200) / 2
    rate = base / base_seconds
    dense = 1500 * 5120 * 32 * 4 * 2 / 1e9  # activations and gates of every frame, float32
    patterns = 32 * 20 * 1500 * 1500 * 4 / 1e9
    return {
        "tflop": round(large / 1e12, 1),
        "gflop_per_second_reached_here": round(rate / 1e9, 1),
        "minutes_here": round(large / rate / 60, 1),
        "seconds_at_30_tflop_per_second_and_the_same_share_of_peak_as_a_matrix_product": round(
            large / 3e13, 1
        ),
        "gb_of_weights_activations_and_patterns": round(1.54 * 4 + dense + patterns, 1),
        "command": "otoscope trace CLIP --model openai/whisper-large-v3 --device cuda --dtype float32 --encoder-nodes 200",
    }


def _rounded(found: dict[Any, dict[str, float]]) -> dict[str, Any]:
    return {
        str(key): {
            "seconds": round(v["seconds"], 2), "gb": round(v["gb"], 2), "tokens": v["tokens"], "edges": v["edges"],
        }
        for key, v in found.items()
    }  # fmt: skip


def _draw(*series: dict[int, dict[str, float]]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2.8), layout="constrained")
    names = (
        "seconds of sound (closed, 500 features)",
        "decoder features (closed)",
        "encoder features (of 500)",
    )
    for axis, name, found in zip(figure.subplots(1, 3), names, series, strict=True):
        axis.plot(list(found), [v["seconds"] for v in found.values()], "o-", color="#0072b2")
        axis.set_xlabel(name, fontsize=8)
        axis.set_ylim(bottom=0)
        axis.set_xlim(left=0)
        axis.tick_params(labelsize=8)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    figure.axes[0].set_ylabel("seconds, whisper-tiny.en", fontsize=8)
    figure.savefig(FIGURE, dpi=150)
