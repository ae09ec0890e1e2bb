"""Progress of long work, reported to whoever listens.

Library code calls `track` and `notice`; without a reporter (the command line installs one that draws on stderr) progress is
silent and notices are plain lines on stderr. So no function carries a progress argument.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol


class Task(Protocol):
    """One piece of work under way."""

    def advance(self, amount: float = 1) -> None:
        """Say that `amount` more units are done."""
        ...


class Reporter(Protocol):
    """Draws tasks and notices."""

    def start(self, label: str, total: float | None, unit: str) -> Task:
        """Begin to show a task of `total` units (None: unknown)."""
        ...

    def finish(self, task: Task) -> None:
        """Stop showing a task, done or failed."""
        ...

    def notice(self, text: str) -> None:
        """Say one line to the person (a download's size, a slow step ahead)."""
        ...


class Silence:
    """Says nothing at all."""

    def start(self, label: str, total: float | None, unit: str) -> Task:
        """Take a task and show nothing."""
        return self

    def advance(self, amount: float = 1) -> None:
        """Do nothing."""

    def finish(self, task: Task) -> None:
        """Do nothing."""

    def notice(self, text: str) -> None:
        """Do nothing."""


class _Notices(Silence):
    """What a Python program gets unasked: no progress, but never a surprise (a download, a slow step)."""

    def notice(self, text: str) -> None:
        print(text, file=sys.stderr)


_reporter: ContextVar[Reporter] = ContextVar("otoscope_reporter", default=_Notices())  # noqa: B039 - it has no state


@contextmanager
def reporting_to(reporter: Reporter) -> Iterator[None]:
    """Send all progress inside the block to `reporter`."""
    token = _reporter.set(reporter)
    try:
        yield
    finally:
        _reporter.reset(token)


class _NoticesTo(Silence):
    def __init__(self, reporter: Reporter) -> None:
        self.reporter = reporter

    def notice(self, text: str) -> None:
        self.reporter.notice(text)


@contextmanager
def untracked() -> Iterator[None]:
    """Tell notices inside the block, but no progress: whoever opened it tells that itself, in units that say more."""
    with reporting_to(_NoticesTo(_reporter.get())):
        yield


class _Into(_NoticesTo):
    def __init__(self, reporter: Reporter, task: Task) -> None:
        super().__init__(reporter)
        self.task = task

    def start(self, label: str, total: float | None, unit: str) -> Task:
        return self.task


@contextmanager
def tracked_in(task: Task) -> Iterator[None]:
    """Let what is tracked inside the block advance a task that is shown already, in whose units it counts.

    Args:
        task: The task; its end is told by whoever began it.
    """
    with reporting_to(_Into(_reporter.get(), task)):
        yield


@contextmanager
def track(label: str, total: float | None = None, unit: str = "") -> Iterator[Task]:
    """Report a task for as long as the block runs.

    Args:
        label: What is being done, in a few words ("Decoding").
        total: Units of work in all, or None when unknown.
        unit: What one unit is ("clips", "bytes", "s").

    Yields:
        The task; call `advance` on it.
    """
    reporter = _reporter.get()
    task = reporter.start(label, total, unit)
    try:
        yield task
    finally:
        reporter.finish(task)


@contextmanager
def goes_on_in(place: object) -> Iterator[None]:
    """Let an interrupt inside the block say, in a note (PEP 678), where the job goes on.

    Args:
        place: The directory that keeps what is done.
    """
    try:
        yield
    except KeyboardInterrupt as interrupt:
        interrupt.add_note(f"The same command goes on with what is kept in {place}.")
        raise


def notice(text: str) -> None:
    """Tell the person one line, if anybody listens."""
    _reporter.get().notice(text)
