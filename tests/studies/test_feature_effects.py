"""What is taken away is missed where it was on: exact for a feature that writes alone, and beside others of its kind."""

from __future__ import annotations

import pytest
import torch
from tests.conftest import tiny
from tests.models.tokenizers import word_tokenizer

import otoscope as oto
from otoscope.dictionaries.neurons import NeuronBasis
from otoscope.errors import OptionError
from otoscope.studies.feature_effects import EffectOptions, feature_effect, screen_features

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


@pytest.fixture(scope="module")
def writer():
    model = tiny("llama")
    model.processor = word_tokenizer()
    with torch.no_grad():  # a random model's MLPs hardly matter to what it writes
        for layer in model.hf.model.layers:
            layer.mlp.down_proj.weight.mul_(8)
    return model


@pytest.fixture
def texts(tmp_path):
    g, path = torch.Generator().manual_seed(0), tmp_path / "texts.txt"
    path.write_text(
        "\n".join(" ".join(f"w{int(i)}" for i in torch.randint(3, 90, (20,), generator=g)) for _ in range(12))
    )
    return path


def test_a_feature_that_is_taken_away_is_a_neuron_whose_write_vector_is_zero(writer, texts):
    layer, feature = 1, 5
    told = feature_effect(
        writer, "neurons", texts, layer, feature, EffectOptions(point="blocks.*.mlp", controls=8)
    )
    ids = [
        writer.tokenizer(line, add_special_tokens=False)["input_ids"]
        for line in texts.read_text().splitlines()
    ]
    start = [writer.tokenizer.bos_token_id] if writer.tokenizer.bos_token_id is not None else []
    down = writer.hf.model.layers[layer].mlp.down_proj.weight

    def logprobs():
        with torch.no_grad():
            logits = [writer.forward(torch.tensor([[*start, *i]])).logits[0] for i in ids]
        targets = [torch.tensor([*start, *i])[1:] for i in ids]
        return [
            x[:-1].log_softmax(-1).gather(1, t[:, None])[:, 0] for x, t in zip(logits, targets, strict=True)
        ]

    clean, kept = logprobs(), down.detach()[:, feature].clone()
    with torch.no_grad():
        down[:, feature] = 0
    without = logprobs()
    with torch.no_grad():
        down[:, feature] = kept
    change = torch.cat([w - c for c, w in zip(clean, without, strict=True)])
    at, elsewhere = told["at"], told["elsewhere"]
    n = at["tokens"] + elsewhere["tokens"]
    assert n == len(change)
    whole = (at["change"] * at["tokens"] + (elsewhere["change"] or 0) * elsewhere["tokens"]) / n
    assert whole == pytest.approx(float(change.mean()), abs=1e-5)
    assert len(told["controls"]["at_their_own"]) == len(told["controls"]["at_these"]) == 8
    assert 1 / 9 <= told["p_own"] <= 1
    assert 1 / 9 <= told["p_these"] <= 1
    assert told["at"]["ci_low"] <= told["at"]["change"] <= told["at"]["ci_high"]


def test_scaled_by_one_nothing_changes(writer, texts):
    told = feature_effect(
        writer, "neurons", texts, 0, 3, EffectOptions(scale=1.0, point="blocks.*.mlp", controls=3)
    )
    assert told["at"]["change"] == 0
    assert told["controls"]["at_their_own"] == told["controls"]["at_these"] == [0, 0, 0]


def test_screening_estimates_small_changes_exactly(writer, texts):
    """The first order is all there is where the change is small."""
    options = EffectOptions(scale=1.001, point="blocks.*.mlp", controls=2)
    found = screen_features(writer, "neurons", texts, 6, options)
    assert len(found) == 6
    for one in found[:3]:
        told = feature_effect(writer, "neurons", texts, one["layer"], one["feature"], options)
        at, elsewhere = told["at"], told["elsewhere"]
        change = at["change"] * at["tokens"] + (elsewhere["change"] or 0) * elsewhere["tokens"]
        assert change == pytest.approx(one["estimate"], rel=0.05)


def test_a_feature_that_does_not_exist_is_refused(writer, texts):
    with pytest.raises(OptionError, match="no feature 9999"):
        feature_effect(writer, "neurons", texts, 0, 9999, EffectOptions(point="blocks.*.mlp"))
    assert NeuronBasis(writer).size(0) < 9999


@pytest.mark.weights
@pytest.mark.parametrize("point", ["encoder_blocks.*.mlp", "decoder_blocks.*.mlp"])
def test_of_a_recogniser_tokens_are_those_heard_where_the_feature_is_on(tiny_en, tmp_path, point):
    folder = tmp_path / "clips"
    folder.mkdir()
    for name in ("austen-0880", "austen-0890"):
        (folder / f"{name}.flac").write_bytes(oto.sample(name).read_bytes())
    told = feature_effect(tiny_en, "neurons", folder, 1, 11, EffectOptions(point=point, controls=2))
    count = sum(len(oto.transcribe(tiny_en, path).ids) for path in folder.iterdir())
    assert 0 < told["at"]["tokens"] <= told["at"]["tokens"] + told["elsewhere"]["tokens"] == count
    assert told["examples"]
    (best,) = screen_features(tiny_en, "neurons", folder, 1, EffectOptions(point=point))
    assert best["places"] >= 20
    assert best["estimate"] != 0
