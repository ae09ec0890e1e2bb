"""Residual streams of every layer, pooled to one vector a recording, while the model hears and writes.

Names of pooled vectors are `STACK.POOL.LAYER`, such as `encoder.mean.2` (layers are counted from 0; a layer is its
`hook_resid_post`). Pools of an encoder go over the frames that hold sound, not over the padding of the window. Pools of a decoder
go over the states that wrote tokens: the state that wrote token i is the one at the position before it.

- `mean`, `max`: over the sound's frames (pauses within it included); over the states that wrote text.
- `speech`: the mean over those frames of the sound that are at most 30 dB quieter than its loudest: pauses are left out, as far
  as loudness tells. Encoders only.
- `last`: the last frame of the sound; the state that wrote the last token of the text.
- `end`: the state that wrote the end-of-text token (where the text ran out of room, the last state). Decoders only.
- `frames`: every frame of the sound. Encoders only.

A text of no tokens has one state, the one that wrote end-of-text, which then stands for all pools.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from otoscope.machine import give_back_freed_memory
from otoscope.models.transcribing import Window, frames_of

if TYPE_CHECKING:
    from torch import Tensor

    from otoscope.activations import HookFunction, Visit
    from otoscope.models.base import Model
    from otoscope.models.decoding import LogitFilter
    from otoscope.models.whisper import SpeechModel

Vectors = dict[str, np.ndarray]
"""Pooled vectors by name: `(d,)` each, `(frame, d)` for `frames`; float32."""

_PAUSE = 0.75  # of the model's log-mel units, of which one is 40 dB

MEL = "mel"
"""Name of the baseline: mean and standard deviation of every mel band over the sound, `(2 * mel,)`."""


def stack_points(model: Model, stack: str) -> list[str]:
    """`hook_resid_post` of every layer of a stack, in order."""
    prefix = model.points.stacks[stack]
    return [name for name in model.points if name.startswith(prefix) and name.endswith(".hook_resid_post")]


def pool_spans(x: Tensor, spans: Sequence[slice], pools: Sequence[str]) -> dict[str, list[np.ndarray]]:
    """Pool each row over its own span of positions.

    Args:
        x: `(row, pos, d)`.
        spans: Positions of each row; at least one.
        pools: Of `mean`, `max`, `last`, `frames`.

    Returns:
        For each pool one `(d,)` (or `(pos, d)` for `frames`) a row, in float32; none shares memory with `x`.
    """
    rows = [x[i, span].float() for i, span in enumerate(spans)]
    ways = {
        "mean": lambda: _together([row.mean(dim=0) for row in rows]),
        "max": lambda: _together([row.amax(dim=0) for row in rows]),
        "last": lambda: _together([row[-1] for row in rows]),
        "frames": lambda: [row.clone().cpu().numpy() for row in rows],
    }
    return {pool: ways[pool]() for pool in pools}


def _together(vectors: list[Tensor]) -> list[np.ndarray]:
    """The vectors of a batch in one piece: what outlives it must not lie scattered between the model's buffers."""
    return list(torch.stack(vectors).cpu().numpy())


def pool_forward(
    model: Model,
    inputs: object,
    spans: Mapping[str, Sequence[slice]],
    pools: Sequence[str] = ("mean",),
) -> list[Vectors]:
    """One teacher-forced forward pass, every layer of the named stacks pooled; for any family.

    Args:
        model: The model.
        inputs: What `model.forward` takes, of `row` rows.
        spans: For each stack (`encoder`, `decoder`, `audio_encoder`, `text`) the positions of each row to pool.
        pools: Of `mean`, `max`, `last`; `frames` for every position.

    Returns:
        One dict of vectors a row.
    """
    rows = len(next(iter(spans.values())))
    out: list[Vectors] = [{} for _ in range(rows)]

    def pooling(stack: str, layer: int) -> tuple[str, object]:
        def pool(x: Tensor, hook: Visit) -> None:
            for way, vectors in pool_spans(x, spans[stack], pools).items():
                for row, vector in zip(out, vectors, strict=True):
                    row[f"{stack}.{way}.{layer}"] = vector

        return stack_points(model, stack)[layer], pool

    hooks = [pooling(stack, layer) for stack in spans for layer in range(len(stack_points(model, stack)))]
    with torch.no_grad(), model.hooks(hooks):  # type: ignore[arg-type]
        model.forward(inputs)
    return out


