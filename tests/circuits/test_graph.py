"""Graphs: selection, rows and rest, scores, pruning, subgraphs, saving."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.circuits.cases import FAMILIES, IDS, Random, dictionaries, model_of
from tests.conftest import tiny

from otoscope.circuits.adjoint import feature_seeds
from otoscope.circuits.graph import ERROR, FEATURE, TARGET, TOKEN
from otoscope.circuits.influence import path_sums
from otoscope.circuits.saving import load_graph
from otoscope.circuits.summary import strongest_paths, summary_lines
from otoscope.circuits.targets import Target, probable_targets
from otoscope.circuits.tracer import Tracer, TraceSettings, trace
from otoscope.dictionaries.transcoder import Transcoder, TranscoderSet
from otoscope.errors import DictionaryError, GraphError, ModelError, OptionError

pytestmark = pytest.mark.usefixtures("one_thread")

SOME = TraceSettings(nodes=40, update=16)
ALL = TraceSettings(nodes=10**6)


@pytest.fixture(scope="module", params=["llama", "gemma3_text", "gpt2"])
def graph(request):
    """Transcoders with errors, two targets, some of the features."""
    model = model_of(request.param)
    return trace(model, IDS, [4, 5], dictionary=Random().transcoders("jumprelu", True), settings=SOME)


def row_sums(graph) -> np.ndarray:
    return np.asarray(graph.matrix.sum(axis=1)).ravel() + graph.rest


# Rows --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_of_a_graph_sum_to_activations_and_logits_however_few_nodes_it_has(family):
    model = model_of(family)
    for dictionary in list(dictionaries(model).values())[::3]:
        tracer = Tracer(model, IDS, dictionary, SOME)
        graph = tracer.graph([4, 5])
        np.testing.assert_allclose(row_sums(graph), graph.values, rtol=1e-9)
        features = graph.nodes.of(FEATURE)
        np.testing.assert_allclose(graph.values[: len(features)], graph.nodes.activation[features], rtol=1e-9)
        logits = tracer.tape.final(tracer.tape.last)[-1] @ tracer.tape.wiring.unembedding.weight.detach().T
        np.testing.assert_allclose(graph.values[-2:], (logits - logits.mean())[[4, 5]], rtol=1e-9)


def test_rows_of_some_features_are_those_of_all():
    model = model_of("qwen2")
    dictionary = Random().transcoders()
    some, every = (trace(model, IDS, 4, dictionary=dictionary, settings=s) for s in (SOME, ALL))
    assert len(some.nodes.of(FEATURE)) == 40 < len(every.nodes.of(FEATURE))
    for name in (*some.names[:40:7], "target/0"):
        whole = every.row(name)
        for source, weight in some.row(name).items():
            if source != "rest":
                assert weight == pytest.approx(whole[source], rel=1e-12, abs=1e-14)


def test_batch_size_changes_no_node_and_no_edge():
    model = model_of("gemma2")
    dictionary = Random().cross_layer()
    one, many = (
        trace(model, IDS, 4, dictionary=dictionary, settings=replace(SOME, batch=batch)) for batch in (1, 64)
    )
    assert one.names == many.names
    np.testing.assert_allclose(one.matrix.toarray(), many.matrix.toarray(), rtol=1e-9, atol=1e-13)


def test_the_most_influential_features_are_chosen():
    """One re-rank at a time, by hand, on the full matrix."""
    model = model_of("llama")
    tracer = Tracer(model, IDS, Random().transcoders(), TraceSettings(nodes=12, update=1))
    graph, s = tracer.graph(4), tracer.sources
    every = tracer.rows(feature_seeds(tracer.tape, tracer.dictionary, s, torch.arange(s.features))).numpy()
    target = trace(model, IDS, 4, dictionary=tracer.dictionary, settings=ALL)
    first = np.zeros(s.columns)
    for name, weight in target.row("target/0").items():
        if name.startswith("feature"):
            _, layer, pos, feature = name.split("/")
            active = s.actives[int(layer)]
            entry = ((active.pos == int(pos)) & (active.feature == int(feature))).nonzero().item()
            first[s.starts[int(layer)] + entry] = abs(weight)
    mass = abs(target.matrix[-1]).sum()
    shares = abs(every) / abs(every).sum(axis=1, keepdims=True)
    chosen: list[int] = []
    for _ in range(12):
        total = current = first / mass
        for _ in range(4):
            expanded = np.zeros(s.features)
            expanded[chosen] = current[chosen]
            current = expanded @ shares
            total = total + current
        best = total[: s.features].copy()
        best[chosen] = -1
        chosen.append(int(best.argmax()))
    layer, pos, feature = s.entries(torch.tensor(sorted(chosen)))
    expected = [f"feature/{a}/{b}/{c}" for a, b, c in zip(layer, pos, feature, strict=True)]
    assert list(graph.names[:12]) == expected


def test_small_entries_that_are_not_kept_stay_in_the_rest(monkeypatch):
    model = model_of("llama")
    whole = trace(model, IDS, 4, settings=SOME)
    monkeypatch.setattr("otoscope.circuits.tracer._STORE", 2**14)
    lean = trace(model, IDS, 4, settings=SOME)
    assert whole.record["floor"] == 0 < 1 <= lean.record["floor"]
    assert len(lean.weights) < len(whole.weights)
    np.testing.assert_allclose(row_sums(lean), lean.values, rtol=1e-9)
    mass = np.asarray(abs(lean.matrix).sum(axis=1)).ravel() + lean.rest_mass
    same = [
        whole.names.index(name) for name in lean.names if name in whole.names and name.startswith("target")
    ]
    assert same
    assert mass[-1] == pytest.approx(
        np.asarray(abs(whole.matrix).sum(axis=1)).ravel()[-1] + whole.rest_mass[-1]
    )


def test_circuit_tracers_conventions_zero_the_first_position_and_lose_the_biases():
    model = model_of("gpt2")
    settings = TraceSettings(nodes=10**6, conventions="circuit-tracer")
    graph = trace(model, IDS, 4, dictionary=Random().transcoders(), settings=settings)
    kinds = graph.nodes.kind
    assert set(kinds) == {FEATURE, ERROR, TOKEN, TARGET}
    assert not (graph.nodes.pos[np.isin(kinds, (FEATURE, ERROR))] == 0).any()
    exact = trace(model, IDS, 4, dictionary=Random().transcoders(), settings=ALL)
    for source, weight in graph.row("target/0").items():
        if source != "rest":
            assert weight == pytest.approx(exact.row("target/0")[source], rel=1e-9, abs=1e-12)


# Targets -----------------------------------------------------------------------------------------------------------------


def test_a_target_may_be_any_direction_at_any_layer_and_position():
    model = model_of("llama")
    tracer = Tracer(model, IDS, settings=SOME)
    direction = Random(5)(32)
    graph = tracer.graph([Target("inside", 4, 1.0, direction, layer=2), Target("end", 6, 1.0, direction)])
    _, cache = model.run_with_cache(torch.tensor([IDS]), ["blocks.2.hook_resid_pre", "ln_final.hook_out"])
    assert graph.values[-2] == pytest.approx(float(cache["resid_pre", 2][0, 4] @ direction))
    assert graph.values[-1] == pytest.approx(float(cache["ln_final.hook_out"][0, 6] @ direction))
    np.testing.assert_allclose(row_sums(graph), graph.values, rtol=1e-9)
    assert graph.nodes.layer[graph.nodes.of(FEATURE)].max() <= 2


def test_probable_targets_are_the_fewest_that_reach_a_probability():
    tracer = Tracer(model_of("llama"), IDS)
    p = tracer.tape.logits[-1].softmax(-1).sort(descending=True).values
    targets = probable_targets(tracer.model, tracer.tape, most=50, probability=0.5)
    assert p[: len(targets)].sum() >= 0.5 > p[: len(targets) - 1].sum()
    assert [t.weight for t in targets] == pytest.approx(p[: len(targets)].tolist())


# Scores and pruning ------------------------------------------------------------------------------------------------------


def brute_influence(graph) -> np.ndarray:
    """`w (A + A^2 + ...)` on the dense square matrix."""
    n = len(graph.nodes)
    square = np.zeros((n, n))
    square[graph.row_nodes] = abs(graph.matrix.toarray())
    mass = np.ones(n)
    mass[graph.row_nodes] = square[graph.row_nodes].sum(axis=1) + graph.rest_mass
    weights = np.zeros(n)
    weights[graph.row_nodes] = graph.target_weights
    shares = square / mass[:, None]
    return weights @ (np.linalg.inv(np.eye(n) - shares) - np.eye(n)), shares, weights


def test_influence_is_the_sum_over_all_paths(graph):
    np.testing.assert_allclose(graph.influence(), brute_influence(graph)[0], rtol=1e-9, atol=1e-14)


def test_pruning_equals_brute_force(graph):
    influence, shares, weights = brute_influence(graph)
    kind = graph.nodes.kind
    ordered = np.sort(influence)[::-1]
    least = ordered[np.searchsorted(ordered.cumsum() / ordered.sum(), 0.7)]
    nodes = (influence >= least) | ~np.isin(kind, (FEATURE, ERROR))
    inside = shares * nodes[:, None] * nodes[None]
    through = weights @ np.linalg.inv(np.eye(len(nodes)) - inside)
    score = inside * through[:, None]
    ordered = np.sort(score.ravel())[::-1]
    edges = (score >= ordered[np.searchsorted(ordered.cumsum() / ordered.sum(), 0.9)]) & (inside > 0)
    for _ in range(10):
        nodes &= ~np.isin(kind, (FEATURE, ERROR)) | edges.any(axis=0)
        nodes &= (kind != FEATURE) | edges.any(axis=1)
        edges &= nodes[:, None] & nodes[None]
    pruned = graph.prune(0.7, 0.9)
    assert (pruned.nodes == nodes).all()
    found = np.zeros_like(edges)
    rows = np.repeat(np.arange(len(graph.rest)), np.diff(graph.indptr))
    found[graph.row_nodes[rows[pruned.edges]], graph.indices[pruned.edges]] = True
    assert (found == edges).all()


def test_pruning_is_monotone_and_its_rows_still_sum(graph):
    before = np.zeros(len(graph.nodes), bool)
    for share in (0.2, 0.5, 0.8, 1.0):
        pruned = graph.prune(share, 0.9)
        assert (pruned.nodes >= before).all()
        before = pruned.nodes
        np.testing.assert_allclose(row_sums(pruned.graph), pruned.graph.values, rtol=1e-9)
        mass = np.asarray(abs(pruned.graph.matrix).sum(axis=1)).ravel() + pruned.graph.rest_mass
        whole = np.asarray(abs(graph.matrix).sum(axis=1)).ravel() + graph.rest_mass
        np.testing.assert_allclose(mass, whole[pruned.nodes[graph.row_nodes]], rtol=1e-9)


def test_scores_fall_as_nodes_go_and_are_one_for_the_whole_neuron_basis(graph):
    names = [graph.names[i] for i in graph.nodes.of(FEATURE)[:10]]
    whole, part = graph.scores(), graph.subgraph(names).scores()
    assert 0 < whole.replacement < 1
    assert part.replacement_with_rest < whole.replacement_with_rest
    assert part.completeness_with_rest < whole.completeness_with_rest
    neurons = trace(model_of("gpt2"), IDS, 4, settings=ALL).scores()
    assert neurons.replacement == neurons.completeness_with_rest == neurons.replacement_with_rest == 1.0


def test_scores_of_a_graph_made_by_hand(graph):
    """One target reads a feature (3) and an error (1); the feature reads a token (1) and an error (1)."""
    made = by_hand()
    s = made.scores()
    assert s.replacement == pytest.approx(3 / 8)  # token 3/8, errors 1/4 + 3/8
    assert s.completeness_expanded == pytest.approx((1 * 3 / 4 + 3 / 4 * 1 / 2) / (1 + 3 / 4))
    assert s.completeness == pytest.approx(1 - (1 / 4 + 3 / 8) / (1 + 3 / 4 + 1 / 4 + 3 / 8 + 3 / 8))


def by_hand():
    from otoscope.circuits.graph import AttributionGraph, Nodes, TargetInfo

    nan = np.nan
    nodes = Nodes(
        np.array([FEATURE, ERROR, ERROR, TOKEN, TARGET], np.int8), np.array([1, 0, 1, -1, 2], np.int32),
        np.array([0, 0, 0, 0, 0], np.int32), np.array([7, -1, -1, 3, 5]), np.array([2.0, nan, nan, nan, nan]), ("text",) * 5,
    )  # fmt: skip
    return AttributionGraph(
        nodes, np.array([0, 2, 4]), np.array([3, 1, 0, 2]), np.array([1.0, 1.0, 3.0, -1.0]), np.zeros(2), np.zeros(2),
        np.array([2.0, 2.0]), (TargetInfo("x", 0, 1.0, 5, 1.0),), ("<3>",), {"prompt": "<3>"},
    )  # fmt: skip


def test_path_sums_are_what_each_node_passes_on_along_all_paths():
    sums = path_sums(by_hand())[0]
    assert sums.tolist() == pytest.approx([3.0, 1.5, -1.0, 1.5, 0.0])


def test_the_strongest_paths_are_told_in_words():
    paths = strongest_paths(by_hand())
    assert [p.share for p in paths] == pytest.approx([3 / 8, 3 / 8, 1 / 4])
    assert [p.sign for p in paths][-1] == -1
    text = "\n".join(summary_lines(by_hand()))
    assert "'<3>' (0) -> L1 feature 7 at '<3>' (0) -> says 'x'" in text
    assert "against L1 error" in text


# Forms -------------------------------------------------------------------------------------------------------------------


def test_the_json_has_nodes_edges_and_scores_and_its_edges_sum_to_the_values(graph):
    told = json.loads(json.dumps(graph.to_dict(), allow_nan=False))
    ids = [node["id"] for node in told["nodes"]]
    assert len(set(ids)) == len(ids)
    assert {node["kind"] for node in told["nodes"]} <= {
        "feature", "error", "token", "position", "bias", "target", "rest",
    }  # fmt: skip
    assert {node["stream"] for node in told["nodes"]} == {"text"}
    assert {"replacement", "completeness"} <= set(told["scores"])
    sums: dict[str, float] = {}
    for source, target, weight in told["edges"]:
        assert source in ids
        sums[target] = sums.get(target, 0.0) + weight
    for target in told["targets"]:
        assert sums[target["id"]] == pytest.approx(target["value"], rel=1e-9)


def test_a_saved_graph_is_read_back_as_it_was(graph, tmp_path):
    graph.save(tmp_path / "graph")
    again = load_graph(tmp_path / "graph")
    assert again.to_dict() == graph.to_dict()
    with pytest.raises(GraphError, match="cannot be checked"):
        again.check()


@pytest.mark.parametrize("damage", ["no json", "version", "short", "no tensors"])
def test_a_damaged_graph_is_refused_by_name(graph, tmp_path, damage):
    graph.save(tmp_path)
    told = json.loads((tmp_path / "graph.json").read_text())
    if damage == "no json":
        (tmp_path / "graph.json").write_text("{")
    elif damage == "version":
        (tmp_path / "graph.json").write_text(json.dumps(told | {"version": 99}))
    elif damage == "short":
        whole = (tmp_path / "graph.safetensors").read_bytes()
        (tmp_path / "graph.safetensors").write_bytes(whole[: len(whole) // 2])
    else:
        (tmp_path / "graph.safetensors").unlink()
    with pytest.raises(GraphError, match="no graph that can be read"):
        load_graph(tmp_path)


# Bad input ---------------------------------------------------------------------------------------------------------------


def wrong_norm(model) -> TranscoderSet:
    """Fits the MLP's input, but is said to read the raw stream scaled up."""
    make = Random()
    scaled = [make.transcoder() for _ in range(3)]
    return TranscoderSet([Transcoder(t.w_enc * 1e5, t.b_enc, t.w_dec, t.b_dec) for t in scaled])


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"prompt": []}, OptionError, "prompt is empty"),
        ({"prompt": [3] * 65}, OptionError, "65 tokens, the context holds 64"),
        ({"prompt": [3, 97]}, OptionError, "no token"),
        ({"targets": 97}, OptionError, "no token 97"),
        ({"targets": []}, OptionError, "no target"),
        ({"targets": Target("x", 9, 1.0, torch.zeros(32))}, OptionError, "position 9"),
        ({"targets": Target("x", 1, 1.0, torch.zeros(31))}, GraphError, "31 dimensions"),
        ({"dictionary": lambda m: TranscoderSet([Random().transcoder()] * 2)}, DictionaryError, "2 layers"),
        ({"dictionary": wrong_norm}, DictionaryError, "times its size"),
        ({"settings": TraceSettings(nodes=10**9), "free": 1e4}, OptionError, "--nodes"),
    ],
)
def test_what_cannot_be_traced_is_refused_with_a_reason(arguments, error, words, monkeypatch):
    model = model_of("llama")
    given = {"prompt": IDS, "targets": 4} | arguments
    if "free" in given:
        monkeypatch.setattr("otoscope.circuits.tracer.free_memory", lambda: given["free"])
    dictionary = given["dictionary"](model) if "dictionary" in given else None
    with pytest.raises(error, match=words):
        trace(model, given["prompt"], given["targets"], dictionary=dictionary, settings=given.get("settings"))


def test_a_dictionary_of_another_width_is_named():
    wide = model_of("llama", hidden_size=48)
    with pytest.raises(DictionaryError, match="reads and writes 32 dimensions"):
        trace(wide, IDS, 4, dictionary=Random().transcoders())


def test_weights_that_are_not_finite_are_named():
    model = model_of("gpt2")
    with torch.no_grad():
        model.hf.transformer.h[1].mlp.c_fc.weight[3, 4] = torch.nan
    with pytest.raises(ModelError, match=r"transformer.h.1.mlp.c_fc.weight .* not finite"):
        trace(model, IDS)


def test_models_that_cannot_be_traced_are_refused():
    with pytest.raises(OptionError, match="float32"):
        trace(tiny("llama", dtype=torch.bfloat16), IDS)
    with pytest.raises(ModelError, match="no language model"):
        trace(tiny("whisper"), IDS)
