"""Under `sdpa`, which released models run by default, reading and no-op edits change no bit either."""

import pytest
import torch
from tests.conftest import FAMILIES, example_inputs, tiny

from otoscope.activations import Edit


@pytest.mark.parametrize(
    "family", [f for f in FAMILIES if f != "gemma2"]
)  # Transformers runs Gemma 2 eagerly
def test_reading_and_no_op_edits_change_no_bit_under_sdpa(family):
    model = tiny(family, attention="sdpa")
    inputs = example_inputs(model)
    with torch.no_grad():
        plain = model.forward(inputs).logits
    output, cache = model.run_with_cache(inputs)
    assert cache.attention == "sdpa"
    assert torch.equal(output.logits, plain)
    edits = [Edit.scale(name, 1) for name, point in model.points.items() if not point.needs_seam]
    with model.editing(edits), torch.no_grad():
        assert torch.equal(model.forward(inputs).logits, plain)
