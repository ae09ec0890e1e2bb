"""A path carries a change from its sender to its receivers and nowhere else."""

from __future__ import annotations

import pytest
import torch
from tests.conftest import tiny
from tests.patching.pairs import METRIC, Pair, pair, score

from otoscope.activations import Edit, head_output_weights
from otoscope.errors import OptionError
from otoscope.patching.activation_patching import get_act_patch_mlp_out
from otoscope.patching.components import Component
from otoscope.patching.path_patching import LOGITS, Receiver, get_act_patch_direct_path, path_patch

pytestmark = pytest.mark.usefixtures("one_thread")

LANGUAGE_MODELS = ("llama", "qwen3", "gemma2", "gemma3_text", "gpt2", "qwen2_audio")


def exact(case: Pair, component: Component) -> float:
    """The corrupted run's score with a component's clean output in place, everything after it free."""
    edit = Edit.replace(component.point, case.clean_cache[component.point], **component.where())
    return float(METRIC.score(case.scene, [[edit]]))


def silence_mlp(model, stack: str, layer: int) -> None:
    point = model.points[model.points.short("post", layer, stack)]
    for parameter in model.hf.get_submodule(point.module).parameters():
        parameter.data.zero_()


# One receiver --------------------------------------------------------------------------------------------------------


def written_by_head(case: Pair, name: str, head: int) -> torch.Tensor:
    point = case.model.points[name]
    weights = head_output_weights(case.model.hf.get_submodule(point.module), point.heads)[head]
    return (case.clean_cache[name] - case.corrupt_cache[name])[:, :, head] @ weights


@pytest.mark.parametrize("letter", ["q", "k", "v"])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_path_between_heads_equals_one_computed_by_hand(family, letter):
    case = pair(family)
    sender, receiver = (0, 1), (2, 1)
    change = written_by_head(case, "blocks.0.attn.hook_z", 1)
    layer = (case.model.hf.base_model.h if family == "gpt2" else case.model.hf.base_model.layers)[2]
    stream = case.corrupt_cache["blocks.2.hook_resid_pre"] + change
    with torch.no_grad():
        if family == "gpt2":
            read = layer.attn.c_attn(layer.ln_1(stream)).chunk(3, dim=-1)["qkv".index(letter)]
        else:
            read = getattr(layer.self_attn, f"{letter}_proj")(layer.input_layernorm(stream))
    mine = slice(receiver[1] * 8, receiver[1] * 8 + 8)

    def write(x, _clean):
        x[0, :, receiver[1]] = read[0, :, mine]

    expected = case.hooked(f"blocks.2.attn.hook_{letter}", write)
    args = case.model, case.scene, case.clean_cache, case.corrupt_cache, METRIC
    result = get_act_patch_direct_path(*args, *sender, letter)
    assert abs(float(result[receiver]) - expected) < 1e-6
    assert abs(expected - float(METRIC.score(case.scene))) > 1e-5
    component = Component("text", 2, "attn", 1)
    paths = [Receiver(component, letter)]
    alone = path_patch(
        case.model, case.scene, case.clean_cache, METRIC, Component("text", 0, "attn", 1), paths
    )
    torch.testing.assert_close(alone[0], result[receiver])


def test_a_self_attention_speaks_to_the_cross_attention_of_its_own_layer():
    case = pair("whisper")
    change = written_by_head(case, "decoder_blocks.1.self_attn.hook_z", 4)
    layer = case.model.hf.model.decoder.layers[1]
    with torch.no_grad():
        stream = case.corrupt_cache["decoder_blocks.1.hook_resid_mid"] + change
        read = layer.encoder_attn.q_proj(layer.encoder_attn_layer_norm(stream))

    def write(x, _clean):
        x[0, :, 2] = read[0, :, 16:24]

    expected = case.hooked("decoder_blocks.1.cross_attn.hook_q", write)
    args = case.model, case.scene, case.clean_cache, case.corrupt_cache, METRIC, 1, 4
    result = get_act_patch_direct_path(*args, "q", part="self_attn", receiver_part="cross_attn")
    assert abs(float(result[1, 2]) - expected) < 1e-9
    unpatched = float(METRIC.score(case.scene))
    assert (result[0] == unpatched).all()
    assert (get_act_patch_direct_path(*args, "q", part="cross_attn")[:2] == unpatched).all()


