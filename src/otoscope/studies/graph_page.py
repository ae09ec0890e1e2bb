"""A graph as a document: the part of it that carries most influence, with words, sound, heads and what features are about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from otoscope.circuits.graph import AttributionGraph
from otoscope.circuits.pruning import keep_strongest
from otoscope.circuits.summary import summary_lines
from otoscope.documents.base import Resource
from otoscope.documents.graph import GraphData, GraphDoc
from otoscope.studies.graph_details import details_of
from otoscope.studies.graph_making import folder_of, how_made, language_of
from otoscope.studies.graph_parts import (
    checks_of,
    edges_of,
    left_out_of,
    nodes_of,
    segments_of,
    streams_of,
    targets_of,
    tokens_of,
)
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
        streams=streams_of(part),
        tokens=tokens_of(part),
        segments=segments_of(part),
        targets=targets_of(part),
        nodes=nodes_of(part, influence[kept] / total, details),
        edges=edges_of(part),
        splits=details.splits,
        features=details.features,
        left_out=left_out_of(graph, part, node_share, edge_share),
        checks=checks_of(check),
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
