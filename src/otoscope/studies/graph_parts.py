"""The parts of a graph as a document has them: stacks, tokens, segments, targets, nodes, edges, and what is left out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from otoscope.circuits.graph import FRAME, HEARING, KINDS, NONE, TARGET, AttributionGraph
from otoscope.circuits.influence import normalisers
from otoscope.circuits.segments import PADDING, SILENCE
from otoscope.documents.base import Array
from otoscope.documents.graph import (
    Account,
    CheckLine,
    Edges,
    GraphNode,
    GraphSegment,
    GraphStream,
    GraphTarget,
    GraphToken,
    Inputs,
    LeftOut,
)
from otoscope.studies.graph_making import compared_with

if TYPE_CHECKING:
    from otoscope.circuits.checking import Check
    from otoscope.studies.graph_details import Details

_CHECKED = {
    "decoder_features": "features of the decoder",
    "encoder_features": "features of the encoder",
    "supernodes": "features of one layer and place together",
    "sound": "segments of sound, silenced",
}


def streams_of(graph: AttributionGraph) -> list[GraphStream]:
    """The stacks, in the order of the nodes."""
    layers = int(graph.record.get("model", {}).get("layers") or max(int(graph.nodes.layer.max()), 0))
    names = list(dict.fromkeys(graph.nodes.stream))
    return [
        GraphStream(
            name=name,
            layers=int(graph.record.get("encoder_layers", 0)) if name in HEARING else layers,
            hears=name in HEARING,
        )
        for name in names
    ]


def tokens_of(graph: AttributionGraph) -> list[GraphToken]:
    """Tokens of the prompt or text, with the time of their words."""
    first = int(graph.record.get("prompt_tokens", 0))
    when = _word_times(graph)
    return [
        GraphToken(text=text, prompt=i < first, **when.get(i - first, {}))
        for i, text in enumerate(graph.tokens)
    ]


def _word_times(graph: AttributionGraph) -> dict[int, dict[str, float]]:
    """Begin and end of the word of each written token that has one."""
    return {
        token: {"start": max(word["start"], 0.0), "end": max(word["end"], 0.0)}
        for word in graph.record.get("words", [])
        for token in range(word["first_token"], word["last_token"] + 1)
    }


def segments_of(graph: AttributionGraph) -> list[GraphSegment]:
    """Stretches of sound."""
    told = graph.record.get("segments")
    if not told:
        return []
    kinds = {PADDING: "padding", SILENCE: "pause", "": "piece"}
    return [
        GraphSegment(label=label, start=start, end=end, kind=kinds.get(label, "word"))  # type: ignore[arg-type]
        for label, (start, end) in zip(told["labels"], told["spans"], strict=True)
    ]


def targets_of(graph: AttributionGraph) -> list[GraphTarget]:
    """What is explained, with its account where one was made."""
    written, accounts = graph.record.get("token_indices", []), graph.record.get("totals", [])
    first = len(graph.nodes) - len(graph.targets)
    return [
        GraphTarget(
            node=first + i,
            text=target.label,
            p=target.probability,
            weight=target.weight,
            position=target.pos,
            written=written[i] if i < len(written) else None,
            against=compared_with(target),
            account=_account(accounts[i]) if i < len(accounts) else None,
        )
        for i, target in enumerate(graph.targets)
    ]


def _account(told: dict[str, Any]) -> Account:
    parts = ("value", "sound", "tokens", "positions", "biases", "errors")
    return Account(heads=[tuple(head) for head in told["heads"]], **{name: told[name] for name in parts})


def nodes_of(graph: AttributionGraph, influence: np.ndarray, details: Details) -> list[GraphNode]:
    """The nodes; `influence` is `(node,)`, a share of the targets."""
    n, mass = graph.nodes, normalisers(graph)
    row_of = {int(node): row for row, node in enumerate(graph.row_nodes)}
    when, written = _word_times(graph), graph.record.get("token_indices", [])
    found = []
    for i in range(len(n)):
        kind, heard = int(n.kind[i]), n.stream[i] in HEARING or n.kind[i] == FRAME
        span = n.span[i]
        if kind == TARGET:
            order = i - (len(n) - len(graph.targets))
            time = when.get(written[order], {}) if order < len(written) else {}
        else:
            time = {} if np.isnan(span).any() else {"start": float(span[0]), "end": float(span[1])}
        place = int(n.pos[i]) if n.pos[i] >= 0 else None
        row = row_of.get(i)
        found.append(
            GraphNode(
                id=graph.names[i],
                kind=KINDS[kind],  # type: ignore[arg-type]
                stream=n.stream[i],
                layer=int(n.layer[i]),
                position=None if heard else place,
                segment=place if heard else None,
                feature=None if n.feature[i] == NONE else int(n.feature[i]),
                activation=None if np.isnan(n.activation[i]) else float(n.activation[i]),
                label=details.label(graph, i),
                influence=float(influence[i]),
                inputs=None if row is None else _inputs(graph, row, float(mass[row])),
                **time,
            )
        )
    return found


def _inputs(graph: AttributionGraph, row: int, mass: float) -> Inputs:
    return Inputs(
        value=float(graph.values[row]),
        rest=float(graph.rest[row]),
        rest_mass=float(graph.rest_mass[row]),
        mass=mass,
    )


def edges_of(graph: AttributionGraph) -> Edges:
    """The edges as three arrays."""
    return Edges(
        source=Array.pack(graph.indices),
        target=Array.pack(graph.edge_targets),
        weight=Array.pack(graph.weights),
    )


def left_out_of(
    graph: AttributionGraph, part: AttributionGraph, node_share: float, edge_share: float
) -> LeftOut:
    """What of the whole graph is not shown."""
    scores, told = part.scores(), graph.record
    features = [int((one.nodes.kind == KINDS.index("feature")).sum()) for one in (graph, part)]
    active = int(told.get("active_features", 0)) + int(told.get("encoder_features") or 0)
    return LeftOut(
        active_features=max(active, features[0]),
        traced_features=features[0],
        shown_features=features[1],
        traced_edges=len(graph.weights),
        shown_edges=len(part.weights),
        node_share=node_share,
        edge_share=edge_share,
        rest=scores.rest,
        errors=max(0.0, 1.0 - scores.replacement_with_rest - scores.rest),
    )


def checks_of(check: Check | None) -> list[CheckLine]:
    """Whether predictions came true."""
    if check is None:
        return []
    lines = []
    for kind, each in (check.kinds or {"": check}).items():
        told = each.to_dict()
        free = told["free"]
        lines.append(
            CheckLine(
                what=_CHECKED.get(kind, "features"),
                n=free["n"],
                direct=told["direct"]["correlation"],
                free=free["correlation"],
                low=free.get("ci_low"),
                high=free.get("ci_high"),
                baselines={k.replace("_", " "): v for k, v in free.get("baselines", {}).items()},
            )
        )
    return lines