class _Written:
    """Running pools of a batch's decoder states; a state counts once its token is known.

    They lie in one block that is made before the model runs. States kept as they come would each hold a whole step's, and lie
    scattered between the model's buffers, so that the heap grew with every shard.

    Args:
        shape: `(row, layer, d)`.
        device: Where the states are.
    """

    def __init__(self, shape: tuple[int, int, int], device: torch.device) -> None:
        self.sum, self.most, self.last, self.newest = torch.zeros((4, *shape), device=device)
        self.most.fill_(-torch.inf)
        self.counts = [0] * shape[0]
        self._begun = False

    def take(self, rows: Sequence[int], states: Tensor) -> None:
        """Note new states `(row, layer, d)`: those before them, it turns out, wrote text."""
        if self._begun:
            self._wrote_text(rows)
        self.newest[rows] = states
        self._begun = True

    def _wrote_text(self, rows: Sequence[int]) -> None:
        states = self.newest[rows]
        self.sum[rows] += states
        self.most[rows] = torch.maximum(self.most[rows], states)
        self.last[rows] = states
        for row in rows:
            self.counts[row] += 1

    def pools(self, row: int, finished: bool) -> tuple[dict[str, Tensor], int]:
        """`(layer, d)` by pool, and the number of states behind the mean."""
        if not finished:  # it ran out of room: the newest state wrote text, too
            self._wrote_text([row])
        count = self.counts[row]
        if not count:
            return dict.fromkeys(("mean", "max", "last", "end"), self.newest[row]), 1
        return {
            "mean": self.sum[row].div_(count),
            "max": self.most[row],
            "last": self.last[row],
            "end": self.newest[row],
        }, count


@dataclass(eq=False)
class _Row:
    """What is read from one window."""

    number: int  # in its batch
    frames: int
    speech: Tensor  # (frame,) whether it is loud enough
    vectors: Vectors
    written: _Written | None
    ended: bool = False


@dataclass(eq=False)
class _Step:
    """The newest decoder states, and which rows they belong to."""

    states: dict[int, Tensor] = field(default_factory=dict)  # layer -> (row, d)
    rows: Sequence[int] = ()
    done: int = 0


class Pooler:
    """A watcher for `transcribe_all` and `hear_all` that pools every layer in passing.

    Args:
        model: The recogniser.
        encoder: Pools of the encoder.
        decoder: Pools of the decoder; none: the decoder is not read.
        texts: Token ids to write, by source and window, instead of what the model would.
    """

    def __init__(
        self,
        model: SpeechModel,
        encoder: Sequence[str] = ("mean",),
        decoder: Sequence[str] = (),
        texts: Mapping[tuple[int, int], Sequence[int]] | None = None,
    ) -> None:
        self.model = model
        self.encoder, self.decoder, self.texts = tuple(encoder), tuple(decoder), texts
        self._layers = len(stack_points(model, "decoder"))
        self._done: dict[tuple[int, int], _Row] = {}

    @contextmanager
    def watching(self, features: Tensor, windows: Sequence[Window]) -> Iterator[Sequence[LogitFilter]]:
        """Read one batch; see `Watcher`."""
        give_back_freed_memory()  # what was pooled lies between the blocks of the last batch
        frames = [frames_of(self.model, window.clip) for window in windows]
        heard = zip(frames, loud_frames(features, frames), mel_statistics(features, frames), strict=True)
        written = self._written(len(windows)) if self.decoder else None
        rows = [_Row(i, n, loud, {MEL: mel}, written) for i, (n, loud, mel) in enumerate(heard)]
        step = _Step()
        hooks = [(name, self._hearing(rows, layer)) for layer, name in self._points("encoder", self.encoder)]
        hooks += [(name, _stepping(step, layer)) for layer, name in self._points("decoder", self.decoder)]
        with self.model.hooks(hooks):
            yield [] if written is None else self._filters(rows, step, written, windows)
        for window, row in zip(windows, rows, strict=True):
            self._done[window.recording, window.number] = row

    def _points(self, stack: str, pools: Sequence[str]) -> list[tuple[int, str]]:
        return list(enumerate(stack_points(self.model, stack))) if pools else []

    def _hearing(self, rows: Sequence[_Row], layer: int) -> HookFunction:
        def hear(x: Tensor, hook: Visit) -> None:
            plain = [pool for pool in self.encoder if pool != "speech"]
            pools = pool_spans(x, [slice(0, row.frames) for row in rows], plain)
            if "speech" in self.encoder:
                loud = (x[i, : row.frames][row.speech].float() for i, row in enumerate(rows))
                pools["speech"] = _together([frames.mean(dim=0) for frames in loud])
            for pool, vectors in pools.items():
                for row, vector in zip(rows, vectors, strict=True):
                    row.vectors[f"encoder.{pool}.{layer}"] = vector

        return hear

    def _written(self, rows: int) -> _Written:
        return _Written((rows, self._layers, self.model.config.d_model), self.model.device)

    def _filters(
        self, rows: Sequence[_Row], step: _Step, written: _Written, windows: Sequence[Window]
    ) -> list[LogitFilter]:
        follow = self._following(rows, step, written)
        if self.texts is None:
            return [follow]
        texts = [self.texts.get((window.recording, window.number), ()) for window in windows]
        return [follow, _forcing(texts, self.model.end_token, step)]

    def _following(self, rows: Sequence[_Row], step: _Step, written: _Written) -> LogitFilter:
        """Called once every layer of a step has been read; an end token that is fed tells that a row had ended before it."""

        def follow(tokens: Tensor, logits: Tensor) -> Tensor:
            for i, token in zip(step.rows, tokens[:, -1].tolist(), strict=True):
                rows[i].ended |= token == self.model.end_token and step.done > 0
            places = [place for place, i in enumerate(step.rows) if not rows[i].ended]
            states = torch.stack([step.states[layer] for layer in range(self._layers)], dim=1)
            written.take([step.rows[place] for place in places], states[places].float())
            step.done += 1
            return logits

        return follow

    def take(self, recording: int, finished: Sequence[bool] = ()) -> Vectors:
        """Vectors of a recording, its windows put together, and forget them.

        Args:
            recording: Which of the sources.
            finished: For each window whether its text ended by itself; needed where the decoder is read.
        """
        numbers = sorted(number for of, number in self._done if of == recording)
        rows = [self._done.pop((recording, number)) for number in numbers]
        parts, counts = [row.vectors for row in rows], {"encoder": [row.frames for row in rows]}
        counts["encoder.speech"] = [int(row.speech.sum()) for row in rows]
        if self.decoder:
            counts["decoder"] = [
                self._add_written(row, ended) for row, ended in zip(rows, finished, strict=True)
            ]
        return _joined(parts, counts)

    def _add_written(self, row: _Row, finished: bool) -> int:
        """Add the decoder's pools to a row's vectors; the number of states behind the mean."""
        assert row.written is not None
        pools, count = row.written.pools(row.number, finished)
        for pool in self.decoder:
            row.vectors |= {f"decoder.{pool}.{i}": v for i, v in enumerate(pools[pool].cpu().numpy())}
        return count


