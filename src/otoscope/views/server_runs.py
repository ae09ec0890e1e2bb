"""The runs of a folder: pages and run directories, found, summed up, and opened with what people wrote beside them."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from otoscope.documents.base import Document
from otoscope.documents.kinds import document_of, parse_values
from otoscope.errors import DocumentError
from otoscope.runs.annotations import AnnotationStore
from otoscope.runs.notes import Notes
from otoscope.runs.run import DESCRIPTION
from otoscope.views.page_reading import FILE_LIMIT, document_text, is_page
from otoscope.views.server_summary import summary

_DEEPEST = 12  # folders in folders
_MOST = 20_000  # runs that are looked at
_BUDGET = 0.5  # seconds of reading before a listing is given as far as it has come

Stamp = tuple[int, int, int]


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
    broken: str | None = None


class UnknownRunError(DocumentError):
    """A run that is not, or no longer, in the folder."""

    def __init__(self) -> None:
        super().__init__("That run is not in this folder, or no longer.", "Go back to the list of runs.")


class Shelf:
    """The runs of one folder and its subfolders.

    What is found is remembered until a file changes, so that looking again is as quick as listing the folders. Links are not
    followed, hidden files and folders are passed over.

    Args:
        folder: The folder.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder).resolve()
        self.notes = Notes(self.folder)
        self.annotations = AnnotationStore(self.folder)
        self._lock = threading.Lock()
        self._known: dict[str, tuple[Stamp, Entry | None]] = {}
        self._entries: dict[str, Entry] = {}

    def refresh(self, budget: float = _BUDGET) -> int:
        """Look again; returns how many files are still unread when the budget (seconds) is spent."""
        end = time.monotonic() + budget
        with self._lock:
            found = dict(sorted(_found(self.folder), key=lambda one: -one[1][1]))  # the newest first
            known, unread = {}, 0
            for path, stamp in found.items():
                before = self._known.get(path)
                if before is not None and before[0] == stamp:
                    known[path] = before
                elif time.monotonic() < end:
                    known[path] = (stamp, _entry(self.folder, path, stamp))
                else:
                    unread += 1
            self._known = known
            self._entries = {entry.id: entry for _, entry in known.values() if entry is not None}
        return unread

    def listing(self) -> list[dict[str, Any]]:
        """All runs with their notes, ready for JSON, the newest first."""
        notes = self.notes.read()
        listed = []
        for entry in self._entries.values():
            note = notes.get(_about(entry))
            listed.append(asdict(entry) | ({} if note is None else {"note": note.text}))
        return listed

    def entry(self, id: str) -> Entry:
        """The run of an id.

        Raises:
            UnknownRunError: There is none.
        """
        found = self._entries.get(id)
        if found is None or not self._is_inside(found):
            raise UnknownRunError
        return found

    def document(self, id: str) -> Document:
        """The document of a page, with all that people wrote onto it.

        Raises:
            DocumentError: There is no such run, or it cannot be opened.
        """
        entry = self.entry(id)
        if entry.form != "page":
            raise DocumentError(f"{entry.path} is a folder of parts.", "Make a page of it first.")
        return document_of(self._written_onto(entry))

    def description(self, id: str) -> dict[str, Any]:
        """What a run directory says of itself, and the files in it.

        Raises:
            DocumentError: There is no such run.
        """
        entry = self.entry(id)
        if entry.form != "folder":
            raise DocumentError(f"{entry.path} is a page.", "Open it as one.")
        path = self.folder / entry.path
        described = parse_values(path.read_bytes())
        files = sorted((f.name, f.stat().st_size) for f in path.parent.iterdir() if f.is_file())
        return {
            "settings": described.get("settings", {}),
            "versions": described.get("versions", {}),
            "files": [{"name": name, "size": size} for name, size in files if not name.startswith(".")][:500],
        }

    def write_note(self, id: str, text: str) -> None:
        """Keep a note on a run; an empty text takes it away."""
        self.notes.write(_about(self.entry(id)), text)

    def annotate(self, id: str, place: str, value: dict[str, Any]) -> None:
        """Keep what was written onto a graph of a run.

        Raises:
            DocumentError: There is no such graph, or it does not take that.
        """
        entry = self.entry(id)
        data = self._written_onto(entry)
        _put(data, place, value)
        document_of(data)
        self.annotations.write(entry.digest, place, value)

    def _written_onto(self, entry: Entry) -> dict[str, Any]:
        """The values of a page's document with notes and annotations in their places."""
        data = parse_values(document_text(self.folder / entry.path))
        note = self.notes.read().get(_about(entry))
        if note is not None:
            data["note"] = note.text
        for place, value in self.annotations.read(entry.digest).items():
            _put(data, place, value)
        return data

    def _is_inside(self, entry: Entry) -> bool:
        """Whether a run still lies in the folder itself: no part of its path has become a link since it was found."""
        path = self.folder / entry.path
        return path.resolve() == path and path.is_file()


def id_of(path: str) -> str:
    """The id of the run at a path below the folder."""
    return hashlib.sha256(path.encode("utf-8", "surrogateescape")).hexdigest()[:20]


def _about(entry: Entry) -> str:
    return f"run {entry.digest}"


def _found(folder: Path) -> Iterator[tuple[str, Stamp]]:
    """Pages and descriptions below a folder, by their paths, with what tells that they have changed."""
    pending, count = [(folder, 0)], 0
    while pending:
        here, depth = pending.pop()
        try:
            children = list(os.scandir(here))
        except OSError:  # it may not be read, or has just gone
            continue
        for child in children:
            if child.name.startswith(".") or child.is_symlink():
                continue
            if child.is_dir(follow_symlinks=False):
                if depth < _DEEPEST:
                    pending.append((Path(child.path), depth + 1))
            elif child.name == DESCRIPTION or child.name.lower().endswith((".html", ".htm")):
                try:
                    about = child.stat(follow_symlinks=False)
                except OSError:
                    continue
                count += 1
                if count > _MOST:
                    return
                path = Path(child.path).relative_to(folder).as_posix()
                yield path, (about.st_ino, about.st_mtime_ns, about.st_size)


def _entry(folder: Path, path: str, stamp: Stamp) -> Entry | None:
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
    if told is None:
        return None
    told["title"] = told["title"] or entry.title
    return replace(entry, digest=hashlib.sha256(text).hexdigest(), **told)


def _put(data: dict[str, Any], place: str, value: dict[str, Any]) -> None:
    """Put annotations where a graph has them.

    Raises:
        DocumentError: Nothing is there.
    """
    at: Any = data
    for step in place.split("/"):
        try:
            at = at[int(step)] if isinstance(at, list) else at[step]
        except (KeyError, IndexError, ValueError, TypeError):
            raise DocumentError(
                f"The document has no {place[:80]!r}.", "Name a graph of the document."
            ) from None
    if not isinstance(at, dict):
        raise DocumentError(f"{place[:80]!r} is no graph.", "Name a graph of the document.")
    at["annotations"] = value
