"""Neuronpedia's graph JSON, as its own page and circuit-tracer's read it; there and back.

What the format has no word for (rests, what rows sum to, streams, what the graph was made with) goes into keys of our own,
which readers skip. Ids follow circuit-tracer, except errors, whose ids there collide with features of layer 0.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from otoscope.circuits.graph import (
    BIAS,
    ERROR,
    FEATURE,
    FRAME,
    HEARING,
    KINDS,
    NONE,
    POSITION,
    PROJECTOR,
    TARGET,
    TOKEN,
    AttributionGraph,
    Nodes,
    TargetInfo,
)
from otoscope.circuits.pruning import keep_nodes
from otoscope.circuits.whole import require_whole
from otoscope.errors import GraphError, OptionError
from otoscope.files import atomic_write
from otoscope.text_values import object_in

TYPES = {
    FEATURE: "cross layer transcoder",
    ERROR: "mlp reconstruction error",
    TOKEN: "embedding",
    POSITION: "unknown",
    BIAS: "bias",
    TARGET: "logit",
    FRAME: "embedding",
    PROJECTOR: "embedding",
}
MOST_FEATURES = 2048
"""The page asks for the details of every feature, so many at once."""

_NAME = re.compile(r"[a-zA-Z0-9_.-]+")


def to_neuronpedia(
    graph: AttributionGraph,
    slug: str,
    scan: str | None = None,
    node_share: float = 0.8,
    edge_share: float = 0.98,
) -> dict[str, Any]:
    """A pruned graph as Neuronpedia's JSON.

    Args:
        graph: The whole graph.
        slug: Name of the graph: letters, digits, `_`, `.` and `-`.
        scan: Name of the model and dictionary, likewise; None: from what the graph was made with.
        node_share: Pruning; the page shows no slider without it.
        edge_share: Pruning.

    Raises:
        OptionError: A name has other characters, or a share is not within 0 and 1.
    """
    record = graph.record
    scan = (
        scan
        or re.sub(r"[^a-zA-Z0-9_-]+", "-", str(record.get("model", {}).get("name", "model"))).strip("-")
        or "model"
    )
    for what, name in (("slug", slug), ("scan", scan)):
        if not _NAME.fullmatch(name):
            raise OptionError(
                f"The {what} {name!r} has other characters than letters, digits, _ . and -.", "Rename it."
            )
    pruned = graph.prune(node_share, edge_share)
    part, influence = _capped(pruned.graph, pruned.cumulative[pruned.nodes])
    ids = [_node_id(part, i) for i in range(len(part.nodes))]
    return {
        "metadata": {
            "slug": slug,
            "scan": scan,
            "prompt_tokens": [*_segments(part), *part.tokens],
            "prompt": str(record.get("prompt", "".join(part.tokens))),
            **({"node_threshold": node_share} if node_share > 0 else {}),
            "pruning_settings": {"node_threshold": node_share, "edge_threshold": edge_share},
            "otoscope": _extra(part),
        },
        "qParams": {"pinnedIds": [], "supernodes": [], "linkType": "both", "clickedId": "", "sg_pos": ""},
        "nodes": [_node(part, i, ids[i], float(influence[i])) for i in range(len(ids))],
        "links": _links(part, ids),
    }


def _capped(graph: AttributionGraph, influence: np.ndarray) -> tuple[AttributionGraph, np.ndarray]:
    """At most so many features: those with most influence, whose cumulative share is the least."""
    features = graph.nodes.of(FEATURE)
    if len(features) <= MOST_FEATURES:
        return graph, influence
    kept = graph.nodes.kind != FEATURE
    kept[features[np.argsort(influence[features], kind="stable")[:MOST_FEATURES]]] = True
    return keep_nodes(graph, kept), influence[kept]


def _segments(graph: AttributionGraph) -> list[str]:
    """Columns of the page for the segments of sound, which come before those of the tokens."""
    if "segments" not in graph.record:
        return []
    told = graph.record["segments"]
    spans = zip(told["spans"], told["labels"], strict=True)
    return [f"{begin:.2f}-{end:.2f} s {label}".strip() for (begin, end), label in spans]


def _below(graph: AttributionGraph) -> int:
    """Layers of the encoder, which lie under those of the stack that writes."""
    return int(graph.record.get("encoder_layers", 0))


def _layers(graph: AttributionGraph) -> int:
    told = graph.record.get("model", {}).get("layers")
    return (int(told) if told else int(graph.nodes.layer.max())) + _below(graph)


def _place(graph: AttributionGraph, i: int) -> tuple[int, int]:
    """Layer and column of a node on the page."""
    n, layer, pos = graph.nodes, int(graph.nodes.layer[i]) + _shift(graph), int(graph.nodes.pos[i])
    if n.stream[i] in HEARING:
        return layer, max(pos, 0)
    if n.kind[i] == FRAME:  # what the encoder gives
        return _below(graph), max(pos, 0)
    return layer + _below(graph), max(pos, 0) + len(_segments(graph))


def _shift(graph: AttributionGraph) -> int:
    """The page fails where the highest layer is 0, so layers of a one-layer model count from 1."""
    return 1 if _layers(graph) == 1 else 0


def _node_id(graph: AttributionGraph, i: int) -> str:
    n, kind = graph.nodes, int(graph.nodes.kind[i])
    (layer, pos), feature = _place(graph, i), int(n.feature[i])
    if kind == TARGET:
        order = i - (len(n) - len(graph.targets))
        which = feature if feature != NONE else f"direction{order}"
        twins = n.feature[n.of(TARGET)[:order]].tolist() if feature != NONE else []
        return f"{_layers(graph) + 1}_{which}{'x' * twins.count(feature)}_{pos}"
    return {
        FEATURE: f"{layer}_{feature}_{pos}",
        ERROR: f"{layer}_error_mlp_{pos}",
        TOKEN: f"E_{feature}_{pos}",
        POSITION: f"P_position_{pos}",
        BIAS: f"{layer}_{'encoderbias' if n.stream[i] in HEARING else 'bias'}_0",
        FRAME: f"E_{'sound' if n.stream[i] in HEARING else 'heard'}_{pos}",
        PROJECTOR: f"E_heard_{pos}",
    }[kind]


def cantor(layer: int, feature: int) -> int:
    """Cantor's pairing, by which feature details are named."""
    return (layer + feature) * (layer + feature + 1) // 2 + feature


