"""The runs of a folder: pages and run directories, found, summed up, and opened with what people wrote beside them."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from otoscope.documents.base import Document
from otoscope.documents.kinds import document_of, parse_values
from otoscope.errors import DocumentError
from otoscope.runs.annotations import AnnotationStore
from otoscope.runs.notes import Notes
from otoscope.views.page_reading import document_text
from otoscope.views.server_entries import Entry, Stamp, entry_of, found, stamp_of

_BUDGET = 0.5  # seconds of reading before a listing is given as far as it has come
_KEPT = 4  # documents that stay in memory: those of a comparison, and two more
_KEPT_BYTES = 32 * 2**20  # of their JSON


class UnknownRunError(DocumentError):
    """A run that is not, or no longer, in the folder."""

    def __init__(self) -> None:
        super().__init__("That run is not in this folder, or no longer.", "Go back to the list of runs.")


class ReplacedError(DocumentError):
    """A page shows what its file does not hold any more: what is written there belongs to what was shown."""

    def __init__(self, entry: Entry) -> None:
        super().__init__(
            f"{entry.path} was written again since this page was opened, and now holds something else.",
            "Copy what you wrote, reload the page, and write it there if it still fits.",
        )


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
        self._recent = _Recent()

    def refresh(self, budget: float = _BUDGET) -> int:
        """Look again; returns how many files are still unread when the budget (seconds) is spent."""
        end = time.monotonic() + budget
        with self._lock:
            files = dict(sorted(found(self.folder), key=lambda one: -one[1][1]))  # the newest first
            known, unread = {}, 0
            for path, stamp in files.items():
                before = self._known.get(path)
                if before is not None and before[0] == stamp:
                    known[path] = before
                elif time.monotonic() < end:
                    known[path] = (stamp, entry_of(self.folder, path, stamp))
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
            written = notes.get(_about(entry))
            told = asdict(entry) | {"note": entry.note if written is None else written.text}
            listed.append({name: value for name, value in told.items() if name != "note" or value})
        return listed

    def entry(self, id: str) -> Entry:
        """The run of an id, as its file is now.

        Raises:
            UnknownRunError: There is none.
        """
        entry = self._entries.get(id)
        if entry is None or not self._is_inside(entry):
            raise UnknownRunError
        return self._read_again(entry)

    def document(self, id: str, digest: str | None = None) -> Document:
        """The document of a page, with all that people wrote onto it; not to be changed, for others are given the same.

        Annotations that fit it no longer are left out.

        Args:
            id: The run.
            digest: That of the document which is meant; None: whichever is there.

        Raises:
            DocumentError: There is no such run, or it cannot be opened.
            ReplacedError: It is another document now.
        """
        entry = _still(self._page(id), digest)
        written = self.notes.read().get(_about(entry))
        note = None if written is None else written.text
        annotations = self.annotations.read(entry.digest)

        def read() -> tuple[Document, int]:
            if annotations:
                with suppress(DocumentError):
                    return self._written_onto(entry, note, annotations)
            return self._written_onto(entry, note, {})

        key = (entry.path, entry.digest, json.dumps([note, annotations]))
        return self._recent.get(key, read)

    def description(self, id: str) -> dict[str, Any]:
        """What a run directory says of itself, and the files in it.

        Raises:
            DocumentError: There is no such run.
        """
        entry = self.entry(id)
        if entry.form != "folder":
            raise DocumentError(f"{entry.path} is a page.", "Open it as one.")
        path = self.folder / entry.path
        described = _without_infinities(parse_values(path.read_bytes()))
        files = sorted((f.name, f.stat().st_size) for f in path.parent.iterdir() if f.is_file())
        return {
            "settings": described.get("settings", {}),
            "versions": described.get("versions", {}),
            "files": [{"name": name, "size": size} for name, size in files if not name.startswith(".")][:500],
        }

    def write_note(self, id: str, text: str, digest: str | None = None) -> None:
        """Keep a note on a run; an empty text takes it away, also the one that the document itself has.

        Args:
            id: The run.
            text: The note.
            digest: That of the document which was shown; None: whichever is there.

        Raises:
            ReplacedError: It is another document now.
        """
        entry = _still(self.entry(id), digest)
        self.notes.write(_about(entry), text, keep_empty=bool(entry.note))

    def annotate(self, id: str, place: str, value: dict[str, Any], digest: str | None = None) -> None:
        """Keep what was written onto a graph of a run.

        Args:
            id: The run.
            place: Where the graph is in the document.
            value: The annotations.
            digest: That of the document which was shown; None: whichever is there.

        Raises:
            DocumentError: There is no such graph, or it does not take that.
            ReplacedError: It is another document now.
        """
        entry = _still(self._page(id), digest)
        self._written_onto(entry, None, {place: value})
        self.annotations.write(entry.digest, place, value)

    def _page(self, id: str) -> Entry:
        """The entry of a page that can be opened.

        Raises:
            DocumentError: It is none.
        """
        entry = self.entry(id)
        if entry.form != "page":
            raise DocumentError(f"{entry.path} is a folder of parts.", "Make a page of it first.")
        if entry.broken is not None:
            raise DocumentError(entry.broken, "Make the page again.")
        return entry

    def _read_again(self, entry: Entry) -> Entry:
        """An entry, read anew if its file was written since: what people wrote belongs to what a page holds.

        Raises:
            UnknownRunError: The file is gone, or none of ours any more.
        """
        path = entry.path
        with self._lock:
            try:
                stamp = stamp_of((self.folder / path).stat(follow_symlinks=False))
            except OSError:
                raise UnknownRunError from None
            before, now = self._known.get(path, (None, None))
            if before != stamp:
                now = entry_of(self.folder, path, stamp)
                self._known[path] = (stamp, now)
                others = {id: one for id, one in self._entries.items() if id != entry.id}
                self._entries = others if now is None else others | {entry.id: now}
        if now is None:
            raise UnknownRunError
        return now

    def _written_onto(
        self, entry: Entry, note: str | None, annotations: dict[str, dict[str, Any]]
    ) -> tuple[Document, int]:
        """A page's document with a note (None: its own) and annotations in their places, and the bytes of its JSON.

        Raises:
            DocumentError: It cannot be read, or does not take them.
        """
        text = document_text(self.folder / entry.path)
        if hashlib.sha256(text).hexdigest() != entry.digest:
            raise DocumentError(f"{entry.path} has just been written again.", "Try again.")
        data = parse_values(text)
        if note is not None:
            data["note"] = note or None
        for place, value in annotations.items():
            _put(data, place, value)
        return document_of(data), len(text)

    def _is_inside(self, entry: Entry) -> bool:
        """Whether a run still lies in the folder itself: no part of its path has become a link since it was found."""
        path = self.folder / entry.path
        return path.resolve() == path and path.is_file()


def _still(entry: Entry, digest: str | None) -> Entry:
    """An entry, refused where it holds another document than the one that is meant."""
    if digest not in (None, entry.digest):
        raise ReplacedError(entry)
    return entry


def _about(entry: Entry) -> str:
    return f"run {entry.digest}"


def _without_infinities(data: Any) -> Any:
    """JSON values with NaN and infinities as text, which Python reads and no browser does."""
    return json.loads(json.dumps(data), parse_constant=str)


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


class _Recent:
    """The documents that were read last: pages that show one document side by side have it checked once."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, ...], tuple[Document, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple[str, ...], read: Callable[[], tuple[Document, int]]) -> Document:
        """The document of a key; one that is not kept is read, which gives it and its bytes."""
        with self._lock:  # while it is read, too: who asks for the same waits for it
            kept = self._kept.pop(key, None) or read()
            self._kept[key] = kept
            while len(self._kept) > _KEPT or sum(size for _, size in self._kept.values()) > _KEPT_BYTES:
                self._kept.popitem(last=False)
            return kept[0]
