"""The adjoint sweep: rows of the attribution matrix, from the targets down to the embeddings, without autograd.

A row is the part of a target that each source supplies, `A[t, s] = v_s . (J^T u_t)`, with J the Jacobian of the frozen
affine map from the source's place to the target's. The sweep carries `g = J^T u` for many targets at once, as one tensor
`(pos, seed, d)`: downwards, from each target's own depth on, and only at positions up to it. All seeds share the patterns
and weights of one tape, and every contraction is a dense matrix product.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from otoscope.errors import GraphError

if TYPE_CHECKING:
    from torch import Tensor

    from otoscope.circuits.sources import Sources
    from otoscope.circuits.tape import AttentionTape, FrozenNorm, MlpTape, Tape
    from otoscope.dictionaries.base import Dictionary

_FIRST = 2**26
"""Numbers that the writes of the first attention may take: 256 MB in float32."""


@dataclass(frozen=True, eq=False)
class Seeds:
    """Targets as vectors in the stream.

    Attributes:
        depth: `(n,)` where each reads, in parts of layers that were passed before (`tape.steps` a layer): `2 l` before layer
            `l`, `2 l + 1` between its attention and its MLP, `2 L` after the last layer; with cross-attention 3 in place of 2.
        pos: `(n,)` position.
        vector: `(n, d)`, after the norm's adjoint: the target is `vector . stream + own`.
        own: `(n,)` constant.
    """

    depth: Tensor
    pos: Tensor
    vector: Tensor
    own: Tensor

    def __len__(self) -> int:
        return len(self.pos)

    def __getitem__(self, index: Tensor) -> Seeds:
        return Seeds(self.depth[index], self.pos[index], self.vector[index], self.own[index])

    @classmethod
    def join(cls, parts: Sequence[Seeds]) -> Seeds:
        """All of them, one after another."""
        return cls(
            *(torch.cat([getattr(p, name) for p in parts]) for name in ("depth", "pos", "vector", "own"))
        )


def feature_seeds(tape: Tape, dictionary: Dictionary, sources: Sources, columns: Tensor) -> Seeds:
    """Features as targets: the readings of their activations."""
    layers = sources.layer_of(columns)
    vector = tape.embed.new_empty(len(columns), tape.embed.shape[1])
    own, pos = tape.embed.new_empty(len(columns)), torch.empty_like(columns)
    for layer in layers.unique().tolist():
        here = layers == layer
        entries = columns[here] - sources.starts[layer]
        pos[here] = sources.entries(columns[here])[1]
        read, constant = dictionary.directions(sources.actives[layer], entries)
        vector[here], own[here] = _through_norm(dictionary.reads, tape.mlp[layer], pos[here], read, constant)
    parallel = torch.tensor([block.parallel for block in tape.wiring.blocks])
    before_mlp = (tape.steps - 1) * (~parallel[layers]).long()
    return Seeds(tape.steps * layers + before_mlp, pos, vector, own)


def _through_norm(
    reads: str, mlp: MlpTape, pos: Tensor, read: Tensor, constant: Tensor
) -> tuple[Tensor, Tensor]:
    if reads == "resid_mid":
        return read, constant
    if reads == "normalized":
        return mlp.norm.division_adjoint_at(pos, read), constant
    own = constant if mlp.norm.bias is None else constant + read @ mlp.norm.bias
    return mlp.norm.adjoint_at(pos, read), own


def final_seeds(tape: Tape, pos: Tensor, directions: Tensor, constant: Tensor | None = None) -> Seeds:
    """Directions `(n, d)` after the final norm as targets, such as rows of the unembedding."""
    own = directions.new_zeros(len(pos)) if constant is None else constant
    if tape.final.bias is not None:
        own = own + directions @ tape.final.bias
    return Seeds(
        torch.full_like(pos, tape.steps * tape.layers), pos, tape.final.adjoint_at(pos, directions), own
    )


def stream_seeds(tape: Tape, layer: int, pos: Tensor, directions: Tensor) -> Seeds:
    """Directions `(n, d)` of the stream before a layer as targets; layer L is the stream after the last.

    Raises:
        GraphError: There is no such layer.
    """
    if not 0 <= layer <= tape.layers:
        raise GraphError(f"There is no stream before layer {layer}.", f"Choose 0 to {tape.layers}.")
    return Seeds(torch.full_like(pos, tape.steps * layer), pos, directions, directions.new_zeros(len(pos)))


class Sweep:
    """Rows for one tape and one dictionary.

    Args:
        tape: The prompt's forward pass.
        dictionary: Features.
        sources: Its columns.
        through: Let the adjoint also pass through the features by their frozen gates. Rows are then total effects, along all
            paths, those through features that are no nodes of a graph included; of tokens, positions, biases and errors
            together they sum to the target.
    """

    def __init__(
        self, tape: Tape, dictionary: Dictionary, sources: Sources, *, through: bool = False
    ) -> None:
        self.tape, self.dictionary, self.sources, self.through = tape, dictionary, sources, through
        self._constants = [value_constant(a) for a in tape.attention]
        self._heard: Tensor | None = None
        self._by_head: Tensor | None = None
        self._start: Tensor | None = None
        self._carried = [sources.frames.carried(a) for a in tape.cross] if sources.frames else []

    def all_paths(self) -> Sweep:
        """The same, through all features by their frozen gates."""
        made = copy(self)
        made.through = True
        return made

    def rows(self, seeds: Seeds, out: Tensor | None = None) -> Tensor:
        """The full rows of a batch of targets.

        Args:
            seeds: Targets; fastest when those that read deepest come first and those of one batch are near in position.
            out: `(n or more, column)` memory to use, or None.

        Returns:
            `(n, column)`, each row summing to its target.
        """
        order = torch.argsort(seeds.depth, descending=True, stable=True)
        ordered = seeds[order]
        self._heard = None
        shape = (len(ordered), self.sources.columns)
        out = ordered.vector.new_zeros(shape) if out is None else out[: len(ordered)].zero_()
        with torch.no_grad():
            self._descend(ordered, out)
            out[:, : self.sources.features] *= self.sources.activation
            column = (
                self.sources.biases + ordered.depth // self.tape.steps
            )  # a target's own constant counts for its layer
            out[torch.arange(len(ordered)), column] += ordered.own
        return out if torch.equal(order, torch.arange(len(order))) else out[order.argsort()]

    def heard(self, seeds: Seeds) -> Tensor:
        """The adjoint of targets at the output of the stack that is attended to: `(frame, n, d)`.

        Raises:
            GraphError: The stack attends to no other.
        """
        if not self.tape.cross:
            raise GraphError("This stack hears nothing.", "Trace a speech recogniser.")
        order = torch.argsort(seeds.depth, descending=True, stable=True)
        x = self.tape.cross[0].x
        self._heard = x.new_zeros(len(x), len(seeds), x.shape[1])
        with torch.no_grad():
            self._descend(seeds[order], x.new_zeros(len(seeds), self.sources.columns))
        found, self._heard = self._heard, None
        return found[:, order.argsort()]

    def at_start(self, seeds: Seeds) -> Tensor:
        """The adjoint of targets where the stream begins: `(pos, n, d)`."""
        order = torch.argsort(seeds.depth, descending=True, stable=True)
        self._start = seeds.vector.new_zeros(len(self.tape), len(seeds), seeds.vector.shape[1])
        with torch.no_grad():
            self._descend(seeds[order], seeds.vector.new_zeros(len(seeds), self.sources.columns))
        found, self._start = self._start, None
        return found[:, order.argsort()]

    def rows_and_heads(self, seeds: Seeds) -> tuple[Tensor, Tensor]:
        """Full rows, and what each head of cross-attention brought from each segment, `(n, layer, head, segment)`, in one sweep.

        Raises:
            GraphError: The stack attends to no other.
        """
        if self.sources.frames is None:
            raise GraphError("This stack hears nothing.", "Trace a speech recogniser.")
        order = torch.argsort(seeds.depth, descending=True, stable=True)
        heads, count = self.tape.cross[0].wiring.heads, self.sources.frames.count
        self._by_head = seeds.vector.new_zeros(len(seeds), self.tape.layers, heads, count)
        rows = self.rows(seeds)
        found, self._by_head = self._by_head, None
        return rows, found[order.argsort()]

    def _descend(self, seeds: Seeds, out: Tensor) -> None:
        g = seeds.vector.new_zeros(0, 0, seeds.vector.shape[1])
        depths = seeds.depth.tolist()
        for depth in range(max(depths, default=0), -1, -1):
            joining, first = depths.count(depth), g.shape[1]
            if joining and self._meets_attention(depth):
                g = self._below(g, depth, out) if first else g
                g = _beside(g, self._first_attention(seeds, first, joining, out))
                continue
            if joining:
                g = _joined(g, seeds, first, joining)
            if depth and g.shape[1]:
                g = self._below(g, depth, out)
        self._read_start(g, out)

    def _meets_attention(self, depth: int) -> bool:
        """Whether what begins at a depth comes first through an attention part whose adjoint is handed on."""
        layer, part = divmod(depth - 1, self.tape.steps)
        return (
            depth > 0 and part == 0 and not self.tape.wiring.blocks[layer].parallel and not self._ends(layer)
        )

    def _below(self, g: Tensor, depth: int, out: Tensor) -> Tensor:
        """The adjoint one part of a layer further down; reads the sources that it passes."""
        layer, part = divmod(depth - 1, self.tape.steps)
        if self.tape.wiring.blocks[layer].parallel:
            if not part:  # attention and MLP were both passed on the way from the next layer
                return g
            return g + self._attention(g, layer, out) + self._mlp(g, layer, out)
        if part == 0:
            below = self._attention(g, layer, out)
        elif part == self.tape.steps - 1:
            below = self._mlp(g, layer, out)
        else:
            below = self._cross(g, layer, out)
        return below.add_(g) if isinstance(below, torch.Tensor) else g

    # Attention -------------------------------------------------------------------------------------------------------

    def _attention(self, g: Tensor, layer: int, out: Tensor) -> Tensor | float:
        """Pull back through one attention part, beside the residual path."""
        bias = out[: g.shape[1], self.sources.biases + layer]
        if self._ends(layer):
            self._read_first_attention(g, out, bias)
            return 0.0
        return attention_adjoint(self.tape.attention[layer], g, bias, self._constants[layer])

    def _first_attention(self, seeds: Seeds, first: int, count: int, out: Tensor) -> Tensor:
        """Seeds that meet attention first, pulled back through it: each looks from its own position alone. `(pos, count, d)`."""
        pos, vector = seeds.pos[first : first + count], seeds.vector[first : first + count]
        layer = (int(seeds.depth[first]) - 1) // self.tape.steps
        a, constant = self.tape.attention[layer], self._constants[layer]
        w, length, bias = (
            a.wiring,
            int(pos.max()) + 1,
            out[first : first + count, self.sources.biases + layer],
        )
        assert a.norm is not None
        v = vector
        if a.post is not None:
            if a.post.bias is not None:
                bias += v @ a.post.bias
            v = a.post.adjoint_at(pos, v)
        if w.o.bias is not None:
            bias += v @ w.o.bias
        u = (v @ w.o.weight).view(count, w.kv_heads, -1, w.v.weight.shape[0] // w.kv_heads)
        looks = a.pattern[:, pos, :length].unflatten(0, (w.kv_heads, -1))  # (kv, group, seed, key)
        c = torch.einsum("kgnp,nkgd->pnkd", looks, u).flatten(2)
        if constant is not None:
            bias += c.sum(dim=0) @ constant
        g = a.norm.adjoint(c @ w.v.weight)
        g[pos, torch.arange(count)] += vector
        return g

    def _ends(self, layer: int) -> bool:
        """Whether an attention part is the first of all and short enough for its tokens to be read in one product."""
        return layer == 0 and self._start is None and len(self.tape) ** 2 * self.tape.embed.shape[1] <= _FIRST

    @cached_property
    def _first_writes(self) -> list[tuple[int, Tensor]]:
        """First column and `(query, d, key)`: what tokens, and learned positions, write through the first attention.

        There is nothing else below it, so that the values need no adjoint.
        """
        a, s = self.tape.attention[0], self.sources
        w, found = a.wiring, []
        assert a.norm is not None
        for first, start in ((s.tokens, self.tape.embed), (s.positions, self.tape.positions)):
            if first is None or start is None:
                continue
            x = a.norm.factor * (start - start.mean(dim=-1, keepdim=True) if a.norm.centred else start)
            values = (x @ w.v.weight.T).unflatten(-1, (w.kv_heads, -1))
            values = values.repeat_interleave(w.heads // w.kv_heads, dim=1)
            written = torch.einsum("khd,mhd->hkm", values, w.o.weight.unflatten(1, (w.heads, -1)))
            found.append((first, torch.einsum("hqk,hkm->qmk", a.pattern, written)))
        return found

    def _read_first_attention(self, g: Tensor, out: Tensor, bias: Tensor) -> None:
        a, constant = self.tape.attention[0], self._constants[0]
        w, n, count = a.wiring, g.shape[1], len(g)
        g = _before_post_norm(a.post, g, bias)
        if w.o.bias is not None:
            bias += g.sum(dim=0) @ w.o.bias
        if constant is not None:
            bias += torch.einsum("pnd,pd->n", g, _constant_out(a, constant)[:count])
        for first, written in self._first_writes:
            out[:n, first : first + count] += torch.bmm(g, written[:count, :, :count]).sum(dim=0)

    def _cross(self, g: Tensor, layer: int, out: Tensor) -> float:
        """Read what cross-attention brought: a part for each frame (or segment of frames), and its biases.

        The pattern is frozen and the values come from another stack, so nothing is handed on to the stream below.
        """
        a, frames, n = self.tape.cross[layer], self.sources.frames, g.shape[1]
        assert frames is not None
        bias = out[:n, self.sources.biases + layer]
        if a.wiring.o.bias is not None:
            bias += g.sum(dim=0) @ a.wiring.o.bias
        u = g @ a.wiring.o.weight
        if a.wiring.v.bias is not None:
            bias += torch.einsum("pnd,pd->n", g, _constant_out(a, a.wiring.v.bias)[: len(g)])
        if self._heard is not None:
            self._heard[:, :n] += moved_to_keys(a, u) @ a.wiring.v.weight
        if self._by_head is not None:
            split = self._carried[layer][: len(g)].unflatten(1, (a.wiring.heads, -1))
            self._by_head[:n, layer] = torch.einsum(
                "pnhd,phds->nhs", u.unflatten(-1, (a.wiring.heads, -1)), split
            )
        carried = self._carried[layer][: len(g)].flatten(0, 1)  # (pos * head * d_head, segment)
        out[:n, frames.first : frames.first + frames.count] += u.transpose(0, 1).flatten(1) @ carried
        return 0.0

    # MLPs ------------------------------------------------------------------------------------------------------------

    def _mlp(self, g: Tensor, layer: int, out: Tensor) -> Tensor | float:
        """Read what writes at one MLP, and pull back through what passes it (a skip path)."""
        mlp, n = self.tape.mlp[layer], g.shape[1]
        bias = out[:n, self.sources.biases + layer]
        if self.dictionary.writes == "mlp_raw":
            g = _before_post_norm(mlp.post, g, bias)
        constant = self.dictionary.bias(layer)
        if constant is not None:
            bias += g.sum(dim=0) @ constant
        for source in self.dictionary.sources(layer):
            self._read_features(g, source, layer, out)
        if self.sources.errors is not None:
            at = self.sources.features + layer * len(self.tape)
            out[:n, at : at + len(g)] = torch.einsum("pnd,pd->np", g, self.sources.errors[layer, : len(g)])
        skip = self.dictionary.skip(layer)
        at_input = None if skip is None else g @ skip
        if self.through and self.dictionary.size(layer):
            passed = self._passed(g, layer, out, bias)
            at_input = passed if at_input is None else at_input + passed
        return 0.0 if at_input is None else self._before_reading(at_input, layer, bias)

    def _read_features(self, g: Tensor, layer: int, written: int, out: Tensor) -> None:
        """Seeds times the write vectors of the features that are active at each position."""
        active = self.sources.actives[layer]
        if active.dense:
            self._read_dense(g, layer, written, out)
            return
        start, seeds = self.sources.starts[layer], g.shape[1]
        for first, last in active.chunks(len(g), g.shape[2] + seeds):
            here = slice(int(active.starts[first]), int(active.starts[last]))
            rows = self.dictionary.decoder(layer, written, active.feature[here])
            read = _by_position(rows, active.starts[first : last + 1], g[first:last])
            out[:seeds, start + here.start : start + here.stop] += read.T

    def _read_dense(self, g: Tensor, layer: int, written: int, out: Tensor) -> None:
        """The same where all features are active at all positions: one matrix product."""
        every, start = self.dictionary.decoder(layer, written, None), self.sources.starts[layer]
        read = g.flatten(0, 1) @ every.T
        there = out[: g.shape[1], start : start + len(g) * len(every)].unflatten(1, (len(g), -1))
        there += read.view(len(g), g.shape[1], -1).transpose(0, 1)

    def _before_reading(self, at_input: Tensor, layer: int, bias: Tensor) -> Tensor:
        """From what the features of a layer read back to the stream."""
        mlp = self.tape.mlp[layer]
        if self.dictionary.reads == "resid_mid":
            return at_input
        if self.dictionary.reads == "normalized":
            pos = torch.arange(len(at_input))
            return torch.stack(
                [mlp.norm.division_adjoint_at(pos[i : i + 1], at_input[i]) for i in range(len(at_input))]
            )
        if mlp.norm.bias is not None:
            bias += at_input.sum(dim=0) @ mlp.norm.bias
        return mlp.norm.adjoint(at_input)

    def _passed(self, g: Tensor, layer: int, out: Tensor, bias: Tensor) -> Tensor:
        """What the features of a layer, by their frozen gates, hand on to what they read: `(pos, seed, d_in)`.

        All layers that they write to have been passed, so their columns hold the whole adjoint of each activation.
        """
        active, seeds = self.sources.actives[layer], g.shape[1]
        start = self.sources.starts[layer]
        adjoint = out[:seeds, start : start + len(active)]
        total = g.new_zeros(len(g), seeds, self.dictionary.readings(layer)[0].weight.shape[1])
        for k, reading in enumerate(self.dictionary.readings(layer)):
            gated = adjoint * active.slopes[:, k]
            if reading.bias is not None:
                bias += gated @ reading.bias[active.feature]
            if active.dense:
                total += (
                    gated.unflatten(1, (-1, self.dictionary.size(layer)))[:, : len(g)].transpose(0, 1)
                    @ reading.weight
                )
                continue
            for pos in range(len(g)):
                here = active.at(pos)
                total[pos] += gated[:, here] @ reading.weight[active.feature[here]]
        return total

    # Start of the stream ---------------------------------------------------------------------------------------------

    def _read_start(self, g: Tensor, out: Tensor) -> None:
        s, count = self.sources, len(g)
        if self._start is not None:
            self._start[:count] += g
        out[: g.shape[1], s.tokens : s.tokens + count] += torch.einsum(
            "pnd,pd->np", g, self.tape.embed[:count]
        )
        if s.positions is not None and self.tape.positions is not None:
            read = torch.einsum("pnd,pd->np", g, self.tape.positions[:count])
            out[: g.shape[1], s.positions : s.positions + count] += read


def attention_adjoint(a: AttentionTape, g: Tensor, bias: Tensor, constant: Tensor | None) -> Tensor:
    """Pull `(pos, n, d)` back through self-attention to the stream that it reads; biases' parts are added to `bias` `(n,)`."""
    assert a.norm is not None
    g = _before_post_norm(a.post, g, bias)
    if a.wiring.o.bias is not None:
        bias += g.sum(dim=0) @ a.wiring.o.bias
    c = moved_to_keys(a, g @ a.wiring.o.weight)
    if constant is not None:
        bias += c.sum(dim=0) @ constant
    return a.norm.adjoint(c @ a.wiring.v.weight)