def _node(graph: AttributionGraph, i: int, node_id: str, influence: float) -> dict[str, Any]:
    n, kind = graph.nodes, int(graph.nodes.kind[i])
    (layer, column), feature = _place(graph, i), int(n.feature[i])
    pos, activation = int(n.pos[i]), float(n.activation[i])
    span = {} if np.isnan(n.span[i]).any() else {"span": n.span[i].tolist()}
    node = {
        "node_id": node_id,
        "feature": {FEATURE: cantor(layer, feature), ERROR: -1, TOKEN: column}.get(kind),
        "layer": _LAYERS.get(kind) or (str(_layers(graph) + 1) if kind == TARGET else str(layer)),
        "ctx_idx": column,
        "feature_type": TYPES[kind],
        "jsNodeId": f"{layer}_{feature}-0" if kind == FEATURE else f"{node_id}-0",
        "clerp": "",
        "influence": influence,
        "activation": None if np.isnan(activation) else activation,
        "token_prob": 0.0,
        "is_target_logit": False,
        "stream": n.stream[i],
        "otoscope": {"kind": KINDS[kind], "layer": int(n.layer[i]), "pos": pos, "feature": feature, **span},
    }
    return node | _words(graph, i, kind, feature, pos)


_LAYERS = {TOKEN: "E", POSITION: "E", FRAME: "E", PROJECTOR: "E"}
"""Kinds that stand below all layers."""


