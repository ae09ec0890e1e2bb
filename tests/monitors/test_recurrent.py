"""The recurrent head is PyTorch's unit, and learns what needs a memory."""

from __future__ import annotations

import numpy as np
import torch

from otoscope.monitors.recurrent import Recurrent, fit_recurrent, joined
from otoscope.probes.scoring import auc


def planted(count, seed):
    """Texts of which every step after the first 1 in column 0 is due, whatever column 1 says."""
    rng = np.random.default_rng(seed)
    texts, goals = [], []
    for _ in range(count):
        steps = int(rng.integers(3, 15))
        x = rng.normal(size=(steps, 2))
        x[:, 0] = 0
        y = np.zeros((steps, 1))
        if rng.random() < 0.5:
            at = int(rng.integers(steps))
            x[at, 0], y[at:] = 1, 1
        texts.append(x)
        goals.append(y)
    return texts, goals


def test_steps_equal_those_of_pytorch():
    torch.manual_seed(0)
    unit, out = torch.nn.GRU(5, 7, batch_first=True).double(), torch.nn.Linear(7, 2).double()
    arrays = [
        p.detach().numpy()
        for p in (
            unit.weight_ih_l0,
            unit.weight_hh_l0,
            unit.bias_ih_l0,
            unit.bias_hh_l0,
            out.weight,
            out.bias,
        )
    ]
    head = Recurrent(np.zeros(5), np.ones(5), *arrays)
    x = np.random.default_rng(0).normal(size=(9, 5))
    wanted = out(unit(torch.from_numpy(x)[None])[0])[0].detach().numpy()
    state, first = head.advance(head.start(), x[:4])
    _, rest = head.advance(state, x[4:])
    np.testing.assert_allclose(np.concatenate([first, rest]), wanted, atol=1e-12)


def test_heads_that_are_joined_give_the_mean_of_their_logits():
    rng = np.random.default_rng(0)
    shapes = ((12, 5), (12, 4), (12,), (12,), (2, 4), (2,))
    heads = [Recurrent(np.zeros(5), np.ones(5), *(rng.normal(size=s) for s in shapes)) for _ in range(3)]
    x = rng.normal(size=(9, 5))
    one = joined(heads)
    wanted = np.mean([head.advance(head.start(), x)[1] for head in heads], axis=0)
    np.testing.assert_allclose(one.advance(one.start(), x)[1], wanted, atol=1e-12)


def test_it_remembers_what_it_saw():
    head = fit_recurrent(*planted(300, 0), weights=np.ones((300, 1)))
    texts, goals = planted(100, 1)
    logits = np.concatenate([head.advance(head.start(), x)[1] for x in texts])
    assert auc(np.concatenate(goals)[:, 0].astype(int), logits[:, 0]) > 0.98


def test_a_fit_can_be_repeated():
    texts, goals = planted(40, 0)
    goals[0][:] = np.nan  # a text of which nothing is known
    a, b = (fit_recurrent(texts, goals, np.ones((40, 1)), seed=3) for _ in range(2))
    np.testing.assert_array_equal(a.w_hidden, b.w_hidden)
    assert np.isfinite(a.w_out).all()
