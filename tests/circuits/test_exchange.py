"""Graphs for and from other programs."""

from __future__ import annotations

import json
import re
import sys
import types
from collections import namedtuple
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from tests.circuits.cases import IDS, Random, model_of

from otoscope.circuits import neuronpedia
from otoscope.circuits.drawing import save_drawing, to_graphml, to_graphviz
from otoscope.circuits.graph import ERROR, FEATURE, TARGET, TOKEN
from otoscope.circuits.neuronpedia import (
    from_neuronpedia,
    read_neuronpedia,
    to_neuronpedia,
    write_neuronpedia,
)
from otoscope.circuits.pt import read_pt
from otoscope.circuits.tracer import TraceSettings, trace
from otoscope.errors import GraphError, OptionError

pytestmark = pytest.mark.usefixtures("one_thread")

SOME = TraceSettings(nodes=40)


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def graph(request):
    model = model_of(request.param)
    return trace(model, IDS, [4, 5], dictionary=Random().transcoders("jumprelu", True), settings=SOME)


# Neuronpedia -------------------------------------------------------------------------------------------------------------

NODE = {
    "node_id": str, "feature": (int, type(None)), "layer": (str, int), "ctx_idx": int, "feature_type": str, "jsNodeId": str,
    "clerp": str,
}  # fmt: skip
NODE_TYPES = {
    "cross layer transcoder", "mlp reconstruction error", "embedding", "logit", "bias", "unknown", "lorsa", "lorsa error",
}  # fmt: skip


def require_valid(told: dict) -> None:
    """What the schema (draft 7) asks for, and what the page breaks on."""
    assert {"metadata", "qParams", "nodes", "links"} <= set(told)
    m = told["metadata"]
    assert all(isinstance(m[key], str) for key in ("slug", "scan", "prompt"))
    assert all(re.fullmatch(r"[a-zA-Z0-9_.-]+", m[key]) for key in ("slug", "scan"))
    assert all(isinstance(token, str) for token in m["prompt_tokens"])
    assert m["node_threshold"] > 0
    assert not {"schema_version", "feature_details", "info"} & set(m)
    assert all(isinstance(told["qParams"][key], str) for key in ("linkType", "clickedId", "sg_pos"))
    assert told["qParams"]["linkType"] in ("input", "output", "either", "both")
    ids = [node["node_id"] for node in told["nodes"]]
    assert len(set(ids)) == len(ids)
    for node in told["nodes"]:
        for key, kind in NODE.items():
            assert isinstance(node[key], kind), (key, node)
        assert node["feature_type"] in NODE_TYPES
        assert 0 <= node["ctx_idx"] < len(m["prompt_tokens"])
        assert "qk_tracing_results" not in node
        if node["feature_type"] == "logit":
            assert re.match(r'Output "[^"]*" \(p=', node["clerp"])
            assert node["token_prob"] > 0
    for link in told["links"]:
        assert link["source"] in ids
        assert link["target"] in ids
        assert isinstance(link["weight"], float)
    assert (
        max(int(n["layer"]) for n in told["nodes"] if n["layer"] != "E" and n["feature_type"] != "logit") > 0
    )
    json.dumps(told, allow_nan=False)


def test_the_export_is_valid_and_its_ids_are_those_of_circuit_tracer(graph):
    told = to_neuronpedia(graph, "a-graph")
    require_valid(told)
    by_id = {node["node_id"]: node for node in told["nodes"]}
    feature = next(n for n in told["nodes"] if n["feature_type"] == "cross layer transcoder")
    layer, index, pos = map(int, feature["node_id"].split("_"))
    assert feature["feature"] == (layer + index) * (layer + index + 1) // 2 + index
    assert (feature["jsNodeId"], feature["ctx_idx"]) == (f"{layer}_{index}-0", pos)
    assert by_id[f"E_{IDS[2]}_2"]["layer"] == "E"
    assert by_id["4_4_8"]["jsNodeId"] == "L_4-8"
    assert any(re.fullmatch(r"\d+_error_mlp_\d+", i) for i in by_id)


def test_export_import_and_export_again_are_the_identity(graph, tmp_path):
    write_neuronpedia(graph, tmp_path / "first graph.json", node_share=0.7)
    again = read_neuronpedia(tmp_path / "first graph.json")
    told = to_neuronpedia(graph, "x", node_share=0.7)
    pruned = graph.prune(0.7, 0.98).graph
    assert again.names == pruned.names
    assert again.to_dict() == pruned.without_tracer().to_dict()
    unpruned = to_neuronpedia(again, "x", node_share=1.0, edge_share=1.0)
    assert {n["node_id"] for n in unpruned["nodes"]} == {n["node_id"] for n in told["nodes"]}
    key = lambda link: (link["source"], link["target"])  # noqa: E731
    assert sorted(unpruned["links"], key=key) == sorted(told["links"], key=key)


