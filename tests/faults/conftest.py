"""Disks of a few kilobytes and disks that cannot be written to, where this machine lets them be mounted."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Disk:
    """A file system in memory.

    Attributes:
        path: Where it is mounted.
    """

    path: Path

    def remount(self, option: str) -> None:
        """Change it: `size=10m`, `ro`, `rw`."""
        subprocess.run(["mount", "-o", f"remount,{option}", str(self.path)], check=True)


@pytest.fixture
def disk(tmp_path) -> Iterator[Disk]:
    """A disk of 64 kB."""
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(path)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("nothing may be mounted here")
    yield Disk(path)
    subprocess.run(["umount", "--lazy", str(path)], check=True)
