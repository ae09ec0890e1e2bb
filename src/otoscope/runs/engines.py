"""Where the parts of a job are computed: in this process, or by the workers of a Ray cluster.

A job is a function from a part's number to its result, and parts are fixed by the job's settings: whoever computes them, and in
whatever order, the results are the same. They come back to this process, which alone writes the run's directory.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
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
    """Workers of a Ray cluster, each with its own copy of the model.

    A worker that dies is replaced, and its part is computed anew. An error of otoscope ends the job as it would here.

    Args:
        address: The cluster's; None: `RAY_ADDRESS`, or a cluster of this machine's own that is started for the block.
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
            yield from _Crew(self._ray, job, waiting, *self._size(len(waiting))).work()

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

    def _size(self, parts: int) -> tuple[int, float, float]:
        """Workers, and processors and accelerators of each."""
        have = self._ray.cluster_resources()
        cpus, gpus = int(have.get("CPU", 1)), int(have.get("GPU", 0))
        nodes = [node["Resources"] for node in self._ray.nodes() if node.get("Alive")]
        largest = max((int(node.get("CPU", 0)) for node in nodes), default=1)
        # As many as fit: a worker that no machine has room for would be waited for without end.
        workers = max(1, min(self.workers or gpus or cpus, gpus or cpus, cpus, parts))
        threads = max(1, min(self.threads or cpus // workers, largest))
        while threads > 1 and sum(int(node.get("CPU", 0)) // threads for node in nodes) < workers:
            threads -= 1
        notice(f"{workers} workers of Ray with {threads} threads each compute {parts} parts.")
        return workers, threads, (1.0 if gpus else 0.0)


class _Crew:
    """The workers of one job."""

    def __init__(
        self, ray: Any, job: Callable[[int], Any], parts: list[int], size: int, threads: float, gpus: float
    ) -> None:
        self.ray, self.waiting = ray, parts[::-1]
        self.tries = dict.fromkeys(parts, 0)
        self.kind = ray.remote(num_cpus=threads, num_gpus=gpus)(_Worker)
        # As bytes: what goes wrong while the worker unpickles it is an error of its part, and keeps its kind.
        self.job, self.threads = ray.put(ray.cloudpickle.dumps(job)), int(threads)
        self.under_way: dict[Any, tuple[Any, int]] = {}
        for _ in range(size):
            self._begin(self._hired())

    def _hired(self) -> Any:
        return self.kind.remote(self.job, self.threads)

    def _begin(self, worker: Any) -> None:
        if self.waiting:
            part = self.waiting.pop()
            self.tries[part] += 1
            self.under_way[worker.compute.remote(part)] = (worker, part)

    def work(self) -> Iterator[tuple[int, Any]]:
        """Parts as they are finished."""
        try:
            yield from self._finished()
        finally:
            # An error keeps its frames, and with them workers that hold processors, for as long as somebody looks at it.
            if self.under_way and self.ray.is_initialized():
                for worker, _ in self.under_way.values():
                    self.ray.kill(worker)

    def _finished(self) -> Iterator[tuple[int, Any]]:
        from ray.exceptions import NodeDiedError, OutOfMemoryError, RayActorError, RayTaskError

        while self.under_way:
            (done,), _ = self.ray.wait(list(self.under_way), num_returns=1)
            worker, part = self.under_way[done]
            try:
                result = self.ray.get(done)
            except (RayActorError, NodeDiedError, OutOfMemoryError) as error:
                self._lost(part, error)
                worker = self._hired()
            except RayTaskError as error:
                if isinstance(error.cause, OtoscopeError):
                    raise error.cause from None
                raise
            else:
                yield part, result
            del self.under_way[done]
            self._begin(worker)
            del worker  # one that has nothing left to do makes room

    def _lost(self, part: int, error: Exception) -> None:
        if self.tries[part] >= TRIES:
            raise OptionError(
                f"Part {part} was begun {TRIES} times, and its worker died every time.",
                "Look for too little memory: give fewer workers, or a smaller --batch.",
            ) from error
        notice(f"A worker died; its part ({part}) is computed anew.")
        self.waiting.append(part)


class _Worker:
    """One process of the cluster; the job, and with it the model, is unpickled once."""

    def __init__(self, job: bytes, threads: int) -> None:
        self._sent, self._threads = job, threads
        self._job: Callable[[int], Any] | None = None

    def compute(self, part: int) -> Any:
        """One part."""
        from ray import cloudpickle

        from otoscope.progress import Silence, reporting_to

        with reporting_to(Silence()):
            job = self._job
            if job is None:
                job = self._job = cloudpickle.loads(self._sent)
                self._sent = b""
                # A job with a model has brought torch along; for others it would only be waited for.
                if "torch" in sys.modules:
                    sys.modules["torch"].set_num_threads(self._threads)
            return job(part)
