"""Influence: how much of the targets comes through each node, along all paths.

`A_hat[t, s] = |A[t, s]| / sum_s' |A[t, s']|` and influence `= w (A_hat + A_hat^2 + ...)`, which ends because the graph has no
cycles (Ameisen et al. 2025).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from otoscope.circuits.graph import AttributionGraph

LEAST = 1e-10
"""A row's absolute sum counts as at least this, as in the published code."""


def normalisers(graph: AttributionGraph) -> np.ndarray:
    """`(row,)` absolute sum of every row, with what is in no node unless the graph leaves that out."""
    mass = np.asarray(abs(graph.matrix).sum(axis=1)).ravel()
    return np.maximum(mass if graph.renormalise else mass + graph.rest_mass, LEAST)


def normalised(graph: AttributionGraph, mass: np.ndarray | None = None) -> csr_matrix:
    """`(row, node)` shares `A_hat`; `mass` replaces the rows' own normalisers."""
    from scipy.sparse import csr_matrix, diags

    shares = diags(1 / (normalisers(graph) if mass is None else mass)) @ abs(graph.matrix)
    return csr_matrix(shares)


def path_influence(shares: csr_matrix, row_nodes: np.ndarray, start: np.ndarray) -> np.ndarray:
    """`(node,)` sum over all paths from weighted rows down.

    Args:
        shares: `(row, node)`.
        row_nodes: `(row,)` node of each row.
        start: `(row,)` weights.
    """
    total = np.zeros(shares.get_shape()[1])
    current = start.astype(np.float64)
    while current.any():
        reached = current @ shares
        total += reached
        current = reached[row_nodes]
    return total


def node_influence(graph: AttributionGraph) -> np.ndarray:
    """`(node,)` influence on the graph's weighted targets; the weights are not added."""
    return path_influence(normalised(graph), graph.row_nodes, graph.target_weights)


def path_sums(graph: AttributionGraph) -> np.ndarray:
    """`(target, node)` signed sum over all paths in the graph: what a target would lose without the node, gates frozen.

    A node that goes takes from each other node its edge; one that loses a part of its activation passes that part on.
    """
    from scipy.sparse import csr_matrix, diags

    values = np.where(graph.values == 0, 1.0, graph.values)
    relative = csr_matrix(diags(1 / values) @ graph.matrix)
    rows = len(graph.values)
    sums = []
    for i in range(len(graph.targets)):
        start = np.zeros(rows)
        start[rows - len(graph.targets) + i] = 1.0
        sums.append(path_influence(relative, graph.row_nodes, start) * values[rows - len(graph.targets) + i])
    return np.stack(sums)
