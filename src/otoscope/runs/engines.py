"""Where the parts of a job are computed: in this process, or by the workers of a Ray cluster.

A job is a function from a part's number to its result, and parts are fixed by the job's settings: whoever computes them, and in
whatever order, the results are the same. They come back to this process, which alone writes the run's directory.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
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
    """Jobs inside the block are computed by an engine; one that is a context manager is entered for the block."""
    with engine if isinstance(engine, AbstractContextManager) else nullcontext():
        token = _current.set(engine)
        try:
            yield
        finally:
            _current.reset(token)


class OnRay:
    """Workers of a Ray cluster, each with its own copy of the model.

    Workers, and the model that each has loaded, are kept from one job to the next, with the processors they hold, until the block
    of `running_on` (or of the engine itself, a context manager) ends; without a block, until the job ends. A worker that dies is
    replaced, and its part is computed anew. An error of otoscope ends the job as it would here.

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
        self._depth, self._started = 0, False
        self._crew: _Crew | None = None

    def __enter__(self) -> OnRay:
        """Keep workers until the outermost block of this engine ends."""
        self._depth += 1
        return self

    def __exit__(self, *_: object) -> None:
        """Dismiss them, and end the cluster if it was started for them."""
        self._depth -= 1
        if self._depth:
            return
        if self._crew is not None:
            self._crew.dismiss()
            self._crew = None
        if self._started:
            self._started = False
            self._ray.shutdown()

    def run(self, job: Callable[[int], T], parts: Iterable[int]) -> Iterator[tuple[int, T]]:
        """Parts as they are finished."""
        waiting = list(parts)
        if not waiting:
            return
        with nullcontext() if self._depth else self:
            self._connect()
            size, *each = self._size(len(waiting))
            if self._crew is None or self._crew.each != each:
                if self._crew is not None:
                    self._crew.dismiss()
                self._crew = _Crew(self._ray, *each)
            yield from self._crew.work(job, waiting, size)

    def _connect(self) -> None:
        ray = self._ray
        if ray.is_initialized():
            return
        self._crew = None  # of a cluster that somebody has ended
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
        self._started = True

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
    """Workers that stay from one job to the next.

    Attributes:
        each: Processors and accelerators of each.
    """

    def __init__(self, ray: Any, threads: float, gpus: float) -> None:
        self.ray, self.each = ray, [threads, gpus]
        self.kind = ray.remote(num_cpus=threads, num_gpus=gpus)(_Worker)
        self.hired: set[Any] = set()
        self.idle: list[Any] = []
        self.jobs = 0

    def dismiss(self) -> None:
        """Let all go, at once."""
        for worker in list(self.hired):
            self._let_go(worker)

    def _let_go(self, worker: Any) -> None:
        # Not by forgetting it: an error keeps its frames, and with them workers that hold processors, while somebody looks at it.
        self.hired.discard(worker)
        if self.ray.is_initialized():
            self.ray.kill(worker)

    def _hire(self) -> Any:
        worker = self.kind.remote(int(self.each[0]))
        self.hired.add(worker)
        return worker

    def work(self, job: Callable[[int], T], parts: list[int], size: int) -> Iterator[tuple[int, T]]:
        """Parts of a job as they are finished, by at most so many workers."""
        from ray.exceptions import NodeDiedError, OutOfMemoryError, RayActorError, RayTaskError

        waiting, tries = parts[::-1], dict.fromkeys(parts, 0)
        under_way: dict[Any, tuple[Any, int]] = {}
        self.jobs += 1
        # As bytes: what goes wrong while a worker unpickles it is an error of its part, and keeps its kind. In a list: there a
        # reference arrives as one, and is fetched once a worker instead of once a part.
        sent = self.jobs, [self.ray.put(self.ray.cloudpickle.dumps(job))]

        def begin() -> None:
            while waiting and len(under_way) < size:
                part = waiting.pop()
                tries[part] += 1
                worker = self.idle.pop() if self.idle else self._hire()
                under_way[worker.compute.remote(*sent, part)] = worker, part

        try:
            begin()
            while under_way:
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
                    notice(f"A worker died; its part ({part}) is computed anew.")
                    self.hired.discard(worker)
                    waiting.append(part)
                    del under_way[done]
                    begin()
                except RayTaskError as error:
                    if isinstance(error.cause, OtoscopeError):
                        raise error.cause from None
                    raise
                else:
                    del under_way[done]
                    self.idle.append(worker)
                    begin()  # first, for what is handed over will be written, and nobody need wait for that
                    yield part, result
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
                self._job = None  # two jobs at once would be two models
                self._job = number, cloudpickle.loads(ray.get(sent[0]))
                # A job with a model has brought torch along; for others it would only be waited for.
                if "torch" in sys.modules:
                    sys.modules["torch"].set_num_threads(self._threads)
            return self._job[1](part)
