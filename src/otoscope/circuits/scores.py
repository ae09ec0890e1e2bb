"""How much of the influence a graph explains.

Replacement is the share of influence that ends in tokens (and frames, positions and biases, which the published count lacks)
and not in errors; completeness is the share of every node's inputs that are not errors, weighted by the node's influence
(Ameisen et al. 2025). Both leave out what is in no node. `*_with_rest` count that as error, too: a fair score of a pruned or
chosen part, and the one that says something in a basis without errors.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from otoscope.circuits.graph import BIAS, ERROR, FRAME, POSITION, PROJECTOR, TOKEN
from otoscope.circuits.influence import LEAST, normalised, path_influence
from otoscope.showing import Shows

if TYPE_CHECKING:
    from otoscope.circuits.graph import AttributionGraph


@dataclass(frozen=True)
class Scores(Shows):
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


@dataclass(frozen=True)
class Grounding(Shows):
    """Where the influence on a recogniser's word comes from: shares of what reaches the sources, which sum to 1.

    Attributes:
        sound: Frames, and what enters from them through a projector.
        text: Tokens that were written before.
        prompt: Tokens of the decoder's prompt.
        positions: Learned positions.
        biases: Biases.
        errors: What the dictionary misses.
        rest: What comes through features that are no nodes.
    """

    sound: float
    text: float
    prompt: float
    positions: float
    biases: float
    errors: float
    rest: float

    @property
    def ratio(self) -> float:
        """The grounding ratio: the sound's share among sound, tokens, positions and biases."""
        return _share(
            np.float64(self.sound),
            np.float64(self.sound + self.text + self.prompt + self.positions + self.biases),
            0.0,
        )

    def to_dict(self) -> dict[str, float]:
        """JSON-ready: the ratio and the shares."""
        return {"grounding": self.ratio, **asdict(self)}


def grounding(graph: AttributionGraph, target: int | None = None) -> Grounding:
    """How much of a word is heard, and how much follows from the words before, the position and the biases.

    Args:
        graph: A recogniser's.
        target: Index of the target, from 0; None: all together, by their weights.
    """
    shares, weights = normalised(graph), graph.target_weights
    if target is not None:
        weights = np.zeros_like(weights)
        weights[len(weights) - len(graph.targets) + target] = 1.0
    influence = path_influence(shares, graph.row_nodes, weights)
    through = influence.copy()
    through[graph.row_nodes] += weights
    mass = np.asarray(abs(graph.matrix).sum(axis=1)).ravel() + graph.rest_mass
    rest = float((through[graph.row_nodes] * graph.rest_mass / np.maximum(mass, LEAST)).sum())
    n = graph.nodes
    prompt = (n.kind == TOKEN) & (n.pos < int(graph.record.get("prompt_tokens", 0)))
    parts = [np.isin(n.kind, (FRAME, PROJECTOR)), (n.kind == TOKEN) & ~prompt, prompt]
    parts += [n.kind == kind for kind in (POSITION, BIAS, ERROR)]
    reached = [float(influence[part].sum()) for part in parts]
    total = (sum(reached) + rest) or 1.0
    sound, text, given, positions, biases, errors = (each / total for each in reached)
    return Grounding(sound, text, given, positions, biases, errors, rest / total)


def _counted(graph: AttributionGraph, mass: np.ndarray, rest: np.ndarray) -> dict[str, float]:
    shares = normalised(graph, mass)
    influence = path_influence(shares, graph.row_nodes, graph.target_weights)
    through = influence.copy()  # w + influence, node by node
    through[graph.row_nodes] += graph.target_weights
    kind = graph.nodes.kind
    inputs = influence[np.isin(kind, (TOKEN, POSITION, BIAS, FRAME, PROJECTOR))].sum()
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