def _words(graph: AttributionGraph, i: int, kind: int, feature: int, pos: int) -> dict[str, Any]:
    if kind == TARGET:
        order = i - (len(graph.nodes) - len(graph.targets))
        target = graph.targets[order]
        p = target.weight if target.probability is None else target.probability
        told = {
            "token_prob": p,
            "is_target_logit": order == 0,
            "clerp": f'Output "{_quoted(target.label)}" (p={p:.3f})',
        }
        return told | {"feature": None if feature == NONE else feature, "jsNodeId": f"L_{feature}-{pos}"}
    if kind in (FRAME, PROJECTOR):
        begin, end = graph.nodes.span[i]
        given = "Sound" if graph.nodes.stream[i] in HEARING else "Heard"
        return {"clerp": f"{given} {begin:.2f}-{end:.2f} s"}
    if kind == TOKEN:
        return {"clerp": f'Emb: "{_quoted(graph.tokens[pos])}"', "jsNodeId": f"E_{feature}-{pos}"}
    words = {ERROR: f"Err: mlp at position {pos}", POSITION: f"Position {pos}", BIAS: "Bias"}
    return {"clerp": words.get(kind, "")}


def _quoted(text: str) -> str:
    """The page takes the first quoted text for the token."""
    return text.replace('"', "\u201d")


def _links(graph: AttributionGraph, ids: list[str]) -> list[dict[str, Any]]:
    return [
        {"source": ids[source], "target": ids[target], "weight": float(weight)}
        for source, target, weight in zip(graph.indices, graph.edge_targets, graph.weights, strict=True)
    ]


def _extra(graph: AttributionGraph) -> dict[str, Any]:
    return {
        "rest": graph.rest.tolist(),
        "rest_mass": graph.rest_mass.tolist(),
        "values": graph.values.tolist(),
        "targets": [asdict(target) for target in graph.targets],
        "record": graph.record,
        "tokens": list(graph.tokens),
    }


def write_neuronpedia(graph: AttributionGraph, path: Path | str, slug: str | None = None, **how: Any) -> None:
    """Write Neuronpedia's JSON; the slug is the file's name unless it is given.

    Raises:
        OutputError: The file cannot be written.
        OptionError: A name cannot be used.
    """
    path = Path(path)
    name = slug or re.sub(r"[^a-zA-Z0-9_.-]+", "-", path.stem) or "graph"
    told = to_neuronpedia(graph, name, **how)
    with atomic_write(path) as file:
        json.dump(told, file, allow_nan=False)  # ASCII: a text from elsewhere need not be Unicode


# Reading -----------------------------------------------------------------------------------------------------------------


def from_neuronpedia(told: Mapping[str, Any]) -> AttributionGraph:
    """A graph from Neuronpedia's JSON, ours or anybody's.

    Of a graph that otoscope did not write, rows sum to their edges, and nodes that tracing does not know are errors.

    Raises:
        GraphError: It is no such graph.
    """
    try:
        return require_whole(_read(told))
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        raise GraphError(
            f"This is no Neuronpedia graph: {error!r}.", "Check that the file is whole."
        ) from error


def read_neuronpedia(path: Path | str) -> AttributionGraph:
    """The same from a file.

    Raises:
        GraphError: It cannot be read.
    """
    try:
        told = object_in(path)
    except (OSError, ValueError) as error:
        raise GraphError(f"{path} cannot be read: {error}.", "Check that the file is whole.") from error
    return from_neuronpedia(told)


