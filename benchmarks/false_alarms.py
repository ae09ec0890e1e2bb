"""How often the monitors that come with otoscope ring at speech that they never saw, and at music beside it."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure
from benchmarks.measure import NOT_PREPARED, PREPARED

CLAIM = (
    "At the rate that was asked for, 5 %, monitors ring at no more than that share of speech that was kept out, in the languages "
    "of their model, and no more of it is doubtful in hindsight"
)
MODELS = ("whisper-tiny.en", "whisper-base")
FIGURES = tuple(
    Figure(f"{model}: share of kept-out recordings of speech {says}", f"{model}/{key}/rate", at_most=0.05)
    for model in MODELS
    for key, says in (("alarms", "with an alarm"), ("doubtful", "doubtful in hindsight"))
)


def run() -> dict[str, Any]:
    return {model: _of(model) for model in MODELS} if PREPARED.exists() else NOT_PREPARED


def _of(model: str) -> dict[str, Any]:
    from otoscope.corpora import read_manifest, write_manifest

    items = [
        item for item in read_manifest(PREPARED) if not model.endswith(".en") or item.language in ("en", None)
    ]
    with tempfile.TemporaryDirectory() as folder:
        manifest, numbers = Path(folder) / "recordings.jsonl", Path(folder) / "numbers.json"
        write_manifest(items, manifest)
        command = ["monitor", "run", str(manifest), "--model", model, "--json", str(numbers), "--quiet"]
        subprocess.run([sys.executable, "-m", "otoscope", *command], check=True, stdout=subprocess.DEVNULL)
        told = json.loads(numbers.read_text("utf-8"))["items"]
    assert len(told) == len(items)
    kinds = [item.labels["kind"] for item in items]
    found = {
        kind: {
            "alarms": _share([one for one, k in zip(told, kinds, strict=True) if k == kind], _rings),
            "doubtful": _share([one for one, k in zip(told, kinds, strict=True) if k == kind], _doubtful),
        }
        for kind in ("speech", "music")
    }
    return {**found["speech"], "music": found["music"]}


def _rings(item: dict[str, Any]) -> bool:
    return any(segment["alarm"] for segment in item["segments"])


def _doubtful(item: dict[str, Any]) -> bool:
    return any(segment["hindsight"]["doubtful"] for segment in item["segments"])


def _share(items: list[dict[str, Any]], what: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Of how many it is true, with Wilson's interval of 95 %."""
    from otoscope.outcomes.intervals import wilson

    count = sum(map(what, items))
    low, high = wilson(count, len(items))
    rate = count / len(items)
    return {"count": count, "n": len(items), "rate": rate, "ci_low": low, "ci_high": high}
