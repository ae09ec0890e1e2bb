"""Where the parts of a job are computed: in this process, or by the workers of a Ray cluster.

A job is a function from a part's number to its result, and parts are fixed by the job's settings: whoever computes them, and in
whatever order, the results are the same. They come back to this process, which alone writes the run's directory.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar

from otoscope.errors import OptionError, OtoscopeError
from otoscope.progress import notice

T = TypeVar("T")

TRIES = 3
"""How often a part is begun before the job is given up because its workers die."""


class Engine(Protocol):
    """What computes the parts of a job."""

    def run(self, job: Callable[[int], T], parts: Iterable[int]) -> Iterator[tuple[int, T]]:
        """Each part's number with its result, as they are finished."""
        ...


class Here:
    """This process, one part after another."""

    def run(self, job: Callable[[int], T], parts: Iterable[int]) -> Iterator[tuple[int, T]]:
        """Parts in the order in which they are given."""
        for part in parts:
            yield part, job(part)


_HERE = Here()
_current: ContextVar[Engine | None] = ContextVar("engine", default=None)


def computed(job: Callable[[int], T], parts: Iterable[int]) -> Iterator[tuple[int, T]]:
    """The parts of a job, computed by the engine that is in place.

    Args:
        job: From a part's number to its result. For another engine than this process it is pickled, and so is the result; a model
            that is pickled travels as the name it was loaded by.
        parts: Their numbers.

    Yields:
        Number and result, in any order.
    """
    yield from (_current.get() or _HERE).run(job, parts)


def elsewhere() -> bool:
    """Whether jobs are computed by other processes than this one."""
    return not isinstance(_current.get() or _HERE, Here)


@contextmanager
def running_on(engine: Engine) -> Iterator[None]:
    """Jobs inside the block are computed by an engine."""
    token = _current.set(engine)
    try:
        yield
    finally:
        _current.reset(token)


