"""Segments of sound: how frames are pooled into nodes a person can read. Pooling is exact, whatever the segments."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

import torch

from otoscope.errors import OptionError
from otoscope.showing import Shows

if TYPE_CHECKING:
    from torch import Tensor

PADDING = "padding"
SILENCE = "between words"
SIMILAR = "similar"


class Timed(Protocol):
    """Anything with a text and a time, such as a word of a transcript."""

    @property
    def text(self) -> str:
        """What was said."""
        ...

    @property
    def start(self) -> float:
        """Begin in seconds."""
        ...

    @property
    def end(self) -> float:
        """End in seconds."""
        ...


@dataclass(frozen=True, eq=False)
class Segments(Shows):
    """A partition of an encoder's frames.

    Attributes:
        index: `(frame,)` segment of each frame, from 0, in the order of time.
        spans: Begin and end of each segment in seconds.
        labels: A word, or what else a segment is.
        kind: How they were made.
    """

    index: Tensor
    spans: tuple[tuple[float, float], ...]
    labels: tuple[str, ...]
    kind: str

    def __len__(self) -> int:
        return len(self.spans)

    def frames(self, segment: int) -> Tensor:
        """Frames of a segment."""
        return (self.index == segment).nonzero().flatten()

    def opened(self, segment: int, frame_seconds: float) -> Segments:
        """The same, with one segment taken apart into its frames.

        Raises:
            OptionError: There is no such segment.
        """
        if not 0 <= segment < len(self):
            raise OptionError(f"There is no segment {segment}.", f"Choose 0 to {len(self) - 1}.")
        parts = [[int(f)] for f in self.frames(segment)]
        groups = [self.frames(s).tolist() for s in range(segment)] + parts
        groups += [self.frames(s).tolist() for s in range(segment + 1, len(self))]
        labels = [*self.labels[:segment], *("" for _ in parts), *self.labels[segment + 1 :]]
        spans = [*self.spans[:segment], *(_span(p, frame_seconds) for p in parts), *self.spans[segment + 1 :]]
        return _of_groups(groups, spans, labels, self.kind, len(self.index))

    def finer(self, seconds: float, frame_seconds: float) -> Segments:
        """The same, with every segment but the padding cut into pieces of at most so many seconds."""
        size = max(1, round(seconds / frame_seconds))
        groups: list[list[int]] = []
        labels: list[str] = []
        for segment, label in enumerate(self.labels):
            frames = self.frames(segment).tolist()
            step = len(frames) if label == PADDING else size
            groups += [frames[at : at + step] for at in range(0, len(frames), step)]
            labels += [label] * (len(groups) - len(labels))
        spans = [_span(group, frame_seconds) for group in groups]
        return _of_groups(groups, spans, labels, self.kind, len(self.index))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"kind": self.kind, "spans": [list(s) for s in self.spans], "labels": list(self.labels)}


def single_frames(frames: int, sounding: int, frame_seconds: float = 0.02) -> Segments:
    """Every frame for itself; those of the padding are one.

    Args:
        frames: Frames of the encoder.
        sounding: Frames that hear the recording; the rest is padding.
        frame_seconds: Length of a frame.
    """
    return fixed(frames, sounding, frame_seconds, frame_seconds, "frames")


def fixed(
    frames: int, sounding: int, seconds: float, frame_seconds: float = 0.02, kind: str | None = None
) -> Segments:
    """Segments of equal length; the last may be shorter, and the padding is one.

    Raises:
        OptionError: The length is shorter than a frame.
    """
    size = round(seconds / frame_seconds)
    if size < 1:
        raise OptionError(
            f"Segments of {seconds * 1000:g} ms are shorter than a frame.",
            f"Take at least {frame_seconds * 1000:g} ms.",
        )
    sounding = min(max(sounding, 0), frames)
    groups = [list(range(at, min(at + size, sounding))) for at in range(0, sounding, size)]
    labels = ["" for _ in groups]
    return _with_padding(groups, labels, frames, sounding, frame_seconds, kind or f"{seconds * 1000:g}ms")


def of_words(words: Sequence[Timed], frames: int, sounding: int, frame_seconds: float = 0.02) -> Segments:
    """A segment for each word, one for each pause between words, and one for the padding.

    A frame belongs to the first word whose time holds its middle.
    """
    sounding = min(max(sounding, 0), frames)
    owner = [-1] * sounding
    for number, word in enumerate(words):
        first, last = (round(t / frame_seconds) for t in (word.start, word.end))
        for frame in range(max(first, 0), min(last, sounding)):
            if owner[frame] < 0:
                owner[frame] = number
    groups: list[list[int]] = []
    labels: list[str] = []
    for frame, number in enumerate(owner):
        if frame and owner[frame - 1] == number:
            groups[-1].append(frame)
        else:
            groups.append([frame])
            labels.append(words[number].text.strip() if number >= 0 else SILENCE)
    return _with_padding(groups, labels, frames, sounding, frame_seconds, "words")


def of_similarity(
    hidden: Tensor, sounding: int, frame_seconds: float = 0.02, seconds: float = 0.12
) -> Segments:
    """Neighbouring frames that sound alike to the encoder, on average `seconds` long.

    Borders are put where the cosine between one frame's activation and the next is least.

    Args:
        hidden: `(frame, d)` an encoder layer's output.
        sounding: Frames that hear the recording.
        frame_seconds: Length of a frame.
        seconds: Mean length of a segment.
    """
    frames = len(hidden)
    sounding = min(max(sounding, 0), frames)
    count = max(round(sounding * frame_seconds / seconds), 1)
    borders: list[int] = []
    if sounding > 1:
        alike = torch.cosine_similarity(hidden[: sounding - 1], hidden[1:sounding], dim=1)
        borders = sorted((alike.argsort()[: count - 1] + 1).tolist())
    edges = [0, *borders, sounding]
    groups = [list(range(a, b)) for a, b in pairwise(edges) if b > a]
    return _with_padding(groups, ["" for _ in groups], frames, sounding, frame_seconds, SIMILAR)


def named_segments(
    name: str, words: Sequence[Timed], frames: int, sounding: int, frame_seconds: float = 0.02
) -> Segments:
    """Segments by name: `words`, `frames`, or a length such as `80ms`.

    Raises:
        OptionError: The name is none of these.
    """
    if name == "words":
        return of_words(words, frames, sounding, frame_seconds)
    if name == "frames":
        return single_frames(frames, sounding, frame_seconds)
    length = re.fullmatch(r"(\d{1,5})\s*ms", name)
    if length is None:
        raise OptionError(
            f"There are no segments {name!r}.", "Choose words, frames, similar, or a length such as 80ms."
        )
    return fixed(frames, sounding, int(length[1]) / 1000, frame_seconds)


def _with_padding(
    groups: list[list[int]], labels: list[str], frames: int, sounding: int, frame_seconds: float, kind: str
) -> Segments:
    if sounding < frames:
        groups, labels = [*groups, list(range(sounding, frames))], [*labels, PADDING]
    spans = [_span(group, frame_seconds) for group in groups]
    return _of_groups(groups, spans, labels, kind, frames)


def _of_groups(
    groups: Sequence[Sequence[int]],
    spans: Sequence[tuple[float, float]],
    labels: Sequence[str],
    kind: str,
    frames: int,
) -> Segments:
    index = torch.zeros(frames, dtype=torch.long)
    for number, group in enumerate(groups):
        index[list(group)] = number
    return Segments(index, tuple(spans), tuple(labels), kind)


def _span(group: Sequence[int], frame_seconds: float) -> tuple[float, float]:
    return round(group[0] * frame_seconds, 6), round((group[-1] + 1) * frame_seconds, 6)
