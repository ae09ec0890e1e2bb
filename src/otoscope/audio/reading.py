"""Reading recordings of any rate, channel count and sample format, whole or window by window."""

from __future__ import annotations

import math
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from otoscope.audio.clip import (
    SAMPLING_RATE,
    Clip,
    check_finite,
    check_length,
    check_rate,
    mixed_down,
)
from otoscope.audio.samples import where_else
from otoscope.errors import AudioError, OptionError

if TYPE_CHECKING:
    from soundfile import SoundFile

SUFFIXES = frozenset(
    {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".caf", ".w64"}
)
"""Lower-case endings of the recordings that can be read."""

HOP = SAMPLING_RATE // 100
"""Samples by which the search for a pause proceeds: 10 ms."""

_BLOCK = 2**17  # samples of all channels decoded at a time: 0.5 MB, so that a recording of any length fits
_UNKNOWN_FRAMES = 2**62  # libsndfile reports the largest int64 when a header leaves the length open
_MP3_SLACK = 2 * 1152  # an MP3 header counts in whole frames and may be two off about the padding at the ends
_OGG_HEADER = 27  # bytes of a page before its lacing values
_QUIET = 0.2  # seconds of pause to look for

Samples = npt.NDArray[np.float32]


@dataclass(frozen=True)
class AudioInfo:
    """What a recording's header says.

    Attributes:
        duration: Seconds, or None when the header leaves the length open.
        rate: Samples a second.
        channels: Number of channels.
        subtype: Sample format, as libsndfile names it ("PCM_24", "VORBIS").
        format: Container, as libsndfile names it ("WAV", "OGG").
    """

    duration: float | None
    rate: int
    channels: int
    subtype: str
    format: str


def info(path: str | os.PathLike[str]) -> AudioInfo:
    """Read a recording's header.

    Raises:
        AudioError: The recording is missing, empty, visibly truncated, too short or not audio.
    """
    with _opened(path) as file:
        duration = file.frames / file.samplerate if file.frames < _UNKNOWN_FRAMES else None
        return AudioInfo(duration, file.samplerate, file.channels, file.subtype, file.format)


def read(path: str | os.PathLike[str], *, offset: float = 0.0, duration: float | None = None) -> Clip:
    """Read a recording, or a span of it, as one clip.

    Channels are averaged and the result is resampled to 16 kHz (soxr, HQ). WAV, FLAC, OGG and MP3 are read,
    and whatever else libsndfile knows.

    Args:
        path: The recording.
        offset: Where to begin, in seconds.
        duration: How much to read at most, in seconds; None reads to the end.

    Raises:
        AudioError: The recording is missing, empty, truncated, too short, not audio or holds NaN; or the
            offset lies beyond its end.
    """
    samples = np.concatenate(list(_stream(path, offset, duration)))
    return Clip(samples, source=os.fspath(path), start=offset)


def windows(
    source: str | os.PathLike[str] | Clip,
    seconds: float = 30.0,
    *,
    search: float = 5.0,
    offset: float = 0.0,
    duration: float | None = None,
) -> Iterator[Clip]:
    """Cut a recording into successive windows, in memory that does not grow with its length.

    What fits into one window comes as exactly the clip that `read` gives. Anything longer is cut in the
    middle of the quietest 0.2 s among the last `search` seconds of each window (the latest of several), so
    that words stay whole. Windows neither overlap nor leave gaps.

    Args:
        source: A recording's path, or a clip.
        seconds: The longest a window may be.
        search: How far back from a window's end to look for a pause, at most the whole window.
        offset: Where to begin in the source, in seconds.
        duration: How much of the source to cover at most, in seconds; None goes to the end.

    Yields:
        Clips of at most `seconds`, each with its `start` in the source.

    Raises:
        AudioError: See `read`; damage further on is found when its window is reached.
        OptionError: `seconds` or `search` is less than 0.2 s or not finite.
    """
    if not (_QUIET <= seconds < math.inf and _QUIET <= search < math.inf):
        raise OptionError(
            f"Windows of {seconds:g} s cut within their last {search:g} s cannot be made.",
            f"Give at least {_QUIET:g} s for both.",
        )
    size = round(seconds * SAMPLING_RATE)
    reach = min(round(search * SAMPLING_RATE), size)
    if not isinstance(source, Clip):
        whole = _stream(source, offset, duration)
        return _cut(whole, size, reach, os.fspath(source), offset, {})
    end = math.inf if duration is None else offset + duration
    clip = source.span(offset, end)
    return _cut(iter([clip.samples]), size, reach, clip.source, clip.start, clip.labels)


