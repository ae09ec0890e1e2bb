"""Writing files and folders so that none is ever half-written under its final name.

What is being written has a name of its own, `.NAME.xxxxxxxx.oto.part`, and is locked by the process that writes it. The operating
system drops the lock when that process dies, however it dies; so the next one to write into the same folder can tell what was
abandoned from what is under way, and removes it. No clock and no process number is asked.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import IO

from otoscope.errors import OptionError, OtoscopeError, OutputError

try:
    import fcntl
except (
    ImportError
):  # Windows: nothing can be locked, so nothing is known to be abandoned, and nothing is removed
    fcntl = None

_UMASK = os.umask(0)  # asked once: asking sets it for a moment, which other threads would see
os.umask(_UMASK)

_UNFINISHED = ".oto.part"

_REMEDIES = {
    errno.ENOSPC: "Free some space, or write to another disk.",
    errno.EDQUOT: "Free some of the quota, or write to another disk.",
    errno.EFBIG: "Raise the limit of a file's size, or write to another disk.",
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


def _complaint(error: BaseException | None) -> OSError | None:
    """What the operating system complained about, in an error of Python or of a library that writes by itself, in Rust."""
    if isinstance(error, OSError):
        return error
    if isinstance(error, OtoscopeError):  # it has been told already
        return None
    found = re.search(r"\(os error (\d+)\)", str(error))
    return OSError(int(found[1]), os.strerror(int(found[1]))) if found else None


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
    begun = False
    try:
        with _begun(path) as temporary:
            begun = True
            with temporary.open(mode, encoding=None if "b" in mode else "utf-8") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            # Temporary files are private; a result is as public as the person's others.
            temporary.chmod(0o666 & ~_UMASK)
            temporary.replace(path)
    except Exception as error:
        told = _complaint(error)
        if told is None or (begun and told.errno not in _REMEDIES):
            raise
        raise output_error(path, told) from error


@contextmanager
def atomic_folder(folder: Path | str, last: str | None = None) -> Iterator[Path]:
    """A temporary neighbour of `folder`, to be filled; it takes the final name only when the block succeeds.

    Args:
        folder: A new or empty folder; its parents are made. With `last`, it may hold older files: all new ones are written out
            before the first old one is touched, and none of them may be a folder.
        last: The file without which nobody takes the folder for whole: it goes first of what was there, and comes last.

    Raises:
        OutputError: The disk is full, the place may not be written to, the folder holds files and no `last` is named, or a
            folder would have to replace one of them.
    """
    final = Path(folder).resolve()
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        with _begun(final, folder=True) as temporary:
            yield temporary
            temporary.chmod(0o777 & ~_UMASK)
            if last is None or not (final.is_dir() and any(final.iterdir())):
                with suppress(FileNotFoundError):
                    final.rmdir()
                temporary.replace(final)
            else:
                _require_files(temporary, final)
                (final / last).unlink(missing_ok=True)
                for path in sorted(temporary.iterdir(), key=lambda path: path.name == last):
                    path.replace(final / path.name)
    except Exception as error:
        # Of a file in it, too: its temporary name tells nobody anything.
        told = _complaint(error.__cause__ if isinstance(error, OutputError) else error)
        if told is None:
            raise
        raise output_error(folder, told) from error


def _require_files(new: Path, old: Path) -> None:
    """Refuse to replace older files where a folder is in the way, which the operating system would do only half-way through.

    Raises:
        OutputError: Something in the new folder, or what it is to replace, is a folder itself.
    """
    for path in sorted(new.iterdir()):
        if path.is_dir() or (old / path.name).is_dir():
            raise OutputError(
                f"{old / path.name} cannot be written over older files: there are folders in the way.",
                "Write to a new or empty folder.",
            )


def remove_folder(folder: Path) -> None:
    """Remove a folder of this process's own so that, whenever the process is killed, it is there whole or not at all."""
    with suppress(OSError), _begun(folder, folder=True) as temporary:
        folder.replace(temporary)


def remove_abandoned(folder: Path) -> None:
    """Remove from a folder what dead processes had begun to write into it."""
    with suppress(OSError):
        for path in folder.glob(f".*{_UNFINISHED}"):
            with suppress(OSError), _held(path) as ours:
                if ours:
                    _removed(path)


@contextmanager
def _begun(path: Path, folder: bool = False) -> Iterator[Path]:
    """A temporary neighbour, locked for the length of the block; gone after it unless it took another name."""
    place = path.parent
    _remove_abandoned_once(place.resolve())
    prefix = f".{path.name[:80]}."
    while True:
        if folder:
            temporary = Path(tempfile.mkdtemp(prefix=prefix, suffix=_UNFINISHED, dir=place))
        else:
            descriptor, name = tempfile.mkstemp(prefix=prefix, suffix=_UNFINISHED, dir=place)
            os.close(descriptor)
            temporary = Path(name)
        with _held(temporary) as ours:
            if ours is False:  # before it was locked, another process took it for an abandoned one
                continue
            try:
                yield temporary
            finally:
                _removed(temporary)
            return


_remove_abandoned_once = lru_cache(maxsize=1024)(remove_abandoned)
"""Once a process and folder: a corpus's folder of recordings is not listed for each of them."""


@contextmanager
def _held(path: Path) -> Iterator[bool | None]:
    """Lock a temporary file or folder: True if that succeeds, False if another has it or it is gone, None if nobody can."""
    if fcntl is None:
        yield None
        return
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        yield False
        return
    try:
        yield _locked(descriptor, path)
    finally:
        os.close(descriptor)


def _locked(descriptor: int, path: Path) -> bool | None:
    assert fcntl is not None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return None
    return path.exists()


def _removed(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def require_folder(path: Path | str, remedy: str) -> Path:
    """Refuse a folder to read from that is not there.

    Args:
        path: The folder.
        remedy: What to name instead.

    Raises:
        OptionError: It does not exist, or is a file.
    """
    path = Path(path)
    if not path.is_dir():
        raise OptionError(f"{path} {'is no folder' if path.exists() else 'does not exist'}.", remedy)
    return path


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