def _stepping(step: _Step, layer: int) -> HookFunction:
    def note(x: Tensor, hook: Visit) -> None:
        if hook.phase != "detect_language":
            step.states[layer] = x[:, -1]  # the last position writes the next token
            step.rows = range(len(x)) if hook.rows is None else hook.rows

    return note


def _forcing(texts: Sequence[Sequence[int]], end: int, step: _Step) -> LogitFilter:
    """Leaves each row only the next token of its text, then the end token."""

    def force(tokens: Tensor, logits: Tensor) -> Tensor:
        t = step.done - 1  # the step was counted just before
        wanted = [texts[i][t] if t < len(texts[i]) else end for i in step.rows]
        forced = torch.full_like(logits, -torch.inf)
        return forced.scatter_(1, torch.tensor(wanted, device=logits.device)[:, None], 0.0)

    return force


def loud_frames(features: Tensor, frames: Sequence[int]) -> list[Tensor]:
    """Which frames `(frame,)` of each row are at most 30 dB quieter than its loudest, by their mean log-mel energy."""
    out = []
    for i, n in enumerate(frames):
        energy = features[i, :, : 2 * n].float().mean(dim=0).unflatten(0, (-1, 2)).mean(dim=1)
        out.append(energy > energy.max() - _PAUSE)
    return out


def mel_statistics(features: Tensor, frames: Sequence[int]) -> list[np.ndarray]:
    """Mean and deviation of each mel band over the sound, `(2 * mel,)` a row; there are two columns of 10 ms a frame."""
    rows = (features[i, :, : 2 * n].float() for i, n in enumerate(frames))
    return [torch.cat([row.mean(dim=1), row.std(dim=1, unbiased=False)]).cpu().numpy() for row in rows]


def _joined(parts: Sequence[Vectors], counts: Mapping[str, Sequence[int]]) -> Vectors:
    """Windows of one recording as if they had been one: means weighted, maxima taken, frames in a row, of others the last."""
    if len(parts) == 1:
        return parts[0]

    def join(name: str) -> np.ndarray:
        stack, pool = (
            "encoder" if name == MEL else name.split(".")[0],
            "mean" if name == MEL else name.split(".")[1],
        )
        values = [vectors[name] for vectors in parts]
        if pool in ("mean", "speech"):
            weights = counts.get(f"{stack}.{pool}", counts[stack])
            return np.average(values, axis=0, weights=weights).astype(np.float32)
        if pool == "max":
            return np.max(values, axis=0)
        return np.concatenate(values) if pool == "frames" else values[-1]

    return {name: join(name) for name in parts[0]}
