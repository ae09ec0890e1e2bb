"""The tuned lens: exact where it is a regression, better than the plain lens where it is trained, and bound to its model."""

import json

import pytest
import torch
from tests.conftest import tiny

import otoscope as oto
from otoscope.errors import ModelError, OptionError
from otoscope.lenses import tuned_lens as room
from otoscope.lenses.logit_lens import logit_lens
from otoscope.lenses.tuned_lens import TunedLens, TunedSettings, fit_tuned_lens


def texts(count=40, length=48, seed=0):
    g = torch.Generator().manual_seed(seed)
    return [torch.randint(3, 90, (length,), generator=g) for _ in range(count)]


QUICK = TunedSettings(steps=40, learning_rate=3e-3, ridge=1.0)


@pytest.fixture(scope="module")
def llama(one_thread):
    return tiny("llama")


@pytest.fixture(scope="module")
def lens(llama):
    return fit_tuned_lens(llama, texts(), QUICK)


def test_held_out_divergence_falls_at_every_layer(lens):
    told = lens.measured["text"]
    assert told["objective"] == "KL divergence in nats"
    assert told["positions"] == 8 * 48
    for before, after in zip(told["kl_before"], told["kl_after"], strict=True):
        assert after < 0.9 * before


def test_the_measured_divergence_is_that_of_the_translated_lens(llama):
    """Brute force on the very texts that were held out."""
    lens = fit_tuned_lens(llama, texts(6), TunedSettings(steps=0, ridge=1.0))
    order = torch.randperm(6, generator=torch.Generator().manual_seed(0)).tolist()
    held = [text for i, text in enumerate(texts(6)) if i in order[:1]]
    _, cache = llama.run_with_cache(held[0], "blocks.*.hook_resid_post")
    plain = [cache["resid_post", i][0] for i in range(3)]
    goal = llama.unembed(plain[-1]).log_softmax(-1).detach()
    for name, streams in {"kl_before": plain, "kl_after": lens.apply(plain, "text")}.items():
        log_p = [llama.unembed(x).log_softmax(-1).detach() for x in streams[:-1]]
        expected = [float((goal.exp() * (goal - q)).sum(-1).mean()) for q in log_p]
        assert lens.measured["text"][name] == pytest.approx(expected, rel=1e-4)


def test_the_regression_is_the_minimum_of_its_penalised_loss(one_thread):
    g = torch.Generator().manual_seed(1)
    x = torch.randn(200, 6, generator=g, dtype=torch.float64) + 3
    last = x @ torch.randn(6, 6, generator=g, dtype=torch.float64) + torch.randn(
        200, 6, generator=g, dtype=torch.float64
    )
    moments = room._Moments(6)
    for part in (slice(0, 50), slice(50, 200)):  # in two pieces, as it streams
        moments.take(x[part], last[part])
    solution = moments.solve(7)
    change, bias = solution[:-1], solution[-1]
    left = x @ change + bias - (last - x)
    penalty = 7 * x.square().mean()
    torch.testing.assert_close(
        x.T @ left + penalty * change, torch.zeros(6, 6, dtype=torch.float64), atol=1e-4, rtol=0
    )
    torch.testing.assert_close(left.mean(dim=0), torch.zeros(6, dtype=torch.float64), atol=1e-6, rtol=0)
    assert moments.loss(solution) == pytest.approx(float(left.square().sum(dim=1).mean()))
    assert moments.loss(0 * solution) == pytest.approx(float((last - x).square().sum(dim=1).mean()))


def test_a_position_that_is_drawn_again_weighs_as_often(llama, monkeypatch):
    """Fewer positions than a step draws, beside the same ones with every draw computed."""
    few = texts(count=2, length=6)
    lens = fit_tuned_lens(llama, few, TunedSettings(steps=5, batch=32))
    as_drawn = lambda x, **_: (x, torch.ones_like(x))  # noqa: E731
    monkeypatch.setattr(torch.Tensor, "unique", as_drawn)
    plain = fit_tuned_lens(llama, few, TunedSettings(steps=5, batch=32))
    for stack, maps in lens.stacks.items():
        torch.testing.assert_close(maps.change, plain.stacks[stack].change, atol=1e-5, rtol=1e-4)


def test_a_strong_penalty_leaves_the_plain_lens_but_for_a_bias(llama):
    lens = fit_tuned_lens(llama, texts(6), TunedSettings(steps=0, ridge=1e12))
    assert lens.stacks["text"].change.abs().max() < 1e-6


