"""Which attention heads carry an edge.

What a source writes is pushed forward through the frozen model. The target reads the stream at one place, and the stream there
is a sum: what the source wrote there itself, and what each head of each layer brought. So an edge splits exactly, by the hop
nearest the target, into one part a head and the parts that no head carried.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from otoscope.circuits.adjoint import Seeds, feature_seeds
from otoscope.circuits.graph import (
    ERROR,
    FEATURE,
    FRAME,
    HEARING,
    POSITION,
    PROJECTOR,
    TOKEN,
    AttributionGraph,
)
from otoscope.circuits.targets import target_seeds
from otoscope.errors import GraphError
from otoscope.showing import Shows

if TYPE_CHECKING:
    from torch import Tensor

    from otoscope.circuits.tape import AttentionTape, FrozenNorm, MlpTape
    from otoscope.circuits.tracer import Tracer


@dataclass(frozen=True, eq=False)
class HeadSplit(Shows):
    """One edge, by head.

    Attributes:
        source: Node id.
        target: Node id.
        edge: The edge, computed forwards.
        heads: `(layer, head)` by the last head on the way.
        cross: `(layer, head)` the same of cross-attention, by which sound comes; no layers where there is none.
        residual: What reached the target without any head.
        skip: `(layer,)` what came last through an MLP's skip path.
    """

    source: str
    target: str
    edge: float
    heads: Tensor
    residual: float
    skip: Tensor
    cross: Tensor

    def strongest(self, count: int = 5) -> list[tuple[str, float]]:
        """The heads that carry most, such as `("L5H3", 0.41)`; of cross-attention `("L3H4 cross", 2.44)`."""
        width, named = self.heads.shape[1], []
        for parts, ending in ((self.heads, ""), (self.cross, " cross")):
            named += [(f"L{i // width}H{i % width}{ending}", float(v)) for i, v in enumerate(parts.flatten())]
        return sorted(named, key=lambda part: -abs(part[1]))[:count]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "source": self.source,
            "target": self.target,
            "edge": self.edge,
            "heads": self.heads.tolist(),
            "residual": self.residual,
            "skip": self.skip.tolist(),
            "cross": self.cross.tolist(),
        }


def split_by_head(graph: AttributionGraph, source: str, target: str) -> HeadSplit:
    """Split the edge between two nodes by head.

    Args:
        graph: A graph with its tracer.
        source: Id of a feature, error, token or position of the stack that writes, or of a segment that it hears.
        target: Id of a feature or target.

    Raises:
        GraphError: A node does not exist, cannot be the end it is given as, or the graph has no tracer.
    """
    if graph.tracer is None:
        raise GraphError("A graph that was read from a file has no model to run.", "Trace the prompt again.")
    if graph.index(target) not in graph.row_nodes:
        raise GraphError(f"{target} has no sources: only features and targets have.", "Ask for one of those.")
    tracer = graph.tracer
    seed = _seed(graph, tracer, target)
    depth, pos, u = int(seed.depth[0]), int(seed.pos[0]), seed.vector[0]
    writes = _writes(graph, tracer, source)
    heads = u.new_zeros(tracer.tape.layers, tracer.tape.attention[0].wiring.heads)
    skips, residual = u.new_zeros(tracer.tape.layers), float(writes.pop(-1)[pos] @ u) if -1 in writes else 0.0
    stream = below = _start(graph, tracer, source)
    frames = _heard(graph, tracer, source)
    cross = u.new_zeros(len(tracer.tape.cross), tracer.tape.cross[0].wiring.heads if tracer.tape.cross else 0)
    for part in range(depth):
        layer, number = divmod(part, tracer.tape.steps)
        if 0 < number < tracer.tape.steps - 1:
            if frames is not None:
                brought = heard_outputs(tracer.tape.cross[layer], frames)
                cross[layer] = brought[:, pos] @ u
                stream = stream + brought.sum(dim=0)
            continue
        if not number:
            brought = head_outputs(tracer.tape.attention[layer], stream)
            heads[layer] = brought[:, pos] @ u
            below, stream = stream, stream + brought.sum(dim=0)
            continue
        read = below if tracer.tape.wiring.blocks[layer].parallel else stream
        passed = _skipped(tracer, layer, read)
        skips[layer] = passed[pos] @ u
        wrote = writes.get(layer, torch.zeros_like(stream))
        residual += float(wrote[pos] @ u)
        stream = stream + passed + wrote
    edge = residual + float(heads.sum() + skips.sum() + cross.sum())
    return HeadSplit(source, target, edge, heads, residual, skips, cross)


def _seed(graph: AttributionGraph, tracer: Tracer, target: str) -> Seeds:
    node, n = graph.index(target), graph.nodes
    if n.kind[node] == FEATURE:
        column = tracer.sources.column(int(n.layer[node]), int(n.pos[node]), int(n.feature[node]))
        return feature_seeds(tracer.tape, tracer.dictionary, tracer.sources, torch.tensor([column]))
    order = node - (len(n) - len(graph.targets))
    return target_seeds(tracer.tape, [tracer.targets[order]])


def _start(graph: AttributionGraph, tracer: Tracer, source: str) -> Tensor:
    """What the source put into the stream before the first layer: `(pos, d)`."""
    start, node, n = torch.zeros_like(tracer.tape.embed), graph.index(source), graph.nodes
    pos = int(n.pos[node])
    if n.kind[node] in (TOKEN, PROJECTOR):
        start[pos] = tracer.tape.embed[pos]
    if n.kind[node] == POSITION and tracer.tape.positions is not None:
        start[pos] = tracer.tape.positions[pos]
    return start


def _writes(graph: AttributionGraph, tracer: Tracer, source: str) -> dict[int, Tensor]:
    """What the source adds to the stream at each layer's MLP (-1: before the first layer): `(pos, d)`."""
    node, n, tape = graph.index(source), graph.nodes, tracer.tape
    kind, layer, pos = int(n.kind[node]), int(n.layer[node]), int(n.pos[node])
    if n.stream[node] in HEARING:
        raise GraphError(f"{source} is of the stack that hears.", "Ask for a node of the stack that writes.")
    if kind == FRAME:
        return {}
    if kind in (TOKEN, POSITION, PROJECTOR):
        return {-1: _start(graph, tracer, source)}
    if kind == FEATURE:
        index, activation = torch.tensor([int(n.feature[node])]), float(n.activation[node])
        vectors = {
            out: activation * tracer.dictionary.decoder(layer, out, index)[0]
            for out in tracer.dictionary.targets(layer)
        }
    elif kind == ERROR and tracer.sources.errors is not None:
        vectors = {layer: tracer.sources.errors[layer, pos]}
    else:
        raise GraphError(f"{source} writes at many places.", "Ask for a feature, error, token or position.")
    found = {}
    for out, vector in vectors.items():
        raw = torch.zeros_like(tape.embed)
        raw[pos] = vector
        found[out] = after_post_norm(tape.mlp[out], raw, tracer.dictionary.writes)
    return found


