"""Recordings: headers of every container that libsndfile knows, read whole and window by window."""

from __future__ import annotations

import io
from pathlib import Path

import soundfile

from otoscope.audio import info, read, windows
from otoscope.audio.samples import sample

FILES = ("recording",)
FORMATS = (
    ("WAV", "PCM_16"), ("WAV", "FLOAT"), ("WAV", "PCM_24"), ("WAVEX", "PCM_16"), ("RF64", "PCM_16"), ("W64", "PCM_16"),
    ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III"), ("AIFF", "PCM_16"), ("AU", "PCM_16"),
    ("CAF", "PCM_16"),
)  # fmt: skip
"""Container and sample format of the seeds."""


def encoded(container: str, subtype: str, seconds: float = 0.2) -> bytes:
    """The beginning of the sample recording's speech, so encoded."""
    clip = read(sample("jfk"), offset=0.4, duration=seconds)
    file = io.BytesIO()
    soundfile.write(file, clip.samples, 16_000, format=container, subtype=subtype)
    return file.getvalue()


def seeds() -> list[tuple[bytes]]:
    """One of every format."""
    return [(encoded(container, subtype),) for container, subtype in FORMATS]


def read_all(path: Path) -> None:
    """The header, and then the sound; both ways give as much of it."""
    told = info(path)
    heard = sum(clip.samples.size for clip in windows(path, 1.0, search=0.5))
    assert heard
    assert told.duration is None or heard <= (told.duration + 0.2) * 16_000


def parse(folder: Path) -> None:
    """See `read_all`."""
    read_all(folder / FILES[0])
