"""Edited rows that begin late give what a whole forward under the same edits gives."""

from __future__ import annotations

import pytest
import torch
from tests.conftest import FAMILIES, example_inputs, tiny
from tests.models.talking import encode, sound, talking_whisper

from otoscope.activations import Edit
from otoscope.errors import EditError, OptionError
from otoscope.models.decoding import decode
from otoscope.models.replay import Replay
from otoscope.patching.components import components
from otoscope.patching.scene import Scene

pytestmark = pytest.mark.usefixtures("one_thread")

EXACT = {"atol": 1e-12, "rtol": 1e-12}


def scene_of(kind):
    model = tiny(kind, dtype=torch.float64)
    inputs = example_inputs(model, batch=1)
    return model, inputs, Scene.of(model, inputs)


def whole(model, inputs, edits=()):
    with torch.no_grad(), model.editing(*edits):
        return model.forward(inputs).logits[0]


def parts(model, stack):
    return [
        *([] if stack != "decoder" else ["self_attn", "cross_attn"]),
        *(["attn"] if stack != "decoder" else []),
        "mlp",
        "resid",
    ]


@pytest.mark.parametrize("kind", FAMILIES)
def test_every_component_of_every_stack_equals_a_whole_forward(kind):
    model, inputs, scene = scene_of(kind)
    every = [c for stack in model.points.stacks for c in components(model, stack, parts(model, stack))]
    every = every[:: 3 if len(every) > 40 else 2]
    edits = [Edit.scale(c.point, -0.5, **c.where()) if i % 2 else c.zeroed() for i, c in enumerate(every)]
    plain = whole(model, inputs)
    together = scene.logits([(), *([edit] for edit in edits)])
    torch.testing.assert_close(together[0], plain, **EXACT)
    for edit, component, row in zip(edits, every, together[1:], strict=True):
        torch.testing.assert_close(row, whole(model, inputs, [edit]), **EXACT)
        assert (row - plain).abs().max() > 1e-6, component.label
        torch.testing.assert_close(scene.logits([[edit]])[0], row, **EXACT)  # alone, from its own layer on
    assert model.open_hooks == 0


@pytest.mark.parametrize(
    ("point", "again"),
    [
        ("attn.hook_z", False),
        ("hook_mlp_out", False),
        ("hook_resid_mid", False),
        ("attn.hook_v", True),
        ("attn.hook_pattern", True),
        ("ln1.hook_out", True),
        ("hook_resid_pre", True),
    ],
)
@pytest.mark.parametrize("layer", [0, 1])
def test_heads_of_an_encoder_mix_again_only_where_something_before_is_edited(point, again, layer):
    model, inputs, scene = scene_of("whisper")
    edit, runs = Edit.scale(f"encoder_blocks.{layer}.{point}", 0.5), []
    of_layer = model.hf.model.encoder.layers[layer].self_attn
    handle = of_layer.q_proj.register_forward_hook(lambda _m, _a, out: runs.append(len(out)))
    rows = scene.logits([[edit], []])
    handle.remove()
    assert runs == [2 if again else 1]
    assert "forward" not in vars(of_layer)
    torch.testing.assert_close(rows[0], whole(model, inputs, [edit]), **EXACT)
    torch.testing.assert_close(rows[1], whole(model, inputs), **EXACT)


def test_an_edit_that_was_in_place_when_a_pass_was_kept_is_gone_with_its_layer():
    model, inputs, _ = scene_of("whisper")
    muted = Edit.zero("encoder_blocks.1.mlp.hook_post")
    with model.editing(Edit.scale("encoder_blocks.1.attn.hook_v", 3.0)):
        scene = Scene.of(model, inputs)
    rows = scene.logits([[muted], [muted]])
    torch.testing.assert_close(rows[0], whole(model, inputs, [muted]), **EXACT)


def test_an_attention_that_another_program_wrapped_stays_wrapped():
    model, _inputs, scene = scene_of("whisper")
    attention, calls = model.hf.model.encoder.layers[0].self_attn, []
    inner = attention.forward
    attention.forward = lambda *args, **kwargs: calls.append(1) or inner(*args, **kwargs)
    mine = attention.forward
    scene.logits([[Edit.zero("encoder_blocks.0.hook_mlp_out")], []])
    assert vars(attention)["forward"] is mine
    assert calls == [1]
    with (
        pytest.raises(ZeroDivisionError),
        model.hooks([("encoder_blocks.0.attn.hook_z", lambda x, hook: 1 / 0)]),
    ):
        scene.audio.run(0, 2)
    assert vars(attention)["forward"] is mine


def test_an_edit_that_was_in_place_when_a_pass_was_kept_is_not_made_twice():
    model, inputs, _ = scene_of("whisper")
    doubled = Edit.scale("encoder_blocks.1.attn.hook_z", 2.0)
    with model.editing(doubled):
        scene = Scene.of(model, inputs)
        row = scene.logits([[Edit.zero("encoder_blocks.1.hook_mlp_out")], []])[0]
    torch.testing.assert_close(
        row, whole(model, inputs, [doubled, Edit.zero("encoder_blocks.1.hook_mlp_out")]), **EXACT
    )