def test_layers_of_a_one_layer_model_count_from_one():
    model = model_of("gpt2", n_layer=1)
    told = to_neuronpedia(trace(model, IDS, 4, settings=SOME), "x")
    require_valid(told)
    assert {n["layer"] for n in told["nodes"] if n["feature_type"] == "cross layer transcoder"} == {"1"}


def test_quotes_in_a_token_cannot_end_the_label(graph):
    from dataclasses import replace

    hostile = replace(graph.targets[0], label='"><img onerror="x')
    told = to_neuronpedia(replace(graph, targets=(hostile, *graph.targets[1:])), "x")
    require_valid(told)


def test_more_features_than_the_page_asks_for_are_left_out(graph, monkeypatch):
    monkeypatch.setattr(neuronpedia, "MOST_FEATURES", 7)
    told = to_neuronpedia(graph, "x", node_share=1.0)
    require_valid(told)
    assert sum(n["feature_type"] == "cross layer transcoder" for n in told["nodes"]) == 7


def test_a_graph_of_circuit_tracer_is_read_without_our_keys(graph):
    told = to_neuronpedia(graph, "x", node_share=1.0, edge_share=1.0)
    del told["metadata"]["otoscope"]
    for node in told["nodes"]:
        del node["otoscope"], node["stream"]
    again = from_neuronpedia(told)
    assert [t.label for t in again.targets] == [t.label for t in graph.targets]
    ours, theirs = graph.row("target/1"), again.row("target/1")
    features = [name for name in ours if name.startswith(("feature", "token"))]
    assert len(features) > 10
    for name in features:
        assert theirs[name] == ours[name]


def test_bad_names_and_files_are_refused(graph, tmp_path):
    with pytest.raises(OptionError, match="slug"):
        to_neuronpedia(graph, "a b")
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(GraphError, match="no Neuronpedia graph"):
        read_neuronpedia(tmp_path / "x.json")
    with pytest.raises(GraphError, match="cannot be read"):
        read_neuronpedia(tmp_path / "gone.json")


# circuit-tracer's .pt ----------------------------------------------------------------------------------------------------


@pytest.fixture
def circuit_tracer(monkeypatch):
    """Modules with the classes that circuit-tracer pickles."""
    modules = {name: types.ModuleType(name) for name in (
        "circuit_tracer", "circuit_tracer.utils", "circuit_tracer.utils.tl_nnsight_mapping", "circuit_tracer.attribution",
        "circuit_tracer.attribution.targets",
    )}  # fmt: skip
    mapping, targets = (
        modules["circuit_tracer.utils.tl_nnsight_mapping"],
        modules["circuit_tracer.attribution.targets"],
    )

    class UnifiedConfig:
        def __init__(self) -> None:
            self.n_layers, self.model_name, self.dtype = 3, "some/model", torch.float32

    UnifiedConfig.__module__, UnifiedConfig.__qualname__ = mapping.__name__, "UnifiedConfig"
    mapping.UnifiedConfig = UnifiedConfig
    targets.LogitTarget = namedtuple("LogitTarget", "token_str vocab_idx", module=targets.__name__)
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return modules


def as_pt(graph, circuit_tracer) -> dict:
    """What circuit-tracer would save."""
    n = graph.nodes
    square = np.zeros((len(n), len(n)), np.float32)
    square[graph.row_nodes] = graph.matrix.toarray()
    chosen = n.of(FEATURE)
    active = np.stack([n.layer[chosen], n.pos[chosen], n.feature[chosen]], axis=1)
    logit = circuit_tracer["circuit_tracer.attribution.targets"].LogitTarget
    return {
        "input_string": graph.record["prompt"],
        "adjacency_matrix": torch.from_numpy(square),
        "cfg": circuit_tracer["circuit_tracer.utils.tl_nnsight_mapping"].UnifiedConfig(),
        "active_features": torch.from_numpy(active.astype(np.int64)),
        "selected_features": torch.arange(len(chosen)),
        "activation_values": torch.from_numpy(n.activation[chosen]).float(),
        "logit_targets": [logit(t.label, t.token) for t in graph.targets],
        "logit_probabilities": torch.tensor([t.weight for t in graph.targets]),
        "vocab_size": 97,
        "input_tokens": torch.tensor(IDS),
        "scan": "scan",
    }


