"""Pruning: the smallest part of a graph that carries a share of its influence (Ameisen et al. 2025).

Nodes first, then edges, then what is left without a way in or out. Edges that go are added to their row's `rest`, so that
rows still sum to their targets.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from otoscope.circuits.graph import ERROR, FEATURE, NONE, TARGET, AttributionGraph
from otoscope.circuits.influence import normalised, normalisers, path_influence
from otoscope.errors import OptionError

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


_TIE = 1e-9
"""Values as near to each other as this are equal: where there is one way, its edges differ by rounding alone."""


@dataclass(frozen=True, eq=False)
class Pruned:
    """A pruned graph and what became of the whole one.

    Attributes:
        graph: What is left.
        nodes: `(node,)` of the whole graph: kept or not.
        edges: `(edge,)` of the whole graph: kept or not.
        cumulative: `(node,)` of the whole graph: fraction of all influence in this node and the more influential ones
            (small is important); what circuit-tracer exports as `influence`.
    """

    graph: AttributionGraph
    nodes: np.ndarray
    edges: np.ndarray
    cumulative: np.ndarray


def prune(graph: AttributionGraph, node_share: float = 0.8, edge_share: float = 0.98) -> Pruned:
    """Keep the fewest nodes and then edges that reach these shares; tokens, positions, biases and targets stay.

    Raises:
        OptionError: A share is not within 0 and 1.
    """
    for name, share in (("node_share", node_share), ("edge_share", edge_share)):
        if not 0 <= share <= 1:
            raise OptionError(f"{name}={share} is no share.", "Choose a number from 0 to 1.")
    influence = path_influence(normalised(graph), graph.row_nodes, graph.target_weights)
    free = ~np.isin(graph.nodes.kind, (FEATURE, ERROR))
    nodes = (influence >= _threshold(influence, node_share)) | free
    nodes[graph.nodes.kind == TARGET] = True
    edges = _edges_worth_keeping(graph, nodes, edge_share)
    nodes, edges = _connected(graph, nodes, edges)
    order = np.argsort(-influence, kind="stable")
    cumulative = np.empty_like(influence)
    cumulative[order] = influence[order].cumsum() / max(influence.sum(), 1e-300)
    return Pruned(_part(graph, nodes, edges), nodes, edges, cumulative)


def keep_nodes(graph: AttributionGraph, nodes: np.ndarray) -> AttributionGraph:
    """The graph of some nodes with all edges between them.

    Args:
        graph: The whole graph.
        nodes: `(node,)` boolean; targets are kept in any case.
    """
    nodes = nodes | (graph.nodes.kind == TARGET)
    return _part(graph, nodes, _both_ends(graph, nodes))


def keep_strongest(graph: AttributionGraph, edges: int) -> AttributionGraph:
    """The graph with so many edges at most: the largest shares, weighted by the influence that their target passes on."""
    if len(graph.weights) <= edges:
        return graph
    kept = np.zeros(len(graph.weights), bool)
    kept[np.argsort(-edge_influence(graph), kind="stable")[:edges]] = True
    return _part(graph, np.ones(len(graph.nodes), bool), kept)


def edge_influence(graph: AttributionGraph) -> np.ndarray:
    """`(edge,)` share of the targets that comes along each edge, over all paths."""
    rows = graph.edge_rows
    shares = np.abs(graph.weights) / normalisers(graph)[rows]
    through = path_influence(_matrix(graph, shares), graph.row_nodes, graph.target_weights)[graph.row_nodes]
    return shares * (through + graph.target_weights)[rows]


def _threshold(values: np.ndarray, share: float) -> float:
    """The least value among the fewest, largest ones that together reach a share of the sum; ties are kept."""
    ordered = -np.partition(-values, len(values) - 1) if not len(values) else np.sort(values)[::-1]
    total = ordered.sum()
    if not len(ordered) or total <= 0 or share >= 1:  # all of it, whatever sums are rounded to
        return 0.0
    at = int(np.searchsorted(ordered.cumsum() / total, share))
    return float(ordered[min(at, len(ordered) - 1)]) * (1 - _TIE)


def _both_ends(graph: AttributionGraph, nodes: np.ndarray) -> np.ndarray:
    return nodes[graph.indices] & nodes[graph.edge_targets]


def _edges_worth_keeping(graph: AttributionGraph, nodes: np.ndarray, share: float) -> np.ndarray:
    """Edges between kept nodes, by their share times the influence that their target passes on."""
    inside = _both_ends(graph, nodes)
    weights = np.where(inside, np.abs(graph.weights), 0.0)
    rows = graph.edge_rows
    mass = np.bincount(rows, weights, len(graph.rest)) if graph.renormalise else normalisers(graph)
    shares = weights / np.maximum(mass, 1e-10)[rows]
    through = path_influence(_matrix(graph, shares), graph.row_nodes, graph.target_weights)[graph.row_nodes]
    score = shares * (through + graph.target_weights)[rows]
    return inside & (score >= _threshold(score[inside], share))


def _matrix(graph: AttributionGraph, weights: np.ndarray) -> csr_matrix:
    from scipy.sparse import csr_matrix

    return csr_matrix((weights, graph.indices, graph.indptr), shape=graph.matrix.shape)


def _connected(
    graph: AttributionGraph, nodes: np.ndarray, edges: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Drop features and errors that lead nowhere, and features that nothing leads to, until none is left."""
    kind, rows = graph.nodes.kind, graph.edge_rows
    while True:
        outgoing = np.bincount(graph.indices[edges], minlength=len(nodes)) > 0
        incoming = np.zeros(len(nodes), bool)
        incoming[graph.row_nodes[rows[edges]]] = True
        kept = nodes & (outgoing | ~np.isin(kind, (FEATURE, ERROR))) & (incoming | (kind != FEATURE))
        if (kept == nodes).all():
            return nodes, edges
        nodes = kept
        edges = edges & _both_ends(graph, nodes)


def _part(graph: AttributionGraph, nodes: np.ndarray, edges: np.ndarray) -> AttributionGraph:
    """Kept nodes and edges; everything else of a kept row joins its rest."""
    rows, kept_rows = graph.edge_rows, nodes[graph.row_nodes]
    gone = ~edges
    rest = graph.rest + np.bincount(rows[gone], graph.weights[gone], len(graph.rest))
    mass = graph.rest_mass + np.bincount(rows[gone], np.abs(graph.weights[gone]), len(graph.rest))
    counts = np.bincount(rows[edges], minlength=len(graph.rest))[kept_rows]
    renumbered = np.where(nodes, nodes.cumsum() - 1, NONE)
    return replace(
        graph,
        nodes=graph.nodes.take(np.flatnonzero(nodes)),
        indptr=np.concatenate([[0], counts.cumsum()]),
        indices=renumbered[graph.indices[edges]],
        weights=graph.weights[edges],
        rest=rest[kept_rows],
        rest_mass=mass[kept_rows],
        values=graph.values[kept_rows],
    )
