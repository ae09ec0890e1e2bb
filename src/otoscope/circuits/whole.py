"""What a graph that was read from a file has to be, whoever wrote it, before anything is computed with it."""

from __future__ import annotations

from typing import Any

import numpy as np

from otoscope.circuits.graph import ERROR, FEATURE, HEARING, KINDS, POSITION, TARGET, TOKEN, AttributionGraph
from otoscope.text_values import is_number

_INTEGERS = ("encoder_layers", "prompt_tokens")
_AT_TOKENS = (FEATURE, ERROR, TOKEN, POSITION, TARGET)
_TABLES = ("model", "dictionary", "settings", "versions")


def require_whole(graph: AttributionGraph) -> AttributionGraph:
    """The graph, if its parts fit together.

    Raises:
        ValueError: They do not; the message says which.
    """
    _check_nodes(graph)
    _check_places(graph)
    _check_edges(graph)
    _check_targets(graph)
    _check_record(graph.record)
    return graph


def _check_nodes(graph: AttributionGraph) -> None:
    n = graph.nodes
    columns = (n.kind, n.layer, n.pos, n.feature, n.activation)
    if any(column.shape != (len(n.kind),) for column in columns) or n.span.shape != (len(n.kind), 2):
        raise ValueError("its columns of nodes have different lengths")
    if len(n.stream) != len(n.kind):
        raise ValueError("not every node has a stream")
    if any(column.dtype.kind not in "iu" for column in columns[:4]) or n.activation.dtype.kind != "f":
        raise ValueError("its columns of nodes are of other types")
    if not len(n.kind) or not 0 <= n.kind.min() <= n.kind.max() < len(KINDS):
        raise ValueError("it has no nodes, or nodes of no kind")
    order = np.select([n.kind == FEATURE, n.kind == TARGET], [0, 2], 1)
    if (np.diff(order) < 0).any():
        raise ValueError("features do not come first, or targets not last")
    if np.isinf(n.activation).any():
        raise ValueError("an activation is infinite")


def _check_places(graph: AttributionGraph) -> None:
    """Where text is written or read, a node stands at one of the tokens; sound and biases stand elsewhere."""
    n = graph.nodes
    written = np.array([stream not in HEARING for stream in n.stream]) & np.isin(n.kind, _AT_TOKENS)
    beyond = n.pos[written] >= len(graph.tokens)
    if beyond.any() or (n.pos[n.kind == TOKEN] < 0).any():
        raise ValueError("a node stands at no token")


def _check_edges(graph: AttributionGraph) -> None:
    rows, indptr, edges = len(graph.row_nodes), graph.indptr, len(graph.weights)
    per_row = (graph.rest, graph.rest_mass, graph.values)
    if any(column.shape != (rows,) for column in per_row) or indptr.shape != (rows + 1,):
        raise ValueError("its arrays do not fit together")
    if (
        indptr.dtype.kind not in "iu"
        or graph.indices.dtype.kind not in "iu"
        or graph.indices.shape != (edges,)
    ):
        raise ValueError("its edges are no edges")
    if indptr[0] != 0 or indptr[-1] != edges or (np.diff(indptr.astype(np.int64)) < 0).any():
        raise ValueError("its rows do not follow each other")
    if edges and not 0 <= graph.indices.min() <= graph.indices.max() < len(graph.nodes):
        raise ValueError("an edge comes from nowhere")
    if not all(
        column.dtype.kind in "iuf" and np.isfinite(column).all() for column in (graph.weights, *per_row)
    ):
        raise ValueError("an edge or a row has no finite weight")


def _check_targets(graph: AttributionGraph) -> None:
    if len(graph.targets) != int((graph.nodes.kind == TARGET).sum()) or not graph.targets:
        raise ValueError("it does not say of every target what it is")
    if not all(isinstance(token, str) for token in graph.tokens):
        raise ValueError("a token is no text")
    for target in graph.targets:
        numbers = (target.weight, *((target.probability,) if target.probability is not None else ()))
        whole = (target.pos, *(x for x in (target.token, target.against) if x is not None))
        if not isinstance(target.label, str) or not all(map(_is_whole, whole)):
            raise ValueError("a target has no label or no place")
        if not all(is_number(x) and np.isfinite(x) for x in numbers):
            raise ValueError("a target has no weight")


def _check_record(record: Any) -> None:
    """What the page, the summary and the exports read of it."""
    if not isinstance(record, dict) or not isinstance(record.get("prompt", ""), str):
        raise ValueError("its record is no table with a prompt")
    if not all(isinstance(record.get(name) or {}, dict) for name in _TABLES):
        raise ValueError("its record does not say what it was made with")
    layers = (record.get("model") or {}).get("layers")
    counts = [record.get(name, 0) for name in _INTEGERS] + ([] if layers is None else [layers])
    if not all(_is_whole(count) and count >= 0 for count in counts):
        raise ValueError("its record counts layers or tokens that cannot be counted")
    if "segments" in record:
        _check_segments(record["segments"])
    if not isinstance(record.get("totals", []), list):
        raise ValueError("its record has no totals")


def _check_segments(told: Any) -> None:
    spans, labels = told["spans"], told["labels"]
    if len(spans) != len(labels) or not all(isinstance(label, str) for label in labels):
        raise ValueError("its segments have no labels")
    if not all(len(span) == 2 and all(is_number(t) and np.isfinite(t) for t in span) for span in spans):
        raise ValueError("its segments are no spans of time")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53
