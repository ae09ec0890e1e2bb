"""Run all benchmarks, or those named: `python -m benchmarks capture decoding`. Results go to benchmarks/results and docs."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Any

from benchmarks.measure import machine, run_named
from benchmarks.studied import identity_rows, study_rows
from otoscope.files import atomic_write
from otoscope.wording import counted

NAMES = (
    "importing",
    "capture",
    "decoding",
    "keeping_memory",
    "explaining",
    "long_recording",
    "probing",
    "patching_generative",
    "patching_teacher_forced",
    "tracing",
    "prompts",
    "hearing",
    "hearing_checks",
    "grounding",
    "training",
    "beside_nnsight",
    "beside_transformer_lens",
    "beside_transcribers",
    "harvesting",
    "monitoring",
    "false_alarms",
    "serving",
    "page",
    "parity_tiny_en",
    "parity_base",
    "planning",
    "half_precision",
    "learning",
    "mending",
    "checking",
)
RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
HEAD = """# Benchmarks

Made by `make bench` from `benchmarks/results/*.json`. Each claim is one file in `benchmarks/`, and each peer is built in an
environment of its own (`benchmarks/peers`). Both sides of a comparison do the same work in one run. Where each runs more than
once they take turns after a warm-up, and a ratio is the median of the ratios pair by pair, of otoscope's time over the other's,
with its lowest and highest below it; training, tracing, probing, hearing and the patching sweeps differ, and so does the
monitor's overhead, of which the least of each side counts; their files say how.
"""

STUDIES_HEAD = """## Figures of studies

These take hours; the pages say on which recordings, with intervals and controls.
"""
EXACT_HEAD = """## Identities

What must be exact is held by tests, on every run of `make test`.
"""


def main(arguments: list[str]) -> int:
    held: dict[str, bool | None] = {}
    for name in _asked(arguments):
        module = import_module(f"benchmarks.{name}")
        print(f"{name}: {module.CLAIM}", flush=True)
        result, threads = in_a_process_of_its_own(name)
        with atomic_write(RESULTS / f"{name}.json") as file:
            json.dump({"claim": module.CLAIM, "result": result, "machine": machine(threads)}, file, indent=1)
            file.write("\n")
        print(json.dumps(result, indent=1), flush=True)
        held[name] = _holds(name, result)
    print(table())
    with atomic_write(PAGE) as file:
        file.write(page())
    print(verdict(held))
    return 1 if False in held.values() else 0


def _asked(arguments: list[str]) -> Sequence[str]:
    """The benchmarks to run, in the order in which they were named."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of: {', '.join(NAMES)}; all (hours) by default"
    )
    names = parser.parse_args(arguments).names
    if unknown := [name for name in names if name not in NAMES]:
        parser.error(f"there is no benchmark {unknown[0]}; choose from {', '.join(NAMES)}")
    return names or NAMES


def verdict(held: Mapping[str, bool | None]) -> str:
    """How many benchmarks keep their limits, do not, and could not be measured as a whole (None); these by name."""
    told = []
    for word, wanted in (("passed", True), ("failed", False), ("not measured", None)):
        names = [name for name, value in held.items() if value is wanted]
        told.append(f"{len(names)} {word}" + (f" ({', '.join(names)})" if names and not wanted else ""))
    return ", ".join(told)


def in_a_process_of_its_own(name: str) -> tuple[dict[str, Any], int]:
    """A small parent: a process that is started counts its parent's memory at that moment as its own peak."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(run_named, name).result()
        except KeyboardInterrupt:  # which the terminal sends to this group alone
            for child in active_children():
                try:
                    os.killpg(child.pid, signal.SIGTERM)  # pyright: ignore[reportArgumentType]
                except ProcessLookupError:  # it has not made its own yet
                    child.terminate()
            raise


def _holds(name: str, result: dict[str, Any]) -> bool | None:
    """Whether all figures of a benchmark keep their limits; None where one was not measured and none fails."""
    verdicts = [figure.holds(result) for figure in import_module(f"benchmarks.{name}").FIGURES]
    return False if False in verdicts else None if None in verdicts else True


def _stored(name: str) -> dict[str, Any]:
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else {"result": {}}


def table() -> str:
    """Every figure that is claimed: its limit, what was reached, and the command that measures it."""
    rows = [
        f"| {' | '.join(figure.row(_stored(name)['result']))} | [`python -m benchmarks {name}`](#{name}) |"
        for name in NAMES
        for figure in import_module(f"benchmarks.{name}").FIGURES
    ]
    return "\n".join(["| claim | limit | reached | holds | command |", "|---|---|---|---|---|", *rows])


def page() -> str:
    """docs/benchmarks.md, from the stored results."""
    sections = "".join(_section(name, _stored(name)) for name in NAMES)
    return f"{HEAD}\n{table()}\n{_studied()}{sections}"


def _studied() -> str:
    studies = [
        "| claim | limit | reached | holds | where it comes from |",
        "|---|---|---|---|---|",
        *study_rows(),
    ]
    exact = ["| what is exact | the test |", "|---|---|", *identity_rows()]
    return "\n".join(["", STUDIES_HEAD, *studies, "", EXACT_HEAD, *exact, ""])


def _section(name: str, entry: dict[str, Any]) -> str:
    claim = import_module(f"benchmarks.{name}").CLAIM
    head = f"\n## {name}\n\n{claim}.\n\n"
    if not entry["result"]:
        return f"{head}Not measured yet.\n"
    m = entry["machine"]
    versions = ", ".join(f"{name} {m['versions'][name]}" for name in ("torch", "transformers"))
    where = (
        f"{counted(m['threads'], 'thread')} on {counted(m['cores'], 'core')}, {m['processor']}; {versions}"
    )
    if m.get("commit"):
        where += f"; commit {m['commit']}, {m['date']}"
    if not m.get("prepared_recordings", True):
        where += "; without the prepared recordings"
    verdict = {True: "holds", False: "**does not hold**", None: "was not measured as a whole"}[
        _holds(name, entry["result"])
    ]
    rows = "".join(f"| {key} | {value} |\n" for key, value in _flat(entry["result"]))
    return f"{head}The claim {verdict}. Measured on {where}.\n\n| figure | value |\n|---|---|\n{rows}"


def _flat(value: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    out = []
    for key, item in value.items():
        name = f"{prefix}{key}".replace("_", " ")
        out += _flat(item, f"{name}, ") if isinstance(item, dict) else [(name, item)]
    return out


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
