"""Manifests: NeMo JSON lines, one recording or span of a recording a line."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from otoscope.audio import SUFFIXES, Clip, info, read, windows
from otoscope.errors import ManifestError

MANIFEST_SUFFIXES = frozenset({".jsonl", ".json", ".ndjson"})

_LONGEST = 1e9  # seconds; JSON integers have no bound, floats do
_ROUNDING = 0.05  # manifests round durations; to cut the last milliseconds off would change what is heard


@dataclass(frozen=True)
class Item:
    """One line of a manifest.

    Attributes:
        audio_filepath: The recording, exactly as the manifest writes it.
        path: The recording's path, seen from where the program runs.
        text: What is said, if known.
        duration: Length of the span in seconds, if given.
        offset: Begin of the span in the recording, in seconds.
        language: Language code ("en"), if given.
        labels: All further keys of the line.
    """

    audio_filepath: str
    path: Path
    text: str | None = None
    duration: float | None = None
    offset: float = 0.0
    language: str | None = None
    labels: dict[str, object] = field(default_factory=dict)

    def clip(self) -> Clip:
        """Read the span, with `audio_filepath` as its source and the item's labels.

        A duration that ends within 50 ms of the recording's end is taken as the rest of the recording.

        Raises:
            AudioError: The recording cannot be read; see `otoscope.audio.read`.
        """
        return self._described(read(self.path, offset=self.offset, duration=self._limit()))

    def windows(self, seconds: float = 30.0) -> Iterator[Clip]:
        """The span window by window, however long it is; see `otoscope.audio.windows`.

        Raises:
            AudioError: The recording cannot be read.
        """
        for clip in windows(self.path, seconds, offset=self.offset, duration=self._limit()):
            yield self._described(clip)

    def _limit(self) -> float | None:
        if self.duration is None:
            return None
        whole = info(self.path).duration
        to_end = whole is not None and self.offset + self.duration > whole - _ROUNDING
        return None if to_end else self.duration

    def _described(self, clip: Clip) -> Clip:
        return replace(clip, source=self.audio_filepath, labels=self.labels)


def items(target: Path | str) -> list[Item]:
    """The recordings that a path stands for.

    Args:
        target: A manifest (`.jsonl`, `.json`, `.ndjson`), a folder (every recording in it and below,
            sorted by path, hidden ones left out) or one recording.

    Raises:
        ManifestError: The path does not exist, the manifest cannot be used or the folder holds no recordings.
    """
    target = Path(target)
    if target.is_dir():
        return _folder(target)
    if target.suffix.lower() in MANIFEST_SUFFIXES:
        return read_manifest(target)
    if not target.exists():
        raise ManifestError(
            f"{target} does not exist.", "Name a recording, a folder of recordings or a manifest."
        )
    return [Item(str(target), target)]


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
    try:
        lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    except (OSError, ValueError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise ManifestError(f"The manifest {path} cannot be read: {why}.", "Check the path.") from error
    found = [
        _item(line, path.parent, f"Line {number} of {path}")
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    if not found:
        raise ManifestError(f"The manifest {path} is empty.", "Write one JSON object a line into it.")
    return found


def _folder(folder: Path) -> list[Item]:
    relative = sorted(path.relative_to(folder) for path in folder.rglob("*") if _is_recording(path))
    visible = [path for path in relative if not any(part.startswith(".") for part in path.parts)]
    if not visible:
        raise ManifestError(
            f"The folder {folder} holds no recordings.",
            f"Put files into it that end in {', '.join(sorted(SUFFIXES))}, or name another folder.",
        )
    return [Item(path.as_posix(), folder / path) for path in visible]


def _is_recording(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.is_file()


def _item(line: bytes, folder: Path, where: str) -> Item:
    values = _object(line, where)
    name = _text(values, "audio_filepath", where)
    if not name:
        raise ManifestError(
            f"{where} has no audio_filepath.", "Add the path of the recording under that key."
        )
    return Item(
        audio_filepath=name,
        path=folder / name,
        text=_text(values, "text", where),
        duration=_seconds(values, "duration", where),
        offset=_seconds(values, "offset", where) or 0.0,
        language=_text(values, "language", where) or None,
        labels={key: value for key, value in values.items() if key not in _FIELDS},
    )


_FIELDS = frozenset({"audio_filepath", "text", "duration", "offset", "language"})


def _object(line: bytes, where: str) -> dict[str, object]:
    try:
        values = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ManifestError(f"{where} is not UTF-8.", "Save the manifest as UTF-8.") from error
    except (ValueError, RecursionError) as error:
        why = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise ManifestError(f"{where} is not JSON ({why}).", "Write one JSON object a line.") from error
    if not isinstance(values, dict):
        raise ManifestError(f"{where} is not a JSON object.", "Write one JSON object a line.")
    return values


def _text(values: dict[str, object], key: str, where: str) -> str | None:
    value = values.get(key)
    if value is None or isinstance(value, str):
        return value
    raise ManifestError(f"{where} has a {key} that is not text.", "Put it in quotation marks.")


def _seconds(values: dict[str, object], key: str, where: str) -> float | None:
    value = values.get(key)
    if value is None:
        return None
    least = "0 s or more" if key == "offset" else "more than 0 s"
    seconds = value if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    if not 0 <= seconds <= _LONGEST or (seconds == 0 and key == "duration"):
        raise ManifestError(f"{where} has a {key} that is not a length.", f"Give a number of {least}.")
    return float(seconds)
