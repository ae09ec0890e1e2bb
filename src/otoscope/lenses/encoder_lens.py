"""The encoder lens: what the decoder would write if the encoder ended after each layer.

Residual stream after encoder layer l, final layer norm, unmodified decoder ("Beyond Transcription", section on the encoder
lens; DecoderLens, arXiv 2310.03686, plus the norm, without which the text is ungrammatical). Qwen2-Audio pools by two before
the norm, and projects after it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from otoscope.errors import OptionError
from otoscope.models.decoding import Decoded, batches, decode
from otoscope.models.transcripts import DecodeOptions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from otoscope.models.qwen2_audio import AudioLanguageModel
    from otoscope.models.whisper import SpeechModel


_ROOM = 100
"""Tokens that a layer may write at least, however short the transcript."""


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
        states = model.normed(torch.cat(list(residuals)))
    prompts = torch.tensor([list(prompt)] * len(states))
    return decode(model, states, prompts, options)


def bounded_encoder_lens(
    model: SpeechModel,
    residuals: Sequence[Tensor],
    decoded: Decoded,
    options: DecodeOptions,
    *,
    room: int | None = None,
    batch: int | None = None,
) -> list[list[int]]:
    """What the decoder writes from every encoder layer, beside the ordinary transcript.

    Args:
        model: The recogniser.
        residuals: One `hook_resid_post` an encoder layer, `(1, frame, d_model)`.
        decoded: The ordinary transcript.
        options: How it was decoded.
        room: Tokens that a layer may write at most; None: see `room_of`.
        batch: Layers decoded at once; None: all.

    Returns:
        Ids written from each layer, in order.
    """
    limit = len(decoded.prompt) + (room or room_of(len(decoded.ids)))
    bounded = replace(options, max_positions=min(limit, model.max_positions))
    rows: list[Decoded] = []
    for some in batches(residuals, batch or len(residuals)):
        rows += encoder_lens(model, some, decoded.prompt, bounded)
    return [row.ids for row in rows]


def room_of(written: int) -> int:
    """Tokens that a layer may write beside a transcript of so many: early layers never end by themselves."""
    return max(_ROOM, 2 * written)


def audio_encoder_lens(
    model: AudioLanguageModel,
    residuals: Sequence[Tensor],
    inputs: Mapping[str, Tensor],
    *,
    max_new_tokens: int = 100,
) -> list[list[int]]:
    """Let Qwen2-Audio's text model write, greedily, from every layer of its audio tower as one batch.

    Args:
        model: The model.
        residuals: One `audio_encoder.blocks.*.hook_resid_post` a layer, `(1, frame, d_audio)`.
        inputs: Transformers inputs of one recording and one prompt, its audio slots expanded as the processor does; only the
            text part is read.
        max_new_tokens: How much to write at most; early layers often repeat themselves.

    Returns:
        Ids written from each layer, in order, without the end token; the last layer gives what `generate` gives.

    Raises:
        OptionError: There is more than one row, or the prompt's audio slots do not go with the frames.
    """
    ids, layers = inputs["input_ids"], len(residuals)
    with torch.no_grad():
        heard = model.audio_embeddings(torch.cat(list(residuals)))
    slots = ids == model.config.audio_token_id
    _check_slots(len(ids), int(slots.sum()), heard, inputs)
    embedded = model.hf.get_input_embeddings()(ids).expand(layers, -1, -1).clone()
    embedded[slots.expand(layers, -1)] = (
        heard[:, : int(slots.sum())].reshape(-1, heard.shape[-1]).to(embedded.dtype)
    )
    mask = inputs["attention_mask"].expand(layers, -1)
    out = model.generate(
        inputs_embeds=embedded,
        attention_mask=mask,
        do_sample=False,
        num_beams=1,
        max_new_tokens=max_new_tokens,
    )
    return [model.until_end(row) for row in out.tolist()]


def _check_slots(rows: int, slots: int, heard: Tensor, inputs: Mapping[str, Tensor]) -> None:
    mask = inputs.get("feature_attention_mask")
    frames = (
        None if mask is None else (((int(mask.sum()) - 1) // 2 + 1) - 2) // 2 + 1
    )  # convolution by two, pooling by two
    if rows != 1 or not 0 < slots <= heard.shape[1] or slots != (frames or slots):
        raise OptionError(
            f"{rows} rows with {slots} audio slots do not go with {frames or heard.shape[1]} audio positions.",
            "Give the inputs of one recording, made by the model's processor.",
        )
