"""Why a head looked where it looked: which sources made its query and its key.

With norm scales frozen, query and key are affine in the stream, and the score is bilinear,

    score = scale sum_{s, r} Q_s . K_r

with Q_s what source s supplied to the query and K_r what source r supplied to the key (Kamath et al. 2025, "Tracing attention
computation through feature interactions"). One sweep from the dimensions of the query gives Q of every source at once, one
from those of the key gives K. The score is the one before softcap and mask.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from otoscope.circuits.adjoint import Seeds
from otoscope.errors import GraphError
from otoscope.showing import Shows

if TYPE_CHECKING:
    from torch import Tensor

    from otoscope.circuits.tape import AttentionTape
    from otoscope.circuits.tracer import Tracer
    from otoscope.models.wiring import Affine


@dataclass(frozen=True, eq=False)
class QKAttribution(Shows):
    """One attention score as a sum over pairs of sources.

    Attributes:
        layer: Layer of the head, from 0.
        head: The head.
        query: Position that looks.
        key: Position that is looked at.
        score: Before softcap and mask.
        q: `(column, d_head)` what each source supplied to the query.
        k: `(column, d_head)` what each source supplied to the key.
        scale: What the product of query and key is multiplied by.
        tracer: Names the columns.
    """

    layer: int
    head: int
    query: int
    key: int
    score: float
    q: Tensor
    k: Tensor
    scale: float
    tracer: Tracer

    @property
    def by_query(self) -> Tensor:
        """`(column,)` each source's part through the query, whatever made the key; sums to the score."""
        return self.scale * (self.q @ self.k.sum(dim=0))

    @property
    def by_key(self) -> Tensor:
        """`(column,)` each source's part through the key, whatever made the query; sums to the score."""
        return self.scale * (self.k @ self.q.sum(dim=0))

    def pairs(self, queries: Tensor, keys: Tensor) -> Tensor:
        """`(n, m)` parts of pairs of columns; over all pairs they sum to the score."""
        return self.scale * (self.q[queries] @ self.k[keys].T)

    def strongest(self, count: int = 10, among: int = 200) -> list[tuple[str, str, float]]:
        """The largest pairs, as ids of the query's and of the key's source and their part.

        Args:
            count: How many.
            among: Sources of either side, by their own part, whose pairs are looked at.
        """
        sides = [part.abs().topk(min(among, len(part))).indices for part in (self.by_query, self.by_key)]
        table = self.pairs(*sides)
        best = table.abs().flatten().topk(min(count, table.numel())).indices
        names = [self.tracer.sources.names(side) for side in sides]
        width = table.shape[1]
        return [(names[0][i // width], names[1][i % width], float(table.flatten()[i])) for i in best.tolist()]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: the head, the score and the strongest pairs."""
        return {
            "layer": self.layer,
            "head": self.head,
            "query": self.query,
            "key": self.key,
            "score": self.score,
            "pairs": [list(pair) for pair in self.strongest()],
        }


def qk_attribution(tracer: Tracer, layer: int, head: int, query: int, key: int) -> QKAttribution:
    """Attribute the score of one head between two positions.

    Args:
        tracer: The prompt's.
        layer: Layer, from 0.
        head: Query head, from 0.
        query: Position that looks.
        key: Position that is looked at, not after `query`.

    Raises:
        GraphError: There is no such head or position, or queries are turned in a way that is not known.
    """
    tape = tracer.tape
    if not 0 <= layer < tape.layers:
        raise GraphError(f"There is no layer {layer}.", f"Choose 0 to {tape.layers - 1}.")
    a = tape.attention[layer]
    w = a.wiring
    if not (0 <= head < w.heads and 0 <= key <= query < len(tape)):
        raise GraphError(
            f"Head {head} of {w.heads} does not look from position {query} at {key}.",
            f"Choose a head below {w.heads}, and a key that is not after the query.",
        )
    seen = _vectors(tracer, w.name)
    d_head = w.q.weight.shape[0] // w.heads
    own = head // (w.heads // w.kv_heads)
    q = _side(
        tracer, a, layer, query, w.q, slice(head * d_head, (head + 1) * d_head), _turn(seen["q"], query, head)
    )
    k = _side(tracer, a, layer, key, w.k, slice(own * d_head, (own + 1) * d_head), _turn(seen["k"], key, own))
    scale = float(getattr(w.module, "scaling", d_head**-0.5))
    score = scale * float(q.sum(dim=0) @ k.sum(dim=0))
    return QKAttribution(layer, head, query, key, score, q, k, scale, tracer)


def _side(
    tracer: Tracer, a: AttentionTape, layer: int, pos: int, projection: Affine, rows: slice, turn: Tensor
) -> Tensor:
    """`(column, d_head)` of a query or key: one seed for each of its dimensions."""
    assert a.norm is not None
    weight = turn @ projection.weight[rows]
    own = turn.new_zeros(len(turn)) if projection.bias is None else turn @ projection.bias[rows]
    if a.norm.bias is not None:
        own = own + weight @ a.norm.bias
    where = torch.full((len(turn),), pos)
    seeds = Seeds(
        torch.full_like(where, tracer.tape.steps * layer), where, a.norm.adjoint_at(where, weight), own
    )
    return tracer.rows(seeds).T


def _vectors(tracer: Tracer, name: str) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """Raw, normed and turned queries and keys, `(pos, head, d_head)` each."""
    points, found = tracer.model.points, {}
    names = [f"{name}.hook_{kind.format(x)}" for x in "qk" for kind in ("{}", "{}_normed", "rot_{}")]
    present = [each for each in names if each in points]
    with tracer.model.capturing(present) as cache, torch.no_grad():
        tracer.forward(1)
    for x in "qk":
        raw = cache[f"{name}.hook_{x}"][0]
        normed = cache[f"{name}.hook_{x}_normed"][0] if f"{name}.hook_{x}_normed" in points else raw
        turned = cache[f"{name}.hook_rot_{x}"][0] if f"{name}.hook_rot_{x}" in points else normed
        found[x] = (raw, normed, turned)
    return found


def _turn(vectors: tuple[Tensor, Tensor, Tensor], pos: int, head: int) -> Tensor:
    """`(d_head, d_head)` from a raw query to the one that is multiplied: frozen norm scale, then rotation.

    A rotary embedding turns dimensions `i` and `i + d_head / 2` together; the angle is what it did to the vectors that it met.
    """
    raw, normed, turned = (each[pos] for each in vectors)
    safe = raw.abs() > torch.finfo(raw.dtype).tiny
    factor = torch.where(safe, normed / torch.where(safe, raw, 1.0), 1.0)[head]
    if torch.equal(normed, turned):
        return torch.diag(factor)
    before, after = (torch.complex(*each.chunk(2, dim=-1)) for each in (normed, turned))
    largest = before.abs().argmax(dim=0, keepdim=True)
    angle = (after.gather(0, largest) / before.gather(0, largest))[0]
    if not torch.allclose(before * angle, after, rtol=1e-3, atol=1e-4 * float(after.abs().max())):
        raise GraphError("Queries are turned in a way that is not known.", "Ask for another model.")
    cos, sin = torch.diag(angle.real), torch.diag(angle.imag)
    return torch.cat([torch.cat([cos, -sin], dim=1), torch.cat([sin, cos], dim=1)]) * factor
