"""What the machine has left."""

from __future__ import annotations

import os


def free_memory() -> float:
    """Bytes of memory that are free now; unlimited where the system does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:  # noqa: PTH123 - not a file of anybody's
            return next(float(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return whole_memory()


def whole_memory() -> float:
    """Bytes of memory in the machine; unlimited where the system does not say."""
    pages = os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    return float(pages * os.sysconf("SC_PAGE_SIZE")) if pages else float("inf")
