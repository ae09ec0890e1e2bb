"""The sources of attribution: what writes into the stream, and the columns they have in a row of the full matrix.

Columns, in this order: active features by layer, position and feature; errors by layer and position; tokens; learned
positions; frames, or segments of frames, that cross-attention reads; biases by layer, a target's own constant among them. The
last bias column is the final norm's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from otoscope.dictionaries.base import Active, Dictionary
from otoscope.errors import DictionaryError, GraphError

if TYPE_CHECKING:
    from torch import Tensor

    from otoscope.circuits.tape import AttentionTape, MlpTape, Tape


@dataclass(frozen=True, eq=False)
class Frames:
    """What cross-attention reads, pooled into segments. Pooling is exact: everything is linear in the frames.

    Attributes:
        first: First column.
        count: Number of segments.
        segment: `(frame,)` segment of each frame, from 0.
    """

    first: int
    count: int
    segment: Tensor

    def carried(self, a: AttentionTape) -> Tensor:
        """`(query, head * d_head, segment)`: what each segment put into each head's output, without the value bias."""
        w = a.wiring
        values = (
            (a.x @ w.v.weight.T)
            .unflatten(-1, (w.kv_heads, -1))
            .repeat_interleave(w.heads // w.kv_heads, dim=1)
        )
        queries, d_head = a.pattern.shape[1], values.shape[-1]
        out = values.new_zeros(queries, w.heads, d_head, self.count)
        order = self.segment.argsort(stable=True)
        sizes = torch.bincount(self.segment, minlength=self.count).tolist()
        for head in range(w.heads):
            weights, v = a.pattern[head][:, order], values[order, head]
            for number, (p, part) in enumerate(zip(weights.split(sizes, dim=1), v.split(sizes), strict=True)):
                out[:, head, :, number] = p @ part
        return out.flatten(1, 2)


@dataclass(frozen=True, eq=False)
class Sources:
    """Everything that writes.

    Attributes:
        actives: Active features of every layer.
        starts: First feature column of every layer, and the first column after the features.
        errors: `(layer, pos, d)` what the dictionary misses, at the place it writes to; None where it misses nothing.
        tokens: First token column; one a position.
        positions: First learned-position column, or None.
        frames: What cross-attention reads, or None.
        biases: First bias column; one a layer, and one after them.
        columns: Number of columns.
        activation: `(feature column,)`.
        sizes: Features of every layer, active or not.
    """

    actives: tuple[Active, ...]
    starts: tuple[int, ...]
    errors: Tensor | None
    tokens: int
    positions: int | None
    frames: Frames | None
    biases: int
    columns: int
    activation: Tensor
    sizes: tuple[int, ...] = ()

    @property
    def features(self) -> int:
        """Number of feature columns."""
        return self.starts[-1]

    def layer_of(self, column: Tensor) -> Tensor:
        """Layer of feature columns."""
        return torch.searchsorted(torch.tensor(self.starts[1:]), column, right=True)

    def entries(self, columns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Layer, position and feature of feature columns."""
        layer = self.layer_of(columns)
        pos, feature = torch.empty_like(columns), torch.empty_like(columns)
        for each in layer.unique().tolist():
            here, active = layer == each, self.actives[each]
            local = columns[here] - self.starts[each]
            pos[here] = torch.searchsorted(active.starts[1:], local, right=True)
            feature[here] = active.feature[local]
        return layer, pos, feature

    def activation_at(self, layer: int, pos: Tensor, feature: Tensor) -> Tensor:
        """`(n,)` activations of some features, zero where they are not active."""
        active = self.actives[layer]
        if not len(active):
            return self.activation.new_zeros(len(pos))
        # One key an entry: positions ascend, and features within a position.
        size = int(max(active.feature.max(), feature.max())) + 1 if len(feature) else 1
        keys, wanted = active.pos * size + active.feature, pos * size + feature
        at = torch.searchsorted(keys, wanted).clamp_max(len(keys) - 1)
        return torch.where(keys[at] == wanted, active.activation[at], 0.0)

    def slopes_of(self, layer: int) -> Tensor:
        """`(pos, feature, k)` gates of a layer, zero where a feature is not active."""
        active = self.actives[layer]
        size = self.sizes[layer]
        dense = active.slopes.new_zeros(len(active.starts) - 1, size, active.slopes.shape[1])
        dense[active.pos, active.feature] = active.slopes
        return dense

    def column(self, layer: int, pos: int, feature: int) -> int:
        """Column of an active feature.

        Raises:
            GraphError: It is not active there.
        """
        active = self.actives[layer]
        here = active.at(pos)
        found = (active.feature[here] == feature).nonzero().flatten()
        if not len(found):
            raise GraphError(
                f"Feature {feature} of layer {layer} is not active at position {pos}.", "Choose another."
            )
        return self.starts[layer] + here.start + int(found[0])

    def names(self, columns: Tensor) -> list[str]:
        """Node ids of columns."""
        count, features = len(self.actives[0].starts) - 1, columns[columns < self.features]
        entries = zip(*(x.tolist() for x in self.entries(features)), strict=True)
        named = {
            column: f"feature/{layer}/{pos}/{feature}"
            for column, (layer, pos, feature) in zip(features.tolist(), entries, strict=True)
        }
        return [named.get(column) or self._other_name(column, count) for column in columns.tolist()]

    def _other_name(self, column: int, count: int) -> str:
        if column < self.tokens:
            layer, pos = divmod(column - self.features, count)
            return f"error/{layer}/{pos}"
        if column < self.tokens + count:
            return f"token/{column - self.tokens}"
        if self.frames and self.frames.first <= column < self.biases:
            return f"frame/{column - self.frames.first}"
        return (
            f"position/{column - self.tokens - count}"
            if column < self.biases
            else f"bias/{column - self.biases}"
        )


def feature_input(dictionary: Dictionary, mlp: MlpTape) -> Tensor:
    """What the features of a layer read: `(pos, d)`.

    Raises:
        DictionaryError: They reconstruct what they read, so that nothing can be traced through them.
    """
    if dictionary.reads == "point":
        raise DictionaryError(
            "The dictionary is an SAE, which stands for a place of the model and not for its MLPs.",
            "Trace with transcoders, or with the model's own neurons.",
        )
    if dictionary.reads == "mlp_in":
        return mlp.x
    if dictionary.reads == "resid_mid":
        return mlp.stream
    x = mlp.stream
    return mlp.norm.scale * (x - x.mean(dim=-1, keepdim=True) if mlp.norm.centred else x)


def feature_output(dictionary: Dictionary, mlp: MlpTape) -> Tensor:
    """What the features of a layer are to reconstruct: `(pos, d)`."""
    return mlp.raw if dictionary.writes == "mlp_raw" else mlp.out


def find_sources(
    tape: Tape, dictionary: Dictionary, *, first_position: bool = True, segments: Tensor | None = None
) -> Sources:
    """Encode the prompt and lay out the columns.

    Args:
        tape: The prompt's forward pass.
        dictionary: Features.
        first_position: Whether position 0 has features and errors; circuit-tracer zeroes both.
        segments: `(frame,)` segment of each frame that cross-attention reads, from 0; None: every frame for itself.

    Raises:
        DictionaryError: The dictionary reconstructs the MLPs worse than nothing at all, as one does that expects another
            norm convention.
    """
    inputs = [feature_input(dictionary, mlp) for mlp in tape.mlp]
    actives = [dictionary.encode(layer, x) for layer, x in enumerate(inputs)]
    errors = None
    if not dictionary.exact:
        outputs = [feature_output(dictionary, mlp) for mlp in tape.mlp]
        missed = [
            dictionary.error(actives, n, x, y) for n, (x, y) in enumerate(zip(inputs, outputs, strict=True))
        ]
        errors = torch.stack(missed)
        _require_fit(dictionary, errors, torch.stack(outputs))
    if not first_position:
        actives = [active.only(active.pos > 0) for active in actives]
        if errors is not None:
            errors[:, 0] = 0
    sizes = tuple(dictionary.size(layer) for layer in range(dictionary.layers))
    return _laid_out(tape, actives, errors, segments, sizes)


def _laid_out(
    tape: Tape,
    actives: list[Active],
    errors: Tensor | None,
    segments: Tensor | None,
    sizes: tuple[int, ...],
) -> Sources:
    starts = [0]
    for active in actives:
        starts.append(starts[-1] + len(active))
    tokens = starts[-1] + (0 if errors is None else tape.layers * len(tape))
    positions = None if tape.positions is None else tokens + len(tape)
    first = tokens + len(tape) * (1 if tape.positions is None else 2)
    frames = None
    if tape.cross:
        every = torch.arange(len(tape.cross[0].x)) if segments is None else segments
        frames = Frames(first, int(every.max()) + 1, every)
    biases = first + (frames.count if frames else 0)
    activation = torch.cat([active.activation for active in actives])
    columns = biases + tape.layers + 1
    return Sources(
        tuple(actives), tuple(starts), errors, tokens, positions, frames, biases, columns, activation, sizes
    )


_WORSE = 100.0
"""A reconstruction off by so many times the output's own size belongs to another model or norm."""


def _require_fit(dictionary: Dictionary, errors: Tensor, outputs: Tensor) -> None:
    missed, there = errors.square().sum(dim=(1, 2)), outputs.square().sum(dim=(1, 2))
    bad = (missed > _WORSE**2 * there).nonzero().flatten().tolist()
    if bad:
        ratio = float((missed[bad[0]] / there[bad[0]].clamp_min(1e-30)).sqrt())
        raise DictionaryError(
            f"At layer {bad[0]} the dictionary misses the MLP's output by {ratio:.0f} times its size: "
            f"it reads {dictionary.reads!r} and writes {dictionary.writes!r}.",
            "Use a dictionary of this model, and of its norm convention (feature_input_hook and feature_output_hook).",
        )
