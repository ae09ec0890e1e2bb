"""The attribution graph: typed nodes, and for every expanded target a sparse row that still sums to it.

Rows are targets, columns sources. What was not kept of a row is summed, signed and absolute, in its `rest`; so row sums and
normalisers stay exact, however little is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from otoscope.errors import GraphError
from otoscope.showing import Shows

if TYPE_CHECKING:
    from pathlib import Path

    from scipy.sparse import csr_matrix

    from otoscope.circuits.checking import Check
    from otoscope.circuits.pruning import Pruned
    from otoscope.circuits.scores import Scores
    from otoscope.circuits.tracer import Tracer
    from otoscope.documents.card import Card

KINDS = ("feature", "error", "token", "position", "bias", "target", "frame", "projector")
"""Kinds of nodes. `rest` is no node of the table: it is what the others leave over."""

FEATURE, ERROR, TOKEN, POSITION, BIAS, TARGET, FRAME, PROJECTOR = range(8)
HEARING = ("encoder", "audio_encoder")
"""Streams of sound; ids of their nodes begin with the stream's name, and their positions are segments."""
NONE = -1
"""No layer, position or feature."""


@dataclass(frozen=True, eq=False)
class Nodes:
    """Nodes as columns of a table; features come first and targets last.

    Attributes:
        kind: `(n,)` index in `KINDS`; int8.
        layer: `(n,)` int32; tokens and positions have -1, the targets' own biases and targets the number of layers.
        pos: `(n,)` int32; a segment where the stream is one of sound; -1 for biases.
        feature: `(n,)` int64: feature, token id of a token or target, else -1.
        activation: `(n,)` float64; NaN where there is none.
        stream: Name of each node's stack.
        span: `(n, 2)` begin and end in seconds; NaN for what is at no time.
    """

    kind: np.ndarray
    layer: np.ndarray
    pos: np.ndarray
    feature: np.ndarray
    activation: np.ndarray
    stream: tuple[str, ...]
    span: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))

    def __post_init__(self) -> None:
        if len(self.span) != len(self.kind):
            object.__setattr__(self, "span", np.full((len(self.kind), 2), np.nan))

    def __len__(self) -> int:
        return len(self.kind)

    @classmethod
    def of_rows(
        cls,
        rows: Sequence[tuple[int, int, int, int]],
        stream: str | Sequence[str],
        activation: np.ndarray | None = None,
        span: np.ndarray | None = None,
    ) -> Nodes:
        """Nodes from rows of kind, layer, pos and feature; they have one stream, or each its own."""
        kind, layer, pos, feature = np.array(rows, dtype=np.int64).reshape(-1, 4).T
        return cls(
            kind.astype(np.int8),
            layer.astype(np.int32),
            pos.astype(np.int32),
            feature.astype(np.int64),
            np.full(len(rows), np.nan) if activation is None else activation.astype(np.float64),
            (stream,) * len(rows) if isinstance(stream, str) else tuple(stream),
            np.full((len(rows), 2), np.nan) if span is None else span,
        )

    @classmethod
    def join(cls, parts: Sequence[Nodes]) -> Nodes:
        """All of them, one after another."""

        def all_of(name: str) -> np.ndarray:
            return np.concatenate([getattr(part, name) for part in parts])

        return cls(
            all_of("kind"),
            all_of("layer"),
            all_of("pos"),
            all_of("feature"),
            all_of("activation"),
            tuple(stream for part in parts for stream in part.stream),
            all_of("span"),
        )

    def of(self, kind: int) -> np.ndarray:
        """Indices of the nodes of a kind."""
        return np.flatnonzero(self.kind == kind)

    @property
    def expanded(self) -> np.ndarray:
        """`(row,)` nodes that have a row: the features, then the targets."""
        return np.concatenate([self.of(FEATURE), self.of(TARGET)])

    def take(self, index: np.ndarray) -> Nodes:
        """Some nodes."""
        stream = tuple(self.stream[i] for i in index)
        return Nodes(
            self.kind[index],
            self.layer[index],
            self.pos[index],
            self.feature[index],
            self.activation[index],
            stream,
            self.span[index],
        )

    def name(self, i: int) -> str:
        """A node's id: its kind and where it is, layers and positions from 0."""
        kind, layer, pos = KINDS[self.kind[i]], int(self.layer[i]), int(self.pos[i])
        where = {
            FEATURE: (layer, pos, int(self.feature[i])),
            ERROR: (layer, pos),
            TOKEN: (pos,),
            POSITION: (pos,),
            BIAS: (layer,),
            FRAME: (layer, pos),
            PROJECTOR: (pos,),
        }.get(int(self.kind[i]), (i - len(self),))
        stream = (self.stream[i],) if self.stream[i] in HEARING else ()
        return "/".join((*stream, kind, *map(str, where)))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """All ids."""
        targets = iter(range(len(self)))
        return tuple(
            f"target/{next(targets)}" if self.kind[i] == TARGET else self.name(i) for i in range(len(self))
        )


