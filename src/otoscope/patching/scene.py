"""One input under teacher forcing, passed once, from which edited rows start as late as they can.

Every teacher-forced sweep runs here. The encoder runs once; a decoder edit in layer L reuses everything below L; different edits
ride in one batch, one a row; and only the positions that a metric reads are unembedded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING, Any

import torch

from otoscope.activations import Edit
from otoscope.errors import OptionError
from otoscope.models.decoding import DecoderSession, batches
from otoscope.models.replay import FITS_SEAM, Replay
from otoscope.models.whisper import SpeechModel

if TYPE_CHECKING:
    from torch import Tensor

    from otoscope.activations import ActivationCache, HookPoint, Names
    from otoscope.models.base import Model

_POSITIONS = 32
"""Positions unembedded at once: the logits of a whole looping transcript for every row would be gigabytes."""


@dataclass(frozen=True, eq=False)
class Scene:
    """An input with its text given.

    Attributes:
        model: The model.
        inputs: What `model.forward` takes, one row.
        tokens: The text's ids `(pos,)`, prompt included.
        text: The pass of the stack that writes.
        audio: The pass of Whisper's encoder; None for other families.
    """

    model: Model
    inputs: dict[str, Any]
    tokens: Tensor
    text: Replay
    audio: Replay | None = None

    @classmethod
    def of(cls, model: Model, inputs: Any) -> Scene:
        """Pass an input once.

        Args:
            model: The model.
            inputs: One row: for Whisper a dict with `decoder_input_ids` and `input_features` (or `encoder_outputs`); for a
                language model a text, ids or a dict; for Qwen2-Audio a dict.

        Raises:
            OptionError: There is more than one row.
        """
        feed = dict(inputs) if isinstance(inputs, dict) else dict(model.inputs(inputs))  # type: ignore[attr-defined]
        ids = feed["decoder_input_ids" if isinstance(model, SpeechModel) else "input_ids"]
        if len(ids) != 1:
            raise OptionError(f"A sweep takes one input, not {len(ids)}.", "Call it once for each.")
        if isinstance(model, SpeechModel):
            return cls._of_speech(model, feed, ids)
        stack = next(iter(model.points.stacks))
        return cls(model, feed, ids[0], Replay.of(model, stack, lambda: model.forward(feed)))

    @classmethod
    def _of_speech(cls, model: SpeechModel, feed: dict[str, Any], ids: Tensor) -> Scene:
        with torch.no_grad():
            if "encoder_outputs" in feed:
                audio, encoded = None, feed["encoder_outputs"][0]
            else:
                audio = Replay.of(model, "encoder", lambda: model.encode(feed["input_features"]))
                encoded = model.normed(audio.residuals[-1])
        return cls.heard(model, encoded, ids[0], audio, feed)

    @classmethod
    def heard(
        cls,
        model: SpeechModel,
        encoded: Tensor,
        tokens: Tensor,
        audio: Replay | None = None,
        inputs: dict[str, Any] | None = None,
    ) -> Scene:
        """A scene of a clip that the encoder has heard already.

        Args:
            model: The recogniser.
            encoded: Encoder output `(1, frame, d_model)`.
            tokens: Prompt and written tokens `(pos,)`.
            audio: The encoder's pass, where encoder components are to be edited.
            inputs: What `model.forward` takes.
        """
        with torch.no_grad():
            session = DecoderSession(model, encoded)
            text = Replay.of(model, "decoder", lambda: session.read(tokens[None]), session)
        given = {"encoder_outputs": (encoded,), "decoder_input_ids": tokens[None]}
        return cls(model, inputs or given, tokens, text, audio)

    @cached_property
    def seamed(self) -> Scene:
        """The same scene, passed through the attention seam: layers are called with the masks they were kept with, and those of
        other attention implementations (a flag, or none at all) are not what the seam needs.
        """
        if self.text.attention in FITS_SEAM:
            return self
        pattern = next(name for name, point in self.model.points.items() if point.at == "pattern")
        with self.model.hooks([(pattern, lambda x, hook: None)]):
            if isinstance(self.model, SpeechModel) and self.text.session is not None:
                encoded = self.text.session.encoded[:1]
                return Scene.heard(self.model, encoded, self.tokens, self.audio, self.inputs)
            return Scene.of(self.model, self.inputs)

    # Edited rows -----------------------------------------------------------------------------------------------------

    def final(self, edits: Sequence[Sequence[Edit]]) -> Tensor:
        """What leaves the last layer `(row, pos, d_model)` with each row's own edits in place.

        Args:
            edits: The edits of every row, without rows of their own. All must lie in layers.

        Raises:
            EditError: An edit does not fit its point.
        """
        placed = [edit.at_rows(row) for row, of_row in enumerate(edits) for edit in of_row]
        points = [self.model.points[edit.point] for edit in placed]
        scene = self.seamed if any(point.needs_seam for point in points) else self
        with torch.no_grad(), self.model.editing(placed):
            return scene._leaving(points, len(edits))

    def read(self, names: Names) -> ActivationCache:
        """Activations of the unedited run; the encoder is not run again for points of the text.

        Args:
            names: Which points, as for `run_with_cache`.

        Raises:
            PointError: A name does not exist, or nothing matches.
        """
        points = self.model.points.select(names)
        scene = self.seamed if any(point.needs_seam for point in points) else self
        with torch.no_grad(), self.model.capturing([point.name for point in points]) as cache:
            scene.rerun(points, positions=[-1])
        return cache

    def rerun(
        self, points: Iterable[HookPoint], rows: int = 1, positions: Sequence[int] | None = None
    ) -> Tensor:
        """Logits `(row, position, vocab)` of rows that begin at the first of some points; hooks in place act, gradients flow.

        Args:
            points: Points that are hooked meanwhile. Where one needs the attention seam, ask `seamed` instead.
            rows: How many copies of the input run side by side.
            positions: Positions to unembed, from 0; None: all.
        """
        points = list(points)
        where = list(range(len(self.tokens))) if positions is None else list(positions)
        if any(self._outside_layers(point) for point in points):
            feed = {name: _repeated(value, rows) for name, value in self.inputs.items()}
            return self.model.forward(feed).logits[:, where]
        return self.model.unembed(self._leaving(points, rows)[:, where])

    def _leaving(self, points: Iterable[HookPoint], rows: int) -> Tensor:
        stack, layer = self._first(points)
        if stack == self.text.stack:
            return self.text.run(layer, rows)
        assert self.audio is not None
        hidden = self.audio.run(layer, rows)
        heard = self.model.normed(hidden)  # type: ignore[attr-defined]
        return self.text.run(0, rows, heard=heard)

    def logits(self, edits: Sequence[Sequence[Edit]], positions: Sequence[int] | None = None) -> Tensor:
        """Logits `(row, position, vocab)` with each row's own edits in place.

        Args:
            edits: The edits of every row, without rows of their own.
            positions: Positions to unembed, from 0; None: all.

        Raises:
            EditError: An edit does not fit its point.
        """
        placed = [edit.at_rows(row) for row, of_row in enumerate(edits) for edit in of_row]
        points = [self.model.points[edit.point] for edit in placed]
        scene = self.seamed if any(point.needs_seam for point in points) else self
        with torch.no_grad(), self.model.editing(placed):
            return scene.rerun(points, len(edits), positions)

    def logprobs(self, edits: Sequence[Sequence[Edit]], first: int) -> Tensor:
        """Log-probability of each given token from position `first` on, `(row, token)`, float32."""
        positions = list(range(first - 1, len(self.tokens) - 1))
        written = self.tokens[first:].expand(len(edits), -1)[..., None]
        if any(self._outside_layers(self.model.points[e.point]) for of_row in edits for e in of_row):
            return _logprobs(self.logits(edits, positions), written)
        with torch.no_grad():
            final = self.final(edits)[:, positions]
            parts = zip(final.split(_POSITIONS, dim=1), written.split(_POSITIONS, dim=1), strict=True)
            return torch.cat([_logprobs(self.model.unembed(part), ids) for part, ids in parts], dim=1)

    def first_layer(self, edits: Iterable[Edit]) -> tuple[str, int]:
        """Stack and layer that a row with these edits must start at; without edits, the last layer."""
        return self._first(self.model.points[edit.point] for edit in edits)

    def chunks(self, edits: Sequence[Sequence[Edit]], size: int) -> Iterator[list[int]]:
        """Rows that should run together, at most `size` at once, by their number.

        Decoder rows ride together from the lowest of their layers, which costs little; encoder rows, whose layers cost most, only
        with those that begin at the same one.
        """
        starts = [self.first_layer(of_row) for of_row in edits]
        order = sorted(range(len(edits)), key=lambda i: starts[i])
        apart = groupby(order, key=lambda i: starts[i] if starts[i][0] == "encoder" else None)
        return (chunk for _, rows in apart for chunk in batches(rows, size))

    def _first(self, points: Iterable[HookPoint]) -> tuple[str, int]:
        places = list(points)
        audio = [p.layer or 0 for p in places if p.stack == "encoder"]
        if audio:
            return "encoder", min(audio)
        return self.text.stack, min((p.layer or 0 for p in places), default=self.text.layers - 1)

    def _outside_layers(self, point: HookPoint) -> bool:
        """Whether a point cannot be met by calling layers: an embedding, a final norm, a tower without a pass of its own."""
        return point.layer is None or (point.stack != self.text.stack and self.audio is None)


def _repeated(value: Any, rows: int) -> Any:
    if isinstance(value, torch.Tensor):
        return value.expand(rows, *value.shape[1:])
    return tuple(_repeated(part, rows) for part in value) if isinstance(value, tuple) else value


def _logprobs(logits: Tensor, ids: Tensor) -> Tensor:
    logits = logits.float()
    return (logits.gather(2, ids) - logits.logsumexp(dim=2, keepdim=True))[..., 0]
