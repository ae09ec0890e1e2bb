"""Kaldi data directories. Their shell pipes are never run."""

from __future__ import annotations

import math
import re
from pathlib import Path

from otoscope.corpora.item import Item
from otoscope.corpora.manifest import decoded, lines_of
from otoscope.errors import ManifestError

_ARCHIVE = re.compile(r":\d+(\[.*\])?$")  # "x.ark:1234", a place inside an archive
_BLANK = " \t\r\f\v"  # no other white space separates: it may be part of a text
_BLANKS = re.compile(f"[{_BLANK}]+")
_GENDERS = {"m": "male", "f": "female"}
_FIX = "Kaldi's utils/fix_data_dir.sh puts that right."

Table = dict[str, tuple[str, str]]  # by id: the rest of the line, and how to name the line


def read_kaldi(folder: Path | str) -> list[Item]:
    """Read a Kaldi data directory: `wav.scp` and, where there are any, `segments`, `text`, `utt2spk`, `spk2gender`, `utt2lang`.

    An item is an utterance, in the order of `segments` or `wav.scp`; its labels are `utterance`, `speaker` and `gender`
    ("male" or "female"). A relative path is looked for from the directory and, as Kaldi does, from where the
    program runs.

    Raises:
        ManifestError: A file cannot be read, a recording is a shell command or a place in an archive, or a line (named by
            its number, from 1) cannot be used.
    """
    folder = Path(folder)
    recordings = _table(folder / "wav.scp")
    names = {key: _recording(rest, where) for key, (rest, where) in recordings.items()}
    spans = _spans(folder / "segments", names)
    utterances = spans or {key: (key, 0.0, None) for key in names}
    facts = {name: _facts(folder / name, utterances) for name in ("text", "utt2spk", "utt2lang")}
    genders = {key: rest for key, (rest, _) in _optional(folder / "spk2gender").items()}
    found = []
    for utterance, (recording, offset, duration) in utterances.items():
        speaker = facts["utt2spk"].get(utterance)
        gender = genders.get(speaker) if speaker else None
        labels = {"utterance": utterance, "speaker": speaker, "gender": _GENDERS.get(gender or "", gender)}
        found.append(
            Item(
                names[recording],
                _located(folder, names[recording]),
                facts["text"].get(utterance),
                duration,
                offset,
                facts["utt2lang"].get(utterance) or None,
                {key: value for key, value in labels.items() if value},
            )
        )
    return found


def _table(path: Path) -> Table:
    table: Table = {}
    for line, where in lines_of(path, "Write one entry a line"):
        key, *rest = _BLANKS.split(decoded(line, where).strip(_BLANK), maxsplit=1)
        if key in table:
            raise ManifestError(f"{where} has {key} for the second time.", _FIX)
        table[key] = (rest[0] if rest else "", where)
    return table


def _optional(path: Path) -> Table:
    return _table(path) if path.is_file() else {}


def _facts(path: Path, utterances: dict[str, tuple[str, float, float | None]]) -> dict[str, str]:
    """What a table says about each utterance."""
    table = _optional(path)
    for key, (_, where) in table.items():
        if key not in utterances:
            raise ManifestError(f"{where} is about {key}, an utterance that has no recording.", _FIX)
    return {key: rest for key, (rest, _) in table.items()}


def _recording(name: str, where: str) -> str:
    if name.startswith("|") or name.endswith("|"):
        raise ManifestError(
            f"{where} is a shell command, which is unsafe and never run.",
            "Write its output to a file and name that file.",
        )
    if name == "-" or _ARCHIVE.search(name):
        raise ManifestError(
            f"{where} is not a file of its own.", "Write the recording to a file and name that."
        )
    if not name:
        raise ManifestError(f"{where} names no recording.", "Write its path after the id.")
    return name


def _spans(path: Path, names: dict[str, str]) -> dict[str, tuple[str, float, float | None]]:
    """Recording, offset and duration of each utterance of `segments`."""
    spans = {}
    for key, (rest, where) in _optional(path).items():
        cells = rest.split()
        if len(cells) != 3 or cells[0] not in names:
            raise ManifestError(
                f"{where} is not an utterance, a recording of wav.scp, begin and end.", "Write these four."
            )
        begin, end = (_number(cell) for cell in cells[1:])
        to_end = end == -1  # Kaldi's way to say so
        if not (0 <= begin < math.inf and (to_end or begin < end < math.inf)):
            raise ManifestError(f"{where} has times that are no span.", "Give begin and end in seconds.")
        spans[key] = (cells[0], begin, None if to_end else round(end - begin, 6))
    return spans


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return math.nan


def _located(folder: Path, name: str) -> Path:
    beside = folder / name
    try:
        return beside if beside.exists() or not Path(name).exists() else Path(name)
    except (OSError, ValueError):  # a name too long, or with NUL: it shows when it is read
        return beside
