"""The folder of fetched weights: its place, its locks, and landing things in it whole."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from otoscope.errors import ModelError
from otoscope.progress import notice, track

__all__ = ["cache_dir", "combined_sha256", "exclusive", "landing", "require_space", "sha256", "storage_error"]

_BLOCK = 1 << 20
_WORTH_SHOWING = 1 << 30  # hashing runs at about a gigabyte a second: less is over before a bar is read
_ELSEWHERE = "Set OTOSCOPE_CACHE to a folder that can be written to and has room."


def cache_dir() -> Path:
    """Where fetched and converted weights are kept: `OTOSCOPE_CACHE`, or the platform's cache folder."""
    import platformdirs

    chosen = os.environ.get("OTOSCOPE_CACHE")
    return Path(chosen).expanduser().absolute() if chosen else Path(platformdirs.user_cache_dir("otoscope"))


def storage_error(path: Path, error: OSError) -> ModelError:
    """The operating system's complaint about the cache, as reason and remedy."""
    why = error.strerror or type(error).__name__
    room = "Free some space there, or set OTOSCOPE_CACHE to a folder on another disk."
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return ModelError(f"The cache cannot be written at {path}: {why}.", room if full else _ELSEWHERE)


def require_space(folder: Path, size: int) -> None:
    """Refuse a download that will not fit.

    Args:
        folder: An existing folder of the cache.
        size: Bytes needed.

    Raises:
        ModelError: Less is free.
    """
    free = shutil.disk_usage(folder).free
    if free < size:
        raise ModelError(
            f"The disk of {folder} has {free / 1e6:.0f} MB free where {size / 1e6:.0f} MB are needed.",
            "Free some space there, or set OTOSCOPE_CACHE to a folder on another disk.",
        )


@contextmanager
def exclusive(target: Path) -> Iterator[None]:
    """Hold the one right to write `target`, among all processes that share the cache.

    The lock is the operating system's and dies with its process. While it is held, any half-written neighbour
    is a dead process's and is removed.

    Args:
        target: The final file or folder. Its parents are made.

    Raises:
        ModelError: The cache cannot be written.
    """
    import filelock

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(target.parent / f".{target.name}.lock")
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            notice(f"Another process is fetching {target.name}; waiting for it.")
            lock.acquire(poll_interval=0.1)
    except OSError as error:
        raise storage_error(target.parent, error) from error
    try:
        for stale in target.parent.glob(f".{target.name}.part-*"):
            _remove_from_a_writer(stale)
        yield
    finally:
        lock.release()


def _remove_from_a_writer(folder: Path) -> None:
    """Remove a folder into which an orphan, such as a dead process's pip, may still be writing.

    Under another name it is out of the orphan's reach, so nothing appears in it while it is being emptied.
    """
    with suppress(OSError):  # Windows renames no folder with an open file in it
        folder = folder.rename(folder.with_name(f"{folder.name}.left"))
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def landing(target: Path) -> Iterator[Path]:
    """Fill a temporary folder beside `target`; its `content` takes the final name when the block succeeds.

    Call it inside `exclusive(target)`. What stood at `target` before is replaced.

    Args:
        target: The final folder.

    Yields:
        The temporary folder, with an empty folder `content` in it.

    Raises:
        ModelError: The cache cannot be written.
    """
    try:
        staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.part-", dir=target.parent))
    except OSError as error:
        raise storage_error(target.parent, error) from error
    try:
        content = staging / "content"
        content.mkdir()
        yield staging
        if target.exists():
            target.replace(staging / "replaced")
        content.replace(target)
    except OSError as error:
        raise storage_error(target, error) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal.

    Raises:
        ModelError: The file cannot be read.
    """
    try:
        size = path.stat().st_size
        if size < _WORTH_SHOWING:
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        return _shown_sha256(path, size)
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise ModelError(f"{path} cannot be read: {why}.", "Check the path and its permissions.") from error


def _shown_sha256(path: Path, size: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file, track(f"Checking {path.name}", size, "bytes") as task:
        while block := file.read(_BLOCK):
            digest.update(block)
            task.advance(len(block))
    return digest.hexdigest()


def combined_sha256(digests: dict[str, str]) -> str:
    """One SHA-256 for several files: that of the only one, else of the sorted lines `digest  name`."""
    if len(digests) == 1:
        return next(iter(digests.values()))
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items()))
    return hashlib.sha256(lines.encode()).hexdigest()
