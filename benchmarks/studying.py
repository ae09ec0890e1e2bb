"""A study that takes about an hour: commands in a folder of its own, where a run that was stopped goes on."""

from __future__ import annotations

import json
import os
from contextlib import chdir
from pathlib import Path
from typing import Any

from benchmarks.measure import otoscope

_STUDIES = Path(os.environ.get("OTOSCOPE_STUDIES", Path(__file__).parents[1] / ".venv" / "studies"))


class Folder:
    """Where a study keeps corpora, results and what it made; OTOSCOPE_STUDIES names another place than `.venv/studies`."""

    def __init__(self, name: str) -> None:
        self.path = _STUDIES / name
        self.path.mkdir(parents=True, exist_ok=True)

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