def after_post_norm(mlp: MlpTape, raw: Tensor, writes: str) -> Tensor:
    """Through the MLP's post-norm, where features write before it."""
    return raw if writes == "mlp_out" or mlp.post is None else linear(mlp.post, raw)


def linear(norm: FrozenNorm, x: Tensor) -> Tensor:
    """A frozen norm without its bias, of `(pos, d)`."""
    return norm.factor * (x - x.mean(dim=-1, keepdim=True) if norm.centred else x)


def head_outputs(a: AttentionTape, stream: Tensor) -> Tensor:
    """What each head makes of a part of the stream, biases left out: `(head, pos, d)`."""
    w = a.wiring
    assert a.norm is not None
    v = (linear(a.norm, stream) @ w.v.weight.T).unflatten(-1, (w.kv_heads, -1))
    v = v.repeat_interleave(w.heads // w.kv_heads, dim=1)
    z = torch.einsum("hqk,khd->hqd", a.pattern, v)
    out = torch.einsum("hqd,mhd->hqm", z, w.o.weight.unflatten(1, (w.heads, -1)))
    return out if a.post is None else torch.stack([linear(a.post, one) for one in out])


def _heard(graph: AttributionGraph, tracer: Tracer, source: str) -> Tensor | None:
    """Frames of a segment that the stack hears, or None."""
    node, n = graph.index(source), graph.nodes
    if n.kind[node] != FRAME or tracer.sources.frames is None:
        return None
    return (tracer.sources.frames.segment == int(n.pos[node])).nonzero().flatten()


def heard_outputs(a: AttentionTape, frames: Tensor) -> Tensor:
    """What each head of cross-attention brings from some frames, biases left out: `(head, pos, d)`."""
    w = a.wiring
    v = (a.x[frames] @ w.v.weight.T).unflatten(-1, (w.kv_heads, -1))
    v = v.repeat_interleave(w.heads // w.kv_heads, dim=1)
    z = torch.einsum("hqk,khd->hqd", a.pattern[:, :, frames], v)
    return torch.einsum("hqd,mhd->hqm", z, w.o.weight.unflatten(1, (w.heads, -1)))


def _skipped(tracer: Tracer, layer: int, stream: Tensor) -> Tensor:
    """What the dictionary's skip path makes of a part of the stream."""
    skip, mlp = tracer.dictionary.skip(layer), tracer.tape.mlp[layer]
    if skip is None:
        return torch.zeros_like(stream)
    x = stream
    if tracer.dictionary.reads == "mlp_in":
        x = linear(mlp.norm, stream)
    elif tracer.dictionary.reads == "normalized":
        x = mlp.norm.scale * (stream - stream.mean(dim=-1, keepdim=True) if mlp.norm.centred else stream)
    return after_post_norm(mlp, x @ skip.T, tracer.dictionary.writes)
