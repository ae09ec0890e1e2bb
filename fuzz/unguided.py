"""Targets without atheris: changed files one after another, with nothing but chance to guide them."""

from __future__ import annotations

import tempfile
import time
import traceback
from pathlib import Path
from random import Random
from typing import Any

from fuzz.mutating import mutated
from fuzz.target import Target


def run(name: str, seconds: int, runs: int, seed: int, crashes: Path) -> dict[str, Any]:
    """Try changed files of one target until one breaks it.

    Args:
        name: The target.
        seconds: At most.
        runs: Cases at most; -1: as many as there is time for.
        seed: Of the changes; case `i` of a run is that of the seed `(seed, i)` whatever came before it.
        crashes: Folder for the case that breaks it.

    Returns:
        The counts: `cases`, of them `valid`, and how it `ended`.
    """
    target = Target.of(name)
    whole = target.seeds()
    cases = valid = 0
    began, ended = time.monotonic(), "nothing broke"
    with tempfile.TemporaryDirectory(prefix=f"fuzz-{name}-") as folder:
        while time.monotonic() - began < seconds and cases != runs:
            random = Random(f"{seed} {cases}")
            case = mutated(random.choice(whole), random)
            cases += 1
            try:
                valid += target.once(case, Path(folder))
            except Exception:  # what a parser lets out and is no refusal is the finding; its case is kept
                kept = crashes / f"{name}-case-{cases - 1}"
                kept.write_bytes(case)
                (crashes / f"{name}.log").write_text(traceback.format_exc())
                ended = f"crashed, see {kept}"
                break
    seconds_taken = round(time.monotonic() - began, 1)
    return {"target": name, "cases": cases, "valid": valid, "seconds": seconds_taken, "ended": ended}
