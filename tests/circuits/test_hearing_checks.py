"""Checks of a recogniser's graph: everything frozen, each node of either stack moves what reads it by its edge."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.circuits.test_speech import CLOSED, KINDS, OPENED, features, model, tracer

from otoscope.circuits.graph import FEATURE
from otoscope.circuits.hearing_runs import Change, react, run
from otoscope.circuits.interventions import Intervention
from otoscope.circuits.stem import stem_output

__all__ = ["features", "model"]  # fixtures
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("settings", [CLOSED, OPENED], ids=["closed", "opened"])
def test_frozen_every_node_moves_what_reads_it_by_its_edge(model, features, settings, kind):
    graph = tracer(model, features, settings, *KINDS[kind]()).graph([5, 9])
    checked = graph.check(12)
    expected = {"decoder_features", "supernodes", "sound"} | (
        {"encoder_features"} if settings is OPENED else set()
    )
    assert set(checked.kinds) == expected
    for name, each in checked.kinds.items():
        assert len(each.direct.measured), name
        scale = abs(each.direct.predicted).max()
        np.testing.assert_allclose(
            each.direct.measured, each.direct.predicted, rtol=1e-9, atol=1e-9 * scale, err_msg=name
        )
    assert checked.direct.correlation == pytest.approx(1.0)
    assert checked.to_dict()["direct"]["n"] == sum(len(k.direct.measured) for k in checked.kinds.values())


def encoder_node(graph):
    n = graph.nodes
    return int(np.flatnonzero((n.kind == FEATURE) & (np.array(n.stream) == "encoder"))[3])


def test_ablating_an_encoder_neuron_over_a_segment_is_zeroing_it_in_the_model(model, features):
    made = tracer(model, features, OPENED)
    graph = made.graph(5)
    node, n = encoder_node(graph), graph.nodes
    layer, feature, at = int(n.layer[node]), int(n.feature[node]), made.segments.frames(int(n.pos[node]))
    change = Change(encoder=(Intervention.ablate(layer, feature, tuple(at.tolist())),))
    measured = react(graph.tracer, [change, Change()], graph.tracer.targets)

    def zeroed(post, _hook):
        post = post.clone()
        post[:, at, feature] = 0
        return post

    inputs = {"input_features": features, "decoder_input_ids": made.ids[None]}
    with torch.no_grad(), model.hooks(fwd_hooks=[(f"encoder_blocks.{layer}.mlp.hook_post", zeroed)]):
        edited = model.forward(inputs).logits[0, -1]
    clean = made.tape.logits[-1]
    change = (edited - edited.mean() - clean + clean.mean())[5]
    assert measured[0, 0] == pytest.approx(float(change), rel=1e-9)
    assert measured[1, 0] == pytest.approx(0, abs=1e-12)


def test_silence_at_some_frames_is_the_floor_of_the_spectrogram_there(model, features):
    made = tracer(model, features, OPENED)
    at = torch.arange(4, 9)
    quiet = features.clone()
    quiet[..., 8:18] = features.min()
    change = made.silenced(at)
    torch.testing.assert_close(
        change,
        stem_output(model.hf.model.encoder, quiet)[0] - stem_output(model.hf.model.encoder, features)[0],
    )
    assert set(change.abs().sum(dim=1).nonzero().flatten().tolist()) == set(range(3, 10))
    heard = run(made, [Change(sound=change)]).final[0]
    with torch.no_grad():
        inputs = {"input_features": quiet, "decoder_input_ids": made.ids[None]}
        whole = model.hf.base_model(**inputs).last_hidden_state[0]
    torch.testing.assert_close(heard, whole, rtol=1e-9, atol=1e-11)


def test_a_feature_may_be_set_to_another_value_at_each_frame(model, features):
    made = tracer(model, features, OPENED)
    graph = made.graph(5)
    node, n = encoder_node(graph), graph.nodes
    layer, feature, at = int(n.layer[node]), int(n.feature[node]), made.segments.frames(int(n.pos[node]))
    own = made.encoder.sources.activation[layer][at, feature]
    same, other = (
        Intervention.set(layer, feature, tuple(values.tolist()), tuple(at.tolist()))
        for values in (own, own.flip(0))
    )
    changes = [Change(encoder=(same,)), Change(encoder=(other,))]
    measured = react(graph.tracer, changes, graph.tracer.targets)
    assert measured[0, 0] == pytest.approx(0, abs=1e-9)
    assert abs(measured[1, 0]) > 1e-9


@pytest.mark.parametrize("kind", KINDS)
def test_the_ladder_ends_in_the_model_itself(model, features, kind):
    graph = tracer(model, features, OPENED, *KINDS[kind]()).graph(5)
    checked = graph.check(6, ladder=True)
    for each in checked.kinds.values():
        assert set(each.ladder) == {"gates", "patterns"}
        for step in each.ladder.values():
            np.testing.assert_array_equal(step.measured, each.free.measured)
    assert 0 < checked.ladder["patterns"].correlation <= 1
    assert set(checked.to_dict()["free"]["ladder"]) == {"gates", "patterns"}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_held_step_by_step_is_the_model_while_nothing_is_changed(model, features, kind):
    made = tracer(model, features, OPENED, *KINDS[kind]())
    nothing = [Change(sound=torch.zeros((), dtype=torch.float64))]
    for freeze in ("patterns", "gates", "all"):
        torch.testing.assert_close(
            run(made, nothing, freeze).final, run(made, nothing).final, rtol=1e-9, atol=1e-10
        )
