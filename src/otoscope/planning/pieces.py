"""The pieces that commands are made of, rehearsed on a model without weights: hearing, reading a text again, writing one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cache
from typing import TYPE_CHECKING

import torch

from otoscope.errors import ModelError
from otoscope.models.causal_lm import LanguageModel
from otoscope.models.decoding import DecoderSession, cache_name
from otoscope.models.qwen2_audio import AudioLanguageModel
from otoscope.models.whisper import SpeechModel
from otoscope.planning.rehearsal import Cost, Rehearsal

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from otoscope.activations import HookPoint
    from otoscope.models.base import Model
    from otoscope.planning.machine import Machine

WINDOW = 30.0
"""Seconds that are heard at once, padded with silence where there is less."""


class Pieces(ABC):
    """What a model's parts take on a machine.

    Args:
        model: A model on the meta device.
        machine: The machine.

    Attributes:
        prompt: Positions before the text.
        writes: The stack that writes.
        hears: The stack that hears, or None.
    """

    prompt: int
    writes: str
    hears: str | None

    def __init__(self, model: Model, machine: Machine) -> None:
        self.model, self.machine = model, machine
        self.hear = cache(self._hear)
        self.read = cache(self._read)

    @abstractmethod
    def _hear(self, rows: int) -> Cost:
        """Hear so many windows at once."""

    @abstractmethod
    def _read(self, rows: int, positions: int, last: int = 0, own: bool = False) -> Cost:
        """Read so many rows of a text at once, without earlier steps.

        Args:
            rows: Rows.
            positions: Of each.
            last: Positions of a cache before them.
            own: Whether every row hears a sound of its own.
        """

    def write(self, rows: int, tokens: int, own: bool = False) -> Cost:
        """Write so many tokens in each row, one after another, with a cache.

        Args:
            rows: Rows.
            tokens: Of each.
            own: Whether every row hears a sound of its own.
        """
        first = self.read(rows, self.prompt, 0, own)
        step = self.read(rows, 1, self.prompt + tokens // 2, own)
        return first + (step + self._choosing(rows)) * tokens

    def _choosing(self, rows: int) -> Cost:
        """What is done with the scores of a step to choose a token."""
        hidden = self.ids(90)  # about as many tokens are never written

        def choose() -> None:
            scores = self.empty(rows, self.vocabulary).float()
            logp = scores.index_fill(1, hidden, 0.0).log_softmax(-1)
            torch.linalg.vecdot(logp.exp(), logp.clamp(min=0.0))
            scores.argmax(-1)

        return self.rehearsed(choose)

    @property
    def vocabulary(self) -> int:
        """Tokens that can be written."""
        config = self.model.config
        return int(getattr(config, "vocab_size", None) or config.text_config.vocab_size)  # type: ignore[union-attr]

    def unembed(self, positions: int) -> Cost:
        """Read so many residual vectors as scores of all tokens, and their probabilities."""
        x = self.empty(positions, self.width(self.writes))
        return self.rehearsed(lambda: self.model.unembed(x).float().log_softmax(-1).exp())

    def layers(self, stack: str) -> int:
        """Layers of a stack."""
        return len(self.model.hf.get_submodule(self.model.points.layers[stack]))  # type: ignore[arg-type]

    def width(self, stack: str) -> int:
        """Numbers in a residual vector."""
        return int(self._point(stack, "hook_resid_pre").width or 0)

    def hidden(self, stack: str) -> int:
        """Neurons of an MLP."""
        return int(self._point(stack, "mlp.hook_post").width or 0)

    def heads(self, stack: str) -> int:
        """Heads of an attention."""
        part = "self_attn" if stack == "decoder" else "attn"
        return int(self._point(stack, f"{part}.hook_z").heads or 1)

    def _point(self, stack: str, name: str) -> HookPoint:
        return self.model.points[f"{self.model.points.stacks[stack]}.0.{name}"]

    @property
    def itemsize(self) -> int:
        """Bytes of a number."""
        return self.model.dtype.itemsize

    @property
    def frames(self) -> int:
        """Positions of the stack that hears, in a window; 0 where nothing hears."""
        config = self.model.config
        return int(getattr(getattr(config, "audio_config", config), "max_source_positions", 0))

    def empty(self, *shape: int) -> Tensor:
        """A tensor of the model's precision."""
        return torch.empty(*shape, device="meta", dtype=self.model.dtype)

    def ids(self, *shape: int) -> Tensor:
        """Tokens."""
        return torch.zeros(*shape, device="meta", dtype=torch.long)

    def rehearsed(self, work: Callable[[], object]) -> Cost:
        """What some work takes."""
        with torch.no_grad(), Rehearsal(self.machine) as rehearsal:
            work()
        return rehearsal.cost


