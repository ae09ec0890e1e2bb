"""Jobs in processes of their own, which are killed at a moment or at a change of the file system.

A fork server imports otoscope once, and every job is a fork of it, so that a kill costs a fraction of a second. An audit hook of
Python sees each change of the file system just before it happens: killed before change n, a process leaves exactly what n changes
leave. The tests and the loop of `tests/faults/loop.py` share it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_CHANGES = frozenset(
    {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.link", "os.symlink"}
)
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

PRELOADED = [
    "otoscope.cli.app",
    "otoscope.corpora.recipes",
    "otoscope.dictionaries.harvesting",
    "otoscope.dictionaries.training.trainer",
    "otoscope.mending.exporting",
    "otoscope.mending.pricing",
    "otoscope.mending.search",
    "otoscope.models.loading",
    "otoscope.models.whisper",
    "otoscope.monitors.fitting",
    "otoscope.patching.sweeping",
    "otoscope.patching.tokens",
    "otoscope.probes.probing",
    "otoscope.studies.feature_training",
    "otoscope.studies.layers",
    "otoscope.studies.transcription",
    "otoscope.figures.studies",
    "otoscope.views.page",
    "pandas",
    "pyarrow.parquet",
    "transformers.models.whisper.modeling_whisper",
    "tests.faults.jobs",
]


@dataclass(frozen=True)
class End:
    """How a job ended.

    Attributes:
        killed: Whether it was killed; else it came to its end.
        code: Its exit code; negative: the signal that ended it.
        seconds: From its start to its end.
        changes: What it did to the files below its folder, in order: seconds, event, and path relative to the folder.
    """

    killed: bool
    code: int
    seconds: float
    changes: list[tuple[float, str, str]]

    def named(self) -> list[str]:
        """Files that took their final name, in order."""
        return [path for _, event, path in self.changes if event == "os.rename" and ".oto.part" not in path]


def forks() -> Any:
    """The context whose processes are forks of the server."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def run(
    job: Callable[[Path], object],
    folder: Path,
    *,
    at_change: int | None = None,
    wait: float = 0.0,
    after: float | None = None,
    by: int = signal.SIGKILL,
    patience: float = 600.0,
) -> End:
    """Run a job in a process of its own, and kill it or let it end.

    Args:
        job: Works in the folder; can be pickled.
        folder: Made if it is not there. Its neighbour `NAME.changes` gets the account of changes, its neighbour `NAME.said` what
            the process prints.
        at_change: Kill it before this change of a file below the folder, counted from 0; it kills itself.
        wait: With `at_change`: let it go on, and kill it so many seconds later.
        after: Kill it after so many seconds.
        by: The signal.
        patience: Seconds after which a job that hangs is killed, and an error raised.
    """
    folder.mkdir(parents=True, exist_ok=True)
    account = folder.with_name(f"{folder.name}.changes")
    account.write_bytes(b"")
    begun = time.monotonic()
    process = forks().Process(target=_watched, args=(job, folder, account, at_change, wait, by))
    process.start()
    process.join(after if after is not None else patience)
    hung = process.is_alive() and after is None
    if process.is_alive():
        os.kill(process.pid, signal.SIGKILL if hung else by)
        process.join(patience)
    if hung:
        raise TimeoutError(f"{job} hung for {patience} s")
    code = process.exitcode
    return End(code == -by, code, time.monotonic() - begun, _read(account))


def _watched(
    job: Callable[[Path], object], folder: Path, account: Path, at_change: int | None, wait: float, by: int
) -> None:
    said = os.open(folder.with_name(f"{folder.name}.said"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(said, 1)
    os.dup2(said, 2)
    sys.addaudithook(
        _Watch(folder.resolve(), os.open(account, os.O_WRONLY | os.O_APPEND), at_change, wait, by)
    )
    job(folder)


class _Watch:
    """The audit hook: writes down every change below a folder, and kills before one of them."""

    def __init__(self, folder: Path, account: int, at_change: int | None, wait: float, by: int) -> None:
        self.under, self.account, self.at_change, self.wait, self.by = (
            str(folder),
            account,
            at_change,
            wait,
            by,
        )
        self.begun, self.count = time.monotonic(), 0

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = args
            if not (isinstance(flags, int) and flags & _WRITES):
                return
        elif event in _CHANGES:
            path = args[1] if event == "os.rename" else args[0]
        else:
            return
        if not isinstance(path, str | os.PathLike):
            return
        path = str(Path.cwd() / path)
        if not path.startswith(self.under + os.sep):
            return
        if self.count == self.at_change:
            if self.wait:
                threading.Timer(self.wait, os.kill, (os.getpid(), self.by)).start()
            else:
                os.kill(os.getpid(), self.by)
        self.count += 1
        told = f"{time.monotonic() - self.begun:.4f}\t{event}\t{path[len(self.under) + 1 :]}\n"
        os.write(self.account, told.encode("utf-8", "backslashreplace"))


def _read(account: Path) -> list[tuple[float, str, str]]:
    lines = [line.split("\t") for line in account.read_text(encoding="utf-8").splitlines()]
    return [(float(seconds), event, path) for seconds, event, path in lines]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder but locks."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def unfinished(folder: Path) -> list[str]:
    """Temporary files and folders that are there."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob(".*.part"))
