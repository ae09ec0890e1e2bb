"""Features in memory: activations, exactness of the neuron basis, reconstruction."""

from __future__ import annotations

import pytest
import torch
from tests.circuits.cases import FAMILIES, IDS, Random, dictionaries, model_of

from otoscope.circuits.tape import record
from otoscope.dictionaries.activation import Activation
from otoscope.dictionaries.base import active_of
from otoscope.dictionaries.cross_layer import CrossLayer, CrossLayerTranscoder
from otoscope.dictionaries.neurons import NeuronBasis, secant
from otoscope.dictionaries.transcoder import Transcoder, TranscoderSet
from otoscope.errors import DictionaryError, OptionError

pytestmark = pytest.mark.usefixtures("one_thread")

Z = torch.tensor([[3.0, -1.0, 2.0, 0.5], [-4.0, -3.0, 1.0, -2.0]])


@pytest.mark.parametrize(
    ("activation", "expected"),
    [
        (Activation(), [[3, 0, 2, 0.5], [0, 0, 1, 0]]),
        (Activation("jumprelu", threshold=torch.tensor([3.0, 0, 1, 0])), [[0, 0, 2, 0.5], [0, 0, 0, 0]]),
        (Activation("topk", k=2), [[3, 0, 2, 0], [0, 0, 1, 0]]),
        (Activation("topk", k=2, signed=True), [[3, 0, 2, 0], [0, 0, 1, -2]]),
        (Activation("topk", k=9), [[3, 0, 2, 0.5], [0, 0, 1, 0]]),
        (Activation("batchtopk", k=1), [[3, 0, 2, 0], [0, 0, 0, 0]]),
        (Activation("batchtopk", k=3, signed=True), [[3, -1, 2, 0.5], [0, 0, 1, -2]]),
    ],
)
def test_activation_functions_keep_what_they_are_to_keep(activation, expected):
    assert activation(Z).tolist() == expected


@pytest.mark.parametrize(
    "function", [torch.nn.functional.silu, torch.nn.functional.gelu, torch.relu, torch.tanh]
)
def test_the_secant_slope_times_the_input_is_the_activation_and_has_its_limit_at_zero(function):
    z = torch.linspace(-6, 6, 121, dtype=torch.float64)
    torch.testing.assert_close(secant(function, z) * z, function(z), rtol=1e-12, atol=1e-12)
    if function is not torch.relu:
        at_zero = torch.tensor(0.0, dtype=torch.float64, requires_grad=True)
        slope = torch.autograd.grad(function(at_zero), at_zero)[0]
        assert float(secant(function, at_zero.detach()[None])) == pytest.approx(float(slope), rel=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("gate", ["frozen", "up", "half"])
def test_neurons_reconstruct_the_mlp_exactly_and_their_readings_are_their_activations(family, gate):
    model = model_of(family)
    tape, basis = record(model, torch.tensor(IDS)), NeuronBasis(model, gate)
    actives = [basis.encode(layer, mlp.x) for layer, mlp in enumerate(tape.mlp)]
    for layer, mlp in enumerate(tape.mlp):
        torch.testing.assert_close(basis.reconstruct(actives, layer, mlp.x), mlp.raw, rtol=1e-12, atol=1e-12)
        which = torch.arange(0, len(actives[layer]), 17)
        vector, constant = basis.directions(actives[layer], which)
        read = (vector * mlp.x[actives[layer].pos[which]]).sum(dim=-1) + constant
        torch.testing.assert_close(read, actives[layer].activation[which], rtol=1e-9, atol=1e-12)


def test_active_features_are_found_by_position_and_cut_by_a_mask():
    active = active_of(2, Activation()(Z))
    assert active.pos.tolist() == [0, 0, 0, 1]
    assert active.feature.tolist() == [0, 2, 3, 2]
    assert active.feature[active.at(1)].tolist() == [2]
    assert not active.dense
    late = active.only(active.pos > 0)
    assert (late.pos.tolist(), late.feature.tolist(), late.activation.tolist()) == ([1], [2], [1.0])


def test_what_a_dictionary_misses_is_its_error():
    model = model_of("gemma3_text")
    tape = record(model, torch.tensor(IDS))
    for name, dictionary in dictionaries(model).items():
        if "to mlp_in" in name or not name.startswith("cross-layer"):
            continue
        actives = [dictionary.encode(layer, mlp.x) for layer, mlp in enumerate(tape.mlp)]
        for layer, mlp in enumerate(tape.mlp):
            total = dictionary.bias(layer).expand_as(mlp.raw)
            for source in range(layer + 1):
                rows = dictionary.decoder(source, layer, None)
                dense = torch.zeros(len(IDS), len(rows), dtype=torch.float64)
                dense[actives[source].pos, actives[source].feature] = actives[source].activation
                total = total + dense @ rows
            if dictionary.skip(layer) is not None:
                total = total + mlp.x @ dictionary.skip(layer).T
            error = dictionary.error(actives, layer, mlp.x, mlp.raw)
            torch.testing.assert_close(total + error, mlp.raw, rtol=1e-12, atol=1e-12)


def test_the_activations_of_some_features_are_those_of_all():
    dictionary, x = Random().transcoders("topk"), Random(3)(9, 32)
    active = dictionary.encode(1, x)
    pos, feature = torch.tensor([0, 4, 8, 8]), torch.tensor([1, 7, 23, int(active.feature[-1])])
    dense = torch.zeros(9, 24, dtype=torch.float64)
    dense[active.pos, active.feature] = active.activation
    assert torch.equal(dictionary.activations(1, x, pos, feature), dense[pos, feature])


def nan_in(w: torch.Tensor) -> torch.Tensor:
    w = w.clone()
    w[0] = torch.nan
    return w


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda r: TranscoderSet([]), "no layer"),
        (lambda r: Transcoder(r(8, 4), r(7), r(8, 4), r(4)), "b_enc .* shape"),
        (lambda r: Transcoder(r(8, 4), r(8), r(4, 8), r(4)), "w_dec .* shape"),
        (lambda r: Transcoder(nan_in(r(8, 4)), r(8), r(8, 4), r(4)), "w_enc .* not finite"),
        (lambda r: Activation("topk"), "needs k"),
        (lambda r: Activation("jumprelu"), "needs thresholds"),
        (lambda r: CrossLayerTranscoder([CrossLayer(r(8, 4), r(8), [], r(4))]), "writes to 0 layers"),
        (
            lambda r: TranscoderSet([r.transcoder(), Transcoder(r(8, 4), r(8), r(8, 4), r(4))]),
            "different widths",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused(build, words):
    with pytest.raises(DictionaryError, match=words):
        build(Random())


def test_an_unknown_way_to_freeze_a_gate_is_refused():
    with pytest.raises(OptionError, match="no way"):
        NeuronBasis(model_of("llama"), "both")
