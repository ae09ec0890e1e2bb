"""What people write onto graphs of results: labels, pins, groups, kept in SQLite beside the results."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from otoscope.errors import OptionError, OutputError
from otoscope.runs.notes import FILE, opened
from otoscope.text_values import object_of

LONGEST = 2**20
"""Bytes of what is written onto one graph, as JSON."""

_TABLE = """
create table if not exists annotations (
    about text not null, place text not null, value text not null, written text not null, primary key (about, place)
)
"""


class AnnotationStore:
    """Annotations in a folder, in the file that also keeps its notes; several programs may read and write them at once.

    Args:
        folder: Where the results lie.
    """

    def __init__(self, folder: Path | str) -> None:
        self.path = Path(folder) / FILE

    def write(self, about: str, place: str, value: dict[str, Any]) -> None:
        """Write what is on one graph, in place of what was.

        Args:
            about: The result, such as the SHA-256 of its document.
            place: The graph in it, such as `circuits/0/graph`.
            value: JSON values.

        Raises:
            OptionError: It is too much.
            OutputError: The folder cannot be written.
        """
        text = json.dumps(value, allow_nan=False)
        if len(text) > LONGEST:
            raise OptionError(
                f"{len(text) / 2**20:.1f} MB of annotations are too much.", "Shorten labels and notes."
            )
        now = datetime.now(UTC).isoformat(timespec="seconds")
        with opened(self.path, _TABLE) as database:
            database.execute(
                "insert or replace into annotations values (?, ?, ?, ?)", (about, place, text, now)
            )

    def read(self, about: str) -> dict[str, dict[str, Any]]:
        """What is on the graphs of one result, by their places.

        Raises:
            OutputError: The file is damaged.
        """
        if not self.path.is_file():
            return {}
        with opened(self.path, _TABLE) as database:
            rows = database.execute(
                "select place, value from annotations where about = ?", (about,)
            ).fetchall()
        try:
            return {str(place): object_of(value) for place, value in rows}
        except (ValueError, TypeError) as error:
            raise OutputError(
                f"{self.path} holds annotations that are no JSON.", "Move the file away."
            ) from error
