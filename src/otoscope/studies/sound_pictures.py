"""What a page draws and plays of a clip: its waveform, and the sound itself."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

import numpy as np

from otoscope.documents.base import Array, Resource

if TYPE_CHECKING:
    from otoscope.audio import Clip

_BINS = 100
"""Bins of the waveform a second: enough to be zoomed into."""

_FEWEST = 1200


def waveform_of(clip: Clip) -> Array:
    """Minimum and maximum of each of 100 bins a second, of short clips 1,200 in all, `(2, bin)`."""
    samples = clip.samples
    bins = max(1, min(len(samples), max(_FEWEST, round(clip.duration * _BINS))))
    edges = np.linspace(0, len(samples), bins + 1).astype(int)[:-1]
    return Array.pack(
        np.stack([np.minimum.reduceat(samples, edges), np.maximum.reduceat(samples, edges)]), "f16"
    )


def wav_of(clip: Clip) -> Resource:
    """The clip as a WAV file of 16 bits."""
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, np.clip(clip.samples, -1, 1), clip.sampling_rate, format="WAV", subtype="PCM_16")
    return Resource(media_type="audio/wav", data=base64.b64encode(buffer.getvalue()).decode())