def test_a_path_to_an_mlp_equals_one_computed_by_hand():
    case = pair("whisper")
    change = (
        case.clean_cache["decoder_blocks.0.hook_cross_attn_out"]
        - case.corrupt_cache["decoder_blocks.0.hook_cross_attn_out"]
    )
    layer = case.model.hf.model.decoder.layers[1]
    with torch.no_grad():
        stream = case.corrupt_cache["decoder_blocks.1.hook_resid_mid_cross"] + change
        read = layer.fc2(layer.activation_fn(layer.fc1(layer.final_layer_norm(stream))))
    expected = case.hooked("decoder_blocks.1.hook_mlp_out", lambda x, _clean: x.copy_(read))
    sender, receiver = Component("decoder", 0, "cross_attn"), Receiver(Component("decoder", 1, "mlp"))
    result = path_patch(case.model, case.corrupt, case.clean_cache, METRIC, sender, [receiver])
    assert abs(float(result[0]) - expected) < 1e-9


def test_the_path_to_the_logits_adds_the_change_to_the_last_stream():
    case = pair("gpt2")
    change = written_by_head(case, "blocks.0.attn.hook_z", 3)
    with torch.no_grad():
        logits = case.model.unembed(case.corrupt_cache["blocks.2.hook_resid_post"] + change)
    result = path_patch(
        case.model, case.scene, case.clean_cache, METRIC, Component("text", 0, "attn", 3), [LOGITS]
    )
    assert abs(float(result[0]) - score(logits)) < 1e-9


# All receivers at once -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [*LANGUAGE_MODELS, "whisper"])
def test_all_paths_of_the_last_attention_together_are_its_whole_effect(family):
    case = pair(family)
    stack = case.scene.text.stack
    last = case.scene.text.layers - 1
    part = "cross_attn" if family == "whisper" else "attn"
    mlp = Component(stack, last, "mlp")
    for sender in (Component(stack, last, part, 2), Component(stack, last, part)):
        paths = path_patch(
            case.model, case.scene, case.clean_cache, METRIC, sender, [[Receiver(mlp), LOGITS], LOGITS]
        )
        assert abs(float(paths[0]) - exact(case, sender)) < 1e-6
        assert abs(float(paths[1] - paths[0])) > 1e-6  # the MLP matters
    only = path_patch(case.model, case.scene, case.clean_cache, METRIC, mlp, [LOGITS])
    assert abs(float(only[0]) - exact(case, mlp)) < 1e-6


@pytest.mark.parametrize("family", LANGUAGE_MODELS)
def test_all_paths_through_the_last_attention_are_the_whole_effect_where_its_mlp_is_silent(family):
    model = tiny(family, dtype=torch.float64)
    last = len(model.hf.get_submodule(model.points.layers["text"])) - 1
    silence_mlp(model, "text", last)
    case = Pair(family, model=model)
    sender = Component("text", last - 1, "mlp")
    whole = Component("text", last, "attn")
    heads = {x: model.points[f"blocks.{last}.attn.hook_{x}"].heads for x in "qkv"}
    one_by_one = [Receiver(Component("text", last, "attn", h), x) for x in "qkv" for h in range(heads[x])]
    paths = path_patch(
        model,
        case.scene,
        case.clean_cache,
        METRIC,
        sender,
        [[Receiver(whole), LOGITS], [*one_by_one, LOGITS], []],
    )
    assert abs(float(paths[0]) - exact(case, sender)) < 1e-6
    assert abs(float(paths[1]) - exact(case, sender)) < 1e-6
    assert abs(float(paths[2] - METRIC.score(case.scene))) < 1e-9


