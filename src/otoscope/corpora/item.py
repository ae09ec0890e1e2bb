"""One recording, span of a recording or text of a corpus, and what is known about it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from otoscope.audio import Clip, info, read, windows
from otoscope.errors import AudioError

FIELDS = ("audio_filepath", "text", "duration", "offset", "language")
"""What a manifest's line may say beside labels, in the order in which it is written."""

_ROUNDING = 0.05  # manifests round durations; to cut the last milliseconds off would change what is heard


@dataclass(frozen=True)
class Item:
    """One line of a manifest.

    Attributes:
        audio_filepath: The recording, exactly as the manifest writes it; "" for a text without a recording.
        path: The recording's path, seen from where the program runs; `Path()` for a text without one.
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
            AudioError: The recording cannot be read, see `otoscope.audio.read`, or the item is a text.
        """
        return self._described(read(self.path, offset=self.offset, duration=self._limit()))

    def windows(self, seconds: float = 30.0) -> Iterator[Clip]:
        """The span window by window, however long it is; see `otoscope.audio.windows`.

        Raises:
            AudioError: The recording cannot be read, or the item is a text.
        """
        for clip in windows(self.path, seconds, offset=self.offset, duration=self._limit()):
            yield self._described(clip)

    def file_stamp(self) -> list[int]:
        """Size and time of change of the recording's file, which tell that it is the same; nothing where there is no file."""
        if self.audio_filepath:
            with contextlib.suppress(OSError):
                stat = self.path.stat()
                return [stat.st_size, stat.st_mtime_ns]
        return []

    def key(self) -> str:
        """What tells a recording from others, and from what it was before its file or span was changed."""
        path = str(self.path.resolve())  # two manifests may both call a recording audio/0.flac
        return json.dumps([path, self.offset, self.duration, self.file_stamp()])

    def _limit(self) -> float | None:
        if not self.audio_filepath:
            raise AudioError("A text has no recording.", "Name a corpus of recordings.")
        if self.duration is None:
            return None
        whole = info(self.path).duration
        to_end = whole is not None and self.offset + self.duration > whole - _ROUNDING
        return None if to_end else self.duration

    def _described(self, clip: Clip) -> Clip:
        return replace(clip, source=self.audio_filepath, labels=self.labels)


def labels_of(items: Iterable[Item], name: str) -> list[object | None]:
    """One label of every item, None where it is missing.

    Args:
        items: The items.
        name: A label, or one of `FIELDS`: `language`, `text`, ... count as labels, too.
    """
    if name in FIELDS:
        return [getattr(item, name) for item in items]
    return [item.labels.get(name) for item in items]


def key_of(value: object) -> str:
    """A label's value as something to compare, count, sort by and show.

    Values are equal when they are the same JSON, so the text "1", the number 1 and the truth value true differ, and lists
    can be counted. A text stands for itself unless it reads like JSON: then it is quoted, so None alone is `null`.
    """
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False) if _reads_like_json(value) else str(value)
    plain = getattr(value, "tolist", None)  # of NumPy's numbers
    return json.dumps(plain() if plain else value, ensure_ascii=False, sort_keys=True, default=str)


def _reads_like_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