class OnRay:
    """Workers of a Ray cluster, each with its own copy of the model, for as long as a job takes.

    A worker that dies is replaced, and its part is computed anew. An error of otoscope ends the job as it would here.

    Args:
        address: The cluster's; None: `RAY_ADDRESS`, or a cluster of this machine's own that is started for the job.
        workers: How many; None: as many as the cluster has processors (or accelerators, where there are some).
        threads: Processors a worker; None: the cluster's, shared out.

    Raises:
        OptionError: Ray is not installed, or the cluster cannot be reached.
    """

    def __init__(
        self, address: str | None = None, workers: int | None = None, threads: int | None = None
    ) -> None:
        try:
            import ray
        except ImportError as error:
            raise OptionError("Ray is not installed.", "Run `pip install 'otoscope[ray]'`.") from error
        if workers is not None and workers < 1:
            raise OptionError(f"{workers} is no number of workers.", "Give 1 or more.")
        self._ray: Any = ray
        self.address, self.workers, self.threads = address, workers, threads

    def run(self, job: Callable[[int], T], parts: Iterable[int]) -> Iterator[tuple[int, T]]:
        """Parts as they are finished."""
        waiting = list(parts)
        if not waiting:
            return
        with self._connected():
            crew = _Crew(self._ray, *self._size(len(waiting)), keep=False)
            try:
                yield from crew.run(job, waiting)
            finally:
                crew.dismiss()

    @contextmanager
    def keeping_workers(self) -> Iterator[Engine]:
        """An engine whose workers stay until the block ends, for many short jobs.

        A job whose model is that of the job before does not load it again. Processors (and accelerators) that its workers hold
        are nobody else's until then, and so is the memory of what they loaded.
        """
        with self._connected():
            crew = _Crew(self._ray, *self._size(None), keep=True)
            try:
                yield crew
            finally:
                crew.dismiss()

    @contextmanager
    def _connected(self) -> Iterator[None]:
        ray = self._ray
        if ray.is_initialized():
            yield
            return
        address = self.address or os.environ.get("RAY_ADDRESS")
        try:
            if address:
                ray.init(address=address, logging_level="ERROR", log_to_driver=False)
            else:
                ray.init(
                    address="local", num_cpus=max(os.cpu_count() or 1, self.workers or 1),
                    include_dashboard=False, logging_level="ERROR", log_to_driver=False,
                )  # fmt: skip
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
            raise OptionError(
                f"Ray cannot be used: {reason}", "Check the address, or leave it out for this machine alone."
            ) from error
        try:
            yield
        finally:
            ray.shutdown()

    def _size(self, parts: int | None) -> tuple[int, float, float]:
        """Workers, and processors and accelerators of each, for so many parts (None: for any number)."""
        have = self._ray.cluster_resources()
        cpus, gpus = int(have.get("CPU", 1)), int(have.get("GPU", 0))
        nodes = [node["Resources"] for node in self._ray.nodes() if node.get("Alive")]
        largest = max((int(node.get("CPU", 0)) for node in nodes), default=1)
        # As many as fit: a worker that no machine has room for would be waited for without end.
        workers = max(1, min(self.workers or gpus or cpus, gpus or cpus, cpus, parts or cpus))
        threads = max(1, min(self.threads or cpus // workers, largest))
        while threads > 1 and sum(int(node.get("CPU", 0)) // threads for node in nodes) < workers:
            threads -= 1
        told = "compute" if parts is None else f"compute {parts} parts"
        notice(f"{workers} workers of Ray with {threads} threads each {told}.")
        return workers, threads, (1.0 if gpus else 0.0)


class _Crew:
    """Workers of one size, hired when there is something for them to do.

    Args:
        size: How many at most.
        threads: Processors of each.
        gpus: Accelerators of each.
        keep: Whether those that have nothing left to do stay for the next job.
    """

    def __init__(self, ray: Any, size: int, threads: float, gpus: float, keep: bool) -> None:
        self.ray, self.size, self.threads, self.keep = ray, size, int(threads), keep
        self.kind = ray.remote(num_cpus=threads, num_gpus=gpus)(_Worker)
        self.hired: set[Any] = set()
        self.idle: list[Any] = []
        self.jobs, self.dismissed = 0, False

    def dismiss(self) -> None:
        """Let all go, at once and for good."""
        self.dismissed = True
        for worker in list(self.hired):
            self._let_go(worker)

    def _let_go(self, worker: Any) -> None:
        # Not by forgetting it: an error keeps its frames, and with them workers that hold processors, while somebody looks at it.
        self.hired.discard(worker)
        with suppress(ValueError, RuntimeError):  # its cluster is gone, and it with it
            if self.ray.is_initialized():
                self.ray.kill(worker)

    def _hire(self) -> Any:
        worker = self.kind.remote(self.threads)
        self.hired.add(worker)
        return worker

    def run(self, job: Callable[[int], T], parts: Iterable[int]) -> Iterator[tuple[int, T]]:
        """Parts as they are finished."""
        from ray.exceptions import NodeDiedError, OutOfMemoryError, RayActorError, RayTaskError

        waiting = list(parts)[::-1]
        tries, under_way = dict.fromkeys(waiting, 0), {}
        alive: set[Any] = (
            set()
        )  # hired for this job, or seen at work on it: others may have died since the last
        self.jobs += 1
        # As bytes: what goes wrong while a worker unpickles it is an error of its part, and keeps its kind. In a list: there a
        # reference arrives as one, and is fetched once a worker instead of once a part.
        sent = self.jobs, [self.ray.put(self.ray.cloudpickle.dumps(job))]

        def begin() -> None:
            while waiting and len(under_way) < self.size:
                part = waiting.pop()
                if self.idle:
                    worker = self.idle.pop()
                else:
                    alive.add(worker := self._hire())
                tries[part] += worker in alive
                under_way[worker.compute.remote(*sent, part)] = worker, part

        try:
            begin()
            while under_way:
                if self.dismissed:
                    raise OptionError(
                        "The workers of a job that was under way were dismissed.",
                        "Take all parts before their block ends.",
                    )
                (done,), _ = self.ray.wait(list(under_way), num_returns=1)
                worker, part = under_way[done]
                try:
                    result = self.ray.get(done)
                except (RayActorError, NodeDiedError, OutOfMemoryError) as error:
                    if tries[part] >= TRIES:
                        raise OptionError(
                            f"Part {part} was begun {TRIES} times, and its worker died every time.",
                            "Look for too little memory: give fewer workers, or a smaller --batch.",
                        ) from error
                    if worker in alive:
                        notice(f"A worker died; its part ({part}) is computed anew.")
                    del under_way[done]
                    self._let_go(worker)
                    waiting.append(part)
                    begin()
                except RayTaskError as error:
                    if isinstance(error.cause, OtoscopeError):
                        raise error.cause from None
                    raise
                else:
                    del under_way[done]
                    alive.add(worker)
                    if waiting or self.keep:
                        self.idle.append(worker)
                        begin()  # first, for what is handed over will be written, and nobody need wait for that
                    else:
                        self._let_go(worker)  # one that has nothing left to do makes room
                    del done, worker
                    yield part, result
                    del result
        finally:
            for worker, _ in under_way.values():  # after an error, or when nobody wants the rest
                self._let_go(worker)


class _Worker:
    """One process of the cluster; a job, and with it the model, is unpickled once."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._job: tuple[int, Callable[[int], Any]] | None = None

    def compute(self, number: int, sent: list[Any], part: int) -> Any:
        """One part of the job of a number."""
        import ray
        from ray import cloudpickle

        from otoscope.progress import Silence, reporting_to

        with reporting_to(Silence()):
            if self._job is None or self._job[0] != number:
                self._job = number, cloudpickle.loads(ray.get(sent[0]))
                # A job with a model has brought torch along; for others it would only be waited for.
                if "torch" in sys.modules:
                    sys.modules["torch"].set_num_threads(self._threads)
            return self._job[1](part)
