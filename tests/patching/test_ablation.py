"""Zero ablation in batches equals zeroing one component at a time with a hand-written hook on the Hugging Face model."""

import pytest
import torch
from tests.conftest import example_inputs, tiny

from otoscope.patching.ablation import ablate
from otoscope.patching.components import Component, components
from otoscope.patching.scene import Scene


@pytest.fixture(scope="module")
def heard():
    model = tiny("whisper", dtype=torch.float64)
    features = example_inputs(model, batch=1)["input_features"]
    tokens = torch.tensor([2, 5, 9, 30, 31, 7, 12])
    scene = Scene.of(model, {"input_features": features, "decoder_input_ids": tokens[None]})
    return model, features, scene, tokens


def by_hand(model, features, tokens, module, zero):
    """Log-probabilities of tokens 2.. when `zero` changes what enters or leaves a module."""
    handle = zero(model.hf.get_submodule(module))
    try:
        with torch.no_grad():
            logits = model.hf(
                input_features=features, decoder_input_ids=tokens[None, :-1], use_cache=False
            ).logits
    finally:
        handle.remove()
    return torch.log_softmax(logits[0, 1:].float(), dim=-1).gather(1, tokens[2:, None])[:, 0]


def zero_output(module):
    return module.register_forward_hook(
        lambda _m, _a, out: (
            (torch.zeros_like(out[0]), *out[1:]) if isinstance(out, tuple) else torch.zeros_like(out)
        )
    )


def zero_head(head, width):
    def hook(_module, args):
        z = args[0].clone()
        z[..., head * width : (head + 1) * width] = 0
        return (z,)

    return lambda module: module.register_forward_pre_hook(hook)


@pytest.mark.parametrize(
    ("component", "module", "zero"),
    [
        (Component("decoder", 0, "self_attn"), "model.decoder.layers.0.self_attn", zero_output),
        (Component("decoder", 1, "cross_attn"), "model.decoder.layers.1.encoder_attn", zero_output),
        (Component("decoder", 1, "mlp"), "model.decoder.layers.1.fc2", zero_output),
        (
            Component("decoder", 0, "cross_attn", 5),
            "model.decoder.layers.0.encoder_attn.out_proj",
            zero_head(5, 8),
        ),
        (Component("encoder", 2, "attn"), "model.encoder.layers.2.self_attn", zero_output),
        (Component("encoder", 0, "mlp"), "model.encoder.layers.0.fc2", zero_output),
        (Component("encoder", 1, "attn", 3), "model.encoder.layers.1.self_attn.out_proj", zero_head(3, 12)),
    ],
    ids=lambda value: value.label if isinstance(value, Component) else "",
)
def test_a_batched_sweep_equals_a_hand_written_hook(heard, component, module, zero):
    model, features, scene, tokens = heard
    chosen = [*components(model, "decoder"), *components(model, "encoder")]
    sweep = ablate(scene, chosen, 2, batch=7)
    expected = by_hand(model, features, tokens, module, zero)
    torch.testing.assert_close(sweep[chosen.index(component)], expected, atol=1e-5, rtol=1e-5)


def test_every_component_of_both_stacks_is_listed_once(heard):
    model = heard[0]
    assert len(components(model, "decoder")) == 2 * (3 + 2 * 6)
    assert len(components(model, "encoder")) == 3 * (2 + 4)
    every = [*components(model, "decoder"), *components(model, "encoder")]
    assert len({c.label for c in every}) == len(every)


def test_an_unedited_row_reports_the_models_own_log_probabilities(heard):
    model, features, scene, tokens = heard
    base = scene.logprobs([()], 2)[0]
    with torch.no_grad():
        logits = model.hf(
            input_features=features, decoder_input_ids=tokens[None, :-1], use_cache=False
        ).logits
    expected = torch.log_softmax(logits[0, 1:].float(), dim=-1).gather(1, tokens[2:, None])[:, 0]
    torch.testing.assert_close(base, expected, atol=1e-5, rtol=1e-5)
    assert model.open_hooks == 0
