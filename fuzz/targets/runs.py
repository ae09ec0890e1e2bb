"""Run directories, and the notes that people keep beside them (SQLite)."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from otoscope.errors import OtoscopeError
from otoscope.runs.annotations import AnnotationStore
from otoscope.runs.notes import Notes
from otoscope.runs.run import Run
from otoscope.views.server_runs import Shelf

FILES = ("run.json", "notes.sqlite")
_RUN = {
    "kind": "sweep",
    "settings": {"model": "m", "seed": 1, "heads": [[0, 1]], "deep": {"alpha": 0.5}},
    "versions": {"torch": "2"},
}


def seeds() -> list[tuple[bytes, ...]]:
    """A run alone, and one with notes and annotations."""
    with tempfile.TemporaryDirectory() as folder:
        Notes(folder).write("feature 2 1310", "the s of ask", "k")
        AnnotationStore(folder).write("digest", "graph", {"labels": {"a": "b"}})
        database = (Path(folder) / FILES[1]).read_bytes()
    return [(json.dumps(_RUN).encode(),), (json.dumps(_RUN).encode(), database)]


def parse(folder: Path) -> None:
    """Read the run, go on with it, list it with its notes and describe it."""
    refused: OtoscopeError | None = None
    try:
        run = Run.read(folder)
        with Run.opened(folder, run.kind, run.settings) as again:
            assert repr(again.settings) == repr(run.settings)
    except OtoscopeError as error:
        refused = error
    finally:
        (folder / ".lock").unlink(missing_ok=True)
    shelf = Shelf(folder)
    shelf.refresh()
    for told in shelf.listing():
        json.dumps(told, allow_nan=False)
        json.dumps(shelf.description(told["id"]), allow_nan=False)
    json.dumps(AnnotationStore(folder).read("digest"))
    if refused:
        raise refused
