"""The stages of `explain` that read layers: what each of the decoder's would have written, and from each of the encoder's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otoscope.documents.explain import EncoderLensLayer, LogitLens
from otoscope.lenses.encoder_lens import bounded_encoder_lens
from otoscope.lenses.listening import read_again
from otoscope.models.transcribing import frames_of
from otoscope.outcomes import output_type
from otoscope.studies.explain_parts import lens_of
from otoscope.studies.explain_pictures import head_attention

if TYPE_CHECKING:
    from torch import Tensor

    from otoscope.audio import Clip
    from otoscope.documents.bench import HeadAttention
    from otoscope.models.decoding import Decoded
    from otoscope.models.hearing import Heard
    from otoscope.models.transcripts import DecodeOptions, Transcript
    from otoscope.models.whisper import SpeechModel


def read_decoder(
    model: SpeechModel, clip: Clip, encoded: Tensor, tokens: Tensor, prompt: int
) -> tuple[LogitLens, HeadAttention | None]:
    """What each layer would have written, and where each head looked: both from one pass over the whole text.

    Args:
        model: A Whisper model.
        clip: The sound.
        encoded: The encoder's output, `(1, frame, d_model)`.
        tokens: Prompt and written tokens, `(pos,)`.
        prompt: Tokens of the prompt.
    """
    layers = model.config.decoder_layers
    if len(tokens) == prompt:
        return LogitLens(layers=layers, tokens=[]), None
    points = ["decoder_blocks.*.hook_resid_post", "decoder_blocks.*.cross_attn.hook_pattern"]
    cache = read_again(model, encoded, tokens, prompt, points)
    residuals = [cache[f"decoder_blocks.{i}.hook_resid_post"][0] for i in range(layers)]
    patterns = [cache[f"decoder_blocks.{i}.cross_attn.hook_pattern"][0] for i in range(layers)]
    heads = head_attention(patterns, frames_of(model, clip), model.frame_seconds)
    return lens_of(model, residuals, tokens[prompt:]), heads


def read_encoder(
    model: SpeechModel, heard: Heard, decoded: Decoded, transcript: Transcript, options: DecodeOptions
) -> list[EncoderLensLayer]:
    """What the decoder writes when it listens to each layer of the encoder."""
    texts = [
        model.tokenizer.decode(ids, skip_special_tokens=True).strip()
        for ids in bounded_encoder_lens(model, heard.resid_post, decoded, options)
    ]
    return [
        EncoderLensLayer(
            layer=i,
            text=text,
            is_final_text=text == transcript.text,
            type=output_type(text, reference=transcript.text, language=transcript.language),
        )
        for i, text in enumerate(texts)
    ]
