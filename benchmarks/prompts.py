"""Graphs of four prompts with SmolLM2-135M's own neurons: time, memory, and whether interventions bear them out."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure
from benchmarks.measure import Process, otoscope

MODEL, NODES = "smollm2-135m", 1000
CLAIM = (
    f"The graph of a prompt's next token with {NODES:,} neurons of SmolLM2-135M takes under 60 s and 4 GB, whole process; its "
    "edges are the changes they predict with everything frozen (correlation at least 0.9999), and with the model reacting they "
    "tell more than every baseline"
)
PROMPTS = (
    "The capital of France is",
    "The opposite of hot is",
    "One, two, three, four, five,",
    "Mr. Dursley met Mrs. Potter. Later that day Mr. Durs",
)
FIGURES = (
    Figure(
        "Graph of a prompt, 1,000 neurons of SmolLM2-135M, whole process, the slowest of 4",
        "slowest_seconds",
        at_most=60,
        unit="s",
    ),
    Figure("its peak memory", "greatest_peak_gb", at_most=4, unit="GB"),
    Figure(
        "correlation of its edges with interventions, everything frozen, the least of 4",
        "least_direct",
        at_least=0.9999,
    ),
    Figure(
        "prompts, the model reacting, where it tells more than every baseline",
        "above_every_baseline",
        at_least="prompts",
    ),
)


def run() -> dict[str, Any]:
    from otoscope.models.loading import load_model

    load_model(MODEL, "meta")  # fetched now, if it is not here, and not while a process is timed
    found = {prompt: _of(prompt) for prompt in PROMPTS}
    return {
        **found,
        "slowest_seconds": max(one["seconds"] for one in found.values()),
        "greatest_peak_gb": max(one["peak_gb"] for one in found.values()),
        "least_direct": min(one["direct"] for one in found.values()),
        "above_every_baseline": sum(one["above_every_baseline"] for one in found.values()),
        "prompts": len(found),
    }


def _of(prompt: str) -> dict[str, Any]:
    took, graph = _traced(prompt)
    _, checked = _traced(prompt, "--check")
    direct, free = checked["check"]["direct"], checked["check"]["free"]
    return {
        "next": graph["targets"][0]["label"],
        "seconds": round(took.seconds, 2),
        "peak_gb": took.peak_gb,
        "direct": direct["correlation"],
        "direct_n": direct["n"],
        "free": round(free["correlation"], 3),
        "free_interval": [round(free["ci_low"], 3), round(free["ci_high"], 3)],
        "free_n": free["n"],
        "above_every_baseline": free["correlation"] > max(free["baselines"].values()),
        "baselines": {name: round(value, 3) for name, value in free["baselines"].items()},
    }


def _traced(prompt: str, *more: str) -> tuple[Process, dict[str, Any]]:
    """What a whole process took, and what it wrote."""
    with tempfile.TemporaryDirectory() as folder:
        numbers = Path(folder) / "graph.json"
        asked = [
            "--prompt",
            prompt,
            "--model",
            MODEL,
            "--nodes",
            str(NODES),
            "--json",
            str(numbers),
            "--quiet",
        ]
        took = otoscope(["trace", *asked, *more])
        return took, json.loads(numbers.read_text("utf-8"))
