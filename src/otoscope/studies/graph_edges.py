"""The edges of a graph taken apart: by the attention heads that carry them, and why those looked where they did."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from otoscope.circuits.graph import (
    ERROR,
    FEATURE,
    FRAME,
    HEARING,
    KINDS,
    NONE,
    POSITION,
    PROJECTOR,
    TOKEN,
    AttributionGraph,
    Nodes,
    TargetInfo,
)
from otoscope.circuits.heads import split_by_head
from otoscope.circuits.pruning import edge_influence
from otoscope.circuits.qk import qk_attribution
from otoscope.circuits.speech import speech_tracer
from otoscope.circuits.speech_tracing import SpeechSettings
from otoscope.circuits.targets import token_target
from otoscope.circuits.tracer import Tracer, TraceSettings
from otoscope.dictionaries.loading import load_dictionary
from otoscope.documents.graph import AttentionScore, EdgeSplit, HeadPart, ScorePair
from otoscope.errors import OptionError
from otoscope.models.whisper import SpeechModel
from otoscope.progress import track

if TYPE_CHECKING:
    from otoscope.circuits.heads import HeadSplit
    from otoscope.circuits.heard import Heard
    from otoscope.documents.graph import GraphData
    from otoscope.models.base import Model

SPLITS, SCORES = 96, 16
"""Edges that are split by head, and those of them of whose head the score is taken apart: the ones that carry most."""

SPLIT_KINDS = (FEATURE, ERROR, TOKEN, POSITION, PROJECTOR, FRAME)
"""Kinds of nodes that edges can be split from."""

_HEADS, _PAIRS = 6, 6
_SLACK = 2e-3
"""By how much of its size an edge may differ when the model runs again."""


def splits_of(graph: AttributionGraph, part: AttributionGraph) -> list[EdgeSplit]:
    """The splits that a document carries: of the shown edges that carry most; none where the graph has no tracer.

    Args:
        graph: The whole graph.
        part: What of it is shown.
    """
    tracer = graph.tracer
    if tracer is None:
        return []
    n, targets = part.nodes, part.edge_targets
    writing = np.array([stream not in HEARING for stream in n.stream])
    can = writing[part.indices] & writing[targets] & np.isin(n.kind[part.indices], SPLIT_KINDS)
    if tracer.tape.positions is None:
        can &= n.kind[part.indices] != POSITION
    order = np.argsort(-edge_influence(part) * can, kind="stable")[: min(SPLITS, int(can.sum()))]
    scores, found = SCORES, []
    with track("Splitting edges by head", len(order), "edges") as task, torch.no_grad():
        for edge in order.tolist():
            source, target = int(part.indices[edge]), int(targets[edge])
            split = split_by_head(graph, part.names[source], part.names[target])
            looked = _scores(tracer, part, split, source, target) if scores > 0 else []
            scores -= len(looked)
            found.append(_split(split, source, target, looked))
            task.advance(1)
    return found


class EdgeSplitter:
    """Splits any edge of a graph that is shown, with the model that it was traced with.

    The model reads once more what it read; no row is traced again.

    Args:
        model: The model.
        data: The graph.
        sound: The recording as it was heard; None: the graph is of a prompt.
        settings: How the graph was traced, as its page names it.

    Raises:
        OptionError: The graph is of a kind whose edges are split only while it is traced.
        DictionaryError: Its dictionary cannot be read.
    """

    def __init__(
        self, model: Model, data: GraphData, sound: Heard | None, settings: Mapping[str, Any] | None = None
    ) -> None:
        self.data = data
        self._weights = edge_weights(data)
        with torch.no_grad():
            self._graph = _with_tracer(data, _tracer(model, data, sound, settings or {}))

    def split(self, source: str, target: str) -> EdgeSplit:
        """Split the edge between two nodes, by their ids.

        Raises:
            OptionError: There is no such edge, or the model does not give it again.
            GraphError: Edges between such nodes cannot be split.
        """
        graph, tracer = self._graph, self._graph.tracer
        ends = graph.index(source), graph.index(target)
        if ends not in self._weights or tracer is None:
            raise OptionError(
                f"There is no edge from {source} to {target}.", "Name the ends of an edge that is shown."
            )
        with torch.no_grad():
            split = split_by_head(graph, source, target)
            told = self._weights[ends]
            if abs(split.edge - told) > _SLACK * (1 + abs(told)):
                raise OptionError(
                    f"The model gives this edge {split.edge:.3f} and not {told:.3f}, as the page has it.",
                    "Trace it again with this model and show the new page.",
                )
            return _split(split, *ends, _scores(tracer, graph, split, *ends))


def edge_weights(data: GraphData) -> dict[tuple[int, int], float]:
    """The weight of every edge, by the indices of its ends."""
    ends = (getattr(data.edges, name).unpack().tolist() for name in ("source", "target", "weight"))
    return {(int(source), int(target)): weight for source, target, weight in zip(*ends, strict=True)}


def _tracer(model: Model, data: GraphData, sound: Heard | None, settings: Mapping[str, Any]) -> Tracer:
    """What the graph was traced with, its targets set."""
    if data.encoder_dictionary is not None or any(node.kind == "projector" for node in data.nodes):
        raise OptionError(
            "Edges of a graph that was opened down to the sound's own features are split only while it is traced.",
            "Use the heads that the page carries, or `split_by_head` in Python.",
        )
    folder = data.dictionary_folder
    if folder is None:
        raise OptionError(
            f"Nobody knows where the dictionary {data.dictionary} lies.", "Trace the graph again with it."
        )
    dictionary = load_dictionary(folder, model)
    if sound is None:
        known = {name: settings[name] for name in ("conventions",) if name in settings}
        tracer = Tracer(model, data.text, dictionary, TraceSettings(nodes=1, **known))
        tracer.targets = tuple(
            token_target(model, tracer.tape, data.nodes[target.node].feature or 0, target.position)
            for target in data.targets
        )
        return tracer
    if not isinstance(model, SpeechModel):
        raise OptionError(
            "Only edges of recognisers and of prompts are split here.", "Trace the recording again."
        )
    written = [target.written for target in data.targets if target.written is not None]
    known = SpeechSettings(nodes=1, segments=str(settings.get("segments", "words")))
    return speech_tracer(
        model, sound, written, data.targets[0].against, dictionary=dictionary, settings=known
    )


def _with_tracer(data: GraphData, tracer: Tracer) -> AttributionGraph:
    """The nodes of a document as a graph without edges, over its tracer."""
    rows = [
        (
            KINDS.index(n.kind),
            n.layer,
            next((p for p in (n.position, n.segment) if p is not None), NONE),
            NONE if n.feature is None else n.feature,
        )
        for n in data.nodes
    ]
    nodes = Nodes.of_rows(
        rows,
        [node.stream for node in data.nodes],
        np.array([np.nan if n.activation is None else n.activation for n in data.nodes]),
    )
    expanded = len(nodes.expanded)
    graph = AttributionGraph(
        nodes=nodes,
        indptr=np.zeros(expanded + 1, dtype=np.int64),
        indices=np.zeros(0, dtype=np.int64),
        weights=np.zeros(0),
        rest=np.zeros(expanded),
        rest_mass=np.zeros(expanded),
        values=np.zeros(expanded),
        targets=tuple(TargetInfo(t.label, t.pos, t.weight, t.token, None, t.against) for t in tracer.targets),
        tokens=tuple(token.text for token in data.tokens),
        record={},
        tracer=tracer,
    )
    if graph.names != tuple(node.id for node in data.nodes) or not data.nodes:
        raise OptionError("The nodes of this page are not in the order of a graph.", "Trace it again.")
    return graph


def _split(split: HeadSplit, source: int, target: int, scores: list[AttentionScore]) -> EdgeSplit:
    width = split.heads.shape[1]
    parts = [
        HeadPart(layer=i // width, head=i % width, cross=cross, part=float(value))
        for table, cross in ((split.heads, False), (split.cross, True))
        for i, value in enumerate(table.flatten())
        if value
    ]
    parts.sort(key=lambda part: -abs(part.part))
    return EdgeSplit(
        source=source,
        target=target,
        heads=parts[:_HEADS],
        others=sum(part.part for part in parts[_HEADS:]),
        residual=float(split.residual),
        skip=float(split.skip.sum()),
        scores=scores,
    )


def _scores(
    tracer: Tracer, graph: AttributionGraph, split: HeadSplit, source: int, target: int
) -> list[AttentionScore]:
    """Why the edge's strongest head looked from the target's token at the source's, where the two are apart."""
    n = graph.nodes
    key, query = int(n.pos[source]), int(n.pos[target])
    if n.kind[source] == FRAME or not 0 <= key < query or not split.heads.any():
        return []
    at = int(split.heads.abs().argmax())
    layer, head = divmod(at, split.heads.shape[1])
    found = qk_attribution(tracer, layer, head, query, key)
    pairs = found.strongest(_PAIRS, among=64)
    return [
        AttentionScore(
            layer=layer,
            head=head,
            query=query,
            key=key,
            score=found.score,
            pairs=[ScorePair(query=q, key=k, part=part) for q, k, part in pairs],
        )
    ]
