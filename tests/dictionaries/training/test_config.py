"""A configuration says everything, and refuses what cannot be."""

from __future__ import annotations

import json

import pytest
import torch

from otoscope.dictionaries.training.config import TrainConfig
from otoscope.dictionaries.training.scaling import geometric_median, measure_units
from otoscope.errors import OptionError


def test_a_configuration_survives_json():
    config = TrainConfig("clt", 64, 10, layers=(0, 1, 2), tying="source", betas=(0.5, 0.9), lr=1e-3)
    assert TrainConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


@pytest.mark.parametrize("values,reason", [
    ({"kind": "mlp"}, "kind cannot be 'mlp'"),
    ({"width": 0}, "width cannot be 0"),
    ({"width": 2.5}, "width cannot be 2.5"),
    ({"k": 65}, "k cannot be 65"),
    ({"k": None}, "needs k"),
    ({"lr": float("nan")}, "lr cannot be nan"),
    ({"lr": 0.0}, "lr cannot be 0.0"),
    ({"decay": 1.5}, "decay cannot be 1.5"),
    ({"betas": (0.9, 1.0)}, "betas cannot be 1.0"),
    ({"layers": (1, 0)}, "layers cannot be"),
    ({"layers": (3,), "model_layers": 3}, "Layer 3 is none of 3"),
    ({"kind": "clt", "layers": (0, 2)}, "leaves some out"),
    ({"tying": "source"}, "no decoders to tie"),
    ({"kind": "sae", "reads": "mlp_in"}, "cannot have reads"),
    ({"reads": "point"}, "cannot have reads"),
    ({"decoder_start": "encoder"}, "writes elsewhere"),
    ({"start_k": 20}, "start_k needs k_steps"),
    ({"unit_decoder": True}, "no norm to hold"),
])  # fmt: skip
def test_what_cannot_be_is_refused_with_a_reason(values, reason):
    with pytest.raises(OptionError, match=reason) as told:
        TrainConfig(**{"kind": "transcoder", "width": 64, "steps": 10, **values})
    assert told.value.remedy


def test_unknown_and_missing_options_are_named():
    with pytest.raises(OptionError, match="no option 'widht'"):
        TrainConfig.from_json({"kind": "sae", "widht": 3})
    with pytest.raises(OptionError, match="needs steps"):
        TrainConfig.from_json({"kind": "sae", "width": 3})


def test_the_learning_rate_rises_stays_and_falls_to_zero():
    config = TrainConfig("sae", 64, 100, lr=1.0, warmup=10, decay=0.2)
    rates = [config.lr_at(step) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9:81] == [1.0] * 72
    assert rates[90] == pytest.approx(0.5)
    assert rates[100] == 0


def test_k_comes_down_in_even_steps():
    config = TrainConfig("sae", 64, 100, k=4, start_k=12, k_steps=8)
    assert [config.k_at(step) for step in (0, 1, 4, 7, 8, 99)] == [12, 11, 8, 5, 4, 4]


def test_the_geometric_median_is_where_the_distances_are_least():
    x = torch.randn(200, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x[:20] += 100  # outliers move the mean by ten
    found = geometric_median(x)
    assert found.norm() < 0.5
    x.requires_grad_(False)
    found.requires_grad_()
    (gradient,) = torch.autograd.grad((x - found).norm(dim=1).mean(), found)
    assert gradient.norm() < 1e-6


def test_inputs_are_centred_and_scaled_as_asked():
    x = torch.randn(500, 4, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 2, 3, 100]) + 5
    for scaling, wanted in (
        ("scale", None),
        ("standard", torch.ones(4)),
        ("none", x.var(dim=0, unbiased=False)),
    ):
        config = TrainConfig("sae", 8, 1, k=1, scaling=scaling, centre="mean")
        units = measure_units(x, x, config)
        scaled = (x - units.shift) * units.scale
        variance = scaled.var(dim=0, unbiased=False)
        if wanted is not None:
            torch.testing.assert_close(variance.float(), wanted, rtol=1e-4, atol=1e-4)
        else:
            assert float(variance.mean()) == pytest.approx(1)
        if scaling != "none":
            torch.testing.assert_close(scaled.mean(dim=0).float(), torch.zeros(4), rtol=0, atol=1e-5)
