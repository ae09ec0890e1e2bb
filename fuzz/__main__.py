"""Fuzz targets with coverage guidance: `python -m fuzz [TARGET ...] --seconds 60`. Atheris has to be installed.

Each target runs in a process of its own. What crashes it is kept in a folder, and is to be put, as small as it goes, into
`tests/hostile/regressions/TARGET/` with the mend.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fuzz import unguided
from fuzz.target import NAMES, Target

_LAST = re.compile(r"#(\d+)\s+(\w+)\s+cov: (\d+) ft: (\d+)")
_ENDS = {0: "nothing broke", 70: "too slow", 71: "too much memory", 77: "crashed"}


def main() -> int:
    """Run targets one after another; 1 if one of them broke."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument(
        "targets", nargs="*", metavar="TARGET", help=f"of: {', '.join(NAMES)}; all by default"
    )
    parser.add_argument("--seconds", type=int, default=60, help="of each target (default 60)")
    parser.add_argument("--runs", type=int, default=-1, help="cases of each target at most")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--crashes",
        type=Path,
        default=Path("artefacts/fuzz"),
        help="where cases that broke something are kept",
    )
    parser.add_argument(
        "--json", type=Path, help="where the counts are written as JSON lines, target by target"
    )
    parser.add_argument("--unguided", action="store_true", help="without atheris, by chance alone")
    parser.add_argument(
        "--again", type=Path, metavar="CASE", help="run one kept case of one target, without atheris"
    )
    options = parser.parse_args()
    if unknown := set(options.targets) - set(NAMES):
        parser.error(f"there is no target {min(unknown)}; choose from {', '.join(NAMES)}")
    if options.again:
        return _again(options.targets, options.again, parser)
    if not options.unguided and find_spec("atheris") is None:
        parser.error("atheris is not installed; run pip install '.[fuzz]' in the clone, or give --unguided")
    options.crashes.mkdir(parents=True, exist_ok=True)
    broken = False
    for name in options.targets or NAMES:
        if options.unguided:
            told = unguided.run(name, options.seconds, options.runs, options.seed, options.crashes)
        else:
            told = _guided(name, options)
        broken |= told["ended"] != _ENDS[0]
        print(
            "  ".join(
                f"{key} {value:,}" if isinstance(value, int) else f"{key} {value}"
                for key, value in told.items()
            ),
            flush=True,
        )
        if options.json:
            with options.json.open("a") as file:
                print(json.dumps(told), file=file)
    return int(broken)


def _again(targets: list[str], case: Path, parser: argparse.ArgumentParser) -> int:
    if len(targets) != 1:
        parser.error("name the one target that the case is of")
    with tempfile.TemporaryDirectory() as folder:
        print("valid" if Target.of(targets[0]).once(case.read_bytes(), Path(folder)) else "refused")
    return 0


def _guided(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Run one target; what libFuzzer counted."""
    with tempfile.TemporaryDirectory(prefix=f"fuzz-{name}-") as place:
        corpus = Path(place) / "corpus"
        corpus.mkdir()
        for number, seed in enumerate(Target.of(name).seeds()):
            (corpus / f"seed-{number}").write_bytes(seed)
        command = [
            sys.executable, "-m", "fuzz.guided", name, str(corpus), f"-max_total_time={options.seconds}", f"-runs={options.runs}",
            f"-seed={options.seed}", f"-artifact_prefix={options.crashes}/{name}-", "-timeout=10", "-rss_limit_mb=3072",
            "-max_len=65536", "-print_final_stats=1",
        ]  # fmt: skip
        began = time.monotonic()
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        )
        kept = len(list(corpus.iterdir()))
    (options.crashes / f"{name}.log").write_text(done.stdout[-40_000:])
    lines = _LAST.findall(done.stdout)
    cases = re.search(r"number_of_executed_units: (\d+)", done.stdout)
    begun = next((int(covered) for _, what, covered, _ in lines if what == "INITED"), 0)
    return {
        "target": name,
        "cases": int(cases[1]) if cases else int(lines[-1][0]) if lines else 0,
        "coverage_of_seeds": begun,
        "coverage": int(lines[-1][2]) if lines else 0,
        "features": int(lines[-1][3]) if lines else 0,
        "corpus": kept,
        "seconds": round(time.monotonic() - began, 1),
        "ended": _end(done),
    }


def _end(done: subprocess.CompletedProcess[str]) -> str:
    if "Uncaught Python exception" in done.stdout:  # whatever the process then ends with
        return _ENDS[77]
    return _ENDS.get(done.returncode, f"with exit code {done.returncode}, see its log")


if __name__ == "__main__":
    sys.exit(main())
