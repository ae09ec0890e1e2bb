"""What tests share is found out when one of them changes it."""

from __future__ import annotations

import torch
from tests.conftest import state_of, tiny, weights_of


def test_what_a_test_may_leave_behind_in_a_model_is_seen():
    model = tiny("whisper")
    state, weights = state_of(model), weights_of(model)
    assert (state_of(model), weights_of(model)) == (state, weights)
    hook = model.hf.register_forward_hook(lambda *_: None)
    assert state_of(model) != state
    hook.remove()
    next(model.hf.parameters()).requires_grad_(not state["trained"][0])
    assert state_of(model) != state
    assert weights_of(model) == weights
    with torch.no_grad():
        next(model.hf.parameters()).view(-1)[0] += 1
    assert sum(a != b for a, b in zip(weights.values(), weights_of(model).values(), strict=True)) == 1
