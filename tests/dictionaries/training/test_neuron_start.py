"""A training that starts from a model's neurons is the MLP at once, as far as its gate lets it."""

from __future__ import annotations

import pytest
import torch
from tests.conftest import tiny

from otoscope.dictionaries.neurons import neurons_of
from otoscope.dictionaries.scores import reconstruction
from otoscope.dictionaries.training.buffer import Vectors
from otoscope.dictionaries.training.config import TrainConfig
from otoscope.dictionaries.training.folding import fold
from otoscope.dictionaries.training.modules import Neurons
from otoscope.dictionaries.training.trainer import Trainer, train
from otoscope.errors import OptionError

pytestmark = pytest.mark.usefixtures("one_thread")

NEURONS, D, N = 24, 10, 512


@pytest.fixture
def mlp():
    """Neurons with ReLU, and inputs and outputs `(1, n, d)` of their layer."""
    g = torch.Generator().manual_seed(0)
    w_in, w_out = (torch.randn(NEURONS, D, generator=g, dtype=torch.float64) for _ in range(2))
    b_in = 0.3 * torch.randn(NEURONS, generator=g, dtype=torch.float64)
    bias = torch.randn(D, generator=g, dtype=torch.float64)
    x = 3 * torch.randn(N, D, generator=g, dtype=torch.float64) + 1
    y = (x @ w_in.T + b_in).relu() @ w_out + bias
    return Neurons(w_in, b_in, w_out), Vectors(x[None], y[None])


def config(**more):
    told = {"kind": "transcoder", "width": NEURONS, "k": NEURONS, "steps": 1, "batch": N, "calibration": N}
    told |= {"start": "neurons", "dtype": "float64", "checkpoint_every": 0, "centre": "mean"}
    return TrainConfig(**told | more)


@pytest.mark.parametrize("scaling", ["none", "scale", "standard"])
def test_with_room_for_all_of_them_it_begins_as_the_mlp_itself(mlp, tmp_path, scaling):
    neurons, vectors = mlp
    trainer = Trainer(config(scaling=scaling), [vectors] * 4, tmp_path, neurons=lambda _: neurons)
    x, y = vectors.inputs[0], vectors.targets[0]
    found = fold(trainer.coder)
    assert found.transcoders[0].activation.k == NEURONS
    torch.testing.assert_close(found.reconstruct([found.encode(0, x)], 0, x), y, rtol=1e-9, atol=1e-9)


def test_a_skip_takes_what_few_neurons_leave(mlp, tmp_path):
    neurons, vectors = mlp
    explained = []
    for kind in ("transcoder", "skip"):
        trainer = Trainer(
            config(kind=kind, k=6, dtype="float32"), [vectors] * 4, tmp_path / kind, neurons=lambda _: neurons
        )
        explained.append(reconstruction(fold(trainer.coder), [0], [vectors]).explained_variance)
    assert explained[1] > explained[0] + 0.01


def test_more_features_than_neurons_hardly_disturb_at_first_and_learn(mlp, tmp_path):
    neurons, vectors = mlp
    told = config(kind="skip", width=2 * NEURONS, k=6, steps=150, lr=1e-2, warmup=0, dtype="float32")
    trainer = Trainer(told, [vectors] * 200, tmp_path / "a", neurons=lambda _: neurons)
    before = reconstruction(fold(trainer.coder), [0], [vectors]).explained_variance
    alone = Trainer(
        config(kind="skip", k=6, dtype="float32"), [vectors] * 4, tmp_path / "b", neurons=lambda _: neurons
    )
    assert before > reconstruction(fold(alone.coder), [0], [vectors]).explained_variance - 0.1
    learned = train(told, [vectors] * 200, tmp_path / "c", neurons=lambda _: neurons)
    assert reconstruction(learned, [0], [vectors]).explained_variance > before + 0.01


def test_neurons_are_those_of_the_model_and_gated_ones_are_none():
    model = tiny("whisper", dtype=torch.float64)
    x = torch.randn(5, model.config.d_model, dtype=torch.float64)
    layer = model.hf.model.encoder.layers[1]
    w_in, b_in, w_out = neurons_of(model, "encoder")(1)
    with torch.no_grad():
        expected = layer.fc2(layer.fc1(x)) - layer.fc2.bias
    torch.testing.assert_close((x @ w_in.T + b_in) @ w_out, expected)
    with pytest.raises(OptionError, match="Gated neurons"):
        neurons_of(tiny("llama"))


@pytest.mark.parametrize(
    "more", [{"kind": "sae"}, {"decoder_start": "random"}, {"kind": "clt", "tying": "source"}]
)
def test_what_cannot_start_from_neurons_is_refused(more):
    with pytest.raises(OptionError, match="start"):
        config(**more)


def test_without_neurons_there_is_no_such_start(mlp, tmp_path):
    with pytest.raises(OptionError, match="no neurons to start from"):
        Trainer(config(), [mlp[1]] * 4, tmp_path)
