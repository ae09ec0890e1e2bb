"""Tracing a recogniser: from the sound and the words so far to the graph of what made it write its next word."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from otoscope.circuits.heard import Heard, is_untouched, listen, spoken_words, written_target
from otoscope.circuits.segments import SIMILAR, named_segments, of_similarity
from otoscope.circuits.speech_tracing import SpeechSettings, SpeechTracer
from otoscope.circuits.targets import contrast_target
from otoscope.models.transcribing import frames_of
from otoscope.models.transcripts import DecodeOptions
from otoscope.models.whisper import SpeechModel

if TYPE_CHECKING:
    from otoscope.audio import Clip
    from otoscope.circuits.graph import AttributionGraph
    from otoscope.corpora import Item
    from otoscope.dictionaries.base import Dictionary


def trace_speech(
    model: SpeechModel,
    source: Clip | Path | str | Item | Heard,
    token: int | str | Sequence[int | str] | None = None,
    against: str | int | None = None,
    *,
    dictionary: Dictionary | None = None,
    encoder_dictionary: Dictionary | None = None,
    settings: SpeechSettings | None = None,
    options: DecodeOptions | None = None,
    offset: float = 0.0,
) -> AttributionGraph:
    """Which sounds and words made a recogniser write a token.

    Args:
        model: A Whisper model in float32 or float64.
        source: A recording, of which one window is traced; or one that was listened to.
        token: Which token, or several, see `written_target`; None: the one that the model was least sure of.
        against: Another text for the same place, `end`, or a token id: why the one and not the other.
        dictionary: Decoder features; None: the model's own neurons.
        encoder_dictionary: Encoder features; None: the model's own neurons.
        settings: How to trace.
        options: How to decode.
        offset: Where the window begins, in seconds.

    Returns:
        The graph; every row sums to its target.

    Raises:
        AudioError: The recording cannot be read.
        OptionError: There is no such token or word.
        ModelError: This kind of model cannot be traced.
        DictionaryError: A dictionary is of another model.
    """
    heard = source if isinstance(source, Heard) else listen(model, source, options, offset)
    tracer = speech_tracer(
        model,
        heard,
        token,
        against,
        dictionary=dictionary,
        encoder_dictionary=encoder_dictionary,
        settings=settings,
    )
    return tracer.graph(tracer.targets)


def speech_tracer(
    model: SpeechModel,
    heard: Heard,
    token: int | str | Sequence[int | str] | None = None,
    against: str | int | None = None,
    *,
    dictionary: Dictionary | None = None,
    encoder_dictionary: Dictionary | None = None,
    settings: SpeechSettings | None = None,
) -> SpeechTracer:
    """What `trace_speech` traces with, before it traces: its `targets` are set, and no row is computed.

    Args:
        model: A Whisper model in float32 or float64.
        heard: What was listened to.
        token: See `trace_speech`.
        against: See `trace_speech`.
        dictionary: Decoder features; None: the model's own neurons.
        encoder_dictionary: Encoder features; None: the model's own neurons.
        settings: How to trace.

    Raises:
        OptionError: There is no such token or word.
        ModelError: This kind of model cannot be traced.
        DictionaryError: A dictionary is of another model.
    """
    settings = settings or SpeechSettings()
    several: list[int | str | None] = (
        [token] if token is None or isinstance(token, (int, str)) else list(token)
    )
    pairs = [written_target(model, heard, each, against) for each in several]
    last = max(index for index, _ in pairs)
    ids = torch.tensor(heard.ids[: len(heard.prompt) + last], device=model.device)
    clip, frames = heard.clip, frames_of(model, heard.clip)
    encoded = heard.encoded if is_untouched(model) else None
    words = spoken_words(heard.transcript, clip)
    if settings.segments == SIMILAR:
        with torch.no_grad():
            output = model.encode(heard.features) if encoded is None else encoded
            segments = of_similarity(output[0], frames, model.frame_seconds)
    else:
        every = model.config.max_source_positions
        segments = named_segments(settings.segments, words, every, frames, model.frame_seconds)
    about = {
        "transcript": heard.transcript.text,
        "language": heard.transcript.language,
        "prompt_tokens": len(heard.prompt),
        "token_indices": [index for index, _ in pairs],
        "words": [
            {"start": t.start, "end": t.end, "first_token": w.first_token, "last_token": w.last_token}
            for w, t in zip(heard.transcript.words, words, strict=True)
        ],
        "audio": {
            "source": clip.source,
            "start": clip.start,
            "duration": clip.duration,
            "sampling_rate": 16000,
            "frame_seconds": model.frame_seconds,
        },
    }
    tracer = SpeechTracer(
        model, heard.features, ids, segments, dictionary, encoder_dictionary, settings, about, encoded
    )
    written = [*heard.transcript.ids, model.end_token]
    tracer.targets = tuple(
        contrast_target(model, tracer.tape, written[index], other, len(heard.prompt) + index - 1)
        for index, other in pairs
    )
    return tracer