def test_what_the_encoder_says_last_reaches_the_text_through_the_cross_attentions_alone():
    case = pair("whisper")
    sender = Component("encoder", 2, "mlp")
    crossed = [Receiver(Component("decoder", layer, "cross_attn")) for layer in range(2)]
    paths = path_patch(case.model, case.scene, case.clean_cache, METRIC, sender, [crossed, *crossed], batch=2)
    span = get_act_patch_mlp_out(
        case.model, case.scene, case.clean_cache, METRIC, part="encoder", spans=[(0, 50)]
    )
    assert abs(float(paths[0] - span[2, 0])) < 1e-9
    assert abs(float(paths[1] - paths[0])) > 1e-6
    head = Component("encoder", 0, "attn", 1)
    inside = [Receiver(Component("encoder", 1, "attn", 3), "v"), Receiver(Component("encoder", 2, "mlp"))]
    base = float(METRIC.score(case.scene))
    assert (
        path_patch(case.model, case.scene, case.clean_cache, METRIC, head, inside) - base
    ).abs().min() > 1e-6


def test_the_tower_of_qwen2_audio_has_paths_of_its_own():
    case = pair("qwen2_audio")
    head = Component("audio_encoder", 0, "attn", 1)
    inside = [
        Receiver(Component("audio_encoder", 2, "attn", 3), "k"),
        Receiver(Component("audio_encoder", 0, "mlp")),
    ]
    result = path_patch(case.model, case.scene, case.clean_cache, METRIC, head, inside)
    assert (result - float(METRIC.score(case.scene))).abs().min() > 1e-7


# Sweeps and refusals -------------------------------------------------------------------------------------------------


def test_a_sweep_of_direct_paths_counts_receivers_by_layer_and_head_and_leaves_earlier_ones_alone():
    case = pair("llama")
    args = case.model, case.scene, case.clean_cache, case.corrupt_cache, METRIC, 1, 3
    unpatched = float(METRIC.score(case.scene))
    for letter, heads in (("q", 4), ("k", 2), ("v", 2)):
        result = get_act_patch_direct_path(*args, letter, batch=3)
        assert result.shape == (3, heads)
        assert (result[:2] == unpatched).all()
        assert ((result[2] - unpatched).abs() > 1e-7).all()


def test_a_sender_that_is_the_same_in_both_runs_says_nothing():
    case = pair("gpt2")
    own = case.corrupt_cache
    result = get_act_patch_direct_path(case.model, case.scene, own, own, METRIC, 0, 2, "v")
    assert (result - float(METRIC.score(case.scene))).abs().max() < 1e-9


@pytest.mark.parametrize(
    ("sender", "receiver", "reason"),
    [
        (
            Component("decoder", 1, "mlp"),
            Receiver(Component("decoder", 1, "cross_attn", 0), "q"),
            "comes before",
        ),
        (
            Component("decoder", 0, "mlp"),
            Receiver(Component("decoder", 1, "cross_attn", 0), "k"),
            "another stack",
        ),
        (Component("decoder", 0, "mlp"), Receiver(Component("encoder", 1, "mlp")), "another stack"),
        (Component("encoder", 0, "mlp"), Receiver(Component("decoder", 1, "self_attn")), "another stack"),
        (Component("encoder", 0, "mlp"), LOGITS, "do not read"),
        (Component("decoder", 0, "resid"), LOGITS, "no sender"),
    ],
)
def test_paths_that_do_not_exist_are_refused(sender, receiver, reason):
    case = pair("whisper")
    with pytest.raises(OptionError, match=reason):
        path_patch(case.model, case.scene, case.clean_cache, METRIC, sender, [receiver])


def test_receivers_that_mean_nothing_are_refused():
    with pytest.raises(OptionError, match="has no q"):
        Receiver(Component("text", 0, "mlp"), "q")
    with pytest.raises(OptionError, match="no receiver"):
        Receiver(Component("text", 0, "resid"))
    with pytest.raises(OptionError, match="Say what L0H1 attn"):
        Receiver(Component("text", 0, "attn", 1))
    case = pair("gpt2")
    args = case.model, case.scene, case.clean_cache, case.corrupt_cache, METRIC
    with pytest.raises(OptionError, match="no head 9"):
        get_act_patch_direct_path(*args, 0, 9)
    short = case.read({"input_ids": case.clean["input_ids"][:, :-1]})
    with pytest.raises(OptionError, match="Align"):
        path_patch(case.model, case.scene, short, METRIC, Component("text", 0, "mlp"), [LOGITS])
    assert Receiver(Component("text", 2, "attn", 1), "v").label == "L2H1 attn v"
