"""Sparse decoding and its gradients equal dense ones."""

from __future__ import annotations

import pytest
import torch
from tests.dictionaries.training.planted import WIDTH, Planted, config_of

from otoscope.dictionaries.training import gates
from otoscope.dictionaries.training.gates import Before, above, batch_top_k, jump, step, top_k
from otoscope.dictionaries.training.modules import Coder
from otoscope.dictionaries.training.objective import judge
from otoscope.dictionaries.training.scaling import measure_units
from otoscope.dictionaries.training.sparse import Pattern, decode, pick, spread

pytestmark = pytest.mark.usefixtures("one_thread")


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def given(z):
    """Pre-activations that are what is given."""
    return Before(torch.eye(z.shape[1], dtype=z.dtype), torch.zeros(z.shape[1], dtype=z.dtype), z)


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_decoding_and_all_its_gradients_equal_dense_autograd():
    z, w, g = random(7, 20), random(20, 5, seed=1).requires_grad_(), random(7, 5, seed=2)
    pattern, values = above(given(z), 0.5)
    values.requires_grad_()
    out = decode(values, w, pattern)
    found = torch.autograd.grad((out * g).sum(), [values, w])
    dense = torch.zeros(7, 20, dtype=torch.float64).index_put((pattern.pos, pattern.feature), values)
    close(out, dense @ w)
    for a, b in zip(found, torch.autograd.grad((dense @ w * g).sum(), [values, w]), strict=True):
        close(a, b)


def test_picked_preactivations_give_the_encoder_its_dense_gradient():
    x, w, b = random(7, 5), random(20, 5, seed=1).requires_grad_(), random(20, seed=2).requires_grad_()
    dense = x @ w.T + b
    pattern, z = top_k(Before(w.detach(), b.detach(), x), 4)
    g = random(len(z), seed=3)
    found = torch.autograd.grad((pick(w, b, x, z, pattern) * g).sum(), [w, b])
    wanted = torch.autograd.grad((dense[pattern.pos, pattern.feature] * g).sum(), [w, b])
    close(pick(w, b, x, z, pattern), dense[pattern.pos, pattern.feature])
    for a, b in zip(found, wanted, strict=True):
        close(a, b)


def test_a_number_spread_over_entries_gathers_their_gradients():
    pattern, vector = above(given(random(7, 20)), 0.0)[0], random(20, seed=1).requires_grad_()
    g = random(len(pattern), seed=2)
    (found,) = torch.autograd.grad((spread(vector, pattern) * g).sum(), vector)
    (wanted,) = torch.autograd.grad((vector[pattern.feature] * g).sum(), vector)
    close(found, wanted)


def test_nothing_on_writes_nothing_and_moves_nothing():
    empty = torch.zeros(0, dtype=torch.int64)
    pattern, w = Pattern(empty, empty, 3, 20), random(20, 5).requires_grad_()
    values = torch.zeros(0, dtype=torch.float64, requires_grad=True)
    out = decode(values, w, pattern)
    out.sum().backward()
    assert not out.any()
    assert not w.grad.any()


@pytest.mark.parametrize("features", [20, 24, 80, 81])
@pytest.mark.parametrize("equal", [False, True])
def test_the_largest_of_each_position_are_found_in_rounds(features, equal, monkeypatch):
    monkeypatch.setattr(gates, "_BLOCK", 64 * features)
    z = random(150, features)
    z = z.round() if equal else z  # many are equal to the k-th
    pattern, values = top_k(given(z), 5)
    close(values.view(150, 5).sort(descending=True).values, z.topk(5).values)
    assert torch.equal(z[pattern.pos, pattern.feature], values)
    entries = set(zip(pattern.pos.tolist(), pattern.feature.tolist(), strict=True))
    assert len(entries) == 150 * 5


@pytest.mark.parametrize("shift", [-4.0, 0.0, 4.0])
def test_the_largest_of_a_batch_are_found_without_sorting_it(shift, monkeypatch):
    monkeypatch.setattr(gates, "_BLOCK", 64 * 40)
    z = random(300, 40) * torch.linspace(0.1, 2, 300, dtype=torch.float64)[:, None] + shift
    pattern, values = batch_top_k(given(z), 5)
    wanted = z.flatten().topk(5 * 300).values.relu()
    close(values.sort(descending=True).values, wanted[wanted > 0])
    assert torch.equal(z[pattern.pos, pattern.feature], values)
    assert (pattern.pos.diff() >= 0).all()


