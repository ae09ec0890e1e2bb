"""Timing that can be trusted on a noisy machine: a warm-up, then both sides in turn, and the ratio pair by pair."""

from __future__ import annotations

import gc
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import version
from multiprocessing import parent_process
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Thread
from typing import Any

_ROOT = Path(__file__).parents[1]
SHARED_AUDIO = Path(os.environ.get("OTOSCOPE_SHARED_AUDIO", _ROOT.parent / "shared" / "audio"))
PREPARED = SHARED_AUDIO / "manifest.jsonl"
"""The prepared recordings, where they are here."""

NOT_PREPARED = {"not_measured": "the prepared recordings are not here; set OTOSCOPE_SHARED_AUDIO"}
"""The result of a benchmark whose claim is of the prepared recordings, where they are not."""


@dataclass(frozen=True)
class Pair:
    """Two ways of the same work, in seconds, and the ratio of ours to theirs, pair by pair."""

    ours_median: float
    theirs_median: float
    ratio_median: float
    ratio_min: float
    ratio_max: float
    runs: int

    def to_dict(self) -> dict[str, float]:
        """JSON-ready, rounded."""
        return {k: round(v, 4) for k, v in asdict(self).items()}


def run_named(name: str) -> tuple[dict[str, Any], int]:
    """Run one benchmark (in whatever process this is called): its result, and the threads of what was measured.

    These are the processes' own, which inherit what this one was started with; a benchmark whose processes have others says so
    in `THREADS`. Once whoever started this process is gone, it ends, and with it what it has started itself.
    """
    if parent := parent_process():
        os.setpgid(0, 0)
        Thread(target=_end_after, args=(parent,), daemon=True).start()
    benchmark = import_module(f"benchmarks.{name}")
    result = benchmark.run()
    import torch  # not before: a process that is started counts its parent's memory as its own peak

    return result, getattr(benchmark, "THREADS", torch.get_num_threads())


def _end_after(parent: BaseProcess) -> None:
    """A benchmark that went on unseen would spoil the next one's figures."""
    parent.join()
    os.killpg(0, signal.SIGTERM)


def seconds(work: Callable[[], Any], clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds that work takes. By `time.process_time`, and with one thread, what else runs on the machine counts little."""
    gc.collect()
    start = clock()
    work()
    return clock() - start


@dataclass(frozen=True)
class Process:
    """What a whole process took: seconds on the clock, seconds of the processor, and its greatest memory in bytes."""

    seconds: float
    processor: float
    peak: float

    @property
    def peak_gb(self) -> float:
        """Its greatest memory in gigabytes, rounded."""
        return round(self.peak / 1e9, 2)


def otoscope(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> Process:
    """Run one command in a process of its own, its standard output off the terminal.

    Args:
        arguments: Of the command line, after `otoscope`.
        environment: Of the process; None: this one's.
    """
    command = [sys.executable, "-m", "otoscope", *arguments]
    silent = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    start = time.perf_counter()
    pid = os.posix_spawn(sys.executable, command, dict(environment or os.environ), file_actions=silent)
    _, status, usage = os.wait4(pid, 0)
    took = time.perf_counter() - start
    assert os.waitstatus_to_exitcode(status) == 0, " ".join(command)
    return Process(took, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024.0)


def side_by_side(ours: Callable[[], Any], theirs: Callable[[], Any], runs: int) -> Pair:
    """Two ways of the same work in this process, each warmed up once."""
    ours(), theirs()
    return alternately(lambda: seconds(ours), lambda: seconds(theirs), runs)


def alternately(ours: Callable[[], float], theirs: Callable[[], float], runs: int) -> Pair:
    """Seconds that each side tells, in turns; who goes first alternates, so that drift of the machine favours neither."""
    a, b = [], []
    for i in range(runs):
        if i % 2:
            b.append(theirs())
            a.append(ours())
        else:
            a.append(ours())
            b.append(theirs())
    ratios = [x / y for x, y in zip(a, b, strict=True)]
    return Pair(
        statistics.median(a), statistics.median(b), statistics.median(ratios), min(ratios), max(ratios), runs
    )


def machine(threads: int) -> dict[str, Any]:
    """Where and on which code something was measured, and with how many threads."""
    return {
        "commit": commit(),
        "date": datetime.now(UTC).date().isoformat(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "prepared_recordings": PREPARED.exists(),
        "threads": threads,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("otoscope", "torch", "transformers", "numpy")},
    }


def commit() -> str | None:
    """The commit that is checked out, with a plus where something other than results and their pictures was changed since."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=_ROOT, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        changed = git(
            "status",
            "--porcelain",
            "--",
            ".",
            ":!benchmarks/results",
            ":!docs/benchmarks.md",
            ":!docs/images",
        )
        return git("rev-parse", "--short=8", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None  # an archive of the source has no history


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def clips(limit: int | None = None) -> list:
    """The prepared recordings of at most 30 s where they are, else the shipped samples; the page says so of a result."""
    from otoscope.audio import Clip, read
    from otoscope.audio.samples import sample
    from otoscope.corpora import read_manifest

    if PREPARED.exists():
        items = read_manifest(PREPARED)
        step = max(1, len(items) // limit) if limit else 1
        found: list[Clip] = [item.clip() for item in items[::step]]
    else:
        names = ("jfk", "austen-0870", "austen-0880", "austen-0890")
        found = [read(sample(name)) for name in names] * 8
    return [clip for clip in found if clip.duration <= 30][:limit]
