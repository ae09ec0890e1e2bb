"""Parts of documents that say what was written, and what each layer would have written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from otoscope.documents.explain import (
    LensLayer,
    LensToken,
    LogitLens,
    TokenInfo,
    TranscriptInfo,
    WordInfo,
)
from otoscope.lenses.listening import read_again
from otoscope.lenses.logit_lens import LensReading, logit_lens
from otoscope.outcomes import error_rates

if TYPE_CHECKING:
    from torch import Tensor

    from otoscope.models.base import Model
    from otoscope.models.transcripts import Transcript
    from otoscope.models.whisper import SpeechModel


def transcript_info(transcript: Transcript, reference: str | None, offset: float) -> TranscriptInfo:
    """What the document says of the transcript; its times count from the start of the window."""
    wer = None
    if reference is not None:
        wer = error_rates([reference], [transcript.text], transcript.language).wer
    return TranscriptInfo(
        text=transcript.text,
        language=transcript.language,
        tokens=[
            TokenInfo(
                index=i,
                id=t.id,
                text=t.text,
                p=t.p,
                logprob=t.logprob,
                entropy=t.entropy,
                start=t.start - offset,
                end=t.end - offset,
            )
            for i, t in enumerate(transcript.tokens)
        ],
        words=[
            WordInfo(
                text=w.text,
                start=w.start - offset,
                end=w.end - offset,
                p=w.probability,
                first_token=w.first_token,
                last_token=w.last_token,
            )
            for w in transcript.words
        ],
        no_speech_prob=transcript.no_speech_prob,
        avg_logprob=transcript.avg_logprob,
        compression_ratio=transcript.compression_ratio,
        reference=reference,
        wer=wer,
    )


def lens_info(model: SpeechModel, encoded: Tensor, tokens: Tensor, prompt: int) -> LogitLens:
    """The logit lens of every token after the first `prompt` of `tokens`, which are given to the decoder."""
    layers = model.config.decoder_layers
    if len(tokens) == prompt:
        return LogitLens(layers=layers, tokens=[])
    cache = read_again(model, encoded, tokens, prompt, ["decoder_blocks.*.hook_resid_post"])
    return lens_of(
        model, [cache[f"decoder_blocks.{i}.hook_resid_post"][0] for i in range(layers)], tokens[prompt:]
    )


def lens_of(model: Model, residuals: Sequence[Tensor], written: Tensor) -> LogitLens:
    """The logit lens of written tokens `(token,)`, from the residual stream after each layer, `(token, d_model)` each."""
    reading = logit_lens(model, residuals, written)
    tokens = [_lens_token(model, reading, i) for i in range(len(written))]
    return LogitLens(layers=len(residuals), tokens=tokens)


def _lens_token(model: Model, reading: LensReading, token: int) -> LensToken:
    def text_of(i: int) -> str:
        return model.tokenizer.decode([i])

    layers = [LensLayer(**reading.at(layer, token, text_of)) for layer in range(len(reading.top_ids))]
    return LensToken(index=token, saturation_layer=reading.saturation[token], layers=layers)
