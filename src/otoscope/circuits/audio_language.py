"""Tracing a language model that hears (Qwen2-Audio): from the sound and the prompt to the graph of what it writes next.

The sound enters the text stream as embeddings: the tower's output pooled by two, normalised and projected. Each is a node of kind
`projector`, 40 ms long. Opening the encoder puts the tower behind them in their place, exactly as for a recogniser with
cross-attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from otoscope.circuits.adjoint import Seeds, Sweep
from otoscope.circuits.graph import NONE, PROJECTOR, AttributionGraph, Nodes
from otoscope.circuits.segments import Segments, named_segments
from otoscope.circuits.sources import find_sources
from otoscope.circuits.speech_tracing import SpeechSettings, SpeechTracer
from otoscope.circuits.tape import Projection, record_audio
from otoscope.circuits.targets import contrast_target
from otoscope.dictionaries.neurons import NeuronBasis
from otoscope.errors import ModelError, OptionError
from otoscope.lenses.listening import first_window
from otoscope.models.qwen2_audio import AUDIO_PROMPT, AudioLanguageModel

if TYPE_CHECKING:
    from torch import Tensor, nn

    from otoscope.audio import Clip
    from otoscope.corpora import Item
    from otoscope.dictionaries.base import Dictionary

_TOWER = "audio_encoder"
_SECONDS = 0.02
"""Length of a frame of the tower."""


class AudioTracer(SpeechTracer):
    """One recording under one prompt, as Qwen2-Audio hears it.

    Args:
        model: A Qwen2-Audio model in float32 or float64.
        inputs: One row of Transformers inputs, `input_ids` with what was written so far.
        segments: How frames of the tower are pooled; both frames of a pooled pair belong to one segment.
        dictionary: Features of the text stack; None: the model's own neurons.
        encoder_dictionary: Features of the tower; None: the model's own neurons.
        settings: How to trace.
        about: What the record of a graph tells beside, JSON-ready.

    Raises:
        OptionError: A segment cuts a pooled pair, or the prompt has not one recording.
        ModelError: This kind of model cannot be traced, or its weights are not finite.
        DictionaryError: A dictionary is of another model.
    """

    def __init__(
        self,
        model: AudioLanguageModel,
        inputs: dict[str, Tensor],
        segments: Segments,
        dictionary: Dictionary | None = None,
        encoder_dictionary: Dictionary | None = None,
        settings: SpeechSettings | None = None,
        about: dict[str, Any] | None = None,
    ) -> None:
        self.model = model
        self.settings, self.ids, self.segments = (
            settings or SpeechSettings(),
            inputs["input_ids"][0],
            segments,
        )
        pairs = segments.index[: len(segments.index) // 2 * 2].view(-1, 2)
        if not bool((pairs[:, 0] == pairs[:, 1]).all()):
            raise OptionError(
                "A segment ends within two frames that enter the text together.",
                "Take segments of 40 ms or a multiple of it.",
            )
        self.dictionary = dictionary or NeuronBasis(model)
        self.dictionary.check(model)
        self.encoder_dictionary = encoder_dictionary or NeuronBasis(model, stream=_TOWER)
        self.encoder_dictionary.check(model, _TOWER)
        self._refuse_too_much(len(self.ids))
        self._inputs = dict(inputs)
        with torch.no_grad():
            self.tape = record_audio(model, self._inputs)
            self.sources = find_sources(self.tape, self.dictionary)
        self.sweep = Sweep(self.tape, self.dictionary, self.sources)
        self.targets = ()
        self.about, self.features = about or {}, inputs["input_features"].to(model.dtype)
        self._encoder = None

    @property
    def way(self) -> Projection:
        """How the sound enters the text stream."""
        assert self.hearing.exit is not None
        return self.hearing.exit

    @property
    def positions(self) -> slice:
        """Positions of the text stream at which it enters."""
        return slice(self.way.first, self.way.first + len(self.way))

    @property
    def stem(self) -> nn.Module:
        """The module that begins with the two convolutions."""
        return self.model.hf.get_submodule("model.audio_tower")

    @property
    def output(self) -> Tensor:
        """`(key, d)`: the embeddings that the sound becomes."""
        return self.tape.embed[self.positions]

    @property
    def heard_columns(self) -> slice:
        """Columns of these embeddings."""
        first = self.sources.tokens + self.way.first
        return slice(first, first + len(self.way))

    @property
    def is_text(self) -> Tensor:
        """`(pos,)` 1 where a token enters, 0 where sound does."""
        text = super().is_text
        text[self.positions] = 0
        return text

    def sound_of(self, rows: Tensor) -> Tensor:
        """`(n, segment)`: of full rows what the sound's embeddings supplied, by segment."""
        entering = rows[:, self.heard_columns]
        segment = self.segments.index[: 2 * len(self.way) : 2].to(rows.device)
        return rows.new_zeros(len(rows), len(self.segments)).index_add_(1, segment, entering)

    def given_at(self, pos: int) -> tuple[int, Tensor]:
        """Segment of an embedding of sound, and its place among them."""
        at = pos - self.way.first
        return int(self.segments.index[2 * at]), torch.tensor([at])

    def at_output(self, seeds: Seeds, *, through: bool = False) -> Tensor:
        """The adjoint of targets at these embeddings, `(key, n, d)`."""
        sweep = Sweep(self.tape, self.dictionary, self.sources, through=True) if through else self.sweep
        return sweep.at_start(seeds)[self.positions]

    def hear(self, rows: int) -> Tensor:
        """Run the tower on so many copies of the sound, hooks and all: the embeddings `(row, key, d)`."""
        whole: Any = self.model.hf.model
        mask = _tower_mask(self._inputs["feature_attention_mask"], self.features.dtype)
        tower = whole.audio_tower(self.features.expand(rows, -1, -1), attention_mask=mask)
        return whole.multi_modal_projector(tower.last_hidden_state)[:, : len(self.way)]

    def forward(self, rows: int, heard: Tensor | None = None) -> Tensor:
        """Run the text stack on so many copies, hooks and all: the last norm's output `(row, pos, d)`."""
        whole: Any = self.model.hf.model
        embeddings = whole.get_input_embeddings()(self.ids).expand(rows, -1, -1)
        given = self.output.expand(rows, -1, -1) if heard is None else heard
        before, after = embeddings[:, : self.positions.start], embeddings[:, self.positions.stop :]
        return whole.language_model(
            inputs_embeds=torch.cat([before, given, after], dim=1), use_cache=False
        ).last_hidden_state

    def described(self, columns: np.ndarray) -> Nodes:
        """The nodes of columns; the sound's embeddings with their times."""
        nodes = super().described(columns)
        entering = nodes.kind == PROJECTOR
        begin = 2 * _SECONDS * (nodes.pos[entering] - self.way.first)
        nodes.span[entering] = np.stack([begin, begin + 2 * _SECONDS], axis=1).round(6)
        return nodes

    def _other(self, column: int) -> tuple[int, int, int, int]:
        closed = self.heard_columns
        if closed.start <= column < closed.stop:
            return (PROJECTOR, NONE, column - self.sources.tokens, NONE)
        return super()._other(column)