@dataclass(frozen=True)
class TargetInfo:
    """What a target is, in a graph.

    Attributes:
        label: Its text.
        pos: Position that it is read at.
        weight: Its share of the influence.
        token: Token id, or None.
        probability: Of the token, or None.
        against: Token whose logit is taken off, or None: the mean over the vocabulary is.
    """

    label: str
    pos: int
    weight: float
    token: int | None
    probability: float | None
    against: int | None = None


@dataclass(frozen=True, eq=False)
class AttributionGraph(Shows):
    """Which sources supplied each node, and how much.

    Attributes:
        nodes: Nodes: features first, targets last.
        indptr: `(row + 1,)` begin of every row; CSR.
        indices: `(edge,)` source node.
        weights: `(edge,)` what the source supplies.
        rest: `(row,)` signed sum of what is kept in no edge.
        rest_mass: `(row,)` its absolute sum.
        values: `(row,)` what the row sums to, `rest` included: the node's activation, the target's reading.
        targets: What is explained.
        tokens: The prompt's tokens as texts.
        record: What it was made with: `model`, `dictionary`, `settings`, `versions`, `prompt`; JSON-ready.
        tracer: What made it, to check it against the model; None for a graph that was read from a file.
    """

    nodes: Nodes
    indptr: np.ndarray
    indices: np.ndarray
    weights: np.ndarray
    rest: np.ndarray
    rest_mass: np.ndarray
    values: np.ndarray
    targets: tuple[TargetInfo, ...]
    tokens: tuple[str, ...]
    record: dict[str, Any]
    tracer: Tracer | None = field(default=None, repr=False)

    # Structure -------------------------------------------------------------------------------------------------------

    @cached_property
    def row_nodes(self) -> np.ndarray:
        """`(row,)` node of every row."""
        return self.nodes.expanded

    @cached_property
    def edge_rows(self) -> np.ndarray:
        """`(edge,)` row of every edge."""
        return np.repeat(np.arange(len(self.rest)), np.diff(self.indptr))

    @property
    def edge_targets(self) -> np.ndarray:
        """`(edge,)` node that every edge leads to; `indices` are those that they come from."""
        return self.row_nodes[self.edge_rows]

    @cached_property
    def matrix(self) -> csr_matrix:
        """`(row, node)` signed edges."""
        from scipy.sparse import csr_matrix

        return csr_matrix((self.weights, self.indices, self.indptr), shape=(len(self.rest), len(self.nodes)))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Node ids."""
        return self.nodes.names

    @cached_property
    def target_weights(self) -> np.ndarray:
        """`(row,)` weight of each row as a thing to explain: zero for features."""
        weights = np.zeros(len(self.rest))
        weights[len(weights) - len(self.targets) :] = [target.weight for target in self.targets]
        return weights

    @property
    def renormalise(self) -> bool:
        """Whether what is in no node is left out of the normalisers, as circuit-tracer does."""
        return self.record.get("settings", {}).get("conventions") == "circuit-tracer"

    def index(self, name: str) -> int:
        """A node by its id.

        Raises:
            GraphError: There is none.
        """
        if name not in self._by_name:
            raise GraphError(f"The graph has no node {name!r}.", f"Its ids look like {self.names[0]!r}.")
        return self._by_name[name]

    @cached_property
    def _by_name(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.names)}

    def row(self, name: str) -> dict[str, float]:
        """The sources of a node, by id, strongest first; `rest` is what the others leave over.

        Raises:
            GraphError: The node does not exist or was not expanded.
        """
        rows = np.flatnonzero(self.row_nodes == self.index(name))
        if not len(rows):
            raise GraphError(
                f"{name} has no sources: only features and targets have.", "Ask for one of those."
            )
        entries = slice(self.indptr[rows[0]], self.indptr[rows[0] + 1])
        order = np.argsort(-np.abs(self.weights[entries]), kind="stable")
        found = {self.names[self.indices[entries][i]]: float(self.weights[entries][i]) for i in order}
        return found | {"rest": float(self.rest[rows[0]])}

    # Questions -------------------------------------------------------------------------------------------------------

    def influence(self) -> np.ndarray:
        """`(node,)` share of the targets that reaches them through each node, along all paths."""
        from otoscope.circuits.influence import node_influence

        return node_influence(self)

    def scores(self) -> Scores:
        """Replacement and completeness."""
        from otoscope.circuits.scores import scores

        return scores(self)

    def prune(self, node_share: float = 0.8, edge_share: float = 0.98) -> Pruned:
        """The smallest part that carries these shares of the influence."""
        from otoscope.circuits.pruning import prune

        return prune(self, node_share, edge_share)

    def subgraph(self, names: Sequence[str]) -> AttributionGraph:
        """Some features and errors by id, with all tokens, positions, biases and targets; edges of the others join `rest`."""
        from otoscope.circuits.pruning import keep_nodes

        chosen = np.isin(np.arange(len(self.nodes)), [self.index(name) for name in names])
        return keep_nodes(self, chosen | ~np.isin(self.nodes.kind, (FEATURE, ERROR)))

    def check(self, features: int = 64, seed: int = 0, *, ladder: bool = False) -> Check:
        """Compare the graph's predictions with interventions on the model that it was made of; see `checking.check`.

        Raises:
            GraphError: The graph was read from a file, without its model.
        """
        from otoscope.circuits.checking import check

        return check(self, features, seed, ladder=ladder)

    def save(self, folder: Path | str) -> None:
        """Write it as `graph.safetensors` and `graph.json` into a folder."""
        from otoscope.circuits.saving import save_graph

        save_graph(self, folder)

    def without_tracer(self) -> AttributionGraph:
        """The same, without the model and dictionary that made it."""
        return replace(self, tracer=None)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: `targets`, `nodes`, `edges` as `[source, target, weight]` by id, `scores`, and what it was made with.

        The node `rest` stands for what is in no other node, for all rows together.
        """
        influence = self.influence()
        nodes = [self._node_dict(i, influence[i]) for i in range(len(self.nodes))]
        edges = self._edges()
        if self.rest_mass.any():
            nodes.append(_REST_NODE | {"stream": self.nodes.stream[-1], "influence": self.scores().rest})
        return {
            "prompt": self.record.get("prompt", ""),
            "tokens": list(self.tokens),
            "targets": [self._target_dict(i, target) for i, target in enumerate(self.targets)],
            "nodes": nodes,
            "edges": edges,
            "scores": self.scores().to_dict() | self._grounding(),
            **({"totals": self.record["totals"]} if "totals" in self.record else {}),
            "record": {name: value for name, value in self.record.items() if name != "totals"},
        }

    def _grounding(self) -> dict[str, Any]:
        """The grounding ratio of a recogniser's graph, as a whole and of each target with its shares."""
        from otoscope.circuits.scores import grounding

        if "segments" not in self.record:
            return {}
        each = [grounding(self, i).to_dict() for i in range(len(self.targets))]
        return {"grounding": grounding(self).ratio, "grounding_by_target": each}

    def _node_dict(self, i: int, influence: float) -> dict[str, Any]:
        n, activation = self.nodes, float(self.nodes.activation[i])
        span = {} if np.isnan(n.span[i]).any() else {"span": n.span[i].tolist()}
        return {
            "id": self.names[i],
            "kind": KINDS[n.kind[i]],
            "stream": n.stream[i],
            "layer": int(n.layer[i]),
            "pos": int(n.pos[i]),
            **span,
            "feature": None if n.feature[i] == NONE else int(n.feature[i]),
            "activation": None if np.isnan(activation) else activation,
            "influence": float(influence),
        }

    def _target_dict(self, i: int, target: TargetInfo) -> dict[str, Any]:
        row = len(self.values) - len(self.targets) + i
        return {
            "id": f"target/{i}",
            "label": target.label,
            "token": target.token,
            **({} if target.against is None else {"against": target.against}),
            "pos": target.pos,
            "probability": target.probability,
            "weight": target.weight,
            "value": float(self.values[row]),
        }

    def _edges(self) -> list[list[Any]]:
        edges: list[list[Any]] = []
        for row, node in enumerate(self.row_nodes):
            target, entries = self.names[node], slice(self.indptr[row], self.indptr[row + 1])
            pairs = zip(self.indices[entries], self.weights[entries].tolist(), strict=True)
            edges.extend([self.names[source], target, weight] for source, weight in pairs)
            if self.rest_mass[row]:
                edges.append(["rest", target, float(self.rest[row])])
        return edges

    def __repr__(self) -> str:
        counts = {KINDS[k]: int((self.nodes.kind == k).sum()) for k in range(len(KINDS))}
        told = ", ".join(
            f"{n} {kind}{'es' if kind.endswith('s') else 's'}" for kind, n in counts.items() if n
        )
        return f"AttributionGraph({told}; {len(self.weights)} edges)"

    def card(self) -> Card:
        """The graph in words."""
        from otoscope.circuits.summary import summary_lines
        from otoscope.documents.card import Card

        return Card(title="Attribution graph", lines=list(summary_lines(self)))


_REST_NODE: dict[str, Any] = {
    "id": "rest", "kind": "rest", "layer": NONE, "pos": NONE, "feature": None, "activation": None,
}  # fmt: skip
