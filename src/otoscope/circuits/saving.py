"""The own format: `graph.safetensors` with the arrays and `graph.json` with everything else, in one folder."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from otoscope.circuits.graph import KINDS, AttributionGraph, Nodes, TargetInfo
from otoscope.circuits.whole import require_whole
from otoscope.errors import GraphError
from otoscope.files import atomic_write
from otoscope.text_values import object_in

FORMAT = "otoscope.attribution-graph"
VERSION = 1
_NODE_ARRAYS = ("kind", "layer", "pos", "feature", "activation", "span")
_EDGE_ARRAYS = ("indptr", "indices", "weights", "rest", "rest_mass", "values")


def save_graph(graph: AttributionGraph, folder: Path | str) -> None:
    """Write a graph into a folder, which is made if it is not there.

    Raises:
        OutputError: The folder or a file cannot be written.
    """
    from safetensors.numpy import save

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {f"nodes.{name}": getattr(graph.nodes, name) for name in _NODE_ARRAYS}
    arrays |= {name: getattr(graph, name) for name in _EDGE_ARRAYS}
    streams = sorted(set(graph.nodes.stream))
    arrays["nodes.stream"] = np.array([streams.index(name) for name in graph.nodes.stream], dtype=np.int8)
    with atomic_write(folder / "graph.safetensors", "wb") as file:
        file.write(save({name: np.ascontiguousarray(array) for name, array in arrays.items()}))
    told = {
        "format": FORMAT,
        "version": VERSION,
        "kinds": list(KINDS),
        "streams": streams,
        "tokens": list(graph.tokens),
        "targets": [asdict(target) for target in graph.targets],
        "record": graph.record,
    }
    with atomic_write(folder / "graph.json") as file:
        json.dump(told, file, allow_nan=False, indent=1)  # ASCII: a text from elsewhere need not be Unicode


def load_graph(folder: Path | str) -> AttributionGraph:
    """Read a graph that `save_graph` wrote.

    Raises:
        GraphError: It is not there, damaged, or of a later version.
    """
    from safetensors.numpy import load_file

    folder = Path(folder)
    try:
        told = object_in(folder / "graph.json")
        arrays = load_file(folder / "graph.safetensors")
        if told["format"] != FORMAT or told["version"] > VERSION:
            raise ValueError(f"it is {told['format']} version {told['version']}")
        graph = _graph(told, arrays)
    except Exception as error:  # JSON, safetensors and missing keys all mean the same to a person
        if not isinstance(
            error, (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError)
        ) and not _damaged(error):
            raise
        raise GraphError(
            f"{folder} holds no graph that can be read: {error}.", "Trace and save it again."
        ) from error
    return graph


def _damaged(error: Exception) -> bool:
    return type(error).__name__ == "SafetensorError"


def _graph(told: dict[str, Any], arrays: dict[str, np.ndarray]) -> AttributionGraph:
    if not isinstance(told["streams"], list):
        raise ValueError("its streams are no list")
    stream = tuple(str(told["streams"][i]) for i in arrays["nodes.stream"])
    there = {name: arrays[f"nodes.{name}"] for name in _NODE_ARRAYS if f"nodes.{name}" in arrays}
    nodes = Nodes(**there, stream=stream)
    graph = AttributionGraph(
        nodes=nodes,
        indptr=arrays["indptr"],
        indices=arrays["indices"],
        weights=arrays["weights"],
        rest=arrays["rest"],
        rest_mass=arrays["rest_mass"],
        values=arrays["values"],
        targets=tuple(TargetInfo(**target) for target in told["targets"]),
        tokens=tuple(told["tokens"]),
        record=told["record"],
    )
    return require_whole(graph)
