"""A study that takes about an hour: commands in a folder of its own, where a run that was stopped goes on.

The next run after one that ended begins anew, in a folder that is empty; the old one is kept beside it, numbered.
"""

from __future__ import annotations

import json
import os
from contextlib import chdir
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks.measure import commit, otoscope

_BEGUN, _ENDED = "begun.txt", "ended.txt"
_STUDIES = Path(os.environ.get("OTOSCOPE_STUDIES", Path(__file__).parents[1] / ".venv" / "studies"))


class Folder:
    """Where a study keeps corpora, results and what it made; OTOSCOPE_STUDIES names another place than `.venv/studies`."""

    def __init__(self, name: str) -> None:
        self.path = _STUDIES / name
        if (self.path / _ENDED).exists():
            self.path.rename(next(old for n in count(1) if not (old := _STUDIES / f"{name}-{n}").exists()))
        self.path.mkdir(parents=True, exist_ok=True)
        begun = self.path / _BEGUN
        if not begun.exists():
            begun.write_text(commit() or "", encoding="utf-8")

    def ended(self) -> dict[str, Any]:
        """Mark the study as done; the commit that it was begun at, where that is another than now."""
        (self.path / _ENDED).touch()
        begun = (self.path / _BEGUN).read_text("utf-8")
        return {} if begun == (commit() or "") else {"begun_at": begun}

    def otoscope(self, *arguments: str) -> None:
        """Run a command in a process of its own, in the folder."""
        with chdir(self.path):
            otoscope(arguments)

    def once(self, made: str, *arguments: str) -> None:
        """Run a command that does not go on by itself, unless what it makes is there."""
        if not (self.path / made).exists():
            self.otoscope(*arguments)

    def read(self, name: str) -> dict[str, Any]:
        """What a command wrote as JSON."""
        return json.loads((self.path / name).read_text("utf-8"))
