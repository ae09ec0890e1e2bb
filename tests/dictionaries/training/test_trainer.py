"""A training can be stopped anywhere, and what it saves is what it learned."""

from __future__ import annotations

import json

import pytest
import torch
from tests.conftest import tiny
from tests.dictionaries.training.planted import Planted, config_of

from otoscope.circuits.tracer import Tracer
from otoscope.dictionaries.formats.own import load_own, save_dictionary
from otoscope.dictionaries.loading import load_dictionary
from otoscope.dictionaries.training.buffer import ShuffleBuffer, Vectors, from_iterable
from otoscope.dictionaries.training.config import TrainConfig
from otoscope.dictionaries.training.folding import fold
from otoscope.dictionaries.training.gates import above
from otoscope.dictionaries.training.modules import Codes
from otoscope.dictionaries.training.trainer import Trainer, train
from otoscope.errors import DictionaryError, OptionError, TrainingError
from otoscope.runs.run import Run

pytestmark = pytest.mark.usefixtures("one_thread")

KINDS = [
    ("sae", "none", "topk"),
    ("transcoder", "none", "batchtopk"),
    ("skip", "none", "jumprelu"),
    ("clt", "none", "topk"),
    ("clt", "source", "batchtopk"),
    ("clt", "target", "jumprelu"),
]


def few(kind, tying="none", activation="topk", **more):
    return config_of(
        kind, tying=tying, activation=activation, steps=40, batch=64, calibration=128, record_every=1,
        checkpoint_every=10, layers=(0, 1), dead_after=500, **more,
    )  # fmt: skip


def record_of(folder):
    return [json.loads(line) for line in (folder / "loss.jsonl").read_text().splitlines()]


def stopping(data, at):
    for number, vectors in enumerate(data):
        if number == at:
            raise KeyboardInterrupt
        yield vectors


class Stopping(ShuffleBuffer):
    """A buffer under which the process is killed."""

    left = 10**9

    def __next__(self):
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        return super().__next__()


