"""The logit lens: at the last layer it is the model, and saturation means what the paper says."""

from types import SimpleNamespace

import pytest
import torch
from tests.conftest import FAMILIES, example_inputs, tiny

from otoscope.lenses.logit_lens import _top, logit_lens, saturation_layers


@pytest.mark.parametrize("family", FAMILIES)
def test_at_the_last_layer_the_lens_gives_the_models_own_distribution(family):
    model = tiny(family, dtype=torch.float64)
    main = next(iter(model.points.stacks.values()))
    output, cache = model.run_with_cache(example_inputs(model), f"{main}.*.hook_resid_post")
    written = output.logits[0].argmax(dim=-1)
    reading = logit_lens(model, [residual[0] for residual in cache.values()], written)
    p = torch.softmax(output.logits[0], dim=-1).gather(1, written[:, None])[:, 0]
    torch.testing.assert_close(reading.p_final[-1], p, atol=1e-12, rtol=1e-9)
    torch.testing.assert_close(
        model.unembed(cache["resid_post", len(cache) - 1]), output.logits, atol=1e-9, rtol=0
    )
    assert reading.rank_final[-1].eq(0).all()
    assert torch.equal(reading.top_ids[-1, :, 0], written)


def test_saturation_is_the_first_layer_from_which_the_token_stays_on_top():
    on_top = torch.tensor(
        [
            [True, False, False, True],
            [False, False, True, True],
            [True, False, True, True],
            [True, True, True, False],
        ]
    )
    assert saturation_layers(on_top) == (2, 3, 1, None)


def test_rank_and_entropy_match_their_definitions():
    model = tiny("llama")
    _, cache = model.run_with_cache(example_inputs(model), "blocks.0.hook_resid_post")
    residual = cache["resid_post", 0][0]
    written = torch.arange(3, 3 + len(residual))
    reading = logit_lens(model, [residual], written)
    p = torch.softmax(model.unembed(residual), dim=-1)
    expected_rank = [int((p[i] > p[i, t]).sum()) for i, t in enumerate(written)]
    assert reading.rank_final[0].tolist() == expected_rank
    torch.testing.assert_close(reading.entropy[0], -(p * p.log()).sum(dim=-1).detach())


def test_rows_of_several_layers_that_are_unembedded_together_read_as_layer_by_layer():
    model = tiny("llama", dtype=torch.float64)
    residuals = torch.randn(3, 70, model.config.hidden_size, dtype=torch.float64).unbind()
    written = torch.arange(70) % model.config.vocab_size
    together = logit_lens(model, residuals, written)
    for layer, residual in enumerate(residuals):
        alone = logit_lens(model, [residual], written)
        assert torch.equal(together.top_ids[layer], alone.top_ids[0])
        assert torch.equal(together.rank_final[layer], alone.rank_final[0])
        torch.testing.assert_close(together.p_final[layer], alone.p_final[0])
        torch.testing.assert_close(together.entropy[layer], alone.entropy[0])


def test_a_token_that_cannot_be_written_adds_nothing_to_the_entropy():
    model = SimpleNamespace(unembed=lambda logits: logits)
    reading = logit_lens(model, [torch.tensor([[0.0, 0.0, -torch.inf]])], torch.tensor([1]), k=2)
    torch.testing.assert_close(reading.entropy[0, 0], torch.tensor(2.0).log())


@pytest.mark.parametrize("vocab", [7, 64, 389, 640, 2049])
@pytest.mark.parametrize("k", [1, 5])
def test_the_most_probable_tokens_are_those_of_topk_wherever_they_stand(vocab, k):
    logp = torch.randn(50, vocab, generator=torch.Generator().manual_seed(vocab))
    logp[0] = torch.arange(vocab).float()  # all in the last block, or beyond it
    logp[1] = -logp[0]
    logp[2, : vocab - 2] = -torch.inf
    values, places = _top(logp, k)
    assert torch.equal(values, logp.topk(k, dim=-1).values)
    assert torch.equal(logp.gather(1, places), values)
