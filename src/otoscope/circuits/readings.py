"""What the features of a graph read, their gates frozen, in runs of the model: the measured side of every edge."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from otoscope.circuits.graph import FEATURE, AttributionGraph

if TYPE_CHECKING:
    from torch import Tensor

    from otoscope.circuits.hearing import EncoderSources
    from otoscope.circuits.tracer import Tracer


def own(graph: AttributionGraph, tracer: Tracer) -> np.ndarray:
    """`(node,)` whether a node is of the stack that writes."""
    return np.array([stream == tracer.tape.stream for stream in graph.nodes.stream])


def own_features(graph: AttributionGraph, tracer: Tracer) -> np.ndarray:
    """Nodes of the features of that stack."""
    return np.flatnonzero(own(graph, tracer) & (graph.nodes.kind == FEATURE))


class Readings:
    """The frozen readings of the features of the stack that writes.

    Args:
        graph: A graph.
        tracer: What made it.
    """

    def __init__(self, graph: AttributionGraph, tracer: Tracer) -> None:
        n, nodes = graph.nodes, own_features(graph, tracer)
        self.tracer, self.layers = tracer, torch.from_numpy(n.layer[nodes].astype(np.int64))
        self.pos = torch.from_numpy(n.pos[nodes].astype(np.int64))
        self._vectors: dict[int, tuple[Tensor, Tensor]] = {}
        features = torch.from_numpy(n.feature[nodes])
        for layer in self.layers.unique().tolist():
            here = self.layers == layer
            active, size = tracer.sources.actives[layer], tracer.dictionary.size(layer)
            entries = torch.searchsorted(
                active.pos * size + active.feature, self.pos[here] * size + features[here]
            )
            self._vectors[layer] = (here, tracer.dictionary.directions(active, entries)[0])

    def of(self, inputs: dict[int, Tensor]) -> Tensor:
        """`(row, feature)`, up to each feature's constant, from what every layer's features read `(row, pos, d)`."""
        rows = len(next(iter(inputs.values())))
        out = self.tracer.tape.embed.new_zeros(rows, len(self.layers))
        for layer, (here, vectors) in self._vectors.items():
            x = inputs[layer][:, self.pos[here]]
            if self.tracer.dictionary.reads == "normalized":
                norm = self.tracer.tape.mlp[layer].norm
                x = (x - x.mean(dim=-1, keepdim=True) if norm.centred else x) * norm.scale[self.pos[here]]
            out[:, here] = (x * vectors).sum(dim=-1)
        return out


class PooledReadings:
    """The frozen readings of encoder features, added up over their segments.

    Args:
        graph: A graph.
        sources: The encoder's.
    """

    def __init__(self, graph: AttributionGraph, sources: EncoderSources) -> None:
        n, self.sources = graph.nodes, sources
        theirs = np.array([stream == sources.tape.stream for stream in n.stream]) & (n.kind == FEATURE)
        self.places = [
            (int(n.layer[i]), int(n.pos[i]), int(n.feature[i])) for i in np.flatnonzero(theirs).tolist()
        ]

    def of(self, inputs: dict[int, Tensor], rows: int) -> Tensor:
        """`(row, feature)`, up to constants, from what every layer's features read `(row, frame, d)`; zero without a run."""
        out = self.sources.tape.embed.new_zeros(rows, len(self.places))
        if not inputs:
            return out
        dictionary = self.sources.dictionary
        for i, (layer, segment, feature) in enumerate(self.places):
            at, norm = self.sources.segments[segment], self.sources.tape.mlp[layer].norm
            x = inputs[layer][:, at]
            if dictionary.reads == "normalized":
                x = (x - x.mean(dim=-1, keepdim=True) if norm.centred else x) * norm.scale[at]
            for k, reading in enumerate(dictionary.readings(layer)):
                out[:, i] += (x @ reading.weight[feature]) @ self.sources.slopes[layer][at, feature, k]
        return out
