"""Debian packages made on the spot, and hostile ones."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path


def deb(
    path: Path, files: dict[str, bytes], more: list[tarfile.TarInfo] = (), compression: str = "xz"
) -> Path:
    """A binary package: an ar archive of debian-binary, control.tar.gz and data.tar.*."""
    members = [
        ("debian-binary", b"2.0\n"),
        ("control.tar.gz", _tar({"./control": b"Package: x\nVersion: 1\nArchitecture: all\n"}, (), "gz")),
        (f"data.tar.{compression}", _tar(files, more, compression)),
    ]
    content = b"!<arch>\n"
    for name, data in members:
        content += (
            f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n".encode()
            + data
            + b"\n" * (len(data) % 2)
        )
    path.write_bytes(content)
    return path


def _tar(files: dict[str, bytes], more, compression: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=f"w:{compression}") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        for member in more:
            archive.addfile(member)
    return out.getvalue()