@pytest.mark.parametrize("kind,tying,activation", KINDS)
def test_a_training_that_was_killed_goes_on_as_if_nothing_had_been(kind, tying, activation, tmp_path):
    config, data = few(kind, tying, activation), Planted(kind, 2, steps=40, batch=64)
    whole = train(config, data, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(config, stopping(data, 27), tmp_path / "killed")
    assert len(record_of(tmp_path / "killed")) > 20
    again = train(config, data, tmp_path / "killed")
    assert record_of(tmp_path / "killed") == record_of(tmp_path / "whole")
    for at in range(2):
        assert torch.equal(again.readings(at)[0].weight, whole.readings(at)[0].weight)


@pytest.mark.parametrize("times", [(13,), (4, 31), (28, 3, 17)])
def test_a_shuffling_buffer_goes_on_at_its_place(times, tmp_path):
    def buffer(kind=ShuffleBuffer):
        return kind(from_iterable(lambda: Planted("sae", 2, steps=30, batch=100)), batch=64, capacity=640)

    config = few("sae")
    train(config, buffer(), tmp_path / "whole")
    for left in times:
        killed = buffer(Stopping)
        killed.left = left + 2  # two of them to calibrate
        with pytest.raises(KeyboardInterrupt):
            train(config, killed, tmp_path / "killed")
    train(config, buffer(), tmp_path / "killed")
    assert record_of(tmp_path / "killed") == record_of(tmp_path / "whole")


@torch.no_grad()
def features_of(own, x):
    """The features that are on in the dictionary that is saved: `batchtopk` has a threshold there."""
    if own.config.activation == "topk":
        return own.encode(x, own.config.k)
    pattern, values = above(own.before(x), own.threshold)
    return Codes(pattern, values, values.new_tensor(len(values) / len(x)))


@pytest.mark.parametrize("scaling", ["none", "scale", "standard"])
@pytest.mark.parametrize("kind,tying,activation", KINDS)
def test_the_saved_dictionary_has_the_activations_and_reconstructions_of_the_learned(
    kind, tying, activation, scaling, tmp_path
):
    config = few(kind, tying, activation, scaling=scaling, dtype="float64", model_layers=2)
    data = Planted(kind, 2, steps=10, batch=64)
    trainer = Trainer(config, data, tmp_path)
    for vectors in data:
        trainer.update(vectors)
    save_dictionary(fold(trainer.coder), tmp_path)
    dictionary, coder = load_own(tmp_path, torch.float64), trainer.coder
    x = Planted(kind, 2, batch=64).batch_of(99).inputs.double()
    scaled = [own.scaled_inputs(x[at]) for at, own in enumerate(coder)]
    codes = [features_of(own, scaled[at]) for at, own in enumerate(coder)]
    actives = [dictionary.encode(at, x[at]) for at in range(2)]
    for here, active in zip(codes, actives, strict=True):
        on = here.values > 0
        dense = torch.zeros(64, config.width, dtype=torch.float64)
        dense[here.pattern.pos[on], here.pattern.feature[on]] = here.values[on]
        found = torch.zeros_like(dense)
        found[active.pos, active.feature] = active.activation
        assert on.any()
        torch.testing.assert_close(found, dense, rtol=1e-9, atol=1e-9)
    for at, wanted in enumerate(coder.reconstruct(scaled, codes)):
        found = dictionary.reconstruct(actives, at, x[at])
        torch.testing.assert_close(found, wanted.detach() / coder[at].gain, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["sae", "transcoder"])
def test_what_was_trained_loads_by_its_folder(kind, tmp_path):
    model = tiny("llama")
    width = model.config.hidden_size
    layers = model.config.num_hidden_layers
    data = [Vectors(torch.randn(64, width), torch.randn(64, width)) for _ in range(3)]
    config = TrainConfig(kind, 48, 3, k=4, batch=64, layers=(1,), model_layers=layers, name="mine")
    train(config, data, tmp_path)
    found = load_dictionary(tmp_path, model)
    assert (found.size(0), found.size(1)) == (0, 48)
    assert found.describe()["name"] == "mine"
    assert found.reads == ("point" if kind == "sae" else "mlp_in")
    assert TrainConfig.from_json(Run.read(tmp_path).settings) == config
    if kind == "sae":  # it stands for a place, not for an MLP
        with pytest.raises(DictionaryError, match="is an SAE"):
            Tracer(model, [3, 5, 9], found)


def test_a_finished_training_is_read_and_not_repeated(tmp_path):
    config, data = few("sae"), Planted("sae", 2, steps=40, batch=64)
    first = train(config, data, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != ".lock") == [
        "dictionary.json", "layer_0.safetensors", "layer_1.safetensors", "loss.jsonl", "run.json",
    ]  # fmt: skip
    again = train(config, [], tmp_path)
    assert torch.equal(again.decoder(0, 0, None), first.decoder(0, 0, None))
    with pytest.raises(OptionError, match="begun with k = 3"):
        train(few("sae", k=4), data, tmp_path)


def broken(data, at, value):
    for number, vectors in enumerate(data):
        if number == at:
            vectors.inputs[1, 0, 0] = value
        yield vectors


def test_vectors_that_are_not_finite_stop_the_training_and_say_where(tmp_path):
    config, data = few("sae"), Planted("sae", 2, steps=40, batch=64)
    with pytest.raises(TrainingError, match=r"step 5 in layer 1; there is no checkpoint") as told:
        train(config, broken(data, 5, torch.nan), tmp_path / "early")
    assert "vectors" in told.value.reason
    with pytest.raises(TrainingError, match=r"step 33 in layer 1; .*checkpoint is that of step 30"):
        train(config, broken(data, 33, torch.inf), tmp_path / "late")
    train(config, data, tmp_path / "late")
    train(config, data, tmp_path / "whole")
    assert record_of(tmp_path / "late") == record_of(tmp_path / "whole")


def test_a_gradient_that_is_not_finite_changes_nothing_and_names_the_parameter(tmp_path):
    trainer = Trainer(few("transcoder"), Planted("transcoder", 2, batch=64), tmp_path)
    before = fold(trainer.coder)
    trainer.coder[1].w_enc.register_hook(lambda grad: grad * torch.nan)
    with pytest.raises(TrainingError, match=r"gradient of w_enc is not finite at step 0 in layer 1"):
        trainer.update(Planted("transcoder", 2, batch=64).batch_of(0))
    assert torch.equal(fold(trainer.coder).decoder(0, 0, None), before.decoder(0, 0, None))


def test_data_that_ends_early_or_has_another_shape_is_refused(tmp_path):
    with pytest.raises(TrainingError, match="ended at step 7 of 40"):
        train(few("sae"), Planted("sae", 2, steps=7, batch=64), tmp_path / "a")
    with pytest.raises(OptionError, match=r"\(3, 64, 16\).* for 2 layers"):
        train(few("sae"), Planted("sae", 3, steps=40, batch=64), tmp_path / "b")
    with pytest.raises(OptionError, match="batch of 32 inputs and 32 targets"):
        train(few("sae"), Planted("sae", 2, steps=40, batch=32), tmp_path / "d")
    with pytest.raises(OptionError, match="no vectors"):
        train(few("sae"), [], tmp_path / "c")


def test_a_damaged_checkpoint_is_refused(tmp_path):
    config, data = few("sae"), Planted("sae", 2, steps=40, batch=64)
    with pytest.raises(KeyboardInterrupt):
        train(config, stopping(data, 27), tmp_path)
    (tmp_path / "checkpoint-0000020.safetensors").write_bytes(b"no tensors")
    with pytest.raises(TrainingError, match="is damaged"):
        train(config, data, tmp_path)


def test_features_that_stay_on_come_down_to_k(tmp_path):
    config, data = few("sae", start_k=11, k_steps=8), Planted("sae", 2, steps=40, batch=64)
    trainer = Trainer(config, data, tmp_path)
    pre = [trainer.update(vectors)["l0"] for vectors in data]
    assert pre[0] > 8
    assert pre[-1] <= 3


def test_loss_is_one_where_nothing_is_explained(tmp_path):
    for scaling in ("none", "scale", "standard"):
        config = config_of("transcoder", scaling=scaling, centre="mean", calibration=512)
        data = Planted("transcoder", steps=1)
        line = Trainer(config, data, tmp_path).update(data.batch_of(0))
        assert line["loss"] == pytest.approx(1, abs=1e-4)