def test_a_row_may_be_edited_in_both_stacks_and_at_some_positions():
    model, inputs, scene = scene_of("whisper")
    edits = [
        Edit.zero("encoder_blocks.1.hook_mlp_out", positions=range(5, 20)),
        Edit.add("decoder_blocks.1.hook_resid_pre", torch.linspace(-1, 1, 48), positions=(2, 4)),
        Edit.scale("decoder_blocks.0.cross_attn.hook_z", 2.0, heads=3, positions=6),
        Edit.scale("decoder_blocks.1.hook_resid_mid", -1.0),
    ]
    rows = scene.logits([edits, edits[:1], edits[2:]])
    for row, of_row in zip(rows, (edits, edits[:1], edits[2:]), strict=True):
        torch.testing.assert_close(row, whole(model, inputs, of_row), **EXACT)
    plain = scene.logits([()])[0]
    torch.testing.assert_close(rows[2, :0], plain[:0])
    late = scene.logits([[edits[1]]])[0]
    torch.testing.assert_close(late[:2], plain[:2], **EXACT)
    assert (late[2] - plain[2]).abs().max() > 1e-6


@pytest.mark.parametrize("kind", FAMILIES)
def test_what_lies_outside_of_the_layers_is_edited_in_a_whole_forward(kind):
    model, inputs, scene = scene_of(kind)
    width = model.points[next(n for n in model.points if n.endswith("hook_resid_pre"))].width
    for name, point in model.points.items():
        if point.layer is not None or point.axes[-1] != "d_model" or point.axes[0] != "batch":
            continue
        edit = Edit.scale(name, 0.3)
        rows = scene.logits([[edit], ()])
        torch.testing.assert_close(rows[0], whole(model, inputs, [edit]), **EXACT)
        torch.testing.assert_close(rows[1], whole(model, inputs), **EXACT)
    assert width


def test_log_probabilities_are_those_of_the_given_tokens_whatever_lies_outside():
    model, inputs, scene = scene_of("whisper")
    tokens = inputs["decoder_input_ids"][0]
    for edit in (Edit.zero("decoder_blocks.1.hook_mlp_out"), Edit.scale("decoder_ln_final.hook_out", 0.5)):
        expected = (
            whole(model, inputs, [edit]).float().log_softmax(-1)[2:-1].gather(1, tokens[3:, None])[:, 0]
        )
        torch.testing.assert_close(scene.logprobs([[edit]], 3)[0], expected, atol=1e-5, rtol=1e-5)
    assert scene.logits([()], [2, 5]).shape == (1, 2, 99)


def test_positions_are_counted_from_the_first_one_again_after_a_cached_decode():
    model = talking_whisper(dtype=torch.float64)
    features = sound(1, dtype=torch.float64)
    tokens = torch.tensor([[*model.prompt("en"), 11, 12, 13]])
    inputs = {"input_features": features, "decoder_input_ids": tokens}
    scene = Scene.of(model, inputs)
    edit = Edit.zero("decoder_blocks.0.cross_attn.hook_z", positions=(2, 5))
    with model.hooks([("decoder_blocks.1.hook_mlp_out", lambda x, h: None)]):  # keeps the clock going
        decode(model, encode(model, features), tokens)
        assert model._clock.offset > 5
        row = scene.logits([[edit]])[0]
        assert (model._clock.offset, model._clock.phase, model._clock.step) == (0, "forward", 0)
    torch.testing.assert_close(row, whole(model, inputs, [edit]), **EXACT)


def test_layers_called_one_by_one_are_a_forward_from_position_0():
    model, _, scene = scene_of("llama")
    met = []
    with model.hooks(
        [("blocks.*.hook_resid_post", lambda x, h: met.append((h.layer, h.offset, h.phase, len(x))))]
    ):
        scene.text.run(1, 3)
    assert met == [(1, 0, "forward", 3), (2, 0, "forward", 3)]


@pytest.mark.parametrize("kind", ["whisper", "llama"])
def test_no_hook_stays_after_an_exception(kind):
    model, inputs, scene = scene_of(kind)

    def fail(x, hook):
        raise RuntimeError("stop")

    point = next(n for n in model.points if n.endswith("1.hook_resid_post"))
    before = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.hf.modules())
    with pytest.raises(RuntimeError, match="stop"), model.hooks([(point, fail)]):
        scene.logits([[Edit.zero(point)]])
    with pytest.raises(RuntimeError, match="stop"), model.hooks([(point, fail)]):
        Scene.of(model, inputs)
    assert sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.hf.modules()) == before
    with pytest.raises(EditError):
        scene.logits([[Edit.zero(point, heads=0)]])
    assert model.open_hooks == 0


def test_a_pass_keeps_what_entered_each_layer_and_left_the_last():
    model, inputs, _ = scene_of("whisper")
    kept = Replay.of(model, "encoder", lambda: model.encode(inputs["input_features"]))
    _, cache = model.run_with_cache(inputs, "encoder_blocks.*.hook_resid_p*")
    assert kept.layers == 3
    for layer in range(3):
        torch.testing.assert_close(kept.residuals[layer], cache[f"encoder_blocks.{layer}.hook_resid_pre"])
    torch.testing.assert_close(kept.residuals[3], cache["encoder_blocks.2.hook_resid_post"])
    torch.testing.assert_close(kept.run(1, 2)[1], kept.residuals[3][0], **EXACT)


def test_a_scene_is_of_one_input():
    model = tiny("whisper")
    with pytest.raises(OptionError, match="one input, not 2"):
        Scene.of(model, example_inputs(model, batch=2))
