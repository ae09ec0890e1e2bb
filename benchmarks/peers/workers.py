"""Two sides at the same work: each in a process and an environment of its own, in turns, their answers compared."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

from benchmarks.measure import alternately
from benchmarks.peers.environments import NotInstalledError, python_of

HERE = Path(__file__).parent
OWN = "otoscope"

Compare = Callable[[Mapping[str, np.ndarray], Mapping[str, np.ndarray]], dict[str, Any]]
"""Tells how far two answers agree; ours comes first."""


class Checked(NamedTuple):
    """One piece of work, done once: what came out, seconds, and the most memory above the loaded model, in GB."""

    answer: Mapping[str, np.ndarray]
    seconds: float
    gb: float


class Side:
    """One process that has loaded its model and works when it is told to.

    Args:
        name: `otoscope`, or the name of a peer's environment.
        script: The script beside this file that defines the work.
        job: What it reads: paths of models and inputs, and `folder`, where answers go.
        versions: Distributions whose versions are told.
    """

    def __init__(self, name: str, script: str, job: dict[str, Any], versions: tuple[str, ...] = ()) -> None:
        python = Path(sys.executable) if name == OWN else python_of(name)
        self.name = name
        path = Path(job["folder"]) / f"{name}.json"
        path.write_text(json.dumps({**job, "side": name, "versions": versions}))
        self._log = path.with_suffix(".log")
        # What otoscope told PyTorch in this process is no setting of a peer's; its own side says it again.
        told = {name: value for name, value in os.environ.items() if name != "THP_MEM_ALLOC_ENABLE"}
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [str(python), str(HERE / script), str(path)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=told,
            )  # fmt: skip
        heard = self._hear()
        self.works: list[str] = heard["works"]
        self.versions: dict[str, str] = heard["versions"]

    def check(self, work: str) -> Checked:
        """Do the work once and see what it gives and takes."""
        told = self._order("check", work)
        with np.load(told["answer"]) as answer:
            return Checked(dict(answer), told["seconds"], told["gb_above_loaded"])

    def seconds(self, work: str) -> float:
        """How long the work takes, once."""
        return self._order("time", work)["seconds"]

    def __enter__(self) -> Side:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _order(self, order: str, work: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{order} {work}\n")
        self._process.stdin.flush()
        return self._hear()

    def _hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            last = self._log.read_text().strip()[-2000:]
            raise RuntimeError(f"{self.name} ended: {last}")
        return json.loads(line)


def compared(ours: Side, theirs: Side, work: str, compare: Compare, runs: int) -> dict[str, Any]:
    """One piece of work on both sides: whether the answers are the same, then seconds in turns, and memory.

    Returns:
        `ratio` and its spread are of our seconds over theirs, pair by pair.
    """
    mine, its = ours.check(work), theirs.check(work)
    pair = alternately(lambda: ours.seconds(work), lambda: theirs.seconds(work), runs)
    return {
        **compare(mine.answer, its.answer),
        **pair.to_dict(),
        "ours_gb": round(mine.gb, 3),
        "theirs_gb": round(its.gb, 3),
    }


def not_measured(error: NotInstalledError) -> dict[str, Any]:
    """What stands in the results of a peer that cannot be had here."""
    return {"not_measured": str(error)}
