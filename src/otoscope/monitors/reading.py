"""Following a decoder while it writes: a watcher that hands on, block by block, what its steps were.

Of every step are kept the residual stream at some layers, the queries of the alignment heads and the scores of the tokens; once a
block of steps is full, or a row leaves the batch, what a monitor reads is computed for all of them at once, which costs a
fraction of what it would step by step. Nothing of the model is computed again: keys and encoder output are its cache's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from otoscope.activations import CACHE_NAMES
from otoscope.errors import OptionError
from otoscope.machine import numpy_on_one_thread
from otoscope.models.decoding import alignment_heads
from otoscope.monitors.signals import Track

if TYPE_CHECKING:
    from torch import Tensor

    from otoscope.activations import HookPoint, Visit
    from otoscope.models.decoding import LogitFilter
    from otoscope.models.whisper import SpeechModel

EVERY = 8
"""Steps a block, where somebody waits for an alarm."""

UNHURRIED = 32
"""Steps a block, where nobody does: what is told of each step is the same."""

HEADS = 6
"""Alignment heads that are followed, at most: the attention of every further one costs as much again."""


@dataclass(frozen=True, eq=False)
class Block:
    """Successive steps of one row.

    Attributes:
        row: Which row of the batch it was at first.
        first: Number of its first step, from 0.
        residual: Residual stream after each watched layer where the token is chosen, `(step, layer, d_model)`.
        attention: Mean attention of the alignment heads over the window's frames, `(step, frame)`.
        encoded: The row's encoder output `(frame, d_model)`.
        signals: `(step, signal)`, see `otoscope.monitors.signals`.
        track: The row so far.
        read: What a dictionary reads, by layer: `(step, d_in)`.
    """

    row: int
    first: int
    residual: Tensor
    attention: Tensor
    encoded: Tensor
    signals: np.ndarray
    track: Track
    read: Mapping[int, Tensor] = field(default_factory=dict)


@dataclass(eq=False)
class _Batch:
    """One batch of rows that write."""

    tracks: list[Track]
    encoded: Tensor
    keys: Tensor  # (row, head, d_head, frame), scaled
    rows: tuple[int, ...] = ()
    pending: list[_Step] = field(default_factory=list)
    ended: list[bool] = field(default_factory=list)


@dataclass(eq=False)
class _Step:
    """What one step left: of the rows that were present."""

    residual: list[Tensor] = field(default_factory=list)  # of each watched layer (row, d_model)
    queries: list[Tensor] = field(
        default_factory=list
    )  # of each layer with followed heads (row, head * d_head)
    read: dict[int, Tensor] = field(default_factory=dict)  # of each layer of a dictionary (row, d_in)
    logits: Tensor | None = None
    written: list[int] = field(default_factory=list)


class Reader:
    """Follows every row of a decoder.

    Args:
        model: The recogniser.
        layers: Decoder layers (0-based) whose residual stream is kept.
        take: Called with every block.
        every: Steps a block.
        reads: Points that a dictionary reads, by layer.
    """

    def __init__(
        self,
        model: SpeechModel,
        layers: Sequence[int],
        take: Callable[[Block], None],
        every: int = EVERY,
        reads: Mapping[int, str] | None = None,
    ) -> None:
        self.model, self.layers, self.take, self.every = model, tuple(layers), take, every
        self._reads = dict(reads or {})
        self._heads = followed_heads(model)
        self._batch: _Batch | None = None
        self._cache: Any = None
        self._encoded: Tensor | None = None
        self._prompt: Tensor | None = None  # (row, pos, vocab), the logits of the prompt
        self._step = _Step()
        self._visit: Visit | None = None

    @contextmanager
    def following(self, frames: Sequence[int] | None = None) -> Iterator[LogitFilter]:
        """Follow what is written inside the block.

        Args:
            frames: Frames that belong to the sound, of each row; None: all of the window.

        Yields:
            The logit filter that must be called last at every step; it changes nothing.
        """
        decoder = self.model.hf.model.decoder  # type: ignore[union-attr]
        handles = [
            decoder.register_forward_pre_hook(self._meet, with_kwargs=True),  # type: ignore[operator]
            self.model.hf.proj_out.register_forward_hook(self._keep_prompt),  # type: ignore[operator]
        ]
        try:
            with self.model.looking(self._looks()):
                yield lambda tokens, logits: self._follow(tokens, logits, frames)
                self.flush()
        finally:
            for handle in handles:
                handle.remove()
            self._batch = self._cache = self._encoded = self._prompt = None

    def flush(self) -> None:
        """Hand on what waits for its block to fill."""
        if self._batch is not None and self._batch.pending:
            self._hand_on(self._batch)

    def _looks(self) -> list[tuple[str, Callable[[Tensor, HookPoint], None]]]:
        return [
            *((f"decoder_blocks.{n}.hook_resid_post", self._keep_residual) for n in self.layers),
            *((f"decoder_blocks.{n}.cross_attn.hook_q", self._keep_queries) for n in self._heads),
            *((point, partial(self._keep_read, layer)) for layer, point in self._reads.items()),
        ]

    def _meet(self, _module: object, _args: tuple, kwargs: dict[str, Any]) -> None:
        self._step = _Step()  # a call that asks for the language is followed by no choice of a token
        self._cache = next((kwargs[name] for name in CACHE_NAMES if kwargs.get(name) is not None), None)
        self._encoded = kwargs.get("encoder_hidden_states")

    def _keep_residual(self, raw: Tensor, point: HookPoint) -> None:
        self._step.residual.append(raw[:, -1])  # the last position writes the next token

    def _keep_queries(self, raw: Tensor, point: HookPoint) -> None:
        self._step.queries.append(raw[:, -1])
        if len(self._step.queries) == 1:  # once a step: the rows are known while the model runs alone
            self._visit = self.model.visit(point.name)

    def _keep_read(self, layer: int, raw: Tensor, point: HookPoint) -> None:
        self._step.read[layer] = point.layout.read(raw)[:, -1]

    def _keep_prompt(self, _module: object, _args: tuple, logits: Tensor) -> None:
        self._prompt = logits if logits.shape[1] > 1 else None

    def _follow(self, tokens: Tensor, logits: Tensor, frames: Sequence[int] | None) -> Tensor:
        """Note one step; the model has just computed it."""
        step, visit = self._step, self._visit
        if visit is None:
            return logits
        if visit.phase == "prefill":
            self.flush()
            self._batch = self._begin(tokens, frames)
        batch = self._batch
        if batch is None or self._cache is None:
            return logits
        rows = tuple(range(len(tokens))) if visit.rows is None else visit.rows
        if rows != batch.rows:
            self.flush()
            batch.rows = rows
        step.logits, step.written = logits, tokens[:, -1].tolist()
        batch.pending.append(step)
        first = (
            visit.phase == "prefill"
        )  # what is known before the first token may keep it from being written
        if first or len(batch.pending) >= self.every:
            self._hand_on(batch)
        return logits

    def _begin(self, tokens: Tensor, frames: Sequence[int] | None) -> _Batch:
        assert self._encoded is not None
        rows = len(tokens)
        if frames is not None and len(frames) != rows:
            raise OptionError(
                f"{rows} rows are written, and {len(frames)} recordings were named.",
                "Watch recordings of one window, without fallback to other temperatures, or one recording at a time.",
            )
        whole = self._encoded.shape[1]
        counts = [whole] * rows if frames is None else [min(n, whole) for n in frames]
        layers = self._cache.cross_attention_cache.layers
        keys = torch.cat([layers[layer].keys[:, heads] for layer, heads in self._heads.items()], dim=1)
        scaled = keys.transpose(2, 3).float() * keys.shape[-1] ** -0.5
        silence = self._silence(tokens)
        tracks = [Track(max(n, 1), odds) for n, odds in zip(counts, silence, strict=True)]
        batch = _Batch(tracks, self._encoded, scaled)
        batch.rows, batch.ended = tuple(range(rows)), [False] * rows
        return batch

    def _silence(self, tokens: Tensor) -> list[float]:
        """Log-odds of the no-speech token of each row, after the start token; 0 where the prompt's logits were not computed."""
        start = (tokens[0] == self.model.start_token).nonzero()
        if self._prompt is None or not len(start):
            return [0.0] * len(tokens)
        p = torch.softmax(self._prompt[:, int(start[-1])].float(), dim=-1)[:, self.model.no_speech_token]
        return torch.logit(p.double(), eps=1e-8).tolist()

    def _hand_on(self, batch: _Batch) -> None:
        """Compute what the pending steps were, row by row."""
        # A thread of NumPy's own that shares one of these small products goes on spinning beside the model's next steps.
        with numpy_on_one_thread():
            self._compute(batch)

    def _compute(self, batch: _Batch) -> None:
        steps, batch.pending = batch.pending, []
        sure = torch.stack([likeliest(step.logits) for step in steps], dim=1).cpu().numpy()  # type: ignore[arg-type]
        queries = [
            self._queries(torch.stack([step.queries[i] for step in steps], dim=1), heads)
            for i, heads in enumerate(self._heads.values())
        ]
        whole = len(batch.rows) == len(batch.keys)
        keys = batch.keys if whole else batch.keys[list(batch.rows)]
        attention = torch.softmax(torch.cat(queries, dim=1) @ keys, dim=-1).mean(dim=1)
        residual = torch.stack([torch.stack(step.residual, dim=1) for step in steps], dim=1)
        read = {n: torch.stack([step.read[n] for step in steps], dim=1) for n in self._reads}
        end = self.model.end_token
        for place, row in enumerate(batch.rows):
            track = batch.tracks[row]
            written = [step.written[place] for step in steps]
            # A row that ended is fed the end token until it leaves the batch.
            alive = next((i for i, t in enumerate(written) if t == end and (i or track.steps)), len(written))
            if batch.ended[row] or not alive:
                batch.ended[row] = True
                continue
            batch.ended[row] = alive < len(written)
            heard = attention[place, :alive]
            signals = track.advance(sure[place, :alive], heard.cpu().numpy(), written[:alive])
            first = track.steps - alive
            of_row = {n: x[place, :alive] for n, x in read.items()}
            self.take(
                Block(row, first, residual[place, :alive], heard, batch.encoded[row], signals, track, of_row)
            )

    def _queries(self, raw: Tensor, heads: list[int]) -> Tensor:
        """Of the followed heads of a layer, `(row, head, step, d_head)`."""
        every = raw.unflatten(-1, (self.model.config.decoder_attention_heads, -1))
        return every[:, :, heads].transpose(1, 2).float()


def followed_heads(model: SpeechModel) -> dict[int, list[int]]:
    """Alignment heads that are followed, by layer: the last ones, for their layers know best where the text is."""
    heads: dict[int, list[int]] = {}
    for layer, head in sorted(alignment_heads(model))[-HEADS:]:
        heads.setdefault(layer, []).append(head)
    return heads


def likeliest(logits: Tensor) -> Tensor:
    """Log-probability of the likeliest token: `(..., vocab)` to `(...)`."""
    scores = logits.float()
    # In place, and step by step: a logsumexp of several steps at once costs twice as much.
    return -(scores - scores.amax(dim=-1, keepdim=True)).exp_().sum(dim=-1).log_()
