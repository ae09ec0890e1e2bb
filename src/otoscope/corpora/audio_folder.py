"""Hugging Face AudioFolder: recordings beside a `metadata.csv` or `metadata.jsonl`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from otoscope.corpora.item import Item
from otoscope.corpora.manifest import item_of, json_lines, text_in
from otoscope.corpora.tables import csv_rows
from otoscope.errors import ManifestError

METADATA = ("metadata.csv", "metadata.jsonl")
TEXT_COLUMNS = ("text", "transcription", "transcript", "sentence")
"""Where the text is looked for: the first of these columns that a row has."""


def metadata_files(folder: Path) -> list[Path]:
    """The metadata of a folder and of the folders below it, hidden ones left out."""
    found = sorted(
        path.relative_to(folder) for name in METADATA for path in folder.rglob(name) if path.is_file()
    )
    return [folder / path for path in found if not any(part.startswith(".") for part in path.parts)]


def read_audio_folder(folder: Path | str) -> list[Item]:
    """Read a folder in the format of Hugging Face's AudioFolder.

    `file_name` is required and relative to its metadata file, or absolute. The first of `TEXT_COLUMNS` is the text;
    `duration`, `offset` and `language` are fields; every other column is a label, in a CSV file as text. Metadata below
    the folder (`train/metadata.csv`) gives its items the label `split`, named like the folder it is in, unless it
    has a column of that name.

    Raises:
        ManifestError: There is no metadata, one folder has two metadata files, or a line (named by its number, from 1)
            cannot be used.
    """
    folder = Path(folder)
    files = metadata_files(folder)
    if not files:
        raise ManifestError(f"{folder} has no metadata.", f"Put a {' or '.join(METADATA)} into it.")
    if len({file.parent for file in files}) < len(files):
        raise ManifestError(f"A folder in {folder} has {' and '.join(METADATA)}.", "Keep one of them.")
    return [item for file in files for item in _items(file, folder)]


def _items(file: Path, folder: Path) -> Iterator[Item]:
    below = file.parent.relative_to(folder)
    labels = {"split": file.parent.name} if below.parts else {}
    rows = csv_rows(file) if file.suffix == ".csv" else json_lines(file)
    empty = True
    for row, where in rows:
        empty = False
        values: dict[str, object] = {**labels, **row}
        name = text_in(values, "file_name", where)
        if not name:
            raise ManifestError(
                f"{where} has no file_name.", "Give the path of the recording in a column of that name."
            )
        yield item_of(_renamed(values, file), (below / name).as_posix(), file.parent / name, where)
    if empty:
        raise ManifestError(f"{file} has no rows.", "Write one line a recording.")


def _renamed(values: Mapping[str, object], file: Path) -> dict[str, object]:
    """The row with its text and lengths as `item_of` expects them."""
    row = {key: value for key, value in values.items() if key != "file_name"}
    column = next((name for name in TEXT_COLUMNS if row.get(name) is not None), None)
    if column:
        row["text"] = row.pop(column)
    for key in ("duration", "offset"):
        if file.suffix == ".csv" and key in row:
            row[key] = _number(row[key])
    return row


def _number(cell: object) -> object:
    """A cell's number; what is none stays as it is and is refused later, with its line."""
    try:
        return float(str(cell))
    except ValueError:
        return cell