def moved_to_keys(a: AttentionTape, u: Tensor) -> Tensor:
    """From the heads' outputs back to the values they moved, `c[k] = sum_q pattern[q, k] u[q]`.

    Args:
        a: The attention part.
        u: `(pos, n, head * d_head)`.

    Returns:
        `(key, n, kv_head * d_head)`; the query heads that share a value head are summed. Keys are the same first positions, or
        all of another stack's.
    """
    kv, groups = a.wiring.kv_heads, a.wiring.heads // a.wiring.kv_heads
    pos, n, _ = u.shape
    keys = pos if a.norm is not None else a.pattern.shape[2]
    heads = u.view(pos, n, kv, groups, -1).permute(2, 3, 0, 1, 4).reshape(kv, groups * pos, -1)
    pattern = a.pattern[:, :pos, :keys].reshape(kv, groups * pos, keys)
    moved = torch.bmm(pattern.transpose(1, 2), heads)
    return moved.view(kv, keys, n, -1).permute(1, 2, 0, 3).reshape(keys, n, -1)


def _by_position(rows: Tensor, starts: Tensor, g: Tensor) -> Tensor:
    """Each position's rows `(feature, d)` times its seeds `(pos, seed, d)`, as one product: `(feature, seed)`.

    Positions with fewer features than others are filled up, which costs less than a product for each.
    """
    counts = starts.diff()
    most = int(counts.max())
    pos = torch.repeat_interleave(torch.arange(len(counts)), counts)
    slot = pos * most + torch.arange(len(rows)) - (starts[:-1] - starts[0])[pos]
    filled = rows.new_zeros(len(counts) * most, rows.shape[1]).index_copy_(0, slot, rows)
    read = torch.bmm(filled.view(len(counts), most, -1), g.transpose(1, 2))
    return read.flatten(0, 1)[slot]


