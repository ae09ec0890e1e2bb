"""Features of a dictionary, scaled while the model runs."""

from __future__ import annotations

import pytest
import torch
from tests.conftest import example_inputs, tiny
from tests.mending.test_repair import Rows

from otoscope.activations import Edit
from otoscope.errors import OptionError
from otoscope.mending.applying import repaired
from otoscope.mending.baking import bake
from otoscope.mending.features import FeatureGate
from otoscope.mending.repair import Repair, load_repair

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model():
    return tiny("whisper", dtype=torch.float64)


def logits(model):
    with torch.no_grad():
        return model.forward(example_inputs(model)).logits


def neurons(model, features, factor):
    """The same by an edit: a neuron of the MLP is a feature of the dictionary `neurons`."""
    scale = torch.ones(80, dtype=torch.float64)
    scale[list(features)] = factor

    def hook(x, _visit):
        return x * scale

    with model.hooks([("decoder_blocks.1.mlp.hook_post", hook)]):
        return logits(model)


@pytest.mark.parametrize("factor", [0.0, 0.5, 3.0])
def test_scaled_features_are_scaled_neurons_where_the_dictionary_is_the_neurons(model, factor):
    gate = FeatureGate("neurons", "decoder_blocks.1.mlp", (3, 40), factor)
    with repaired(model, Repair.of(model, "features", features=(gate,))):
        found = logits(model)
    # What is read and written is in float32 on its way.
    assert (found - neurons(model, gate.features, factor)).abs().max() < 1e-4
    assert (found - logits(model)).abs().max() > 1e-3


def test_in_alarm_alone_only_its_rows_change(model):
    gate = FeatureGate("neurons", "decoder_blocks.1.mlp", (3, 40))
    repair = Repair.of(model, "features", features=(gate,))
    with repaired(model, repair):
        always = logits(model)
    with repaired(model, Repair.of(model, "x", features=(gate,), when="alarm"), Rows(1)):
        found = logits(model)
    assert torch.equal(found[0], logits(model)[0])
    torch.testing.assert_close(found[1], always[1])


def test_they_are_saved_and_left_out_of_weights_with_their_reason(model, tmp_path):
    gate = FeatureGate("neurons", "decoder_blocks.1.mlp", (3, 40), 0.5)
    edit = Edit.zero("decoder_blocks.0.hook_mlp_out")
    repair = Repair.of(model, "features", features=(gate,), edits=(edit,))
    assert load_repair(repair.save(tmp_path)).features == (gate,)
    baked = bake(model, repair)
    assert [left.change for left in baked.left] == [gate]
    assert "which features are active" in str(baked.left[0])
    assert repair.stacks == {"decoder"}


def test_what_is_not_there_is_refused(model):
    for features in ((80,), (), (-1,)):
        gate = FeatureGate("neurons", "decoder_blocks.1.mlp", features)
        with (
            pytest.raises(OptionError, match="no features"),
            repaired(model, Repair.of(model, "x", features=(gate,))),
        ):
            pass
    with pytest.raises(OptionError, match="several layers"):
        FeatureGate("neurons", "decoder_blocks.*.mlp", (1,))
