"""What is known about the nodes and edges of a graph besides numbers: labels, promoted tokens and examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from otoscope.circuits.graph import (
    BIAS,
    FEATURE,
    HEARING,
    TARGET,
    TOKEN,
    AttributionGraph,
)
from otoscope.circuits.summary import is_output, node_words, written_vector
from otoscope.documents.features import FeatureInfo, TokenWeight
from otoscope.documents.graph import EdgeSplit, GraphFeature
from otoscope.errors import OptionError
from otoscope.runs.notes import Notes
from otoscope.studies.feature_page import about_feature, feature_info, recordings_of
from otoscope.studies.graph_edges import splits_of

if TYPE_CHECKING:
    from otoscope.circuits.tracer import Tracer
    from otoscope.documents.base import Resource
    from otoscope.studies.feature_examples import Examples

_TOKENS = 6
_DESCRIBED = 160
"""Features with most influence of which examples are carried."""

Place = tuple[str, int, int]
"""Stream, layer and feature."""


@dataclass
class Details:
    """Besides numbers.

    Attributes:
        features: What is known of features.
        splits: The strongest edges by head.
    """

    features: list[GraphFeature] = field(default_factory=list)
    splits: list[EdgeSplit] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._by_place = {(f.stream, f.layer, f.feature): f for f in self.features}

    def label(self, graph: AttributionGraph, i: int) -> str:
        """What a node is called: by people, else by its examples, by what it promotes, or by its number."""
        n, kind, layer = graph.nodes, int(graph.nodes.kind[i]), int(graph.nodes.layer[i])
        if kind == FEATURE:
            known = self._by_place.get((n.stream[i], layer, int(n.feature[i])))
            if known and known.about and known.about.label != "unlabelled":
                return known.about.named or known.about.label
            if known and known.promotes:
                return "writes " + " ".join(
                    f"\u201c{token.text.strip()}\u201d" for token in known.promotes[:3]
                )
            return f"feature {int(n.feature[i])}"
        if kind == TARGET:
            return graph.targets[i - (len(n) - len(graph.targets))].label
        if kind == TOKEN:
            return graph.tokens[int(n.pos[i])]
        if kind == BIAS:
            return "the output's own bias" if is_output(graph, i) else "bias"
        return node_words(graph, i)


def details_of(
    graph: AttributionGraph,
    part: AttributionGraph,
    influence: np.ndarray,
    examples: Sequence[Examples],
    resources: dict[str, Resource],
) -> Details:
    """All of it, for what is shown.

    Args:
        graph: The whole graph, with its tracer if it still has one.
        part: What of it is shown.
        influence: `(node,)` of the part's nodes.
        examples: What was collected about features.
        resources: Takes the sound of examples.

    Raises:
        OptionError: Examples are of another dictionary.
    """
    return Details(_features(graph, part, influence, examples, resources), splits_of(graph, part))


# Features ----------------------------------------------------------------------------------------------------------------


def _features(
    graph: AttributionGraph,
    part: AttributionGraph,
    influence: np.ndarray,
    examples: Sequence[Examples],
    resources: dict[str, Resource],
) -> list[GraphFeature]:
    nodes = part.nodes.of(FEATURE)
    nodes = nodes[np.argsort(-influence[nodes], kind="stable")]
    first: dict[Place, int] = {}
    for i in nodes.tolist():
        place = (part.nodes.stream[i], int(part.nodes.layer[i]), int(part.nodes.feature[i]))
        first.setdefault(place, i)
    writes = _promoted(graph.tracer, part, first)
    about = _about(graph, first, examples, resources)
    return [
        GraphFeature(
            stream=place[0],
            layer=place[1],
            feature=place[2],
            about=about.get(place),
            **dict(zip(("promotes", "suppresses"), writes.get(place, ([], [])), strict=True)),
        )
        for place in first
        if place in about or place in writes
    ]


def _promoted(
    tracer: Tracer | None, graph: AttributionGraph, first: Mapping[Place, int]
) -> dict[Place, tuple[list[TokenWeight], list[TokenWeight]]]:
    """Tokens that each feature writes toward and away from most, per unit of activation."""
    own = {place: i for place, i in first.items() if place[0] not in HEARING and graph.nodes.activation[i]}
    if tracer is None or tracer.model.tokenizer is None or not own:
        return {}
    weight = tracer.tape.wiring.unembedding.weight.detach()  # type: ignore[union-attr]
    found = {}
    for places in _batches(list(own), 32):
        vectors = [
            written_vector(tracer, graph, own[p]) / float(graph.nodes.activation[own[p]]) for p in places
        ]
        with torch.no_grad():
            scores = torch.stack(vectors) @ weight.T  # type: ignore[operator]
        scores = scores - scores.mean(dim=1, keepdim=True)
        for place, row in zip(places, scores, strict=True):
            found[place] = tuple(_tokens(tracer, sign * row, sign) for sign in (1, -1))
    return found


def _batches(places: list[Place], size: int) -> list[list[Place]]:
    return [places[at : at + size] for at in range(0, len(places), size)]


def _tokens(tracer: Tracer, scores: torch.Tensor, sign: int) -> list[TokenWeight]:
    best = scores.topk(min(_TOKENS, len(scores)))
    spell = tracer.model.tokenizer.decode  # type: ignore[union-attr]
    return [
        TokenWeight(text=spell([int(i)]), weight=round(sign * float(v), 5))
        for i, v in zip(best.indices, best.values, strict=True)
    ]


def _about(
    graph: AttributionGraph,
    first: Mapping[Place, int],
    examples: Sequence[Examples],
    resources: dict[str, Resource],
) -> dict[Place, FeatureInfo]:
    found: dict[Place, FeatureInfo] = {}
    for collected in examples:
        stack, layers = collected.about["places"]["stack"], set(collected.about["places"]["layers"])
        _require_the_same(graph, collected, stack)
        named, recordings = Notes(collected.folder).read(), recordings_of(collected)
        for place in [p for p in first if p[0] == stack and p[1] in layers][:_DESCRIBED]:
            note = named.get(about_feature(*place[1:]))
            told = collected.read(*place[1:])
            found[place] = feature_info(told, recordings, resources, 4, note.text if note else None)
    return found


def _require_the_same(graph: AttributionGraph, examples: Examples, stack: str) -> None:
    traced = graph.record.get("encoder_dictionary" if stack in HEARING else "dictionary") or {}
    mine = examples.about["dictionary"]
    if any(traced.get(name) != mine.get(name) for name in ("kind", "features", "activation")):
        raise OptionError(
            f"{examples.folder} is about features of another dictionary ({mine.get('kind')}, {stack}).",
            "Name the examples of the dictionary that is traced with.",
        )
