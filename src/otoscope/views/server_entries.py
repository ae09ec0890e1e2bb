"""What the list of runs says of each file of a folder: pages and run directories, found and summed up."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from otoscope.documents.kinds import parse_values
from otoscope.errors import DocumentError
from otoscope.runs.run import DESCRIPTION
from otoscope.views.page_reading import FILE_LIMIT, document_text, is_page
from otoscope.views.server_files import files_below
from otoscope.views.server_summary import summary

_DEEPEST = 12  # folders in folders
_MOST = 20_000  # runs that are looked at

Stamp = tuple[int, int, int]
"""What tells that a file has changed: inode, time of writing (ns) and size (bytes)."""


@dataclass(frozen=True)
class Entry:
    """One run of the list.

    Attributes:
        id: By which the page names it; it is made of the path, and no path is ever made of it.
        path: Where it lies, below the folder.
        form: `page` or `folder`.
        made: When the file was written, in seconds since 1970.
        size: Bytes.
        digest: SHA-256 of its document, by which notes know it under any name.
        kind: Of the document or of the run; `?` where it is broken.
        title: As the document has it, or the file's name.
        model: Which model it is about, "" if nothing says so.
        text: What was written, shortened.
        duration: Seconds of sound.
        flags: What to beware of, in a few words each.
        note: What the document itself has for a note, "" if nothing.
        broken: Why it cannot be opened.
    """

    id: str
    path: str
    form: str
    made: float
    size: int
    digest: str
    kind: str
    title: str
    model: str = ""
    text: str = ""
    duration: float | None = None
    flags: tuple[str, ...] = ()
    note: str = ""
    broken: str | None = None


def id_of(path: str) -> str:
    """The id of the run at a path below the folder."""
    return hashlib.sha256(path.encode("utf-8", "surrogateescape")).hexdigest()[:20]


def stamp_of(about: os.stat_result) -> Stamp:
    """The stamp of a file."""
    return about.st_ino, about.st_mtime_ns, about.st_size


def found(folder: Path) -> Iterator[tuple[str, Stamp]]:
    """Pages and descriptions below a folder, by their paths, with what tells that they have changed."""
    listed = (child for child in files_below(folder, _DEEPEST) if _is_listed(child.name))
    for child in islice(listed, _MOST):
        with suppress(OSError):  # it has just gone
            yield Path(child.path).relative_to(folder).as_posix(), stamp_of(child.stat(follow_symlinks=False))


def _is_listed(name: str) -> bool:
    return name == DESCRIPTION or name.lower().endswith((".html", ".htm"))


def entry_of(folder: Path, path: str, stamp: Stamp) -> Entry | None:
    """What the list says of a file; None if it is none of ours."""
    of_folder = path.rsplit("/", 1)[-1] == DESCRIPTION
    name = path.rpartition("/")[0] or folder.name if of_folder else path
    entry = Entry(
        id=id_of(path), path=path, form="folder" if of_folder else "page", made=stamp[1] / 1e9, size=stamp[2], digest="",
        kind="?", title=name.rsplit("/", 1)[-1],
    )  # fmt: skip
    try:
        if of_folder:
            text = (folder / path).read_bytes() if stamp[2] <= FILE_LIMIT else b""
        elif is_page(folder / path):
            text = document_text(folder / path)
        else:
            return None
        told = summary(parse_values(text))
    except DocumentError as error:
        return None if of_folder else replace(entry, broken=error.reason, digest=entry.id)
    except OSError:
        return None
    except Exception as error:  # whatever a file holds, the others are listed
        reason = f"It cannot be summed up ({type(error).__name__})."
        return replace(entry, broken=reason, digest=entry.id)
    if told is None:
        return None
    told["title"] = told["title"] or entry.title
    return replace(entry, digest=hashlib.sha256(text).hexdigest(), **told)
