"""Manifests: NeMo JSON lines, one recording or span of a recording a line."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from otoscope.corpora.item import FIELDS, Item
from otoscope.errors import ManifestError, OutputError
from otoscope.files import atomic_write
from otoscope.text_values import is_number, object_of

MANIFEST_SUFFIXES = frozenset({".jsonl", ".json", ".ndjson"})

_LONGEST = 1e9  # seconds; JSON integers have no bound, floats do


def read_manifest(path: Path | str) -> list[Item]:
    """Read a manifest in NVIDIA NeMo's format: one JSON object a line, UTF-8.

    `audio_filepath` is required and relative to the manifest's folder, or absolute; `text`, `duration`,
    `offset` and `language` are optional; every other key becomes a label. Whether a recording exists shows
    when it is read.

    Raises:
        ManifestError: The manifest cannot be read, has no lines, or a line (named by its number, from 1)
            cannot be used.
    """
    path = Path(path)
    return [_recording(values, path.parent, where) for values, where in json_lines(path)]


def read_texts(path: Path | str) -> list[Item]:
    """Read a text corpus for language models.

    A manifest's lines have `text` and labels and no `audio_filepath`; any other file is plain text in UTF-8, one text a
    line, blank lines left out. An item has no recording: its `audio_filepath` is "" and its `path` is `Path()`.

    Raises:
        ManifestError: The file cannot be read or is empty, or a line (named by its number, from 1) cannot be used.
    """
    path = Path(path)
    if path.suffix.lower() in MANIFEST_SUFFIXES:
        return [_written(values, where) for values, where in json_lines(path)]
    return [
        Item("", Path(), text=decoded(line, where)) for line, where in lines_of(path, "Write one text a line")
    ]


def write_manifest(items: Sequence[Item], path: Path | str) -> None:
    """Write a manifest that `read_manifest` (for texts, `read_texts`) gives back as it was.

    A recording is named as its item names it where that leads to it from the manifest's folder, else by its path
    relative to that folder; only where there is no such path (another drive) by an absolute one.

    Args:
        items: At least one.
        path: Where to; it must end like a manifest.

    Raises:
        ManifestError: There are no items, or labels that JSON cannot hold or that are named like a field.
        OutputError: The file cannot be written, or its name does not end like a manifest's.
    """
    path = Path(path)
    require_manifest_name(path)
    if not items:
        raise ManifestError(f"There is nothing to write to {path}.", "Give at least one item.")
    lines = [_line(item, path.parent) for item in items]
    with atomic_write(path, "wb") as file:
        for line in lines:  # unpaired surrogates of undecodable file names as JSON spells them
            file.write(line.encode("utf-8", "backslashreplace") + b"\n")


def require_manifest_name(path: Path) -> None:
    """Refuse a name under which a manifest would not be recognised.

    Raises:
        OutputError: The suffix is another one.
    """
    if path.suffix.lower() not in MANIFEST_SUFFIXES:
        raise OutputError(
            f"{path} does not end like a manifest.", f"Name it {path.with_suffix('').name}.jsonl."
        )


def lines_of(path: Path, remedy: str) -> Iterator[tuple[bytes, str]]:
    """The lines of a file that are not blank, each with how to name it ("Line 3 of x").

    Args:
        path: The file.
        remedy: What to do when there are none, without the full stop.

    Raises:
        ManifestError: The file cannot be read, or has no such lines.
    """
    try:
        lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    except (OSError, ValueError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise ManifestError(f"The manifest {path} cannot be read: {why}.", "Check the path.") from error
    if not any(line.strip() for line in lines):
        raise ManifestError(f"The manifest {path} is empty.", f"{remedy} into it.")
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield line.removesuffix(b"\r"), f"Line {number} of {path}"


def decoded(line: bytes, where: str) -> str:
    """A line as text.

    Raises:
        ManifestError: It is not UTF-8.
    """
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ManifestError(f"{where} is not UTF-8.", "Save the file as UTF-8.") from error


def json_lines(path: Path) -> Iterator[tuple[dict[str, object], str]]:
    """The objects of a file of JSON lines, each with how to name its line.

    Raises:
        ManifestError: The file cannot be read, is empty, or a line is no JSON object.
    """
    for line, where in lines_of(path, "Write one JSON object a line"):
        yield _object(decoded(line, where), where), where


def item_of(values: dict[str, object], name: str, path: Path, where: str) -> Item:
    """An item from a line's values: the known fields checked, everything else a label.

    Args:
        values: The line.
        name: The recording as the line names it.
        path: The recording's path.
        where: How to name the line.

    Raises:
        ManifestError: A field has a wrong type or is out of range.
    """
    return Item(
        audio_filepath=name,
        path=path,
        text=text_in(values, "text", where),
        duration=_seconds(values, "duration", where),
        offset=_seconds(values, "offset", where) or 0.0,
        language=text_in(values, "language", where) or None,
        labels={key: value for key, value in values.items() if key not in FIELDS},
    )


def text_in(values: dict[str, object], key: str, where: str) -> str | None:
    """The text under a key, None when there is none.

    Raises:
        ManifestError: It is something else than text.
    """
    value = values.get(key)
    if value is None or isinstance(value, str):
        return value
    raise ManifestError(f"{where} has a {key} that is not text.", "Put it in quotation marks.")


def _recording(values: dict[str, object], folder: Path, where: str) -> Item:
    name = text_in(values, "audio_filepath", where)
    if not name:
        raise ManifestError(
            f"{where} has no audio_filepath.", "Add the path of the recording under that key."
        )
    return item_of(values, name, folder / name, where)


def _written(values: dict[str, object], where: str) -> Item:
    if values.get("audio_filepath"):
        raise ManifestError(f"{where} names a recording.", "Name a corpus of texts, without audio_filepath.")
    if text_in(values, "text", where) is None:
        raise ManifestError(f"{where} has no text.", "Add the text under that key.")
    return item_of(values, "", Path(), where)


def _object(line: str, where: str) -> dict[str, object]:
    try:
        return object_of(line)
    except ValueError as error:
        why = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise ManifestError(
            f"{where} is not a JSON object ({why}).", "Write one JSON object a line."
        ) from error


def _seconds(values: dict[str, object], key: str, where: str) -> float | None:
    value = values.get(key)
    if value is None:
        return None
    least = "0 s or more" if key == "offset" else "more than 0 s"
    seconds = value if is_number(value) else math.nan
    if not 0 <= seconds <= _LONGEST or (seconds == 0 and key == "duration"):
        raise ManifestError(f"{where} has a {key} that is not a length.", f"Give a number of {least}.")
    return float(seconds)


def _line(item: Item, folder: Path) -> str:
    name = _name_from(folder, item) if item.audio_filepath else None
    offset = item.offset or None
    fields = dict(zip(FIELDS, (name, item.text, item.duration, offset, item.language), strict=True))
    called = item.audio_filepath or "A text"
    if taken := item.labels.keys() & set(FIELDS):
        raise ManifestError(f"{called} has a label named like a field: {min(taken)}.", "Rename the label.")
    values = {key: value for key, value in fields.items() if value is not None} | item.labels
    try:
        return json.dumps(values, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ManifestError(
            f"{called} has a label that JSON cannot hold ({error}).",
            "Give texts, finite numbers, truth values, null, or lists and objects of them.",
        ) from error


def _name_from(folder: Path, item: Item) -> str:
    """How a manifest in `folder` names the item's recording."""
    if folder / item.audio_filepath == item.path:
        return item.audio_filepath
    path, here = Path(os.path.abspath(item.path)), Path(os.path.abspath(folder))  # noqa: PTH100 - keeps links
    if path.is_relative_to(here):
        return path.relative_to(here).as_posix()
    try:  # ".." steps out of the real folder, so links have to be followed first
        return Path(os.path.relpath(path.parent.resolve() / path.name, here.resolve())).as_posix()
    except ValueError:  # another drive
        return str(path)