class WhisperPieces(Pieces):
    """Of a recogniser."""

    prompt, writes, hears = 4, "decoder", "encoder"

    def _hear(self, rows: int) -> Cost:
        mel = self.empty(rows, int(self.model.config.num_mel_bins), 2 * self.frames)
        return self.rehearsed(lambda: self.model.encode(mel))  # type: ignore[attr-defined]

    def _read(self, rows: int, positions: int, last: int = 0, own: bool = False) -> Cost:
        heard = self.empty(rows if own else 1, self.frames, self.width("encoder"))

        def begin() -> DecoderSession:
            session = DecoderSession(self.model, heard, None if own else [0] * rows)  # type: ignore[arg-type]
            if last:
                session.read(self.ids(rows, last))
            return session

        if not last:
            return self.rehearsed(lambda: begin().step(self.ids(rows, positions)))
        with torch.no_grad(), Rehearsal(self.machine) as before:
            session = begin()
        held = self.kept(rows, last, own)
        step = self.rehearsed(lambda: session.step(self.ids(rows, positions)))
        del before
        return step.holding(held)

    def kept(self, rows: int, positions: int, own: bool) -> float:
        """Bytes of keys and values of both attentions."""
        sounds = rows if own else 1
        numbers = (
            2 * self.layers("decoder") * self.width("decoder") * (rows * positions + sounds * self.frames)
        )
        return float(numbers * self.itemsize)


class TextPieces(Pieces):
    """Of a language model, and of one that hears: there sound takes places of the text, 40 ms each."""

    def __init__(self, model: Model, machine: Machine, seconds: float) -> None:
        super().__init__(model, machine)
        self.writes = next(iter(model.points.stacks))
        self.hears = "audio_encoder" if isinstance(model, AudioLanguageModel) else None
        self.prompt = (round(25 * min(seconds, WINDOW)) if self.hears else 0) + 20

    def _hear(self, rows: int) -> Cost:
        if self.hears is None:
            return Cost()
        tower, projector = (
            self.model.hf.get_submodule(f"model.{name}") for name in ("audio_tower", "multi_modal_projector")
        )
        mel = self.empty(rows, int(self.model.config.audio_config.num_mel_bins), 2 * self.frames)  # type: ignore[union-attr]
        return self.rehearsed(lambda: projector(tower(mel).last_hidden_state))

    def _read(self, rows: int, positions: int, last: int = 0, own: bool = False) -> Cost:
        from transformers import DynamicCache

        stack = (
            self.model.hf.get_submodule("model.language_model") if self.hears else self.model.hf.base_model
        )
        earlier = DynamicCache()

        def step(count: int) -> None:
            given = {cache_name(type(stack)): earlier, "use_cache": True}
            hidden = stack(inputs_embeds=self.empty(rows, count, self.width(self.writes)), **given)
            self.model.hf.get_output_embeddings()(hidden.last_hidden_state[:, -1:])  # type: ignore[operator]

        if last:
            self.rehearsed(lambda: step(last))
        held = sum(2.0 * x.keys.numel() * self.itemsize for x in earlier.layers if last)  # type: ignore[union-attr]
        return self.rehearsed(lambda: step(positions)).holding(held)


def pieces_of(model: Model, machine: Machine, seconds: float) -> Pieces:
    """The pieces of a model, for recordings of so many seconds.

    Raises:
        ModelError: The model is of another kind.
    """
    if isinstance(model, SpeechModel):
        return WhisperPieces(model, machine)
    if isinstance(model, (AudioLanguageModel, LanguageModel)):
        return TextPieces(model, machine, seconds)
    raise ModelError(
        f"Nothing is known of what {model.origin.name} takes.",
        "Plan a Whisper model, Qwen2-Audio or a language model.",
    )
