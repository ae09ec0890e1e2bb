"""A graph as a document: the part of it that carries most influence, with words, sound, heads and what features are about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from otoscope.circuits.graph import FRAME, HEARING, KINDS, NONE, TARGET, AttributionGraph
from otoscope.circuits.influence import normalisers
from otoscope.circuits.pruning import keep_strongest
from otoscope.circuits.segments import PADDING, SILENCE
from otoscope.circuits.summary import summary_lines
from otoscope.documents.base import Array, Resource
from otoscope.documents.graph import (
    Account,
    CheckLine,
    Edges,
    GraphData,
    GraphDoc,
    GraphNode,
    GraphSegment,
    GraphStream,
    GraphTarget,
    GraphToken,
    Inputs,
    LeftOut,
)
from otoscope.studies.graph_details import Details, details_of
from otoscope.studies.graph_making import compared_with, folder_of, how_made, language_of
from otoscope.studies.graph_sound import sound_of
from otoscope.versions import versions

if TYPE_CHECKING:
    from otoscope.audio import Clip
    from otoscope.circuits.checking import Check
    from otoscope.studies.feature_examples import Examples

NODE_SHARE, EDGE_SHARE = 0.95, 0.98
MOST_EDGES = 30_000

NOTES = (
    "Layers, tokens, segments, heads and features are counted from 0.",
    "An edge is what its source supplied to its target with attention patterns, norm scales and gates frozen where they were. "
    "It is exact for this one run and no promise about what happens when the source is really taken away.",
    "Shares are of everything that a node was given, for it and against it, what is not shown included.",
    "Influence counts every path from a node to the targets, each as the product of its shares.",
    "Times of words come from cross-attention, which can be off by a tenth of a second and more.",
)

_CHECKED = {
    "decoder_features": "features of the decoder",
    "encoder_features": "features of the encoder",
    "supernodes": "features of one layer and place together",
    "sound": "segments of sound, silenced",
}


def graph_data(
    graph: AttributionGraph,
    *,
    node_share: float = NODE_SHARE,
    edge_share: float = EDGE_SHARE,
    examples: Sequence[Examples] = (),
    check: Check | None = None,
    folders: Mapping[str, str] | None = None,
    resources: dict[str, Resource] | None = None,
) -> GraphData:
    """What is shown of a graph.

    Heads and promoted tokens need the model, so they are there only where the graph still has its tracer.

    Args:
        graph: The whole graph.
        node_share: Share of the influence that the shown nodes carry.
        edge_share: Share of what the shown edges carry among them; 30,000 are shown at most, the strongest.
        examples: What was collected about features, of the dictionaries that the graph was traced with.
        check: Whether predictions of the graph came true.
        folders: Where its dictionaries lie, as `how_made` takes them; a page offers to change features of those alone that it can
            name.
        resources: Takes the sound of the examples; None: they come without sound.

    Raises:
        OptionError: A share is not within 0 and 1, or examples are of another dictionary.
    """
    whole, influence = graph.prune(node_share, edge_share), graph.influence()
    part = keep_strongest(whole.graph, MOST_EDGES)
    kept = np.flatnonzero(whole.nodes)
    total = float(graph.target_weights.sum()) or 1.0
    told = graph.record
    details = details_of(
        graph, part, influence[kept] / total, examples, {} if resources is None else resources
    )
    return GraphData(
        model=str(told.get("model", {}).get("name", "model")),
        dictionary=_dictionary(told.get("dictionary")),
        dictionary_folder=folder_of(graph, "dictionary", folders),
        encoder_dictionary=_dictionary(told["encoder_dictionary"]) if told.get("encoder_features") else None,
        encoder_dictionary_folder=folder_of(graph, "encoder_dictionary", folders),
        text=str(told.get("transcript", told.get("prompt", ""))),
        streams=_streams(part),
        tokens=_tokens(part),
        segments=_segments(part),
        targets=_targets(part),
        nodes=_nodes(part, influence[kept] / total, details),
        edges=_edges(part),
        splits=details.splits,
        features=details.features,
        left_out=_left_out(graph, part, node_share, edge_share),
        checks=_checks(check),
        summary=summary_lines(graph),
        made=how_made(graph, folders),
    )


def graph_doc(
    graph: AttributionGraph,
    *,
    compare: AttributionGraph | None = None,
    clip: Clip | None = None,
    title: str | None = None,
    **how: Any,
) -> GraphDoc:
    """A graph as a document of its own; `otoscope.views.page.save_page` writes it.

    Args:
        graph: The whole graph.
        compare: Another one, to see side by side what both share and what only one has.
        clip: The window that was traced; None: it is read again, where the recording still is.
        title: Of the page; None: what is explained, and by which model.
        how: As `graph_data`.

    Raises:
        OptionError: As `graph_data`.
    """
    resources: dict[str, Resource] = {}
    data = graph_data(graph, resources=resources, **how)
    other = None
    if compare is not None:
        alike = {name: value for name, value in how.items() if name in ("node_share", "edge_share")}
        other = graph_data(compare, resources=resources, **alike)
    sound = sound_of(graph, clip, resources, "audio")
    other_sound = None if compare is None else sound_of(compare, None, resources, "other-audio")
    settings = graph.record.get("settings", {}) | {"language": language_of(graph)}
    said = " and ".join(repr(target.label.strip()) for target in graph.targets)
    return GraphDoc(
        title=title or f"What made {data.model} write {said}",
        graph=data,
        sound=sound,
        other=other,
        other_sound=other_sound,
        settings={k: v for k, v in settings.items() if v is not None},
        versions={name: str(version) for name, version in graph.record.get("versions", versions()).items()},
        notes=list(NOTES),
        resources=resources,
    )


def _dictionary(told: Any) -> str:
    return str((told or {}).get("name") or (told or {}).get("kind") or "unknown")


# Parts -------------------------------------------------------------------------------------------------------------------


def _streams(graph: AttributionGraph) -> list[GraphStream]:
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


def _tokens(graph: AttributionGraph) -> list[GraphToken]:
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


def _segments(graph: AttributionGraph) -> list[GraphSegment]:
    told = graph.record.get("segments")
    if not told:
        return []
    kinds = {PADDING: "padding", SILENCE: "pause", "": "piece"}
    return [
        GraphSegment(label=label, start=start, end=end, kind=kinds.get(label, "word"))  # type: ignore[arg-type]
        for label, (start, end) in zip(told["labels"], told["spans"], strict=True)
    ]


def _targets(graph: AttributionGraph) -> list[GraphTarget]:
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


def _nodes(graph: AttributionGraph, influence: np.ndarray, details: Details) -> list[GraphNode]:
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


def _edges(graph: AttributionGraph) -> Edges:
    rows = np.repeat(np.arange(len(graph.rest)), np.diff(graph.indptr))
    return Edges(
        source=Array.pack(graph.indices),
        target=Array.pack(graph.row_nodes[rows]),
        weight=Array.pack(graph.weights),
    )


def _left_out(
    graph: AttributionGraph, part: AttributionGraph, node_share: float, edge_share: float
) -> LeftOut:
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


def _checks(check: Check | None) -> list[CheckLine]:
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