def _tower_mask(sounding: Tensor, dtype: torch.dtype) -> Tensor:
    """What the tower's frames may look at, as Transformers makes it: `(1, 1, frame, frame)`, added to the scores."""
    columns = sounding.shape[1]
    length = (int(sounding.sum()) - 1) // 2 + 1
    frames = (columns - 2) // 2 + 1
    hidden = torch.arange(frames, device=sounding.device) >= length
    mask = torch.zeros(1, 1, frames, frames, dtype=dtype, device=sounding.device)
    return mask.masked_fill(hidden, torch.finfo(dtype).min)


def trace_audio(
    model: AudioLanguageModel,
    source: Clip | Path | str | Item,
    token: int | str | Sequence[int | str] | None = None,
    against: str | int | None = None,
    *,
    prompt: str = AUDIO_PROMPT,
    dictionary: Dictionary | None = None,
    encoder_dictionary: Dictionary | None = None,
    settings: SpeechSettings | None = None,
    offset: float = 0.0,
    max_tokens: int = 128,
) -> AttributionGraph:
    """Which sounds and words made Qwen2-Audio write a token.

    Args:
        model: A Qwen2-Audio model in float32 or float64, with its processor.
        source: A recording, of which one window is traced.
        token: Index of a written token, from 0, a text that one begins with, or several of these; None: the last one.
        against: The first token of this text instead, or a token id: why the one and not the other.
        prompt: What it is asked, with a place for the sound.
        dictionary: Features of the text stack; None: the model's own neurons.
        encoder_dictionary: Features of the tower; None: the model's own neurons.
        settings: How to trace; segments by words are not known here, so that they are 80 ms long.
        offset: Where the window begins, in seconds.
        max_tokens: Tokens written at most.

    Returns:
        The graph; every row sums to its target.

    Raises:
        AudioError: The recording cannot be read.
        OptionError: There is no such token.
        ModelError: Nothing was written.
    """
    settings = settings or SpeechSettings()
    clip, duration = first_window(source, 30.0, offset)
    inputs = model.inputs([clip], prompt)
    before = inputs["input_ids"].shape[1]
    with torch.no_grad():
        whole = model.hf.generate(  # type: ignore[operator]
            **inputs,
            max_new_tokens=max_tokens,
            do_sample=False,
            suppress_tokens=[model.config.audio_token_id],  # it stands for sound, of which there is no more
        )[0]
    written = whole[before:].tolist()
    if not written:
        raise ModelError("Nothing was written.", "Trace another recording.")
    indices = _indices(model, written, token)
    ids = whole[: before + max(indices)]
    name = "80ms" if settings.segments == "words" else settings.segments
    frames = model.config.audio_config.max_source_positions
    slots = int((ids == model.config.audio_token_id).sum())
    segments = named_segments("40ms" if name == "frames" else name, [], frames, 2 * slots, _SECONDS)
    about = {
        "transcript": model.tokenizer.decode(written),
        "prompt_tokens": before,
        "token_indices": indices,
        "audio": {
            "source": clip.source,
            "start": clip.start,
            "duration": min(clip.duration, duration),
            "sampling_rate": 16000,
            "frame_seconds": _SECONDS,
        },
    }
    feed = inputs | {"input_ids": ids[None], "attention_mask": torch.ones_like(ids[None])}
    tracer = AudioTracer(model, feed, segments, dictionary, encoder_dictionary, settings, about)
    other = _other_token(model, against)
    return tracer.graph(
        [contrast_target(model, tracer.tape, written[i], other, before + i - 1) for i in indices]
    )


def _indices(
    model: AudioLanguageModel, written: list[int], token: int | str | Sequence[int | str] | None
) -> list[int]:
    several = [token] if token is None or isinstance(token, (int, str)) else list(token)
    return [_index(model, written, each) for each in several]


def _index(model: AudioLanguageModel, written: list[int], token: int | str | None) -> int:
    if token is None or token == "end":
        return len(written) - 1
    if isinstance(token, int):
        if 0 <= token < len(written):
            return token
        raise OptionError(f"There is no token {token}: {len(written)} were written.", "Count from 0.")
    texts = [model.tokenizer.decode([i]).strip().casefold() for i in written]
    wanted = token.strip().casefold()
    for i, text in enumerate(texts):
        if text and (text == wanted or wanted.startswith(text)):
            return i
    raise OptionError(
        f"No token of {model.tokenizer.decode(written)!r} is {token!r}.", "Choose one by its number, from 0."
    )


def _other_token(model: AudioLanguageModel, against: str | int | None) -> int | None:
    if against is None or isinstance(against, int):
        return against
    if against == "end":
        return model.end_tokens[0]
    return int(model.tokenizer(f" {against.strip()}", add_special_tokens=False)["input_ids"][0])
