"""The encoder lens: what the decoder would write if the encoder ended after each layer.

Residual stream after encoder layer l, final layer norm, unmodified decoder ("Beyond Transcription", section on the encoder
lens; DecoderLens, arXiv 2310.03686, plus the norm, without which the text is ungrammatical).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from otoscope.models.decoding import Decoded, decode
from otoscope.models.transcripts import DecodeOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from otoscope.models.whisper import SpeechModel


def encoder_lens(
    model: SpeechModel,
    residuals: Sequence[Tensor],
    prompt: Sequence[int],
    options: DecodeOptions | None = None,
) -> list[Decoded]:
    """Decode every encoder layer as one batch.

    Args:
        model: The recogniser.
        residuals: One `hook_resid_post` an encoder layer, `(1, frame, d_model)`.
        prompt: Decoder prompt ids.
        options: How to decode; early layers often repeat themselves, so bound `max_positions`.

    Returns:
        What was written from each layer, in order; the last is the ordinary transcript.
    """
    with torch.no_grad():
        states = model.hf.model.encoder.layer_norm(torch.cat(list(residuals)))  # type: ignore[operator,union-attr]
    prompts = torch.tensor([list(prompt)] * len(states))
    return decode(model, states, prompts, options)
