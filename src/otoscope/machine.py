"""What memory the machine has, what is left of it, and how this process asks for it; and how many threads NumPy takes."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # of glibc's mallopt(3)
_KEPT = 2**30


def free_memory() -> float:
    """Bytes of memory that are free now, within the limit of a container; unlimited where the system does not say."""
    return min(_of_system(), _of_container())


def whole_memory() -> float:
    """Bytes of memory in the machine; unlimited where the system does not say."""
    pages = os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    return float(pages * os.sysconf("SC_PAGE_SIZE")) if pages else float("inf")


def keep_freed_memory() -> bool:
    """Let this process use memory again that it has freed, up to a gigabyte, instead of giving it back.

    glibc gives every block of some megabytes back at once and asks for the next one anew, and the system clears each of its pages
    before it is touched. Batches of windows are such blocks: their layers had up to a fifth of their time in that. PyTorch is
    asked to take them in large pages besides, which it looks up once, with its first tensor. Threads share one arena: in one of
    their own, large blocks would be given back nevertheless.

    Returns:
        Whether anything was changed: another system library than glibc is left alone, and so is one that has been told something
        by the environment (`MALLOC_...`, `GLIBC_TUNABLES`).
    """
    if _told_by_environment():
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # no glibc; on Windows there is no library without a name
        return False
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    return all(
        mallopt(what, value)
        for what, value in ((_TRIM_THRESHOLD, _KEPT), (_MMAP_THRESHOLD, _KEPT), (_ARENA_MAX, 1))
    )


def give_back_freed_memory() -> bool:
    """Give back the memory that this process has freed and kept (`keep_freed_memory`).

    Where small results are kept between batches, the large blocks of the next one find no hole that is large enough, and memory
    grows. What is given back is cleared again by the system before it is used, which one batch hardly notices.

    Returns:
        Whether there was any; False where the system library is not glibc, or has been told something by the environment.
    """
    if _told_by_environment():
        return False
    try:
        return bool(ctypes.CDLL(None).malloc_trim(0))
    except (AttributeError, OSError, TypeError):  # as in `keep_freed_memory`
        return False


def _told_by_environment() -> bool:
    return any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)


class _OneThread:
    """NumPy's products take one thread while anybody is inside, in whatever order threads of this process come and go."""

    def __init__(self) -> None:
        self.lock, self.inside = Lock(), 0
        self.limit: Any = None

    @contextmanager
    def held(self) -> Iterator[None]:
        with self.lock:
            if not self.inside:
                self.limit = _numpy_threads().limit(limits=1)
            self.inside += 1
        try:
            yield
        finally:
            with self.lock:
                self.inside -= 1
                if not self.inside:
                    self.limit.restore_original_limits()


_one_thread = _OneThread()


def numpy_on_one_thread() -> AbstractContextManager[None]:
    """NumPy's products take one thread inside of the block, where it brings threads of its own (OpenBLAS).

    For small products one after another: handing each out to threads takes longer than it does. The limit holds for the whole
    process, until the last of its threads has left such a block.
    """
    return _one_thread.held()


@cache
def _numpy_threads() -> ThreadpoolController:
    import scipy.linalg  # noqa: F401 - brings another OpenBLAS than NumPy's, which has to be there to be found
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(internal_api="openblas")


def _of_system() -> float:
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
        return next(float(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return whole_memory()


def _of_container(group: Path = Path("/sys/fs/cgroup")) -> float:
    """What a control group may still take; pages of files that were read once count as used there, and give way at once."""
    try:
        limit, used = (float((group / name).read_text("ascii")) for name in ("memory.max", "memory.current"))
        counts = dict(line.split() for line in (group / "memory.stat").read_text("ascii").splitlines())
        return max(limit - used + float(counts.get("inactive_file", 0)), 0.0)
    except (OSError, ValueError):  # no container, or one without a limit ("max")
        return float("inf")
