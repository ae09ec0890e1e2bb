"""Rows of comma- and tab-separated files."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from otoscope.corpora.manifest import decoded, lines_of
from otoscope.errors import ManifestError

_NO_ROWS = "Write a line of column names and one line a recording"


def csv_rows(path: Path) -> Iterator[tuple[dict[str, str], str]]:
    """The rows of a comma-separated file (RFC 4180, UTF-8), each with how to name it ("Line 3 of x").

    Empty cells are left out.

    Raises:
        ManifestError: The file cannot be read, or a line does not fit the column names.
    """
    text = "\n".join(decoded(line, where) for line, where in _every_line(path))
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    columns: list[str] = []
    try:
        for cells in reader:
            where = f"Line {reader.line_num} of {path}"
            if not columns:
                columns = _checked(cells, where)
            elif cells:
                yield _row(columns, cells, where), where
    except csv.Error as error:
        raise ManifestError(
            f"Line {reader.line_num} of {path} is not CSV ({error}).", "Export the table as CSV again."
        ) from error


def tsv_rows(path: Path) -> Iterator[tuple[dict[str, str], str]]:
    """The rows of a tab-separated file without quoting (as Common Voice writes it), each with how to name it.

    Empty cells are left out.

    Raises:
        ManifestError: The file cannot be read, or a line does not fit the column names.
    """
    columns: list[str] = []
    for line, where in lines_of(path, _NO_ROWS):
        cells = decoded(line, where).split("\t")
        if columns:
            yield _row(columns, cells, where), where
        else:
            columns = _checked(cells, where)


def _every_line(path: Path) -> Iterator[tuple[bytes, str]]:
    """All lines, blank ones too, which may lie inside quotation marks."""
    next(lines_of(path, _NO_ROWS))
    for number, line in enumerate(path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        yield line, f"Line {number} of {path}"


def _checked(columns: list[str], where: str) -> list[str]:
    if len(set(columns)) < len(columns):
        raise ManifestError(f"{where} has two columns of one name.", "Give every column its own name.")
    return columns


def _row(columns: list[str], cells: list[str], where: str) -> dict[str, str]:
    if len(cells) != len(columns):
        raise ManifestError(
            f"{where} has {len(cells)} cells, not {len(columns)} like the column names.",
            "Put the missing separators in, or quote those that belong to a text.",
        )
    return {column: cell for column, cell in zip(columns, cells, strict=True) if cell}