def value_constant(a: AttentionTape) -> Tensor | None:
    """`(kv_head * d_head,)`: what the norm's bias and the value bias put into every value."""
    w, constant = a.wiring.v, a.wiring.v.bias
    assert a.norm is not None
    if a.norm.bias is not None:
        constant = w.weight @ a.norm.bias + (0.0 if constant is None else constant)
    return constant


def _constant_out(a: AttentionTape, constant: Tensor) -> Tensor:
    """`(query, d)` what a part that is the same in all values puts into the output.

    Patterns are summed rather than taken to sum to one: some families compute them in float32 whatever the model's precision.
    """
    w = a.wiring
    each = constant.unflatten(0, (w.kv_heads, -1)).repeat_interleave(w.heads // w.kv_heads, dim=0)
    looks = a.pattern.sum(dim=2).T  # (query, head)
    return (looks[..., None] * each).flatten(1) @ w.o.weight.T


def _before_post_norm(post: FrozenNorm | None, g: Tensor, bias: Tensor) -> Tensor:
    if post is None:
        return g
    if post.bias is not None:
        bias += g.sum(dim=0) @ post.bias
    return post.adjoint(g)


def _beside(g: Tensor, fresh: Tensor) -> Tensor:
    """Two sets of seeds at one depth, which may reach to different positions."""
    if not g.shape[1]:
        return fresh
    new = g.new_zeros(max(len(g), len(fresh)), g.shape[1] + fresh.shape[1], g.shape[-1])
    new[: len(g), : g.shape[1]] = g
    new[: len(fresh), g.shape[1] :] = fresh
    return new


def _joined(g: Tensor, seeds: Seeds, first: int, count: int) -> Tensor:
    """Seeds that begin at this depth, beside those from above."""
    pos = seeds.pos[first : first + count]
    length = max(len(g), int(pos.max()) + 1)
    new = g.new_zeros(length, first + count, g.shape[-1])
    new[: len(g), :first] = g
    new[pos, torch.arange(first, first + count)] = seeds.vector[first : first + count]
    return new
