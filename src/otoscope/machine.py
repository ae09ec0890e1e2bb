"""What memory the machine has, and what is left of it."""

from __future__ import annotations

import os
from pathlib import Path


def free_memory() -> float:
    """Bytes of memory that are free now, within the limit of a container; unlimited where the system does not say."""
    return min(_of_system(), _of_container())


def whole_memory() -> float:
    """Bytes of memory in the machine; unlimited where the system does not say."""
    pages = os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    return float(pages * os.sysconf("SC_PAGE_SIZE")) if pages else float("inf")


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
