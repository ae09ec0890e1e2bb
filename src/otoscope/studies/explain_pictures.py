"""What is drawn of an explained clip: waveform, mel, attention of every head, and the sound itself."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

import numpy as np

from otoscope.documents.base import Array, Resource
from otoscope.documents.bench import HeadAttention
from otoscope.documents.explain import Alignment
from otoscope.models.decoding import alignment_heads
from otoscope.models.transcribing import alignment_of, frames_of

if TYPE_CHECKING:
    from torch import Tensor

    from otoscope.audio import Clip
    from otoscope.models.decoding import Decoded
    from otoscope.models.hearing import Heard
    from otoscope.models.whisper import SpeechModel

_WAVE_BINS = 100
"""Bins of the waveform a second: enough to be zoomed into."""

_ATTENTION = 1_500_000
"""Numbers that the attention of all heads may have; where they would be more, neighbouring frames are pooled."""


def pictures(model: SpeechModel, clip: Clip, heard: Heard, decoded: Decoded) -> dict[str, Any]:
    """Fields of the document that show the sound."""
    frames = frames_of(model, clip)
    matrix = np.zeros((0, frames), np.float32)
    if decoded.ids:
        matrix = alignment_of(model, clip, decoded)[:, : len(decoded.ids)].mean(dim=0).cpu().numpy()
    return {
        "waveform": Array.pack(_min_max(clip.samples), dtype="f16"),
        "mel": Array.pack(heard.features[0, :, : 2 * frames].float().cpu().numpy(), dtype="u8"),
        "alignment": Alignment(
            heads=alignment_heads(model), matrix=Array.pack(matrix, dtype="u8" if matrix.size else "f32")
        ),
        "resources": {"audio": Resource(media_type="audio/wav", data=_wav(clip))},
    }


def _min_max(samples: np.ndarray) -> np.ndarray:
    """Minimum and maximum of each bin, `(2, bin)`."""
    bins = max(1, min(len(samples), max(1200, round(len(samples) / 16_000 * _WAVE_BINS))))
    edges = np.linspace(0, len(samples), bins + 1).astype(int)[:-1]
    return np.stack([np.minimum.reduceat(samples, edges), np.maximum.reduceat(samples, edges)])


def _wav(clip: Clip) -> str:
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, np.clip(clip.samples, -1, 1), clip.sampling_rate, format="WAV", subtype="PCM_16")
    return base64.b64encode(buffer.getvalue()).decode()


def head_attention(patterns: list[Tensor], frames: int, frame_seconds: float) -> HeadAttention:
    """Cross-attention of every head.

    Args:
        patterns: Of every decoder layer, `(head, token, frame)`, rows that sum to 1 over the whole window.
        frames: Frames that hold the clip.
        frame_seconds: Length of a frame.
    """
    heads = [(layer, head) for layer, pattern in enumerate(patterns) for head in range(len(pattern))]
    every = np.concatenate([pattern.float().cpu().numpy() for pattern in patterns])
    clip, padding = every[..., :frames], every[..., frames:].sum(axis=-1)
    pooled = -(-clip.size // _ATTENTION)
    columns = -(-frames // pooled)
    filled = np.zeros((*clip.shape[:2], columns * pooled), np.float32)
    filled[..., :frames] = clip
    matrix = filled.reshape(*clip.shape[:2], columns, pooled).mean(axis=-1)
    peak = matrix.max(axis=-1)
    return HeadAttention(
        heads=heads,
        column_seconds=frame_seconds * pooled,
        matrix=Array.pack(matrix / np.maximum(peak, 1e-12)[..., None], "u8"),
        peak=Array.pack(peak, "f32"),
        padding=Array.pack(padding, "f16"),
    )