def _cut(
    blocks: Iterator[Samples],
    size: int,
    reach: int,
    source: str | None,
    start: float,
    labels: Mapping[str, object],
) -> Iterator[Clip]:
    pending = np.empty(0, np.float32)
    done = 0
    for block in blocks:
        pending = np.concatenate([pending, block])
        while len(pending) > size:
            cut = quietest(pending[:size], reach)
            yield Clip(pending[:cut].copy(), source, start + done / SAMPLING_RATE, labels)
            pending, done = pending[cut:], done + cut
    yield Clip(pending, source, start + done / SAMPLING_RATE, labels)


def quietest(samples: Samples, reach: int) -> int:
    """Index of the middle of the quietest 0.2 s among the last `reach` samples, in steps of 10 ms."""
    first = len(samples) - reach // HOP * HOP
    energies = np.square(samples[first:], dtype=np.float64).reshape(-1, HOP).sum(axis=1)
    span = round(_QUIET * SAMPLING_RATE / HOP)
    sums = np.convolve(energies, np.ones(span), mode="valid")
    latest = len(sums) - 1 - int(np.argmin(sums[::-1]))
    return first + latest * HOP + span * HOP // 2


def _stream(path: str | os.PathLike[str], offset: float, duration: float | None) -> Iterator[Samples]:
    """Blocks of mono samples at 16 kHz; joined, they do not depend on where the blocks end."""
    import soxr

    with _opened(path) as file:
        blocks = _decoded(file, os.fspath(path), *_frames(file, os.fspath(path), offset, duration))
        if file.samplerate == SAMPLING_RATE:
            yield from blocks
            return
        resampler = soxr.ResampleStream(file.samplerate, SAMPLING_RATE, 1, dtype="float32", quality="HQ")
        for block in blocks:
            yield resampler.resample_chunk(block)
        yield resampler.resample_chunk(np.empty(0, np.float32), last=True)


def _frames(file: SoundFile, name: str, offset: float, duration: float | None) -> tuple[int, int]:
    """First frame and number of frames of a span, within what the header promises."""
    if not 0 <= offset < math.inf or (duration is not None and not duration > 0):
        raise AudioError(
            f"The span of {duration} s from {offset} s does not lie in {name}.",
            "Give an offset of at least 0 s and a duration of more than 0 s.",
        )
    first, count = round(offset * file.samplerate), file.frames
    if first >= count:
        raise _beyond_end(name, offset)
    if duration is not None and duration < count / file.samplerate:
        count = min(count - first, round(duration * file.samplerate))
        check_length(f"The span of {duration:g} s from {name}", count, file.samplerate)
    else:
        count -= first
    return first, count


