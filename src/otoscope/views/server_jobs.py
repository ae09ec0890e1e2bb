"""Work that waits for the one model: a queue, one thread that does it, progress, and a way out at every step."""

from __future__ import annotations

import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from otoscope.errors import OtoscopeError
from otoscope.progress import Task, reporting_to

State = Literal["waiting", "running", "done", "failed", "cancelled"]
_KEPT = 600.0  # seconds for which the end of a job is told to who asks for it
_RECENT = 30.0  # seconds for which it is in the list
_FINISHED = ("done", "failed", "cancelled")


class CancelledError(BaseException):
    """Somebody no longer wants the job; like Ctrl-C, it must get past every `except Exception`."""


class FullError(OtoscopeError):
    """Too many jobs wait."""


@dataclass(eq=False)
class Job:
    """One piece of work.

    Attributes:
        what: What it does, such as `explain`.
        title: What it is about, for people.
        work: Does it, given the job; what it returns is the `answer`.
        id: By which it is asked after and cancelled.
        state: How far it is.
        done: Units done of `total`; parts of a unit count.
        total: Units of the whole, 0 while unknown.
        unit: What one unit is, such as `runs`; "" if it has no name.
        stage: What is being done, for people.
        answer: What came of it.
        reason: Why it failed.
        remedy: What to do about that.
        awaited: Whether anybody may still ask for the answer.
    """

    what: str
    title: str
    work: Callable[[Job], dict[str, Any]]
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    state: State = "waiting"
    done: float = 0.0
    total: float = 0.0
    unit: str = ""
    stage: str = ""
    answer: dict[str, Any] = field(default_factory=dict)
    reason: str = ""
    remedy: str = ""
    awaited: bool = True
    ended: float = 0.0
    unwanted: threading.Event = field(default_factory=threading.Event)

    @property
    def finished(self) -> bool:
        """Whether nothing more will come of it."""
        return self.state in _FINISHED

    def check(self) -> None:
        """Leave the work if nobody wants it any more.

        Raises:
            CancelledError: Nobody does.
        """
        if self.unwanted.is_set():
            raise CancelledError

    def end(self, state: State, reason: str = "", remedy: str = "") -> None:
        """Nothing more will come of it."""
        self.reason, self.remedy, self.ended = reason, remedy, time.monotonic()
        self.state = state  # last: who sees it sees the rest


