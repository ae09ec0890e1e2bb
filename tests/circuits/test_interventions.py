"""Interventions: exact when everything is frozen, honest when nothing is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.circuits.cases import FAMILIES, IDS, Random, dictionaries, model_of

from otoscope.activations import Edit
from otoscope.circuits.checking import direct_effects, react
from otoscope.circuits.graph import FEATURE
from otoscope.circuits.interventions import Intervention, intervening
from otoscope.circuits.targets import token_target
from otoscope.circuits.tracer import Tracer, TraceSettings, trace
from otoscope.dictionaries.neurons import NeuronBasis
from otoscope.errors import EditError

pytestmark = pytest.mark.usefixtures("one_thread")

SOME = TraceSettings(nodes=40, update=20)


def changes_of(graph, nodes, factor: float) -> list[list[Intervention]]:
    n = graph.nodes
    return [
        [
            Intervention.set(
                int(n.layer[i]), int(n.feature[i]), factor * float(n.activation[i]), (int(n.pos[i]),)
            )
        ]
        for i in nodes
    ]


def close(measured: np.ndarray, predicted: np.ndarray) -> None:
    np.testing.assert_allclose(measured, predicted, rtol=1e-9, atol=1e-9 * abs(predicted).max())


@pytest.mark.parametrize("family", FAMILIES)
def test_under_full_freeze_a_feature_moves_every_node_and_logit_by_its_edge(family):
    model = model_of(family)
    for name, dictionary in list(dictionaries(model).items())[2::2]:
        graph = trace(model, IDS, [4, 5], dictionary=dictionary, settings=SOME)
        nodes = graph.nodes.of(FEATURE)[::4]
        edges = graph.matrix[:, nodes].toarray().T
        doubled = direct_effects(graph, changes_of(graph, nodes, 2.0))
        later = graph.nodes.layer[graph.row_nodes][None] > graph.nodes.layer[nodes][:, None]
        np.testing.assert_allclose(
            doubled[later], edges[later], rtol=1e-9, atol=1e-9 * abs(edges).max(), err_msg=name
        )


def test_direct_effects_of_groups_and_negative_values_are_linear():
    model = model_of("gemma2")
    graph = trace(model, IDS, 4, dictionary=Random().cross_layer(), settings=SOME)
    nodes = graph.nodes.of(FEATURE)[:6]
    single = direct_effects(graph, changes_of(graph, nodes, -3.0))
    group = direct_effects(graph, [[one for row in changes_of(graph, nodes, -3.0) for one in row]])
    later = graph.nodes.layer[graph.row_nodes] > graph.nodes.layer[nodes].max()
    close(group[0, later], single[:, later].sum(axis=0))
    ablated = direct_effects(graph, changes_of(graph, nodes, 0.0))
    close(single[:, later], 4 * ablated[:, later])


def test_ablating_a_neuron_in_the_reacting_model_is_zeroing_it():
    model = model_of("llama")
    graph = trace(model, IDS, 4, settings=SOME)
    node = graph.nodes.of(FEATURE)[3]
    layer, pos, feature = (int(getattr(graph.nodes, x)[node]) for x in ("layer", "pos", "feature"))
    target = token_target(model, graph.tracer.tape, 4)
    measured = react(graph.tracer, [[Intervention.ablate(layer, feature, (pos,))], []], [target])
    _, cache = model.run_with_cache(torch.tensor([IDS]), f"blocks.{layer}.mlp.hook_post")
    post = cache[f"blocks.{layer}.mlp.hook_post"].clone()
    post[0, pos, feature] = 0
    with torch.no_grad(), model.editing(Edit.replace(f"blocks.{layer}.mlp.hook_post", post)):
        edited = model.forward(torch.tensor([IDS])).logits[0, -1]
    clean = graph.tracer.tape.logits[-1]
    change = (edited - edited.mean() - clean + clean.mean())[4]
    assert measured[0, 0] == pytest.approx(float(change), rel=1e-9)
    assert measured[1, 0] == pytest.approx(0.0, abs=1e-12)


def test_a_batch_of_interventions_is_the_same_as_one_by_one():
    model = model_of("qwen3")
    graph = trace(model, IDS, 4, dictionary=Random().transcoders("topk"), settings=SOME)
    rows = changes_of(graph, graph.nodes.of(FEATURE)[:5], 0.0)
    target = [token_target(model, graph.tracer.tape, 4)]
    for freeze in ("none", "patterns", "all"):
        together = react(graph.tracer, rows, target, freeze)
        alone = np.concatenate([react(graph.tracer, [row], target, freeze) for row in rows])
        np.testing.assert_allclose(together, alone, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("positions", [None, (10, 12)])
def test_a_change_goes_on_while_the_model_writes_or_waits_for_its_positions(positions):
    model = model_of("llama")
    dictionary = NeuronBasis(model)
    change = [Intervention.set(1, 5, 40.0, positions)]
    inputs = model.inputs(torch.tensor([IDS]))
    with intervening(model, dictionary, [change]):
        written = model.generate(**inputs, max_new_tokens=6, do_sample=False)
        slow = torch.tensor([IDS])
        for _ in range(6):
            logits = model.hf(slow, use_cache=False).logits[0, -1]
            slow = torch.cat([slow, logits.argmax()[None, None]], dim=1)
    assert torch.equal(written, slow)
    plain = model.generate(**inputs, max_new_tokens=6, do_sample=False)
    assert not torch.equal(written, plain)
    with intervening(model, dictionary, [[Intervention.scale(1, 5, 1.0)]]):
        assert torch.equal(model.generate(**inputs, max_new_tokens=6, do_sample=False), plain)


def test_after_an_error_inside_the_block_no_hook_is_left():
    model = model_of("gemma3_text")
    graph = trace(model, IDS, 4, settings=SOME)
    frozen = {"tape": graph.tracer.tape, "sources": graph.tracer.sources, "freeze": "all"}
    with (
        pytest.raises(RuntimeError, match="on purpose"),
        intervening(model, graph.tracer.dictionary, [[Intervention.ablate(0, 1)]], **frozen),
    ):
        raise RuntimeError("on purpose")
    assert model.open_hooks == 0
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.hf.modules())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (Intervention.ablate(3, 0), "no feature 0 at layer 3"),
        (Intervention.ablate(1, 48), "this one has 48 features"),
        (Intervention.ablate(1, 4, (-1,)), "negative"),
    ],
)
def test_what_does_not_exist_is_not_changed(change, words):
    model = model_of("llama")
    with pytest.raises(EditError, match=words), intervening(model, NeuronBasis(model), [[change]]):
        pass


def test_freezing_needs_the_clean_run():
    model = model_of("llama")
    with (
        pytest.raises(EditError, match="needs the clean run"),
        intervening(model, NeuronBasis(model), [], freeze="all"),
    ):
        pass


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_check_reports_direct_exactly_and_free_with_interval_and_baselines(family):
    graph = trace(model_of(family), IDS, [4, 5], settings=TraceSettings(nodes=80))
    check = graph.check(30)
    told = check.to_dict()
    assert told["direct"]["correlation"] > 1 - 1e-12
    np.testing.assert_allclose(
        check.direct.measured, check.direct.predicted, rtol=1e-9, atol=1e-9 * abs(check.direct.measured).max()
    )
    assert told["free"]["n"] == 60
    assert told["free"]["ci_low"] <= told["free"]["correlation"] <= told["free"]["ci_high"]
    assert set(told["free"]["baselines"]) == {
        "activation_x_gradient", "activation", "direct_edge", "paths_within_graph", "random_features",
    }  # fmt: skip
    assert graph.check(30).to_dict() == told


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_held_step_by_step_is_the_model_while_nothing_is_changed(family):
    model = model_of(family)
    for name, dictionary in dictionaries(model).items():
        made = Tracer(model, torch.tensor(IDS), dictionary, SOME)
        with torch.no_grad():
            clean = made.forward(1)
            for freeze in ("patterns", "gates", "all"):
                with intervening(
                    model, dictionary, [[]], tape=made.tape, sources=made.sources, freeze=freeze
                ):
                    held = made.forward(1)
                torch.testing.assert_close(held, clean, rtol=1e-8, atol=1e-9, msg=f"{name} {freeze}")


def test_each_step_lets_more_of_the_model_react():
    model = model_of("llama")
    graph = trace(model, IDS, 4, settings=SOME)
    made = graph.tracer
    node = graph.nodes.of(FEATURE)[2]
    layer, pos, feature = (int(getattr(graph.nodes, x)[node]) for x in ("layer", "pos", "feature"))
    row = [Intervention.ablate(layer, feature, (pos,))]
    changes = {f: react(made, [row], made.targets, f)[0, 0] for f in ("all", "gates", "patterns", "none")}
    assert len({round(float(value), 12) for value in changes.values()}) == 4
    assert changes["all"] == pytest.approx(
        -graph.row("target/0").get(graph.names[node], 0.0), rel=1e-6, abs=1e-12
    )