@pytest.fixture(scope="module")
def plain():
    """A graph with circuit-tracer's conventions and all its error nodes."""
    settings = TraceSettings(nodes=10**6, conventions="circuit-tracer")
    return trace(model_of("llama"), IDS, [4, 5], dictionary=Random().transcoders(), settings=settings)


def with_all_errors(graph):
    """Nodes in circuit-tracer's order: it has an error of every layer and position, ours only those that do something."""
    from dataclasses import replace

    from otoscope.circuits.graph import Nodes

    n = graph.nodes
    table = [(int(n.kind[i]), int(n.layer[i]), int(n.pos[i]), int(n.feature[i])) for i in n.of(FEATURE)]
    table += [(ERROR, layer, pos, -1) for layer in range(3) for pos in range(len(IDS))]
    table += [(TOKEN, -1, pos, token) for pos, token in enumerate(IDS)]
    table += [(TARGET, 3, 8, token) for token in (4, 5)]
    kind, layer, pos, feature = np.array(table).T
    activation = np.full(len(table), np.nan)
    activation[: len(n.of(FEATURE))] = n.activation[n.of(FEATURE)]
    nodes = Nodes(
        kind.astype(np.int8),
        layer.astype(np.int32),
        pos.astype(np.int32),
        feature,
        activation,
        ("text",) * len(table),
    )
    at = np.array([nodes.names.index(name) for name in graph.names])
    return replace(graph, nodes=nodes, indices=at[graph.indices])


def test_a_saved_graph_of_circuit_tracer_is_read_with_its_edges(plain, circuit_tracer, tmp_path):
    theirs = with_all_errors(plain)
    torch.save(as_pt(theirs, circuit_tracer), tmp_path / "x.pt")
    again = read_pt(tmp_path / "x.pt")
    assert again.names == theirs.names
    np.testing.assert_allclose(again.matrix.toarray(), theirs.matrix.toarray(), rtol=1e-6)
    assert [t.label for t in again.targets] == [t.label for t in theirs.targets]
    assert again.record["model"]["name"] == "some/model"
    assert again.scores().replacement == pytest.approx(plain.scores().replacement, rel=1e-5)


def test_older_files_with_token_ids_alone_are_read(plain, circuit_tracer, tmp_path):
    told = as_pt(with_all_errors(plain), circuit_tracer)
    torch.save(told | {"logit_targets": torch.tensor([4, 5])}, tmp_path / "x.pt")
    assert [t.token for t in read_pt(tmp_path / "x.pt").targets] == [4, 5]


class Attack:
    def __reduce__(self):
        return (exec, ("import pathlib; pathlib.Path('attacked').touch()",))


def test_a_file_that_would_run_code_is_refused_and_runs_nothing(plain, circuit_tracer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(as_pt(with_all_errors(plain), circuit_tracer) | {"scan": Attack()}, tmp_path / "x.pt")
    with pytest.raises(GraphError, match="more than a graph"):
        read_pt(tmp_path / "x.pt")
    assert not (tmp_path / "attacked").exists()


@pytest.mark.parametrize("content", [b"", b"no zip", None])
def test_what_is_no_graph_is_refused(content, tmp_path):
    if content is None:
        torch.save({"adjacency_matrix": torch.zeros(3, 3)}, tmp_path / "x.pt")
    else:
        (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(GraphError, match="graph"):
        read_pt(tmp_path / "x.pt")


# Drawings ----------------------------------------------------------------------------------------------------------------


def test_graphviz_and_graphml_hold_every_node_and_edge_with_labels_as_text(graph, tmp_path):
    from dataclasses import replace

    graph = replace(graph, tokens=('a"b\\', "<c>", "\x00", *graph.tokens[3:]))
    dot = to_graphviz(graph)
    assert dot.count(" -> ") - sum(
        " -> " in line.split("[")[1] for line in dot.splitlines() if "[" in line
    ) == len(graph.weights)
    assert r"\"b\\" in dot
    root = ElementTree.fromstring(to_graphml(graph))
    ns = "{http://graphml.graphdrawing.org/xmlns}"
    assert len(root.findall(f".//{ns}node")) == len(graph.nodes)
    edges = root.findall(f".//{ns}edge")
    assert len(edges) == len(graph.weights)
    assert float(edges[0].find(f"{ns}data").text) == graph.weights[0]
    for name in ("x.dot", "x.gv", "x.graphml"):
        save_drawing(graph, tmp_path / name)
        assert (tmp_path / name).stat().st_size > 1000
    with pytest.raises(OptionError, match="no name of a drawing"):
        save_drawing(graph, tmp_path / "x.png")
