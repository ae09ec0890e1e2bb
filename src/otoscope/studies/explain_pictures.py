"""What is drawn of an explained clip: waveform, mel, attention of every head, and the sound itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from otoscope.documents.base import Array
from otoscope.documents.bench import HeadAttention
from otoscope.documents.explain import Alignment
from otoscope.models.decoding import alignment_heads
from otoscope.models.transcribing import alignment_of, frames_of
from otoscope.studies.sound_pictures import wav_of, waveform_of

if TYPE_CHECKING:
    from torch import Tensor

    from otoscope.audio import Clip
    from otoscope.models.decoding import Decoded
    from otoscope.models.hearing import Heard
    from otoscope.models.whisper import SpeechModel

_ATTENTION = 1_500_000
"""Numbers that the attention of all heads may have; where they would be more, neighbouring frames are pooled."""


def pictures(model: SpeechModel, clip: Clip, heard: Heard, decoded: Decoded) -> dict[str, Any]:
    """Fields of the document that show the sound."""
    frames = frames_of(model, clip)
    matrix = np.zeros((0, frames), np.float32)
    if decoded.ids:
        matrix = alignment_of(model, clip, decoded)[:, : len(decoded.ids)].mean(dim=0).cpu().numpy()
    return {
        "waveform": waveform_of(clip),
        "mel": Array.pack(heard.features[0, :, : 2 * frames].float().cpu().numpy(), dtype="u8"),
        "alignment": Alignment(
            heads=alignment_heads(model), matrix=Array.pack(matrix, dtype="u8" if matrix.size else "f32")
        ),
        "resources": {"audio": wav_of(clip)},
    }


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
