"""Graphs for other programs: Graphviz and GraphML."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import numpy as np

from otoscope.circuits.graph import KINDS
from otoscope.circuits.summary import node_words
from otoscope.errors import OptionError
from otoscope.files import atomic_write

if TYPE_CHECKING:
    from otoscope.circuits.graph import AttributionGraph

_SHAPES = {"feature": "ellipse", "error": "diamond", "target": "box", "token": "box"}


def to_graphviz(graph: AttributionGraph) -> str:
    """DOT text: sources below, targets above, edges as thick as they are strong and dashed where they inhibit.

    Prune a graph before it is drawn: this draws all of it.
    """
    lines = ["digraph attribution {", "  rankdir=BT;", "  node [fontname=sans];"]
    for i, name in enumerate(graph.names):
        kind = KINDS[graph.nodes.kind[i]]
        lines.append(
            f"  {_dot(name)} [label={_dot(node_words(graph, i))}, shape={_SHAPES.get(kind, 'plaintext')}];"
        )
    strongest = float(np.abs(graph.weights).max(initial=0.0)) or 1.0
    for source, target, weight in _edges(graph):
        style = "solid" if weight >= 0 else "dashed"
        width = 0.3 + 3 * abs(weight) / strongest
        lines.append(
            f"  {_dot(source)} -> {_dot(target)} [weight={abs(weight):.6g}, penwidth={width:.2f}, style={style}];"
        )
    return "\n".join([*lines, "}", ""])


def _dot(text: str) -> str:
    """A quoted DOT string; in it only quotes and backslashes mean something."""
    return json.dumps(text, ensure_ascii=False)


def _edges(graph: AttributionGraph) -> list[tuple[str, str, float]]:
    names = graph.names
    return [
        (names[source], names[target], float(weight))
        for source, target, weight in zip(graph.indices, graph.edge_targets, graph.weights, strict=True)
    ]


_NODE_KEYS = {
    "kind": "string",
    "label": "string",
    "layer": "int",
    "pos": "int",
    "activation": "double",
    "influence": "double",
}


def to_graphml(graph: AttributionGraph) -> str:
    """GraphML text, with kind, label, layer, position, activation and influence of every node and the weight of every edge."""
    root = ElementTree.Element("graphml", xmlns="http://graphml.graphdrawing.org/xmlns")
    for key, kind in _NODE_KEYS.items():
        ElementTree.SubElement(root, "key", {"id": key, "for": "node", "attr.name": key, "attr.type": kind})
    ElementTree.SubElement(
        root, "key", {"id": "weight", "for": "edge", "attr.name": "weight", "attr.type": "double"}
    )
    body = ElementTree.SubElement(root, "graph", edgedefault="directed")
    influence = graph.influence()
    for i, name in enumerate(graph.names):
        node = ElementTree.SubElement(body, "node", id=name)
        for key, value in _facts(graph, i, float(influence[i])).items():
            ElementTree.SubElement(node, "data", key=key).text = _xml(str(value))
    for source, target, weight in _edges(graph):
        edge = ElementTree.SubElement(body, "edge", source=source, target=target)
        ElementTree.SubElement(edge, "data", key="weight").text = repr(weight)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True)


def _facts(graph: AttributionGraph, i: int, influence: float) -> dict[str, object]:
    n, activation = graph.nodes, float(graph.nodes.activation[i])
    facts: dict[str, object] = {
        "kind": KINDS[n.kind[i]],
        "label": node_words(graph, i),
        "layer": int(n.layer[i]),
        "pos": int(n.pos[i]),
        "influence": influence,
    }
    return facts if np.isnan(activation) else facts | {"activation": activation}


_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _xml(text: str) -> str:
    """Text without characters that XML cannot hold, whatever a tokenizer makes of a byte."""
    return _NOT_XML.sub("\ufffd", text)


def save_drawing(graph: AttributionGraph, path: Path | str) -> None:
    """Write a graph as `.dot` or `.gv` (Graphviz) or `.graphml`.

    Raises:
        OptionError: The name ends otherwise.
        OutputError: The file cannot be written.
    """
    path = Path(path)
    forms = {".dot": to_graphviz, ".gv": to_graphviz, ".graphml": to_graphml}
    if path.suffix not in forms:
        raise OptionError(f"{path.name} is no name of a drawing.", f"Let it end in {', '.join(forms)}.")
    text = forms[path.suffix](graph)
    with atomic_write(path) as file:
        file.write(text)
