"""The logit lens: at the last layer it is the model, and saturation means what the paper says."""

import pytest
import torch
from tests.conftest import FAMILIES, example_inputs, tiny

from otoscope.lenses.logit_lens import logit_lens, saturation_layers


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
