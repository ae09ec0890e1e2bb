"""Features among what a monitor reads: checked when they come from a file, and held to the dictionary they were fitted on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from tests.monitors.monitors_of import random_monitor
from tests.patching.worlds import hearing_whisper

from otoscope.dictionaries.formats.own import save_dictionary
from otoscope.dictionaries.transcoder import Transcoder, TranscoderSet
from otoscope.errors import DictionaryError, OptionError
from otoscope.monitors.features import Features, fit_features
from otoscope.monitors.monitor import Monitor


@pytest.fixture(scope="module")
def model():
    return hearing_whisper(dtype=torch.float64)


CHOSEN = [[0, 1], [1, 3], [1, 2]]


@pytest.mark.parametrize(
    "chosen",
    [np.array(CHOSEN, np.float32), np.array([[0, -1]]), np.array([[1, 0], [0, 0]]), np.array([[0, 1, 2]])],
)
def test_features_that_are_no_numbers_layer_by_layer_are_refused(model, tmp_path, chosen):
    whole = random_monitor(model, chosen=CHOSEN)
    whole.save(tmp_path)
    assert Monitor.load(tmp_path).features.chosen.tolist() == CHOSEN
    tensors = load_file(tmp_path / "monitor.safetensors")
    save_file(tensors | {"features.chosen": chosen}, tmp_path / "monitor.safetensors")
    with pytest.raises(OptionError, match="holds no monitor"):
        Monitor.load(tmp_path)


def test_a_monitor_that_chose_no_feature_runs(model):
    monitor = random_monitor(model, chosen=np.zeros((0, 2), int))
    features = monitor.features_of(model)
    x = np.zeros((4, model.config.d_model))
    active = monitor.features.activations(features, {0: x, 1: x})
    assert active.shape == (4, 0)
    told = monitor.features.log_odds(active, np.cumsum(active @ monitor.features.mean, axis=0), 0)
    np.testing.assert_array_equal(told, np.tile(monitor.features.bias, (4, 1)))


def test_no_feature_is_chosen_where_none_differs(model):
    features = Features.of(model, "neurons", "decoder_blocks.*.mlp")
    reads = [dict.fromkeys(features.places.layers, np.zeros((3, model.config.d_model)))] * 4
    goals = [np.full((3, 2), float(i % 2)) for i in range(4)]
    probes = fit_features(features, reads, goals, [np.arange(3)] * 4, 0.003)
    assert probes.chosen.shape == (0, 2)
    assert not probes.bias.any()


def test_a_dictionary_that_was_trained_again_is_not_the_one_a_monitor_knows(model, tmp_path, monkeypatch):
    def trained(seed):
        g = torch.Generator().manual_seed(seed)
        d = model.config.d_model
        parts = {
            layer: Transcoder(*(torch.randn(shape, generator=g) for shape in ((5, d), (5,), (5, d), (d,))))
            for layer in range(model.config.decoder_layers)
        }
        save_dictionary(TranscoderSet(parts), tmp_path / "mine")

    trained(0)
    monkeypatch.chdir(tmp_path)
    features = Features.of(model, "mine", "decoder_blocks.*.mlp")
    assert features.name == str(tmp_path / "mine")
    own = random_monitor(model, chosen=CHOSEN)
    told = replace(own.features, name=features.name, digest=features.digest)
    monitor = replace(own, features=told)
    monkeypatch.chdir("/")
    assert monitor.features_of(model).digest == features.digest
    trained(1)
    with pytest.raises(DictionaryError, match="not the one that this monitor was fitted with"):
        monitor.features_of(model)
    assert monitor.digest != replace(monitor, features=replace(told, digest="other")).digest
