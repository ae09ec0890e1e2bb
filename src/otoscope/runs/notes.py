"""What people write beside results: labels of features, kept in SQLite beside what they are about."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from otoscope.errors import OptionError, OutputError

FILE = "notes.sqlite"
LONGEST = 10_000
"""Characters of a note."""

_TABLE = """
create table if not exists notes (
    about text not null, text text not null, author text not null, written text not null, primary key (about)
)
"""


@dataclass(frozen=True)
class Note:
    """One note.

    Attributes:
        about: What it is about, such as `feature 2 1310` (layer and feature, from 0).
        text: What was written.
        author: Who wrote it; "" if nobody said.
        written: When, in UTC (ISO 8601).
    """

    about: str
    text: str
    author: str
    written: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


class Notes:
    """Notes in a folder; several people's programs may read and write them at once.

    Args:
        folder: Where the results lie.
    """

    def __init__(self, folder: Path | str) -> None:
        self.path = Path(folder) / FILE

    def write(self, about: str, text: str, author: str = "", keep_empty: bool = False) -> Note:
        """Write a note, or another text in place of one; an empty text takes it away.

        Args:
            about: What it is about.
            text: What to write.
            author: Who writes it.
            keep_empty: Keep an empty text as one: it stands for the absence of a note that the result itself carries.

        Raises:
            OptionError: The text is too long.
            OutputError: The folder cannot be written.
        """
        text = text.strip()
        if len(text) > LONGEST:
            raise OptionError(
                f"A note of {len(text):,} characters is too long.", f"Keep it under {LONGEST:,}."
            )
        note = Note(about, text, author, datetime.now(UTC).isoformat(timespec="seconds"))
        with opened(self.path, _TABLE) as database:
            if text or keep_empty:
                database.execute("insert or replace into notes values (?, ?, ?, ?)", (about, *_plain(note)))
            else:
                database.execute("delete from notes where about = ?", (about,))
        return note

    def read(self) -> dict[str, Note]:
        """All notes, by what they are about.

        Raises:
            OutputError: The file is damaged.
        """
        if not self.path.is_file():
            return {}
        with opened(self.path, _TABLE) as database:
            rows = database.execute(
                "select about, text, author, written from notes order by about"
            ).fetchall()
        return {str(row[0]): Note(*map(str, row)) for row in rows}


@contextmanager
def opened(path: Path, table: str) -> Iterator[sqlite3.Connection]:
    """A database for the length of a block, at whose end it is committed.

    Args:
        path: The file; made if it is not there.
        table: The SQL that makes its table if that is not there.

    Raises:
        OutputError: The file is damaged, or cannot be written.
    """
    try:
        with closing(sqlite3.connect(path, timeout=10)) as database, database:
            _require_plain(database)
            database.execute(table)
            yield database
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise OutputError(
            f"{path} cannot be used: {error}.", "Check the folder, or move the file away."
        ) from error


def _require_plain(database: sqlite3.Connection) -> None:
    """Refuse what would be run by reading or writing: a file from elsewhere may hold a view without end under a table's name.

    Raises:
        sqlite3.DatabaseError: It holds something else than tables and their indices.
    """
    kinds = {kind for (kind,) in database.execute("select distinct type from sqlite_master")}
    if kinds - {"table", "index"}:
        raise sqlite3.DatabaseError("it holds more than tables")


def _plain(note: Note) -> tuple[str, str, str]:
    """Without unpaired surrogates, which SQLite cannot hold."""
    text, author = (value.encode("utf-8", "backslashreplace").decode() for value in (note.text, note.author))
    return text, author, note.written
