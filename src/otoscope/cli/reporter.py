"""Progress and notices on stderr: bars on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from otoscope.cli.show import plain
from otoscope.progress import Task, reporting_to

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def reporting() -> Iterator[None]:
    """Show progress and notices inside the block, in the way that suits stderr; no bar outlives it."""
    if not sys.stderr.isatty():
        with reporting_to(Lines()):
            yield
        return
    bars = Bars()
    try:
        with reporting_to(bars):
            yield
    finally:
        bars.close()


@dataclass
class _Lines:
    label: str
    total: float | None
    unit: str
    done: float = 0
    told: float = 0

    def advance(self, amount: float = 1) -> None:
        self.done += amount
        now = time.monotonic()
        if now - self.told >= _SECONDS_BETWEEN_LINES:
            self.told = now
            print(f"{plain(self.label)}: {amounts(self.done, self.total, self.unit)}", file=sys.stderr)


class Lines:
    """Reports by lines, at most one a task in ten seconds, the first after ten."""

    def start(self, label: str, total: float | None, unit: str) -> Task:
        """Begin to count a task."""
        return _Lines(label, total, unit, told=time.monotonic())

    def finish(self, task: Task) -> None:
        """End a task, silently."""

    def notice(self, text: str) -> None:
        """Print a line."""
        print(plain(text), file=sys.stderr)


@dataclass
class _Bar:
    progress: Progress
    id: TaskID
    total: float | None
    unit: str
    done: float = 0

    def advance(self, amount: float = 1) -> None:
        self.done += amount
        self.progress.update(self.id, completed=self.done, amount=amounts(self.done, self.total, self.unit))


class Bars:
    """Reports by bars, which vanish when their tasks are done."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[amount]}", markup=False),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )

    def start(self, label: str, total: float | None, unit: str) -> Task:
        """Draw a task's bar."""
        self._progress.start()
        amount = amounts(0, total, unit)
        return _Bar(
            self._progress, self._progress.add_task(plain(label), total=total, amount=amount), total, unit
        )

    def finish(self, task: Task) -> None:
        """Take a task's bar away."""
        assert isinstance(task, _Bar)
        self._progress.remove_task(task.id)
        if not self._progress.tasks:
            self.close()

    def notice(self, text: str) -> None:
        """Print a line above the bars."""
        self._progress.console.print(plain(text), markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Stop drawing."""
        self._progress.stop()


def amounts(done: float, total: float | None, unit: str) -> str:
    """How much of a task is done, in its unit; bytes as megabytes."""
    if unit == "bytes":
        done, total, unit = done / 1e6, None if total is None else total / 1e6, "MB"
    of = "" if total is None else f" of {total:.0f}"
    return f"{done:.0f}{of} {unit}".rstrip()
