"""The encoder under a decoder's graph: what its features, frames, positions and biases supplied, pooled over segments of time.

Everything in the replacement model is linear, so that a row over segments is the row over frames, added up: exactly, whatever
the segments. A node is then "feature f of encoder layer 2 from 1.20 to 1.44 s", and as a target it is the sum of that feature's
activations over the segment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from otoscope.circuits.adjoint import attention_adjoint, value_constant
from otoscope.circuits.sources import feature_input, feature_output

if TYPE_CHECKING:
    from torch import Tensor

    from otoscope.circuits.tape import Tape
    from otoscope.dictionaries.base import Dictionary


@dataclass(frozen=True, eq=False)
class EncoderSources:
    """What writes into the encoder's stream, pooled over segments.

    Columns, in this order: features by layer, segment and feature; errors by layer and segment; frames (what the convolutions
    made of the sound) by segment; positional embeddings by segment; biases by layer, the last the final norm's.

    Attributes:
        tape: The encoder's pass.
        dictionary: Its features.
        segment: `(frame,)` segment of each frame, from 0.
        activation: Of every layer `(frame, feature)`, zero where a feature is not active.
        slopes: Of every layer `(frame, feature, k)`, the gates of the dictionary's `k` readings.
        errors: `(layer, frame, d)` what the dictionary misses, or None.
    """

    tape: Tape
    dictionary: Dictionary
    segment: Tensor
    activation: tuple[Tensor, ...]
    slopes: tuple[Tensor, ...]
    errors: Tensor | None

    @classmethod
    def of(cls, tape: Tape, dictionary: Dictionary, segment: Tensor) -> EncoderSources:
        """Encode every frame."""
        inputs = [feature_input(dictionary, mlp) for mlp in tape.mlp]
        actives = [dictionary.encode(layer, x) for layer, x in enumerate(inputs)]
        activation, slopes, errors = [], [], []
        for layer, (active, x) in enumerate(zip(actives, inputs, strict=True)):
            dense = x.new_zeros(len(x), dictionary.size(layer))
            dense[active.pos, active.feature] = active.activation
            gates = x.new_zeros(len(x), dictionary.size(layer), active.slopes.shape[1])
            gates[active.pos, active.feature] = active.slopes
            activation.append(dense)
            slopes.append(gates)
            if not dictionary.exact:
                errors.append(
                    dictionary.error(actives, layer, x, feature_output(dictionary, tape.mlp[layer]))
                )
        return cls(
            tape,
            dictionary,
            segment,
            tuple(activation),
            tuple(slopes),
            torch.stack(errors) if errors else None,
        )

    @cached_property
    def segments(self) -> tuple[Tensor, ...]:
        """Frames of each segment."""
        count = int(self.segment.max()) + 1
        return tuple((self.segment == i).nonzero().flatten() for i in range(count))

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """First feature column of every layer, and the first column after the features."""
        starts = [0]
        for layer in range(self.tape.layers):
            starts.append(starts[-1] + len(self.segments) * self.dictionary.size(layer))
        return tuple(starts)

    @property
    def features(self) -> int:
        """Number of feature columns."""
        return self.starts[-1]

    @property
    def frames(self) -> int:
        """First frame column."""
        return self.features + (0 if self.errors is None else self.tape.layers * len(self.segments))

    @property
    def positions(self) -> int:
        """First column of the positional embeddings."""
        return self.frames + len(self.segments)

    @property
    def biases(self) -> int:
        """First bias column."""
        return self.positions + (0 if self.tape.positions is None else len(self.segments))

    @property
    def columns(self) -> int:
        """Number of columns."""
        return self.biases + self.tape.layers + 1

    def pooled(self, layer: int) -> Tensor:
        """`(segment, feature)`: activations of a layer, added up."""
        return torch.stack([self.activation[layer][at].sum(dim=0) for at in self.segments])

    def activation_at(self, layer: int, pos: Tensor, feature: Tensor) -> Tensor:
        """`(n,)` activations of some features at some frames, zero where they are not active."""
        return self.activation[layer][pos, feature]

    def slopes_of(self, layer: int) -> Tensor:
        """`(frame, feature, k)` gates of a layer."""
        return self.slopes[layer]

    def column(self, layer: int, segment: int, feature: int) -> int:
        """Column of a feature over a segment."""
        return self.starts[layer] + segment * self.dictionary.size(layer) + feature

    def entry(self, column: int) -> tuple[int, int, int]:
        """Layer, segment and feature of a feature column."""
        layer = next(i for i in range(self.tape.layers) if column < self.starts[i + 1])
        segment, feature = divmod(column - self.starts[layer], self.dictionary.size(layer))
        return layer, segment, feature


class EncoderSweep:
    """Rows over an encoder's sources.

    Args:
        sources: The sources.
        through: Let the adjoint also pass through the features by their frozen gates: rows are then total effects, and frames,
            positions, biases and errors together sum to the target.
    """

    def __init__(self, sources: EncoderSources, *, through: bool = False) -> None:
        self.sources, self.tape, self.through = sources, sources.tape, through
        self._constants = [value_constant(a) for a in self.tape.attention]

    def from_output(self, g: Tensor) -> Tensor:
        """Rows `(n, column)` of targets given by their adjoint at the encoder's output, `(frame, n, d)`."""
        out = g.new_zeros(g.shape[1], self.sources.columns)
        with torch.no_grad():
            self._start(self._descend(g, out), out)
        return out

    def at_start(self, g: Tensor) -> Tensor:
        """The adjoint of targets where the stream begins, `(frame, n, d)`, from that at the encoder's output."""
        with torch.no_grad():
            return self._descend(g, g.new_zeros(g.shape[1], self.sources.columns))

    def at_layers(self, g: Tensor) -> list[Tensor]:
        """The adjoint at the output of every layer's MLP, `(frame, n, d)` each, from that at the encoder's output."""
        found: list[Tensor] = []
        with torch.no_grad():
            self._descend(g, g.new_zeros(g.shape[1], self.sources.columns), found)
        return found[::-1]

    def _descend(self, g: Tensor, out: Tensor, passed: list[Tensor] | None = None) -> Tensor:
        final = self.tape.exit or self.tape.final
        if final.bias is not None:
            out[:, self.sources.biases + self.tape.layers] += g.sum(dim=0) @ final.bias
        g = final.adjoint(g)
        for layer in range(self.tape.layers - 1, -1, -1):
            if passed is not None:
                passed.append(g)
            g = self._attention(self._mlp(g, layer, out), layer, out)
        return g

    def of_features(self, columns: Sequence[int]) -> Tensor:
        """Rows `(n, column)` of feature columns: each sums to the feature's activations over its segment."""
        entries = [self.sources.entry(c) for c in columns]
        order = sorted(range(len(entries)), key=lambda i: -entries[i][0])
        embed = self.tape.embed
        out = embed.new_zeros(len(entries), self.sources.columns)
        g = embed.new_zeros(len(embed), 0, embed.shape[1])
        with torch.no_grad():
            for layer in range(self.tape.layers - 1, -1, -1):
                if g.shape[1]:
                    g = self._mlp(g, layer, out)
                joining = [entries[i] for i in order if entries[i][0] == layer]
                if joining:
                    g = torch.cat([g, self._seeds(joining, out[g.shape[1] :])], dim=1)
                if g.shape[1]:
                    g = self._attention(g, layer, out)
            self._start(g, out)
        inverse = torch.tensor(order).argsort()
        return out[inverse]

    def _seeds(self, entries: Sequence[tuple[int, int, int]], out: Tensor) -> Tensor:
        """Pooled features of one layer as vectors in the stream between its attention and its MLP, `(frame, n, d)`."""
        layer = entries[0][0]
        norm, embed = self.tape.mlp[layer].norm, self.tape.embed
        seeds = embed.new_zeros(len(embed), len(entries), embed.shape[1])
        for i, (_, segment, feature) in enumerate(entries):
            at = self.sources.segments[segment]
            own = 0.0
            for k, reading in enumerate(self.sources.dictionary.readings(layer)):
                gates = self.sources.slopes[layer][at, feature, k]
                read = gates[:, None] * reading.weight[feature]
                seeds[at, i] += read
                own = own + (0.0 if reading.bias is None else float(gates.sum() * reading.bias[feature]))
            if norm.bias is not None:
                own = own + float(seeds[:, i].sum(dim=0) @ norm.bias)
            out[i, self.sources.biases + layer] += own
        return norm.adjoint(seeds)

    def _mlp(self, g: Tensor, layer: int, out: Tensor) -> Tensor:
        """Read the features, errors and the bias of an MLP; the residual stream goes on."""
        s, n = self.sources, g.shape[1]
        constant = s.dictionary.bias(layer)
        if constant is not None:
            out[:n, s.biases + layer] += g.sum(dim=0) @ constant
        rows = s.dictionary.decoder(layer, layer, None)
        size = len(rows)
        passed = g.new_zeros(*g.shape[:2], s.dictionary.readings(layer)[0].weight.shape[1])
        for number, at in enumerate(s.segments):
            read = (g[at].flatten(0, 1) @ rows.T).view(len(at), n, size)
            part = (read * s.activation[layer][at][:, None]).sum(dim=0)
            start = s.starts[layer] + number * size
            out[:n, start : start + size] += part
            if self.through:
                passed[at] = self._passed(read, layer, at, out)
        if s.errors is not None:
            missed = torch.einsum("snd,sd->sn", g, s.errors[layer])
            for number, at in enumerate(s.segments):
                out[:n, s.features + layer * len(s.segments) + number] += missed[at].sum(dim=0)
        if not self.through:
            return g
        norm = self.tape.mlp[layer].norm
        if norm.bias is not None:
            out[:n, s.biases + layer] += passed.sum(dim=0) @ norm.bias
        return g + norm.adjoint(passed)

    def _passed(self, read: Tensor, layer: int, at: Tensor, out: Tensor) -> Tensor:
        """What features of some frames, by their frozen gates, hand on to what they read: `(frame, n, d_in)`."""
        total, s = 0.0, self.sources
        for k, reading in enumerate(s.dictionary.readings(layer)):
            gated = read * s.slopes[layer][at, :, k][:, None]
            total = total + gated @ reading.weight
            if reading.bias is not None:
                out[: read.shape[1], s.biases + layer] += (gated @ reading.bias).sum(dim=0)
        return torch.as_tensor(total)

    def _attention(self, g: Tensor, layer: int, out: Tensor) -> Tensor:
        bias = out[: g.shape[1], self.sources.biases + layer]
        return g + attention_adjoint(self.tape.attention[layer], g, bias, self._constants[layer])

    def _start(self, g: Tensor, out: Tensor) -> None:
        s = self.sources
        starts = [(s.frames, self.tape.embed)]
        starts += [] if self.tape.positions is None else [(s.positions, self.tape.positions)]
        for first, written in starts:
            read = torch.einsum("snd,sd->sn", g, written)
            for number, at in enumerate(s.segments):
                out[:, first + number] += read[at].sum(dim=0)
