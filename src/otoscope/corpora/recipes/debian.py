"""Files out of Debian packages: fetched with apt or found in a folder, and read without unpacking anything to disk."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from otoscope.errors import OptionError
from otoscope.files import output_error
from otoscope.progress import notice, track

_LARGEST = 64_000_000  # bytes of one file; the longest recording in question has 5 MB
_APT = ("-o", "Acquire::Retries=2", "-o", "Acquire::http::Timeout=30", "-o", "APT::Sandbox::User=root")
_PATIENCE = 1800  # seconds for all downloads together


def packages_folder() -> Path:
    """Where packages are kept: below `OTOSCOPE_CACHE` or the platform's cache folder."""
    import platformdirs

    chosen = os.environ.get("OTOSCOPE_CACHE")
    cache = Path(chosen).expanduser().absolute() if chosen else Path(platformdirs.user_cache_dir("otoscope"))
    return cache / "debian"


def fetched(names: Sequence[str], folder: Path | None) -> dict[str, Path]:
    """The `.deb` files of some packages, fetched first where they are missing.

    Args:
        names: Names of packages.
        folder: Where `.deb` files lie, or None for the cache, into which missing ones are fetched with apt-get, which
            checks their signatures. The size is said first.

    Returns:
        Name to path.

    Raises:
        OptionError: A package is not in the folder, or cannot be fetched.
        OutputError: The cache cannot be written.
    """
    place = folder or packages_folder()
    found = {name: _newest(name, place) for name in names}
    missing = [name for name, path in found.items() if path is None]
    if missing and folder is not None:
        raise OptionError(
            f"{folder} holds no package {' and no '.join(missing)}.",
            f"Put {missing[0]}_*.deb there, from any Debian mirror, or leave --packages out to fetch with apt.",
        )
    if missing:
        _download(missing, place)
        found = {name: _newest(name, place) for name in names}
    return {name: path for name, path in found.items() if path is not None}


def contents(package: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """The regular files of a package that are wanted, by their path in it ("usr/share/..."), in its order.

    Links, devices and folders are passed over, and nothing is written to disk.

    Raises:
        OptionError: The package is damaged.
    """
    try:
        with _data(package) as stream, tarfile.open(fileobj=stream, mode="r|*") as archive:
            for member in archive:
                name = member.name.removeprefix("./")
                file = archive.extractfile(member) if member.isreg() and wanted(name) else None
                if file is not None and member.size <= _LARGEST:
                    yield name, file.read()
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        raise OptionError(
            f"The package {package} cannot be read: {error}.", "Delete it and fetch it again."
        ) from error


def _newest(name: str, folder: Path) -> Path | None:
    """By its version, numbers as numbers; file times tell when somebody copied it."""
    return max(folder.glob(f"{name}_*.deb"), key=lambda path: _natural(path.name), default=None)


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _download(names: Sequence[str], folder: Path) -> None:
    """Fetch into a folder of its own first, so that a package is whole under its name."""
    _require_apt(names[0])
    notice(f"Fetching {len(names)} Debian packages into {folder}{_size_of(names)}.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (
            tempfile.TemporaryDirectory(dir=folder) as temporary,
            track("Fetching packages", len(names), "packages") as task,
        ):
            for name in names:
                _run(["apt-get", *_APT, "download", name], Path(temporary), name)
                task.advance()
            for path in Path(temporary).glob("*.deb"):
                path.replace(folder / path.name)
    except OSError as error:
        raise output_error(folder, error) from error


def _require_apt(name: str) -> None:
    if shutil.which("apt-get") is None:
        raise OptionError(
            "There is no apt-get here to fetch packages with.",
            f"Fetch {name}_*.deb and the others from a Debian mirror, and name their folder with --packages.",
        )


def _size_of(names: Sequence[str]) -> str:
    """How much there is to fetch, as far as apt knows."""
    told = subprocess.run(
        ["apt-cache", "show", "--no-all-versions", *names], capture_output=True, text=True, check=False
    )
    sizes = re.findall(r"^Size: (\d+)$", told.stdout, re.MULTILINE)
    return f" ({sum(map(int, sizes)) / 1e6:.0f} MB)" if sizes else ""


def _run(command: Sequence[str], folder: Path, name: str) -> None:
    try:
        subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, timeout=_PATIENCE)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        told = str(error.stderr or "").strip().splitlines()
        why = next((line.removeprefix("E: ") for line in told if line.startswith("E:")), "apt-get gave up")
        raise OptionError(
            f"The package {name} cannot be fetched: {why.rstrip('.')}.",
            "Run `apt-get update` and try again, or fetch it elsewhere and name its folder with --packages.",
        ) from error


@contextmanager
def _data(package: Path) -> Iterator[IO[bytes]]:
    """The package's tar stream: by dpkg-deb, which knows every compression, else with Python alone."""
    if shutil.which("dpkg-deb") is None:
        with package.open("rb") as file:
            _seek_data(file)
            yield file
        return
    with tempfile.TemporaryFile() as unpacked:
        done = subprocess.run(
            ["dpkg-deb", "--fsys-tarfile", package], stdout=unpacked, stderr=subprocess.PIPE, check=False
        )
        if done.returncode:
            raise ValueError(done.stderr.decode(errors="replace").strip().removesuffix("."))
        unpacked.seek(0)
        yield unpacked


def _seek_data(file: IO[bytes]) -> None:
    """Go to the beginning of data.tar.* in an ar archive: 8 bytes of magic, then members with headers of 60 bytes."""
    if file.read(8) != b"!<arch>\n":
        raise ValueError("it is no Debian package")
    while header := file.read(60):
        if len(header) < 60 or header[58:] != b"`\n":
            break
        if header.startswith(b"data.tar"):
            return
        size = int(header[48:58])
        file.seek(size + size % 2, os.SEEK_CUR)
    raise ValueError("there is no data in it")
