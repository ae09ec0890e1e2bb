"""Run all benchmarks, or those named: `python -m benchmarks capture decoding`. Results go to benchmarks/results and docs."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.measure import machine, run_named
from otoscope.files import atomic_write

NAMES = (
    "importing",
    "capture",
    "decoding",
    "explaining",
    "long_recording",
    "probing",
    "patching_generative",
    "patching_teacher_forced",
    "tracing",
    "hearing",
    "hearing_checks",
    "grounding",
    "training",
    "harvesting",
    "monitoring",
    "serving",
    "page",
    "parity_tiny_en",
    "parity_base",
    "planning",
    "half_precision",
)
RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"


def main(names: list[str]) -> int:
    failed = []
    for name in names or NAMES:
        module = import_module(f"benchmarks.{name}")
        print(f"{name}: {module.CLAIM}", flush=True)
        result = _in_a_process_of_its_own(name)
        with atomic_write(RESULTS / f"{name}.json") as file:
            json.dump({"claim": module.CLAIM, "result": result, "machine": machine()}, file, indent=1)
            file.write("\n")
        print(json.dumps(result, indent=1), flush=True)
        failed += [name] if _passed(result) is False else []
    write_page()
    print(
        f"{len(names or NAMES) - len(failed)} passed, {len(failed)} failed"
        + (f": {', '.join(failed)}" if failed else "")
    )
    return 1 if failed else 0


def _in_a_process_of_its_own(name: str) -> dict[str, Any]:
    """A small parent: a process that is started counts its parent's memory at that moment as its own peak."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(run_named, name).result()


def _passed(result: dict[str, Any]) -> bool | None:
    verdicts = [v["passed"] for v in (result, *result.values()) if isinstance(v, dict) and "passed" in v]
    return all(verdicts) if verdicts else None


def write_page() -> None:
    """docs/benchmarks.md from the stored results."""
    stored = [json.loads(path.read_text()) for name in NAMES if (path := RESULTS / f"{name}.json").exists()]
    with atomic_write(PAGE) as file:
        file.write(
            "# Benchmarks\n\nMade by `make bench` from `benchmarks/results/*.json`; each claim is one file in `benchmarks/`.\n"
        )
        for entry in stored:
            file.write(_section(entry))


def _section(entry: dict[str, Any]) -> str:
    m = entry["machine"]
    where = f"{m['cores']} cores, {m['processor']}; torch {m['versions']['torch']}, transformers {m['versions']['transformers']}"
    verdict = {True: "holds", False: "**does not hold**", None: "not measured"}[_passed(entry["result"])]
    rows = "".join(
        f"| {key} | {value} |\n" for key, value in _flat(entry["result"]) if not key.endswith("passed")
    )
    return f"\n## {entry['claim']}\n\nThe claim {verdict}. Measured on {where}.\n\n| figure | value |\n|---|---|\n{rows}"


def _flat(value: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    out = []
    for key, item in value.items():
        name = f"{prefix}{key}".replace("_", " ")
        out += _flat(item, f"{name}, ") if isinstance(item, dict) else [(name, item)]
    return out


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
