"""Attribution graphs: Neuronpedia's JSON, and the own folder."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np

from otoscope.circuits.graph import ERROR, FEATURE, NONE, TARGET, TOKEN, AttributionGraph, Nodes, TargetInfo
from otoscope.circuits.neuronpedia import from_neuronpedia, read_neuronpedia, to_neuronpedia
from otoscope.circuits.saving import load_graph, save_graph
from otoscope.errors import GraphError

FILES = ("neuronpedia.json", "graph.json", "graph.safetensors")


def small() -> AttributionGraph:
    """Two features, an error, two tokens and a target."""
    rows = [
        (FEATURE, 0, 0, 5),
        (FEATURE, 1, 1, 7),
        (ERROR, 0, 1, NONE),
        (TOKEN, NONE, 0, 3),
        (TOKEN, NONE, 1, 9),
        (TARGET, 2, 1, 4),
    ]
    nodes = Nodes.of_rows(rows, "text", np.array([1.0, 2.0, *[np.nan] * 4]))
    return AttributionGraph(
        nodes, np.array([0, 1, 3, 6]), np.array([3, 0, 4, 0, 1, 2]), np.array([1.0, 0.5, 0.5, 0.2, 0.7, 0.1]), np.zeros(3),
        np.zeros(3), np.array([1.0, 1.0, 1.0]), (TargetInfo(" on", 1, 0.5, 4, 0.5),), ("the", " cat"),
        {"prompt": "the cat", "model": {"name": "m", "layers": 2}},
    )  # fmt: skip


def seeds() -> list[tuple[bytes, ...]]:
    """One graph in both forms."""
    with tempfile.TemporaryDirectory() as folder:
        save_graph(small(), folder)
        own = [(Path(folder) / name).read_bytes() for name in FILES[1:]]
    return [(json.dumps(to_neuronpedia(small(), "g", node_share=1.0, edge_share=1.0)).encode(), *own)]


def parse(folder: Path) -> None:
    """Read both forms and do with each what commands do; refused if one is."""
    refused = None
    for read in (lambda: read_neuronpedia(folder / FILES[0]), lambda: load_graph(folder)):
        try:
            graph = read()
        except GraphError as error:
            refused = error
            continue
        _use(graph)
    if refused:
        raise refused


def _use(graph: AttributionGraph) -> None:
    assert len(graph.names) == len(graph.nodes)
    told = to_neuronpedia(graph, "g")
    again = from_neuronpedia(json.loads(json.dumps(told, allow_nan=False)))
    assert len(again.nodes) <= len(graph.nodes)
    with tempfile.TemporaryDirectory() as other:
        save_graph(graph, other)
        assert len(load_graph(other).nodes) == len(graph.nodes)
