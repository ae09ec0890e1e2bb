"""Dictionaries on disk: nothing is lost, nothing is unpickled, every damage is named."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from tests.circuits.cases import ACTIVATIONS, IDS, LAYERS, Random, model_of

from otoscope.circuits.tape import record
from otoscope.dictionaries.activation import Activation
from otoscope.dictionaries.formats.circuit_tracer import load_circuit_tracer, save_circuit_tracer
from otoscope.dictionaries.formats.own import load_own, save_dictionary
from otoscope.dictionaries.formats.sae_lens import load_sae_lens, save_sae_lens
from otoscope.dictionaries.loading import load_dictionary
from otoscope.dictionaries.neurons import NeuronBasis
from otoscope.dictionaries.transcoder import TranscoderSet
from otoscope.errors import DictionaryError

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model():
    return model_of("llama")


@pytest.fixture(scope="module")
def inputs(model):
    return [mlp.x for mlp in record(model, torch.tensor(IDS)).mlp]


def require_same(a, b, inputs) -> None:
    """Everything that tracing uses."""
    assert (a.layers, a.width, a.reads, a.writes) == (b.layers, b.width, b.reads, b.writes)
    for layer, x in enumerate(inputs):
        assert a.size(layer) == b.size(layer)
        one, two = a.encode(layer, x), b.encode(layer, x)
        assert torch.equal(one.feature, two.feature)
        # Products of differently aligned copies differ in their last bits.
        torch.testing.assert_close(one.activation, two.activation, rtol=1e-12, atol=1e-13)
        assert (a.skip(layer) is None) == (b.skip(layer) is None)
        if a.skip(layer) is not None:
            assert torch.equal(a.skip(layer), b.skip(layer))
        if a.bias(layer) is not None:
            assert torch.equal(a.bias(layer), b.bias(layer))
        for out in a.targets(layer) if a.size(layer) else ():
            assert torch.equal(a.decoder(layer, out, one.feature), b.decoder(layer, out, two.feature))


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("kind", ACTIVATIONS)
@pytest.mark.parametrize("crossing", [False, True])
def test_every_activation_and_skip_survives_a_save_and_a_load(kind, skip, crossing, inputs, tmp_path, model):
    make = Random()
    dictionary = make.cross_layer(kind, skip) if crossing else make.transcoders(kind, skip, writes="mlp_out")
    save_dictionary(dictionary, tmp_path)
    require_same(dictionary, load_own(tmp_path, torch.float64), inputs)
    require_same(dictionary, load_dictionary(tmp_path, model), inputs)


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("kind", ["relu", "jumprelu", "topk"])
@pytest.mark.parametrize("crossing", [False, True])
def test_circuit_tracers_format_goes_there_and_back(kind, skip, crossing, inputs, tmp_path, model):
    make = Random()
    places = {"reads": "normalized", "writes": "mlp_out"}
    dictionary = make.cross_layer(kind, skip) if crossing else make.transcoders(kind, skip, **places)
    save_circuit_tracer(dictionary, tmp_path, "some/model")
    require_same(dictionary, load_circuit_tracer(tmp_path, torch.float64), inputs)
    require_same(dictionary, load_dictionary(tmp_path, model), inputs)


def test_circuit_tracers_files_have_its_names_and_shapes(tmp_path):
    save_circuit_tracer(Random().transcoders("jumprelu", True), tmp_path / "plt", "some/model")
    told = yaml.safe_load((tmp_path / "plt" / "config.yaml").read_text())
    assert told == {
        "model_name": "some/model", "model_kind": "transcoder_set", "feature_input_hook": "mlp.hook_in",
        "feature_output_hook": "mlp.hook_out",
    }  # fmt: skip
    shapes = {k: tuple(v.shape) for k, v in load_file(tmp_path / "plt" / "layer_1.safetensors").items()}
    assert shapes == {
        "W_enc": (24, 32), "b_enc": (24,), "W_dec": (24, 32), "b_dec": (32,), "W_skip": (32, 32),
        "activation_function.threshold": (24,),
    }  # fmt: skip
    save_circuit_tracer(Random().cross_layer(), tmp_path / "clt", "some/model")
    assert load_file(tmp_path / "clt" / "W_dec_1.safetensors")["W_dec_1"].shape == (24, LAYERS - 1, 32)


def test_a_configuration_may_list_the_files_of_its_layers(inputs, tmp_path):
    dictionary = Random().transcoders()
    save_circuit_tracer(dictionary, tmp_path, "some/model")
    told = yaml.safe_load((tmp_path / "config.yaml").read_text())
    for layer in range(LAYERS):
        (tmp_path / f"layer_{layer}.safetensors").rename(tmp_path / f"part{layer}.safetensors")
    told["transcoders"] = [f"part{layer}.safetensors" for layer in range(LAYERS)]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(told))
    require_same(dictionary, load_circuit_tracer(tmp_path, torch.float64), inputs)
    for name, words in (("hf://org/repo/x.safetensors", "not here"), ("../x.safetensors", "outside")):
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(told | {"transcoders": [name]}))
        with pytest.raises(DictionaryError, match=words):
            load_circuit_tracer(tmp_path)


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("kind", ["relu", "jumprelu"])
def test_saelens_format_goes_there_and_back(kind, skip, inputs, tmp_path, model):
    dictionary = Random().transcoders(kind, skip, reads="normalized", writes="mlp_out")
    save_sae_lens(dictionary, tmp_path, "some/model")
    require_same(dictionary, load_sae_lens(tmp_path, torch.float64), inputs)
    require_same(dictionary, load_dictionary(tmp_path, model), inputs)
    told = json.loads((tmp_path / "layer_1" / "cfg.json").read_text())
    assert told["apply_b_dec_to_input"] is False
    assert told["architecture"] == f"{'jumprelu_' * (kind == 'jumprelu')}{'skip_' * skip}transcoder"
    assert int(told["metadata"]["sae_lens_version"].split(".")[0]) >= 6


@pytest.mark.parametrize("kind", ["relu", "jumprelu", "topk"])
def test_saelens_autoencoders_go_there_and_back(kind, inputs, tmp_path):
    dictionary = Random().transcoders(kind, reads="point", writes="point")
    if kind == "topk":  # SAELens lets no negative value through
        parts = {n: replace(t, activation=Activation("topk", 5)) for n, t in dictionary.transcoders.items()}
        dictionary = TranscoderSet(parts, reads="point", writes="point")
    save_sae_lens(dictionary, tmp_path, "some/model", "encoder_blocks.*.hook_resid_post")
    loaded = load_sae_lens(tmp_path, torch.float64)
    require_same(dictionary, loaded, inputs)
    assert (loaded.reads, loaded.writes) == ("point", "point")
    told = json.loads((tmp_path / "layer_1" / "cfg.json").read_text())
    assert told["architecture"] == {"relu": "standard"}.get(kind, kind)
    assert told["metadata"]["hook_name"] == "encoder_blocks.1.hook_resid_post"
    with pytest.raises(DictionaryError, match="does not say what it reads"):
        save_sae_lens(dictionary, tmp_path / "x", "some/model")


def test_saelens_decoder_bias_on_the_input_is_folded(tmp_path, inputs):
    dictionary = Random().transcoders()
    save_sae_lens(dictionary, tmp_path, "some/model")
    for path in tmp_path.rglob("cfg.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"apply_b_dec_to_input": True}))
    loaded = load_sae_lens(tmp_path, torch.float64)
    t, x = dictionary.transcoders[0], inputs[0]
    expected = t.activation((x - t.b_dec) @ t.w_enc.T + t.b_enc)
    active = loaded.encode(0, x)
    torch.testing.assert_close(active.activation, expected[expected != 0], rtol=1e-9, atol=1e-12)


def test_gemma_scope_is_read_from_npz_with_its_encoder_transposed(inputs, tmp_path, model):
    dictionary = Random().transcoders("jumprelu", reads="normalized", writes="mlp_out")
    for layer, t in dictionary.transcoders.items():
        (tmp_path / f"layer_{layer}").mkdir()
        arrays = {
            "W_enc": t.w_enc.T,
            "W_dec": t.w_dec,
            "b_enc": t.b_enc,
            "b_dec": t.b_dec,
            "threshold": t.activation.threshold,
        }
        np.savez(tmp_path / f"layer_{layer}" / "params.npz", **{k: v.numpy() for k, v in arrays.items()})
    require_same(dictionary, load_dictionary(tmp_path, model), inputs)


@pytest.mark.parametrize("crossing", [False, True])
def test_gemma_scope_2_is_read_with_its_skip_and_all_layers(crossing, inputs, tmp_path, model):
    make = Random()
    places = {"reads": "normalized", "writes": "mlp_out"}
    dictionary = (
        make.cross_layer("jumprelu", True) if crossing else make.transcoders("jumprelu", True, **places)
    )
    dictionary.reads, dictionary.writes = places["reads"], places["writes"]
    for layer, t in enumerate(dictionary.parts if crossing else dictionary.transcoders.values()):
        decoder = t.w_dec
        if crossing:
            decoder = torch.zeros(24, LAYERS, 32, dtype=torch.float64)
            decoder[:, layer:] = torch.stack(list(t.w_dec), dim=1)
        arrays = {
            "w_enc": t.w_enc.T, "w_dec": decoder, "b_enc": t.b_enc, "b_dec": t.b_dec,
            "threshold": t.activation.threshold, "affine_skip_connection": t.w_skip.T,
        }  # fmt: skip
        save_file({k: v.contiguous() for k, v in arrays.items()}, tmp_path / f"layer_{layer}.safetensors")
    require_same(dictionary, load_dictionary(tmp_path, model), inputs)


def test_only_the_decoder_rows_that_are_asked_for_are_read(tmp_path):
    save_dictionary(Random().cross_layer(), tmp_path)
    rows = load_own(tmp_path, torch.float64).parts[0].w_dec[1]
    rows[torch.tensor([3, 5])]
    rows[torch.tensor([5])]
    assert len(rows._kept) == 2  # and no others were read
    assert rows[torch.tensor([], dtype=torch.long)].shape == (0, 32)


def test_the_models_own_neurons_have_a_name(model):
    basis = load_dictionary("neurons:up", model)
    assert isinstance(basis, NeuronBasis)
    assert basis.gate == "up"


def damage(folder, how: str) -> None:
    path = folder / "layer_0.safetensors"
    if how == "cut":
        path.write_bytes(path.read_bytes()[:40])
    elif how == "gone":
        path.unlink()
    elif how == "hook":
        told = yaml.safe_load((folder / "config.yaml").read_text())
        (folder / "config.yaml").write_text(yaml.safe_dump(told | {"feature_input_hook": "hook_attn_in"}))
    elif how == "kind":
        (folder / "config.yaml").write_text(
            "model_kind: lorsa\nfeature_input_hook: mlp.hook_in\nfeature_output_hook: mlp.hook_out"
        )
    elif how == "yaml":
        (folder / "config.yaml").write_text("!!python/object/apply:os.system ['true']")
    elif how == "tensor":
        found = load_file(path)
        del found["b_enc"]
        save_file(found, path)
    elif how == "nan":
        found = load_file(path)
        found["W_enc"][1, 1] = torch.nan
        save_file(found, path)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("cut", "cannot be read"),
        ("gone", "2 layers|no layer|is for"),
        ("hook", "hook_attn_in"),
        ("kind", "lorsa"),
        ("yaml", "cannot be read"),
        ("tensor", "no tensor 'b_enc'"),
        ("nan", "not finite"),
    ],
)
def test_a_damaged_dictionary_is_refused_by_name(how, words, tmp_path, model):
    save_circuit_tracer(Random().transcoders(), tmp_path, "some/model")
    damage(tmp_path, how)
    if how == "gone":  # a layer without a transcoder keeps its MLP as an error node
        assert load_dictionary(tmp_path, model).size(0) == 0
        return
    with pytest.raises(DictionaryError, match=words):
        load_dictionary(tmp_path, model)


def test_pickled_arrays_are_refused(tmp_path, model):
    np.savez(tmp_path / "layer_0.npz", W_enc=np.array([object()], dtype=object))
    with pytest.raises(DictionaryError, match="cannot be read"):
        load_dictionary(tmp_path, model)


def test_a_dictionary_of_another_model_is_named(tmp_path):
    save_dictionary(Random().transcoders(), tmp_path)
    with pytest.raises(DictionaryError, match="reads and writes 32 dimensions"):
        load_dictionary(tmp_path, model_of("llama", hidden_size=48))
    with pytest.raises(DictionaryError, match="is for 3 layers"):
        load_dictionary(tmp_path, model_of("qwen2", num_hidden_layers=2, layer_types=["full_attention"] * 2))


@pytest.mark.parametrize("name", ["gone", "empty"])
def test_a_folder_without_a_dictionary_is_refused(name, tmp_path, model):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DictionaryError, match=r"no dictionary"):
        load_dictionary(tmp_path / name, model)


def test_files_are_looked_for_three_folders_deep_and_no_deeper(tmp_path, model):
    deep = tmp_path / "a/b/c/d"
    save_sae_lens(Random().transcoders("relu"), deep, "some/model")
    assert load_dictionary(tmp_path / "a/b", model).layers == 3
    with pytest.raises(DictionaryError, match="holds no dictionary"):
        load_dictionary(tmp_path, model)


def test_what_a_format_cannot_say_is_refused_before_it_is_written(tmp_path):
    for kind in ("batchtopk",):
        with pytest.raises(DictionaryError, match="circuit-tracer has no activation"):
            save_circuit_tracer(Random().transcoders(kind), tmp_path, "some/model")
    with pytest.raises(DictionaryError, match="SAELens has no transcoder"):
        save_sae_lens(Random().transcoders("topk"), tmp_path, "some/model")
