"""Subtitles from word times: SubRip and WebVTT."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from otoscope.models.transcripts import Transcript

Format = Literal["srt", "vtt"]

LINE, LINES, LONGEST = 42, 2, 7.0
"""Characters a line, lines a cue and seconds a cue, at most."""

_PAUSE = 0.8  # seconds of silence that end a cue
_SPOKEN = 0.5  # seconds of a word at most; times from attention leave no gaps, so a longer one holds a pause
_SENTENCE_ENDS = (".", "?", "!", "…", "。", "？", "！")
_CLAUSE_ENDS = (",", ";", ":", "，", "、", "；", "：")
_CLOSING = "\"'”’»)]」』"
_NAME_LENGTH = 120


@dataclass(frozen=True)
class Cue:
    """One subtitle.

    Attributes:
        start: Seconds into the recording.
        end: Seconds into the recording, after `start`.
        lines: One or two lines of at most 42 characters.
    """

    start: float
    end: float
    lines: tuple[str, ...]


@dataclass(frozen=True)
class _Piece:
    """A word, or a part of one that no line holds, with the space that may come before it."""

    text: str
    start: float
    end: float


def cues(transcript: Transcript) -> list[Cue]:
    """Group a transcript's words into subtitles.

    A cue ends with a sentence, before a pause of more than 0.8 s, and where another word would make a third
    line of 42 characters or more than 7 s; there, if it can, with a clause.
    """
    return [_cue(group) for group in _groups(_pieces(transcript))]


def to_srt(transcript: Transcript) -> str:
    """A transcript as SubRip text; empty when nothing was written."""
    blocks = (
        f"{number}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n" + "\n".join(cue.lines) + "\n"
        for number, cue in enumerate(cues(transcript), start=1)
    )
    return "\n".join(blocks)


def to_vtt(transcript: Transcript) -> str:
    """A transcript as WebVTT text (W3C WebVTT 1: `&`, `<` and `>` are escaped)."""
    blocks = (
        f"{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n" + _escaped("\n".join(cue.lines)) + "\n"
        for cue in cues(transcript)
    )
    return "\n".join(["WEBVTT\n", *blocks])


def file_names(recordings: Iterable[str], format: Format) -> list[str]:
    """One plain file name a recording, different from each other on any file system, that no path leads out of.

    Args:
        recordings: Their paths as a manifest writes them; nothing in them is trusted.
        format: The names' ending.
    """
    taken: set[str] = set()
    return [_free(_stem(recording), format, taken) for recording in recordings]


def _stem(recording: str) -> str:
    path = recording.replace("\\", "/")
    parts = PurePath(path).with_suffix("").parts if path.strip("/. ") else ()
    joined = "_".join(part.strip() for part in parts if part.strip("/. "))
    safe = "".join(c if c.isalnum() or c in "-_.() " else "_" for c in joined).lstrip(".")
    return safe[-_NAME_LENGTH // 2 :] or "recording"


def _free(stem: str, format: Format, taken: set[str]) -> str:
    name, number = f"{stem}.{format}", 1
    while name.casefold() in taken:
        number += 1
        name = f"{stem}.{number}.{format}"
    taken.add(name.casefold())
    return name


def _pieces(transcript: Transcript) -> Iterator[_Piece]:
    for word in transcript.words:
        space = " " if transcript.tokens[word.first_token].text[:1].isspace() else ""
        text = " ".join(word.text.split())
        parts = [text[i : i + LINE] for i in range(0, len(text), LINE)]
        for i, part in enumerate(parts):
            step = (word.end - word.start) / len(parts)
            start = word.start + i * step
            yield _Piece(part if i else space + part, start, start + step)


def _groups(pieces: Iterable[_Piece]) -> Iterator[list[_Piece]]:
    group: list[_Piece] = []
    for piece in pieces:
        while group and (cut := _cut(group, piece)):
            yield group[:cut]
            group = group[cut:]
        group.append(piece)
    if group:
        yield group


def _cut(group: list[_Piece], following: _Piece) -> int:
    """How many pieces make a cue of their own before `following` is added; 0: it still belongs to them."""
    if _ends_with(group[-1], _SENTENCE_ENDS) or _paused(group[-1], following):
        return len(group)
    if _fits([*group, following]):
        return 0
    late = range(len(group), len(group) // 2, -1)
    return next((n for n in late if _ends_with(group[n - 1], _CLAUSE_ENDS)), len(group))


def _ends_with(piece: _Piece, marks: tuple[str, ...]) -> bool:
    return piece.text.rstrip(_CLOSING).endswith(marks)


def _paused(before: _Piece, after: _Piece) -> bool:
    return after.end - before.end - min(_SPOKEN, after.end - after.start) > _PAUSE


def _fits(group: list[_Piece]) -> bool:
    return group[-1].end - group[0].start <= LONGEST and len(_lines(group)) <= LINES


def _lines(group: list[_Piece]) -> list[str]:
    return textwrap.wrap("".join(piece.text for piece in group).strip(), LINE, break_on_hyphens=False)


def _cue(group: list[_Piece]) -> Cue:
    start = group[0].start
    end = min(max(group[-1].end, start + 0.001), start + LONGEST)
    return Cue(start, end, tuple(_lines(group)))


def _clock(seconds: float, point: str) -> str:
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest // 1000:02d}{point}{rest % 1000:03d}"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
