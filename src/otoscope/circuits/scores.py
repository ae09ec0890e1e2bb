"""How much of the influence a graph explains.

Replacement is the share of influence that ends in tokens (and positions and biases, which the published count lacks) and not
in errors; completeness is the share of every node's inputs that are not errors, weighted by the node's influence (Ameisen et
al. 2025). Both leave out what is in no node. `*_with_rest` count that as error, too: a fair score of a pruned or chosen part,
and the one that says something in a basis without errors.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from otoscope.circuits.graph import BIAS, ERROR, POSITION, TOKEN
from otoscope.circuits.influence import LEAST, normalised, path_influence

if TYPE_CHECKING:
    from otoscope.circuits.graph import AttributionGraph


@dataclass(frozen=True)
class Scores:
    """Scores of one graph, each between 0 and 1.

    Attributes:
        replacement: Influence that ends in inputs, of what ends in inputs or errors.
        completeness: Mean share of nodes' inputs that are not errors.
        completeness_expanded: The same over nodes that have a row; tokens and errors count as complete in the other.
        replacement_with_rest: Replacement, what is in no node counted as error.
        completeness_with_rest: Completeness over nodes that have a row, what is in no node counted as error.
        rest: Share of the influence that ends in what is in no node.
    """

    replacement: float
    completeness: float
    completeness_expanded: float
    replacement_with_rest: float
    completeness_with_rest: float
    rest: float

    def to_dict(self) -> dict[str, float]:
        """JSON-ready."""
        return asdict(self)

    def __repr__(self) -> str:
        return "Scores(" + ", ".join(f"{name} {value:.3f}" for name, value in asdict(self).items()) + ")"


def scores(graph: AttributionGraph) -> Scores:
    """Replacement and completeness of a graph."""
    mass = np.asarray(abs(graph.matrix).sum(axis=1)).ravel()
    published = _counted(graph, np.maximum(mass, LEAST), np.zeros_like(mass))
    both = _counted(graph, np.maximum(mass + graph.rest_mass, LEAST), graph.rest_mass)
    return Scores(
        published["replacement"],
        published["completeness"],
        published["expanded"],
        both["replacement"],
        both["expanded"],
        both["rest"],
    )


def _counted(graph: AttributionGraph, mass: np.ndarray, rest: np.ndarray) -> dict[str, float]:
    shares = normalised(graph, mass)
    influence = path_influence(shares, graph.row_nodes, graph.target_weights)
    through = influence.copy()  # w + influence, node by node
    through[graph.row_nodes] += graph.target_weights
    kind = graph.nodes.kind
    inputs = influence[np.isin(kind, (TOKEN, POSITION, BIAS))].sum()
    lost_rows = np.asarray(shares[:, kind == ERROR].sum(axis=1)).ravel() + rest / mass
    lost = (through[graph.row_nodes] * rest / mass).sum()
    errors = influence[kind == ERROR].sum() + lost
    missed = (through[graph.row_nodes] * lost_rows).sum()
    return {
        "replacement": _share(inputs, inputs + errors),
        "completeness": 1.0 - _share(missed, through.sum(), otherwise=0.0),
        "expanded": 1.0 - _share(missed, through[graph.row_nodes].sum(), otherwise=0.0),
        "rest": _share(lost, inputs + errors, otherwise=0.0),
    }


def _share(part: np.floating, whole: np.floating, otherwise: float = 1.0) -> float:
    return min(max(float(part / whole), 0.0), 1.0) if whole > 0 else otherwise
