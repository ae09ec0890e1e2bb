"""A clip in a cell of a notebook: its waveform, and a player."""

from __future__ import annotations

import base64
import io
from html import escape
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from otoscope.audio import Clip

_LONGEST = 60.0
"""Seconds that a notebook is made to keep; of a longer clip the beginning is played."""

_BINS = 600


def html_of(clip: Clip) -> str:
    """Waveform, player and facts; sound is kept as 16-bit FLAC."""
    import soundfile

    played = clip if clip.duration <= _LONGEST else clip.span(0, _LONGEST)
    buffer = io.BytesIO()
    soundfile.write(
        buffer, np.clip(played.samples, -1, 1), clip.sampling_rate, format="FLAC", subtype="PCM_16"
    )
    sound = base64.b64encode(buffer.getvalue()).decode("ascii")
    facts = (
        f"{clip.duration:.2f} s from {clip.start:.2f} s of {clip.source}"
        if clip.source
        else f"{clip.duration:.2f} s"
    )
    left = f"; the first {_LONGEST:g} s are played" if played is not clip else ""
    return (
        f'<div style="max-width:48em">{_wave(played.samples)}'
        f'<audio controls src="data:audio/flac;base64,{sound}" style="width:100%"></audio>'
        f'<div style="font-size:.9em;opacity:.72"><bdi>{escape(facts)}</bdi>{left}</div></div>'
    )


def _wave(samples: np.ndarray) -> str:
    """Least and greatest sample of each of some hundred bins, as one path."""
    edges = np.linspace(0, len(samples), min(_BINS, len(samples)) + 1).astype(int)[:-1]
    low, high = np.minimum.reduceat(samples, edges), np.maximum.reduceat(samples, edges)
    steps = "".join(f"M{i} {-b:.3f}V{-a - 0.004:.3f}" for i, (a, b) in enumerate(zip(low, high, strict=True)))
    return (
        f'<svg role="img" aria-label="waveform" viewBox="0 -1 {len(edges)} 2" preserveAspectRatio="none"'
        f' style="display:block;width:100%;height:4em"><path d="{steps}" fill="none" stroke="currentColor"'
        ' stroke-width="1" vector-effect="non-scaling-stroke"/></svg>'
    )
