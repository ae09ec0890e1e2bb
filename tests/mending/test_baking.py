"""Baked weights compute what the edited model computes."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from tests.conftest import example_inputs, tiny

from otoscope.activations import Edit
from otoscope.errors import ModelError, OptionError
from otoscope.mending.applying import repaired
from otoscope.mending.baking import bake
from otoscope.mending.repair import Repair

pytestmark = pytest.mark.usefixtures("one_thread")

D, HEADS, SIZE, MLP = 48, 6, 8, 80


def vector(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


BAKEABLE = {
    "head zeroed": Edit.zero("decoder_blocks.1.self_attn.hook_z", heads=3),
    "heads scaled": Edit.scale("decoder_blocks.0.cross_attn.hook_z", 0.3, heads=(0, 5)),
    "encoder head zeroed": Edit.zero("encoder_blocks.1.attn.hook_z", heads=2),
    "head at its mean": Edit.mean("decoder_blocks.0.self_attn.hook_z", vector(HEADS, SIZE), heads=1),
    "head mixed": Edit.mix("decoder_blocks.0.self_attn.hook_z", vector(SIZE), 0.4, heads=2),
    "head steered": Edit.add("decoder_blocks.1.cross_attn.hook_z", vector(SIZE), heads=4),
    "head projected": Edit.project_out("decoder_blocks.1.self_attn.hook_z", vector(2, SIZE), heads=(1, 2)),
    "values scaled": Edit.scale("decoder_blocks.0.cross_attn.hook_v", 0.5, heads=1),
    "keys scaled": Edit.scale("decoder_blocks.0.self_attn.hook_k", 0.5),
    "queries steered": Edit.add("decoder_blocks.0.self_attn.hook_q", vector(SIZE), heads=0),
    "attention zeroed": Edit.zero("decoder_blocks.1.hook_attn_out"),
    "cross-attention scaled": Edit.scale("decoder_blocks.1.hook_cross_attn_out", 0.7),
    "mlp mixed": Edit.mix("decoder_blocks.0.hook_mlp_out", vector(D), 0.2),
    "mlp projected": Edit.project_out("decoder_blocks.0.hook_mlp_out", vector(3, D)),
    "neurons steered": Edit.add("decoder_blocks.0.mlp.hook_post", vector(MLP)),
    "stream steered after a layer": Edit.add("decoder_blocks.0.hook_resid_post", vector(D)),
    "stream steered before a layer": Edit.add("decoder_blocks.1.hook_resid_pre", vector(1, 1, D)),
    "stream steered in a layer": Edit.add("decoder_blocks.1.hook_resid_mid", vector(D)),
    "stream steered after cross-attention": Edit.add("decoder_blocks.1.hook_resid_mid_cross", vector(D)),
    "encoder stream steered": Edit.add("encoder_blocks.2.hook_resid_post", vector(D)),
}


@pytest.fixture(scope="module")
def whisper():
    return tiny("whisper", dtype=torch.float64)


def logits(model):
    with torch.no_grad():
        return model.forward(example_inputs(model)).logits


def check(model, edits):
    repair = Repair.of(model, "repair", edits=tuple(edits))
    with repaired(model, repair):
        expected = logits(model)
    baked = bake(model, repair)
    assert not baked.left
    before = logits(model)
    with repaired(model, Repair.of(model, "baked", weights=baked.weights)):
        found = logits(model)
    assert (found - expected).abs().max() < 1e-10
    assert (found - before).abs().max() > 1e-6
    assert torch.equal(logits(model), before)


@pytest.mark.parametrize("name", BAKEABLE)
def test_baked_weights_give_the_logits_of_the_edited_model(whisper, name):
    check(whisper, [BAKEABLE[name]])


def test_edits_of_one_layer_are_baked_in_the_order_in_which_they_act(whisper):
    edits = list(BAKEABLE.values())
    check(whisper, edits[::-1])
    for a, b in pairwise(edits):
        check(whisper, [b, a])


def test_several_edits_of_one_point_keep_their_order(whisper):
    add = Edit.add("decoder_blocks.0.hook_mlp_out", vector(D))
    scale = Edit.scale("decoder_blocks.0.hook_mlp_out", 0.5)
    check(whisper, [add, scale])
    check(whisper, [scale, add])


def test_edits_are_baked_on_top_of_changed_weights(whisper):
    name = "model.decoder.layers.1.self_attn.out_proj.weight"
    weights = {name: whisper.hf.get_parameter(name).detach() * 0.5}
    edit = BAKEABLE["head zeroed"]
    repair = Repair.of(whisper, "both", edits=(edit,), weights=weights)
    with repaired(whisper, repair):
        expected = logits(whisper)
    baked = bake(whisper, repair)
    with repaired(whisper, Repair.of(whisper, "baked", weights=baked.weights)):
        assert (logits(whisper) - expected).abs().max() < 1e-10


@pytest.mark.parametrize(
    "edit, why",
    [
        (Edit.project_out("decoder_blocks.0.hook_resid_post", vector(D)), "whole residual stream"),
        (Edit.zero("decoder_blocks.0.hook_mlp_out", steps=(0,)), "certain steps"),
        (Edit.zero("decoder_blocks.0.hook_mlp_out", positions=(0,)), "certain positions"),
        (Edit.zero("decoder_blocks.0.self_attn.hook_pattern", heads=0), "inside of the attention"),
        (Edit.add("decoder_blocks.0.self_attn.hook_k", vector(SIZE)), "no bias"),
        (Edit.add("decoder_blocks.0.hook_resid_pre", vector(D)), "before the first layer"),
        (Edit.add("decoder_blocks.0.hook_mlp_out", vector(7, D)), "from position to position"),
        (Edit.scale("decoder_blocks.0.ln1.hook_out", 2.0), "neither"),
        (Edit.scale("unembed.hook_out", 2.0), "embeddings"),
    ],
)
def test_what_cannot_be_baked_is_left_with_its_reason(whisper, edit, why):
    baked = bake(whisper, Repair.of(whisper, "repair", edits=(edit,)))
    assert not baked.weights
    (left,) = baked.left
    assert left.change is edit
    assert why in left.why


def test_what_waits_for_an_alarm_is_not_baked(whisper):
    repair = Repair.of(whisper, "repair", edits=(BAKEABLE["head zeroed"],), when="alarm")
    (left,) = bake(whisper, repair).left
    assert "alarm" in left.why


def test_another_model_is_refused(whisper):
    repair = Repair.of(tiny("whisper", seed=5, dtype=torch.float64), "repair")
    with pytest.raises(OptionError, match="other weights"):
        bake(whisper, repair)
    other = tiny("gpt2")
    with pytest.raises(ModelError, match="no Whisper"):
        bake(other, Repair.of(other, "repair"))