class Queue:
    """Jobs, done one at a time in the order they came, in a thread of the queue's own; use it as a `with` block.

    Args:
        waiting: How many jobs may wait.
    """

    def __init__(self, waiting: int = 8) -> None:
        self.most = waiting
        self._jobs: dict[str, Job] = {}
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="otoscope-model", daemon=True)

    def __enter__(self) -> Queue:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._closed = True
            for job in self._jobs.values():
                job.unwanted.set()
            self._changed.notify_all()
        self._thread.join(10)  # it leaves at the next step; a step that takes longer ends with the process

    def require_room(self) -> None:
        """Refuse early what `add` would refuse.

        Raises:
            FullError: No more jobs may wait.
        """
        if len(self._waiting) >= self.most:
            raise FullError(f"{self.most} jobs wait already.", "Wait until one is done, or cancel one.")

    def add(self, job: Job) -> Job:
        """Let a job wait for its turn.

        Raises:
            FullError: No more jobs may wait.
        """
        with self._changed:
            self.require_room()
            self._forget()
            self._jobs[job.id] = job
            self._waiting.append(job)
            self._changed.notify_all()
        return job

    def cancel(self, id: str) -> bool:
        """Take a job back: at once if it waits, at its next step if it is being done. Returns whether there is such a job."""
        with self._changed:
            job = self._jobs.get(id)
            if job is None:
                return False
            job.unwanted.set()
            if job in self._waiting:
                self._waiting.remove(job)
                job.end("cancelled")
                job.work = _nothing
            return True

    def leave(self, job: Job) -> None:
        """The only one who waited for a job has gone, or has its answer: call it off, and keep no answer."""
        with self._changed:
            self.cancel(job.id)
            job.awaited, job.answer = False, {}

    def listing(self, what: str | None = None) -> list[dict[str, Any]]:
        """Jobs that wait, are being done or have just ended, ready for JSON; of one sort or of all."""
        with self._changed:
            self._forget()
            since = time.monotonic() - _RECENT
            jobs = [job for job in self._jobs.values() if not job.finished or job.ended > since]
            return [self.told(job) for job in jobs if what in (None, job.what)]

    def job(self, id: str) -> dict[str, Any] | None:
        """What there is to say of one job; None if there is none of that id, or no longer."""
        with self._changed:
            self._forget()
            return self.told(self._jobs[id]) if id in self._jobs else None

    def told(self, job: Job) -> dict[str, Any]:
        """What there is to say of a job; `position` counts the jobs that come before it."""
        with self._changed:
            self._forget()
            waits = {one: place for place, one in enumerate(self._waiting)}
            running = any(one.state == "running" for one in self._jobs.values())
        told: dict[str, Any] = {"id": job.id, "what": job.what, "title": job.title, "state": job.state}
        told |= {"done": round(job.done, 3), "total": job.total, "unit": job.unit, "stage": job.stage}
        if job in waits:
            told["position"] = waits[job] + running
        if job.state == "failed":
            told |= {"reason": job.reason, "remedy": job.remedy}
        if job.state == "done":
            told["answer"] = job.answer
        return told

    def _forget(self) -> None:
        """Drop jobs whose end has been told for long enough."""
        before = time.monotonic() - _KEPT
        self._jobs = {id: job for id, job in self._jobs.items() if not job.finished or job.ended > before}

    def _serve(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return
                job = self._waiting.popleft()
                job.state = "running"
            self._do(job)

    def _do(self, job: Job) -> None:
        try:
            job.check()
            with reporting_to(_Told(job)):
                answer = job.work(job)
            with self._changed:
                job.answer = answer if job.awaited else {}
            job.end("done")
        except CancelledError:
            job.end("cancelled")
        except OtoscopeError as error:
            job.end("failed", error.reason, error.remedy)
        except Exception as error:
            reason = f"otoscope met an error it did not expect: {type(error).__name__}: {str(error)[:300]}"
            job.end("failed", reason, "This is a bug; please report it.")
        finally:
            job.work = _nothing


def _nothing(job: Job) -> dict[str, Any]:
    """In place of the work of a job that has ended, which holds the sound."""
    return {}


class _Told:
    """Keeps a job's progress: the outermost task of known length counts, the innermost says what is being done.

    Every step is a way out.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.tasks: list[_Step] = []

    def start(self, label: str, total: float | None, unit: str) -> Task:
        self.job.check()
        self.tasks.append(_Step(self, label, total or 0.0, unit))
        self.tell()
        return self.tasks[-1]

    def finish(self, task: Task) -> None:
        if task in self.tasks:
            del self.tasks[self.tasks.index(task) :]  # pyright: ignore[reportArgumentType]
        if self.tasks:
            self.tell()

    def notice(self, text: str) -> None:
        self.job.check()
        self.job.stage = text

    def tell(self) -> None:
        inner = self.tasks[-1]
        outer = next((task for task in self.tasks if task.total), inner)
        part = inner.done / inner.total if inner is not outer and inner.total else 0.0
        self.job.total, self.job.unit = outer.total, outer.unit
        self.job.done = min(outer.done + min(part, 1.0), outer.total)
        self.job.stage = inner.label


@dataclass(eq=False)
class _Step:
    told: _Told
    label: str
    total: float
    unit: str
    done: float = 0.0

    def advance(self, amount: float = 1) -> None:
        self.done += amount
        self.told.job.check()
        self.told.tell()