def test_the_threshold_learns_from_entries_within_half_a_bandwidth():
    z = torch.tensor([0.2, 0.9, 1.1, 3.0], dtype=torch.float64, requires_grad=True)
    threshold = torch.ones(4, dtype=torch.float64, requires_grad=True)
    jump(z, threshold, 0.5).sum().backward()
    assert z.grad.tolist() == [0, 0, 1, 1]
    assert threshold.grad.tolist() == [0, -2, -2, 0]  # threshold / bandwidth, where z is near it
    threshold.grad = None
    step(z, threshold, 0.5).sum().backward()
    assert threshold.grad.tolist() == [0, -2, -2, 0]


def dense_loss(coder, x, y, dead):
    """The objective as its formulas read, every feature at every position, and every layer by a product."""
    config, loss = coder.config, 0.0
    x = [own.scaled_inputs(x[at]) for at, own in enumerate(coder)]
    codes, befores, penalties = [], [], []
    for at, own in enumerate(coder):
        z = x[at] @ own.w_enc.T + own.b_enc
        befores.append(z)
        if config.activation == "jumprelu":
            threshold = own.log_threshold.exp().expand_as(z)
            codes.append(jump(z, threshold, config.bandwidth))
            l0 = step(z.detach(), threshold, config.bandwidth).sum(dim=1).mean()
            penalties.append((l0 / config.k - 1) ** 2)
            continue
        if config.activation == "topk":
            mask = torch.zeros_like(z).scatter(1, z.topk(config.k, dim=1).indices, 1.0)
        else:
            mask = (z >= z.flatten().topk(config.k * len(z)).values[-1]).double()
        codes.append((z * mask).relu())

    def written(at, out, a):
        rows = coder.decoder(at, out)
        return a @ (rows if config.tying == "none" else rows * coder[at].scale[out - at][:, None])

    errors = []
    for out, own in enumerate(coder):
        found = own.b_dec + sum(
            written(at, out, codes[at]) for at in range(out + 1) if out == at or config.kind == "clt"
        )
        if config.kind == "skip":
            found = found + x[out] @ own.w_skip.T
        errors.append(y[out] * own.gain - found)
        loss = loss + (errors[-1] ** 2).sum(dim=1).mean() / own.variance / len(coder)
    if penalties:
        loss = loss + config.sparsity * torch.stack(penalties).mean()
    errors = [error.detach()[::3] for error in errors]
    for at, z in enumerate(before[::3] for before in befores):
        masked = torch.full_like(z, -torch.inf)
        masked[:, dead] = z[:, dead]
        chosen = masked.topk(min(config.aux_k, len(dead)), dim=1).indices
        a = (z * torch.zeros_like(z).scatter(1, chosen, 1.0)).relu()
        outs = range(at, len(coder)) if config.kind == "clt" else [at]
        parts = [
            ((errors[out] - written(at, out, a)) ** 2).sum(dim=1).mean() / coder[out].variance for out in outs
        ]
        floor = coder[at].threshold.detach().expand(config.width)[dead]
        pull = (floor - z[:, dead].amax(dim=0)).relu().sum() / len(dead)
        loss = loss + config.aux * (torch.stack(parts).mean() + pull) / len(coder)
    return loss


@pytest.mark.parametrize("activation", ["topk", "batchtopk", "jumprelu"])
@pytest.mark.parametrize("kind,tying", [
    ("sae", "none"), ("transcoder", "none"), ("skip", "none"), ("clt", "none"), ("clt", "source"), ("clt", "target"),
])  # fmt: skip
def test_the_gradient_of_the_whole_objective_equals_dense_autograd(kind, tying, activation):
    config = config_of(
        kind, activation=activation, tying=tying, dtype="float64", layers=(0, 1, 2), dead_after=10, aux=0.5,
        aux_k=2, aux_every=3, decoder_start="random", bandwidth=0.7, batch=64,
    )  # fmt: skip
    vectors = Planted(kind, 3, batch=64).batch_of(0)
    x = vectors.inputs.double()
    y = x if vectors.targets is None else vectors.targets.double()
    coder, dead = Coder(config, WIDTH, WIDTH), torch.tensor([3, 8, 20, 31])
    for at, own in enumerate(coder):
        own.start_from(measure_units(x[at], y[at], config), x[at], y[at])
        own.silent[dead] = 100
        own.b_enc.data[8] -= 9  # below zero at every input
        for parameter in own.parameters():
            parameter.data += 0.05 * random(*parameter.shape, seed=at)
    found = judge(coder, x, y, 0)
    wanted = dense_loss(coder, x, y, dead)
    close(found.loss, wanted)
    parameters = dict(coder.named_parameters())
    grads = torch.autograd.grad(found.loss, list(parameters.values()))
    for name, a, b in zip(
        parameters, grads, torch.autograd.grad(wanted, list(parameters.values())), strict=True
    ):
        assert b.any(), name
        close(a, b)