def test_the_last_layer_is_the_identity(lens, llama):
    _, cache = llama.run_with_cache(texts(1)[0], "blocks.*.hook_resid_post")
    plain = [cache["resid_post", i][0] for i in range(3)]
    tuned = lens.apply(plain, "text")
    assert torch.equal(tuned[-1], plain[-1])
    assert not torch.equal(tuned[0], plain[0])
    written = llama.unembed(plain[-1]).argmax(dim=-1)
    assert logit_lens(llama, tuned, written).rank_final[-1].eq(0).all()


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(llama, lens, tmp_path):
    again = fit_tuned_lens(llama, texts(), QUICK)
    other = fit_tuned_lens(llama, texts(), TunedSettings(steps=40, learning_rate=3e-3, ridge=1.0, seed=1))
    for name, each in {"a": lens, "b": again, "c": other}.items():
        each.save(tmp_path / name)
    bytes_of = {n: (tmp_path / n / "tuned_lens.safetensors").read_bytes() for n in "abc"}
    assert bytes_of["a"] == bytes_of["b"] != bytes_of["c"]


def test_training_leaves_the_model_and_its_gradients_as_they_were(one_thread):
    model = tiny("llama")
    before = {name: p.clone() for name, p in model.hf.named_parameters()}
    fit_tuned_lens(model, texts(4), TunedSettings(steps=3))
    for name, p in model.hf.named_parameters():
        assert torch.equal(p, before[name])
        assert p.grad is None
    assert model.open_hooks == 0


def test_a_saved_lens_comes_back_as_it_was(lens, llama, tmp_path):
    lens.save(tmp_path / "lens")
    back = TunedLens.load(tmp_path / "lens", llama)
    assert torch.equal(back.stacks["text"].change, lens.stacks["text"].change)
    assert torch.equal(back.stacks["text"].bias, lens.stacks["text"].bias)
    assert back.header() == lens.header()
    assert sorted(p.name for p in (tmp_path / "lens").iterdir()) == [
        "tuned_lens.json",
        "tuned_lens.safetensors",
    ]


def test_a_lens_of_another_model_is_refused(lens, tmp_path):
    lens.save(tmp_path / "lens")
    with pytest.raises(
        ModelError, match=r"belongs to random llama \(seed 0\), not to random llama \(seed 1\)"
    ):
        TunedLens.load(tmp_path / "lens", tiny("llama", seed=1))


@pytest.mark.parametrize("harm", ["missing", "cut", "json", "swapped", "version"])
def test_a_damaged_lens_is_refused(lens, llama, tmp_path, harm):
    lens.save(tmp_path)
    tensors, header = tmp_path / "tuned_lens.safetensors", tmp_path / "tuned_lens.json"
    if harm == "missing":
        tensors.unlink()
    elif harm == "cut":
        tensors.write_bytes(tensors.read_bytes()[:-8])
    elif harm == "json":
        header.write_text("{")
    elif harm == "swapped":
        tensors.write_bytes(tensors.read_bytes()[:-1] + b"\x7f")
    else:
        header.write_text(json.dumps(json.loads(header.read_text()) | {"format": 99}))
    with pytest.raises(ModelError, match="no usable tuned lens"):
        TunedLens.load(tmp_path, llama)


def test_what_is_kept_for_training_is_a_uniform_sample_in_bounded_memory(monkeypatch, one_thread):
    monkeypatch.setattr(room, "_KEPT_BYTES", 100 * 4)
    means = []
    for seed in range(20):
        sample = room._Sample(torch.Generator().manual_seed(seed))
        for part in torch.arange(1000.0).split(70):
            sample.take(part[:, None, None])
        assert sample.kept.shape == (100, 1, 1)
        assert len(sample.kept.unique()) == 100
        means.append(float(sample.kept.mean()))
    assert sum(means) / len(means) == pytest.approx(499.5, abs=30)  # four standard errors


@pytest.mark.parametrize(
    ("family", "items", "error"),
    [
        ("llama", texts(1), OptionError),
        ("whisper", texts(3), OptionError),
        ("qwen2_audio", texts(3), ModelError),
    ],
)
def test_what_cannot_be_trained_is_refused(family, items, error):
    with pytest.raises(error):
        fit_tuned_lens(tiny(family), items)


def test_a_stack_that_the_lens_lacks_is_refused(lens):
    with pytest.raises(OptionError, match="no translators for the encoder"):
        lens.apply([torch.zeros(1, 32)], "encoder")


@pytest.mark.weights
@pytest.mark.slow
def test_whispers_translators_bring_both_stacks_nearer_to_their_last_layer(tiny_en, shared_audio):
    prompts = sorted((shared_audio / "prompts" / "en").glob("*.flac"))[:20]
    lens = fit_tuned_lens(tiny_en, [oto.read(path) for path in prompts], TunedSettings(steps=20))
    told = lens.measured["encoder"]
    assert all(
        after < 0.3 * before for before, after in zip(told["mse_before"], told["mse_after"], strict=True)
    )
    told = lens.measured["decoder"]
    assert all(after < before for before, after in zip(told["kl_before"], told["kl_after"], strict=True)), (
        told
    )
    assert [len(maps.bias) for maps in lens.stacks.values()] == [4, 4]
