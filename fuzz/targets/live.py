"""What `monitor serve` is sent over its socket: the message that begins a stream, and samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from otoscope.audio import Pcm
from otoscope.errors import OptionError
from otoscope.views.live import Begin, RefusalError

FILES = ("start.json", "samples")


def seeds() -> list[tuple[bytes, bytes]]:
    """Both formats, and more than one rate."""
    samples = np.sin(np.arange(400) / 9)
    return [
        (b'{"type": "start"}', (samples * 9000).astype("<i2").tobytes()),
        (b'{"type": "start", "rate": 8000, "format": "f32le", "language": "en", "pause": 0.5, "token": "t"}',
         samples.astype("<f4").tobytes()),
        (b'{"type": "start", "rate": 44100, "format": "s16le", "pause": 0}', (samples * 9000).astype("<i2").tobytes()),
    ]  # fmt: skip


def parse(folder: Path) -> None:
    """Begin a stream and take its samples, as one message and in three."""
    try:
        begin = Begin.of((folder / FILES[0]).read_bytes().decode("utf-8", "replace"))
    except RefusalError as refusal:
        raise OptionError(refusal.reason, "Send another.") from None
    sent = (folder / FILES[1]).read_bytes() if (folder / FILES[1]).exists() else b""
    whole, parts = Pcm(begin.rate, begin.format), Pcm(begin.rate, begin.format)
    once = np.concatenate([whole.take(sent), whole.end()])
    third = len(sent) // 12 * 4
    pieces = [parts.take(sent[a:b]) for a, b in ((0, third), (third, 2 * third), (2 * third, None))]
    assert np.array_equal(once, np.concatenate([*pieces, parts.end()]))
    assert np.isfinite(once).all()
