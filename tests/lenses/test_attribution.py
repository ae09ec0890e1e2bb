"""Direct logit attribution: parts sum to the logit, in float64, whatever the family's norms do."""

import pytest
import torch
from tests.conftest import FAMILIES, example_inputs, tiny

from otoscope.activations import Edit
from otoscope.errors import OptionError
from otoscope.lenses.attribution import attribution_points, direct_attribution


def attributed(model, row=1, against=None):
    """The attribution of the tokens that the model would write in one row, and the model's uncapped logits there."""
    points = [*attribution_points(model), "unembed.hook_out"]
    output, cache = model.run_with_cache(example_inputs(model), points)
    tokens = output.logits[row].argmax(dim=-1)
    result = direct_attribution(model, cache, tokens, row=row, against=against)
    return result, cache["unembed.hook_out"][row], tokens


def final_norm(model):
    names = [
        n for n, p in model.points.items() if n.endswith("ln_final.hook_out") and "encoder" not in p.stack
    ]
    return model.hf.get_submodule(model.points[names[0]].module)


@pytest.mark.parametrize("family", FAMILIES)
def test_parts_sum_to_the_centred_logit_of_the_model(family):
    result, logits, tokens = attributed(tiny(family, dtype=torch.float64))
    centred = logits.gather(1, tokens[:, None])[:, 0] - logits.mean(dim=-1)
    torch.testing.assert_close(result.logits, centred, atol=1e-9, rtol=0)
    torch.testing.assert_close(result.component.sum(dim=0), centred, atol=1e-9, rtol=0)
    assert result.error < 1e-9
    assert centred.abs().max() > 0.1  # the sum is of something


@pytest.mark.parametrize("family", FAMILIES)
def test_heads_and_bias_sum_to_their_attention_block(family):
    result, _, _ = attributed(tiny(family, dtype=torch.float64))
    for part, heads in result.heads.items():
        rows = [i for i, name in enumerate(result.components) if name.endswith(f".{part}")]
        total = heads.sum(dim=1) + result.head_bias[part]
        torch.testing.assert_close(total, result.component[rows], atol=1e-9, rtol=0)
        assert heads.abs().max() > 1e-3


@pytest.mark.parametrize("family", ["whisper", "gemma3_text", "gpt2"])
def test_layers_and_what_is_in_no_layer_sum_to_the_logit(family):
    result, _, _ = attributed(tiny(family, dtype=torch.float64))
    outside = sum(result.component[i] for i, name in enumerate(result.components) if "." not in name)
    torch.testing.assert_close(result.layer.sum(dim=0) + outside, result.logits, atol=1e-9, rtol=0)


@pytest.mark.parametrize("family", ["whisper", "gemma2", "qwen2"])
def test_a_difference_of_two_tokens_is_the_difference_of_their_logits(family):
    model = tiny(family, dtype=torch.float64)
    count = len(attributed(model)[2])
    other = torch.arange(5, 5 + count)
    result, logits, tokens = attributed(model, against=other)
    expected = logits.gather(1, tokens[:, None])[:, 0] - logits.gather(1, other[:, None])[:, 0]
    torch.testing.assert_close(result.component.sum(dim=0), expected, atol=1e-9, rtol=0)


@pytest.mark.parametrize("family", ["whisper", "llama", "gpt2"])
def test_the_part_of_a_head_is_what_the_frozen_last_step_loses_without_it(family):
    """Brute force: write the last layer's head into the stream by hand, and read it with the frozen norm."""
    model = tiny(family, dtype=torch.float64)
    result, _, tokens = attributed(model, row=0)
    part = list(result.heads)[-1]
    prefix = next(iter(model.points.stacks.values()))
    layer = len(result.heads[part]) - 1
    names = [f"{prefix}.{layer}.{part}.hook_result", f"{prefix}.{layer}.hook_resid_post"]
    _, cache = model.run_with_cache(example_inputs(model), names)
    head, final = cache[names[0]][0, :, 2], cache[names[1]][0]
    weight, norm = model.hf.get_output_embeddings().weight, final_norm(model)
    if isinstance(norm, torch.nn.LayerNorm):
        head = head - head.mean(dim=-1, keepdim=True)
        scale = (final.var(dim=-1, unbiased=False, keepdim=True) + norm.eps).rsqrt() * norm.weight
    else:
        scale = (final.square().mean(dim=-1, keepdim=True) + norm.variance_epsilon).rsqrt() * norm.weight
    expected = ((weight[tokens] - weight.mean(dim=0)) * head * scale).sum(dim=-1)
    torch.testing.assert_close(result.heads[part][layer, 2], expected.detach(), atol=1e-6, rtol=1e-5)


def test_a_zeroed_block_has_no_part():
    model = tiny("whisper", dtype=torch.float64)
    with model.editing(Edit.zero("decoder_blocks.1.hook_cross_attn_out")):
        result, _, _ = attributed(model)
    row = result.components.index("1.cross_attn")
    assert result.component[row].eq(0).all()
    assert result.component[row - 1].abs().max() > 0


def test_tokens_that_do_not_go_with_the_positions_are_refused():
    model = tiny("llama")
    _, cache = model.run_with_cache(example_inputs(model), attribution_points(model))
    with pytest.raises(OptionError, match="4 tokens do not go with 9 positions"):
        direct_attribution(model, cache, torch.arange(4))


def test_some_positions_of_the_cache_give_what_a_cut_cache_gives():
    model = tiny("gpt2", dtype=torch.float64)
    inputs, tokens = example_inputs(model), torch.tensor([5, 9])
    _, whole = model.run_with_cache(inputs, attribution_points(model))
    _, cut = model.run_with_cache(inputs, attribution_points(model), pos_slice=slice(3, 5))
    a = direct_attribution(model, whole, tokens, positions=slice(3, 5))
    torch.testing.assert_close(a.component, direct_attribution(model, cut, tokens).component)