def _read(told: Mapping[str, Any]) -> AttributionGraph:
    metadata = told["metadata"]
    tokens = tuple(
        str(token) for token in metadata.get("otoscope", {}).get("tokens", metadata["prompt_tokens"])
    )
    parsed = [_parsed(node) for node in told["nodes"]]
    order = sorted(range(len(parsed)), key=lambda i: _rank(parsed[i][0]))
    index = {told["nodes"][i]["node_id"]: at for at, i in enumerate(order)}
    if len(index) != len(order):
        raise ValueError("two nodes have the same id")
    listed = [told["nodes"][i] for i in order]
    nodes = Nodes.of_rows(
        [parsed[i][:4] for i in order],
        [str(node.get("stream", "text")) for node in listed],
        np.array([parsed[i][4] for i in order]),
        np.array([_span(node) for node in listed]).reshape(-1, 2),
    )
    row_nodes = nodes.expanded
    indptr, indices, weights = _edges(told["links"], index, row_nodes)
    sums = np.bincount(np.repeat(np.arange(len(row_nodes)), np.diff(indptr)), weights, len(row_nodes))
    extra = metadata.get("otoscope", {})
    targets = _targets(listed, nodes, extra)
    zeros = np.zeros(len(row_nodes))
    return AttributionGraph(
        nodes,
        indptr,
        indices,
        weights,
        np.array(extra.get("rest", zeros)),
        np.array(extra.get("rest_mass", zeros)),
        np.array(extra.get("values", sums)),
        targets,
        tokens,
        extra.get("record") or {"prompt": str(metadata["prompt"]), "model": {"name": str(metadata["scan"])}},
    )


def _rank(kind: int) -> int:
    """Features first, targets last, everything else as it comes."""
    return {FEATURE: 0, TARGET: 2}.get(kind, 1)


def _parsed(node: Mapping[str, Any]) -> tuple[int, int, int, int, float]:
    """Kind, layer, position, feature and activation."""
    activation = node.get("activation")
    value = float("nan") if activation is None else float(activation)
    if "otoscope" in node:
        own = node["otoscope"]
        return KINDS.index(own["kind"]), int(own["layer"]), int(own["pos"]), int(own["feature"]), value
    kinds = {name: kind for kind, name in reversed(TYPES.items())}  # an embedding is first of all a token's
    kind = kinds.get(node["feature_type"], ERROR)
    parts = str(node["node_id"]).split("_")
    layer = NONE if node["layer"] == "E" else int(node["layer"])
    feature = int(parts[1]) if kind in (FEATURE, TOKEN, TARGET) else NONE
    return kind, layer, int(node["ctx_idx"]), feature, value


def _span(node: Mapping[str, Any]) -> tuple[float, float]:
    """Begin and end in seconds, or NaN."""
    begin, end = node.get("otoscope", {}).get("span", (np.nan, np.nan))
    return float(begin), float(end)


def _edges(links: Any, index: Mapping[str, int], row_nodes: np.ndarray) -> tuple[np.ndarray, ...]:
    row_of = {int(node): row for row, node in enumerate(row_nodes)}
    known = [
        k for k in links if k["source"] in index and row_of.get(index.get(k["target"], NONE)) is not None
    ]
    rows = np.array([row_of[index[k["target"]]] for k in known], dtype=np.int64)
    order = np.argsort(rows, kind="stable")
    indices = np.array([index[k["source"]] for k in known], dtype=np.int64)[order]
    weights = np.array([float(k["weight"]) for k in known])[order]
    indptr = np.concatenate([[0], np.bincount(rows, minlength=len(row_nodes)).cumsum()]).astype(np.int64)
    return indptr, indices, weights


def _targets(
    nodes: list[Mapping[str, Any]], table: Nodes, extra: Mapping[str, Any]
) -> tuple[TargetInfo, ...]:
    if "targets" in extra:
        return tuple(TargetInfo(**target) for target in extra["targets"])
    found = []
    for i in table.of(TARGET):
        quoted = re.search(r'"(.*?)"', str(nodes[i].get("clerp", "")))
        p = float(nodes[i].get("token_prob") or 1.0)
        label = quoted[1] if quoted else str(nodes[i]["node_id"])
        found.append(TargetInfo(label, int(table.pos[i]), p, int(table.feature[i]), p))
    return tuple(found)