def _decoded(file: SoundFile, name: str, first: int, count: int) -> Iterator[Samples]:
    import soundfile

    rate, step = file.samplerate, max(1, _BLOCK // file.channels)
    done = 0
    try:
        file.seek(first)
    except soundfile.SoundFileError:  # a header that leaves the length open does not tell before
        raise _beyond_end(name, first / rate) from None
    try:
        while done < count and len(block := file.read(min(step, count - done), "float32", always_2d=True)):
            mono = mixed_down(np.asarray(block, np.float32))
            check_finite(name, mono, rate, first + done)
            done += len(block)
            yield mono
    except soundfile.SoundFileError as error:
        raise AudioError(
            f"{name} is truncated or damaged: it cannot be decoded beyond {(first + done) / rate:.2f} s.",
            _COPY_AGAIN,
        ) from error
    check_length(name, done, rate)  # a header that leaves the length open has told nothing so far
    slack = _MP3_SLACK if file.format == "MP3" else 0
    if file.frames < _UNKNOWN_FRAMES and done + slack < count:
        raise _truncated(
            name, f"{file.frames / file.samplerate:.2f} s", f"{(first + done) / file.samplerate:.2f} s"
        )


def _beyond_end(name: str, offset: float) -> AudioError:
    return AudioError(
        f"The offset {offset:g} s lies beyond the end of {name}.", "Give an offset inside the recording."
    )


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[SoundFile]:
    import soundfile

    name = os.fspath(path)
    _check_file(Path(name))

    class Sequential(soundfile.SoundFile):
        """Spared soundfile's seek after each block, which blurs MP3 and fails at an open length's end."""

        def seekable(self) -> bool:
            return False

    try:
        # Names on POSIX are bytes, not always UTF-8 as soundfile would have it; its annotations forget bytes.
        encoded = os.fsencode(name) if os.name == "posix" else name
        file = Sequential(encoded)  # pyright: ignore[reportArgumentType]
    except (soundfile.SoundFileError, TypeError) as error:  # TypeError: a .raw file, which has no header
        raise AudioError(
            f"{name} is not audio that can be read, or its header is damaged.",
            "Give a WAV, FLAC, OGG or MP3 file; other formats can be converted to WAV first.",
        ) from error
    with file:
        _check_header(file, name)
        yield file


def _check_file(path: Path) -> None:
    try:
        status = path.stat()
        if stat.S_ISREG(status.st_mode) and status.st_size:
            with path.open("rb"):
                return
    except FileNotFoundError:
        raise AudioError(f"{path} does not exist.", where_else(path)) from None
    except (OSError, ValueError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise AudioError(f"{path} cannot be read: {why}.", "Give a recording that you may read.") from error
    if stat.S_ISDIR(status.st_mode):
        raise AudioError(f"{path} is a folder, not a recording.", "Name one of the recordings in it.")
    if not stat.S_ISREG(status.st_mode):
        raise AudioError(f"{path} is not a regular file.", "Save the sound to a file first.")
    raise AudioError(f"{path} is empty (0 bytes).", "Copy or download the recording again.")


def _check_header(file: SoundFile, name: str) -> None:
    check_rate(name, file.samplerate)
    # libsndfile quietly trims a header's promise to the data that is there; only its log still knows.
    log = file.extra_info
    if promise := _TRIMMED_CHUNK.search(log):
        promised, present = int(promise[1]), int(promise[2])
        if present < promised and not _left_open(promised):
            raise _truncated(name, f"{promised} bytes of sound", f"{present}")
    if promise := _TRIMMED_FRAMES.search(log):
        raise _truncated(name, f"{promise[2]} samples", promise[1])
    if file.format == "OGG" and not _ends_in_last_page(Path(name)):
        raise AudioError(f"{name} is truncated: its last page is missing or cut off.", _COPY_AGAIN)
    check_length(name, file.frames, file.samplerate)


_TRIMMED_CHUNK = re.compile(r"^ ?(?:data|SSND|  Data Size) *: (\d+) \(should be (\d+)\)", re.MULTILINE)
_TRIMMED_FRAMES = re.compile(r"Calculated frame count (\d+) does not match value from 'ds64' chunk of (\d+)")
_COPY_AGAIN = "Copy or download the recording again, or export what is left of it to a new file."


def _left_open(size: int) -> bool:
    """Whether a chunk size is one that programs write into a pipe, where they cannot come back to it."""
    return 0x7FFFF000 <= size <= 0x80000000 or size >= 0xFFFFF000


def _ends_in_last_page(path: Path) -> bool:
    """Whether an Ogg file holds all of a page that is marked as its stream's last (RFC 3533, section 6)."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 2**17))  # a page has at most 65,307 bytes
        tail = file.read()
    page = tail[max(0, tail.rfind(b"OggS")) :]
    if len(page) < _OGG_HEADER:
        return False
    lacings = page[_OGG_HEADER : _OGG_HEADER + page[26]]
    return bool(page[5] & 4) and len(page) >= _OGG_HEADER + page[26] + sum(lacings)


def _truncated(name: str, promised: str, present: str) -> AudioError:
    return AudioError(
        f"{name} is truncated: its header promises {promised}, it holds {present}.", _COPY_AGAIN
    )
