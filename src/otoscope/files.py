"""Writing files so that none is ever half-written under its final name."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from otoscope.errors import OutputError

_UMASK = os.umask(0)  # asked once: asking sets it for a moment, which other threads would see
os.umask(_UMASK)

_REMEDIES = {
    errno.ENOSPC: "Free some space, or write to another disk.",
    errno.EDQUOT: "Free some of the quota, or write to another disk.",
    errno.EROFS: "Choose a place that can be written to.",
    errno.EACCES: "Choose a place that you may write to.",
    errno.EPERM: "Choose a place that you may write to.",
    errno.ENOENT: "Create the folder first, or choose another place.",
    errno.ENOTDIR: "Choose a path whose parents are folders.",
    errno.EISDIR: "Name a file, not a folder.",
}


def output_error(path: Path | str, error: OSError) -> OutputError:
    """The operating system's complaint about writing `path`, as reason and remedy."""
    why = error.strerror or type(error).__name__
    remedy = _REMEDIES.get(error.errno or 0, "Choose another place to write to.")
    return OutputError(f"{path} cannot be written: {why}.", remedy)


@contextmanager
def atomic_write(path: Path | str, mode: str = "w") -> Iterator[IO]:
    """Open a temporary neighbour of `path`; it takes the final name only when the block succeeds.

    Args:
        path: The final name. Its folder must exist.
        mode: "w" for UTF-8 text, "wb" for bytes.

    Yields:
        The file; its `name` is the temporary path, for a library that writes to a path itself.

    Raises:
        OutputError: The disk is full, the folder is missing or may not be written to.
    """
    path = _target(path)
    temporary: Path | None = None
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name[:80]}.", suffix=".part", dir=path.parent)
        temporary = Path(name)
        os.close(descriptor)
        with temporary.open(mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(
            0o666 & ~_UMASK
        )  # mkstemp makes private files; a result is as public as the person's others
        temporary.replace(path)
        temporary = None
    except OSError as error:
        if temporary is None or error.errno in _REMEDIES:
            raise output_error(path, error) from error
        raise
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def require_regular(path: Path | str) -> None:
    """Refuse a device or a pipe: a finished file takes its name by replacing what has it, which would be gone.

    Raises:
        OutputError: Something that is no file and no folder has this name.
    """
    path = Path(path)
    stream = path.is_symlink() and path.readlink().is_relative_to("/proc")  # /dev/stdout, wherever it leads
    if stream or (path.exists() and not path.is_file() and not path.is_dir()):
        raise OutputError(f"{path} is not a regular file.", "Name a file; `--json -` writes to stdout.")


def _target(path: Path | str) -> Path:
    """The file that a path leads to: new content replaces it, not a link to it."""
    path = Path(path)
    if path.is_dir():
        raise output_error(path, OSError(errno.EISDIR, os.strerror(errno.EISDIR)))
    require_regular(path)
    return path.resolve() if path.is_symlink() else path


def require_writable(path: Path | str) -> None:
    """Refuse early, before any work, a result path that cannot be written.

    Raises:
        OutputError: The folder does not exist, is not a folder or may not be written to.
    """
    path = _target(path)
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise output_error(path, error) from error
