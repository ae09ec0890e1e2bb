"""The tracer of a recogniser: its decoder hears segments of sound, and the encoder is opened below them.

The decoder comes first: the sound enters it through cross-attention, as the encoder's output pooled over segments of time. Where
much influence flows into the sound, the encoder behind it is opened: its features, pooled over the same segments, its frames
(what the convolutions made of the sound), positions and biases take the place of its output. Sums are the same before and after.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from otoscope.circuits.adjoint import Seeds, Sweep, feature_seeds
from otoscope.circuits.graph import BIAS, ERROR, FEATURE, FRAME, NONE, POSITION, Nodes
from otoscope.circuits.hearing import EncoderSources, EncoderSweep
from otoscope.circuits.segments import Segments
from otoscope.circuits.sources import find_sources
from otoscope.circuits.stem import Patches, Stem, stem_output
from otoscope.circuits.tape import Tape, record_hearing, record_speech
from otoscope.circuits.targets import Target, target_seeds
from otoscope.circuits.totals import totals
from otoscope.circuits.tracer import Store, Tracer, TraceSettings
from otoscope.dictionaries.neurons import NeuronBasis
from otoscope.errors import GraphError, OptionError
from otoscope.models.whisper import SpeechModel
from otoscope.progress import track

if TYPE_CHECKING:
    from torch import Tensor, nn

    from otoscope.dictionaries.base import Dictionary
    from otoscope.models.base import Model

_ENCODER_BATCH = 2**27
"""Bytes that what a batch of targets reads off one encoder layer may take."""


@dataclass(frozen=True)
class SpeechSettings(TraceSettings):
    """How to trace a recogniser.

    Attributes:
        nodes: Decoder features to expand.
        encoder_nodes: Encoder features to expand; 0 leaves the encoder closed.
        carried: Decoder features that are carried into the encoder, those first that pass most influence on to the sound.
        segments: `words`, `frames`, `similar` (borders where the encoder's output changes most) or a length such as `80ms`.
    """

    nodes: int = 500
    encoder_nodes: int = 0
    carried: int = 100
    segments: str = "words"


class SpeechTracer(Tracer):
    """One recording's tapes, features and sweeps, up to the written tokens that are explained.

    Args:
        model: A Whisper model in float32 or float64.
        features: Log-mel spectrogram `(1, mel, column)`.
        ids: Decoder tokens `(pos,)`: the prompt and the text before the last token that is explained.
        segments: How frames are pooled.
        dictionary: Decoder features; None: the model's own neurons.
        encoder_dictionary: Encoder features; None: the model's own neurons.
        settings: How to trace.
        about: What the record of a graph tells beside, JSON-ready.
        encoded: The encoder's output `(1, frame, d)`, where it is known; the encoder runs again only when something asks for
            what it did: where it is opened, checked, swapped or carried to the spectrogram.

    Raises:
        OptionError: The tokens are empty or more than the decoder takes.
        ModelError: This kind of model cannot be traced, or its weights are not finite.
        DictionaryError: A dictionary is of another model.
    """

    settings: SpeechSettings

    def __init__(
        self,
        model: SpeechModel,
        features: Tensor,
        ids: Tensor,
        segments: Segments,
        dictionary: Dictionary | None = None,
        encoder_dictionary: Dictionary | None = None,
        settings: SpeechSettings | None = None,
        about: dict[str, Any] | None = None,
        encoded: Tensor | None = None,
    ) -> None:
        self.model: Model = model
        self.settings, self.ids, self.segments = settings or SpeechSettings(), ids, segments
        if not 0 < len(ids) <= model.max_positions:
            raise OptionError(
                f"{len(ids)} tokens cannot be traced.", f"The decoder takes 1 to {model.max_positions}."
            )
        self.dictionary = dictionary or NeuronBasis(model)
        self.dictionary.check(model)
        self.encoder_dictionary = encoder_dictionary or NeuronBasis(model, stream="encoder")
        self.encoder_dictionary.check(model, "encoder")
        self._refuse_too_much(len(ids))
        with torch.no_grad():
            self.tape: Tape = record_speech(model, features, ids, encoded)
            self.sources = find_sources(self.tape, self.dictionary, segments=segments.index)
        self.sweep = Sweep(self.tape, self.dictionary, self.sources)
        self.targets: tuple[Target, ...] = ()
        self.about, self.features = about or {}, features
        self._encoder: EncoderSweep | None = None

    @property
    def hearing(self) -> Tape:
        """The encoder's tape; it is recorded when it is first needed."""
        if self.tape.heard is None:
            self.tape = replace(self.tape, heard=record_hearing(self.model, self.features)[0])  # type: ignore[arg-type]
        assert self.tape.heard is not None
        return self.tape.heard

    @property
    def encoder(self) -> EncoderSweep:
        """The sweep through the encoder; it is made when it is first needed."""
        if self._encoder is None:
            with torch.no_grad():
                sources = EncoderSources.of(self.hearing, self.encoder_dictionary, self.segments.index)
            self._encoder = EncoderSweep(sources)
        return self._encoder

    @property
    def stem(self) -> nn.Module:
        """The module that begins with the two convolutions."""
        return self.model.hf.get_submodule("model.encoder")

    @property
    def output(self) -> Tensor:
        """`(key, d)`: what the stack that writes is given of the sound."""
        return self.tape.cross[0].x

    @property
    def heard_columns(self) -> slice:
        """Columns of what it is given, while the encoder is closed."""
        assert self.sources.frames is not None
        return slice(self.sources.frames.first, self.sources.biases)

    def given_at(self, pos: int) -> tuple[int, Tensor]:
        """Segment of a node of what is given, and the places of `output` that are its."""
        return pos, self.segments.frames(pos)

    def at_output(self, seeds: Seeds, *, through: bool = False) -> Tensor:
        """The adjoint of targets at what is given, `(key, n, d)`; through all features by their gates, or along edges."""
        return (self.sweep.all_paths() if through else self.sweep).heard(seeds)

    def hear(self, rows: int) -> Tensor:
        """Run the encoder on so many copies of the sound, hooks and all: what the other stack is given `(row, key, d)`."""
        return self.model.encode(self.features.expand(rows, -1, -1))  # type: ignore[attr-defined]

    def with_segments(self, segments: Segments) -> SpeechTracer:
        """The same recording with its frames pooled in another way, such as `segments.opened(...)`; what was recorded stays."""
        made = copy(self)
        made.segments, made.targets, made._encoder = segments, (), None
        if self.sources.frames is not None:
            with torch.no_grad():
                made.sources = find_sources(self.tape, self.dictionary, segments=segments.index)
            made.sweep = Sweep(self.tape, self.dictionary, made.sources)
        return made

    def forward(self, rows: int, heard: Tensor | None = None) -> Tensor:
        """Run the decoder on so many copies of the text, hooks and all: the last norm's output `(row, pos, d)`.

        Args:
            rows: Copies.
            heard: What it is given of the sound, `(row, key, d)`; None: what was recorded.
        """
        if heard is None:
            heard = self.output.expand(rows, -1, -1)
        return self.model.hf.base_model(
            encoder_outputs=(heard,), decoder_input_ids=self.ids.expand(rows, -1), use_cache=False
        ).last_hidden_state

    def silenced(self, frames: Tensor) -> Tensor:
        """How silence at some frames changes what the convolutions make of the sound: `(frame, d)`.

        Their columns of the spectrogram are set to its floor; a frame beside them may change, too.
        """
        quiet, per_frame = self.features.clone(), self.features.shape[-1] // len(self.segments.index)
        columns = (per_frame * frames[:, None] + torch.arange(per_frame)).flatten()
        quiet[..., columns] = self.features.min()
        before, after = stem_output(self.stem, torch.cat([self.features, quiet]))
        return after - before

    def patches(self, target: int = 0) -> Patches:
        """Which places of the spectrogram spoke for a target, every path counted.

        Args:
            target: Its index in the last graph, from 0.

        Raises:
            GraphError: Nothing was traced yet.
        """
        if not 0 <= target < len(self.targets):
            raise GraphError(f"There is no target {target}.", "Make a graph first.")
        seeds = target_seeds(self.tape, [self.targets[target]])
        heard = self.at_output(seeds, through=True)
        start = EncoderSweep(self.encoder.sources, through=True).at_start(heard)
        return Stem.record(self.stem, self.features).patches(start)

    # Rows ------------------------------------------------------------------------------------------------------------

    def _expandable(self) -> np.ndarray:
        decoder = super()._expandable()
        if not self.settings.encoder_nodes:
            return decoder
        s = self.encoder.sources
        return np.concatenate([decoder, np.arange(s.columns) < s.features])

    def _expand(self, targets: list[Target]) -> Store:
        store = super()._expand(targets)
        if self.settings.encoder_nodes:
            self._open(store, targets)
            self._expand_encoder(store)
        return store

    def _open(self, store: Store, targets: list[Target]) -> None:
        """Carry the targets, and the features that pass most on to the sound, into the encoder."""
        frames = self.heard_columns
        flow = store.through(frames)[len(targets) :]
        chosen = np.argsort(-flow, kind="stable")[: self.settings.carried]
        seeds = [target_seeds(self.tape, targets)]
        if len(chosen):
            columns = torch.tensor([store.columns[i] for i in chosen])
            seeds.append(feature_seeds(self.tape, self.dictionary, self.sources, columns))
        rows = np.concatenate([np.arange(len(targets)), chosen + len(targets)])
        every = Seeds.join(seeds)
        with track("Opening the encoder", len(rows), "rows") as task:
            for at in torch.arange(len(rows)).split(self._encoder_batch()):
                found = self.encoder.from_output(self.at_output(every[at])).numpy()
                for row, entries in zip(rows[at.numpy()].tolist(), found, strict=True):
                    store.opened(row, frames, entries, self.sources.columns)
                task.advance(len(at))

    def _expand_encoder(self, store: Store) -> None:
        first, decoder = self.sources.columns, len(store.columns)
        wanted = min(self.settings.encoder_nodes, self.encoder.sources.features)
        with track("Tracing the encoder", wanted, "features") as task:
            while (done := len(store.columns) - decoder) < wanted:
                best = store.most_influential(min(self.settings.update, wanted - done), first)
                if not len(best):
                    break
                for columns in best.sort(descending=True).values.split(self._encoder_batch()):
                    rows = self.encoder.of_features((columns - first).tolist())
                    store.add(rows, columns, first)
                    task.advance(len(columns))

    def _encoder_batch(self) -> int:
        """Targets carried through the encoder at once."""
        heard, widest = self.hearing, max(self.encoder_dictionary.size(0), self.tape.embed.shape[1])
        return max(1, min(16, _ENCODER_BATCH // (len(heard) * widest * heard.embed.element_size())))

    def _entries(self, rows: int) -> int:
        wanted = self.settings.encoder_nodes
        opened = (self.settings.carried + wanted) * self.encoder.sources.columns if wanted else 0
        return super()._entries(rows) + opened

    # Nodes -----------------------------------------------------------------------------------------------------------

    def described(self, columns: np.ndarray) -> Nodes:
        """The nodes of columns, features first; of the encoder's, time spans too."""
        first, parts = self.sources.columns, []
        own, theirs = columns[columns < first], columns[columns >= first] - first
        features = int((own < self.sources.features).sum())
        mine = super().described(own)
        spans = np.array(self.segments.spans)
        frame = mine.kind == FRAME
        mine.span[frame] = spans[mine.pos[frame]]
        parts = [mine.take(np.arange(features))]
        if len(theirs):
            parts.append(self._encoder_features(theirs[theirs < self.encoder.sources.features], spans))
        parts.append(mine.take(np.arange(features, len(mine))))
        if len(theirs):
            parts.append(self._encoder_others(theirs[theirs >= self.encoder.sources.features], spans))
        return Nodes.join(parts)

    def _other(self, column: int) -> tuple[int, int, int, int]:
        frames = self.sources.frames
        if frames is not None and frames.first <= column < self.sources.biases:
            return (FRAME, self.encoder_dictionary.layers, column - frames.first, NONE)
        return super()._other(column)

    def _encoder_features(self, columns: np.ndarray, spans: np.ndarray) -> Nodes:
        s = self.encoder.sources
        rows = [(FEATURE, *s.entry(column)) for column in columns.tolist()]
        activation = [s.activation[layer][s.segments[at], f].sum().item() for _, layer, at, f in rows]
        where = spans[[at for _, _, at, _ in rows]].reshape(-1, 2)
        return Nodes.of_rows(rows, s.tape.stream, np.array(activation), where)

    def _encoder_others(self, columns: np.ndarray, spans: np.ndarray) -> Nodes:
        s, count = self.encoder.sources, len(self.segments)
        rows = []
        for column in columns.tolist():
            if column < s.frames:
                rows.append((ERROR, *divmod(column - s.features, count), NONE))
            elif column < s.positions:
                rows.append((FRAME, NONE, column - s.frames, NONE))
            elif column < s.biases:
                rows.append((POSITION, NONE, column - s.positions, NONE))
            else:
                rows.append((BIAS, column - s.biases, NONE, NONE))
        where = np.array([spans[at] if at >= 0 else (np.nan, np.nan) for _, _, at, _ in rows]).reshape(-1, 2)
        return Nodes.of_rows(rows, s.tape.stream, None, where)

    def _record(self, store: Store) -> dict[str, Any]:
        encoder = self._encoder.sources.features if self.settings.encoder_nodes and self._encoder else 0
        return super()._record(store) | {
            "segments": self.segments.to_dict(),
            "encoder_dictionary": self.encoder_dictionary.describe(),
            "encoder_features": encoder,
            "encoder_layers": self.encoder_dictionary.layers,
            "totals": totals(self).to_dict(),
            **self.about,
        }
