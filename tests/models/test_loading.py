from __future__ import annotations

import ast
import json
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.conftest import example_inputs, tiny

import otoscope.models
from otoscope.errors import ModelError
from otoscope.models.loading import load_model


def save_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    vocabulary = {f"t{index}": index for index in range(97)}
    PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="t0")), unk_token="t0"
    ).save_pretrained(folder)


def save_listener(folder: Path) -> None:
    from transformers import WhisperFeatureExtractor, WhisperProcessor, WhisperTokenizer

    tokenizer = WhisperTokenizer(vocab={f"t{index}": index for index in range(90)}, merges=[])
    extractor = WhisperFeatureExtractor(feature_size=16, chunk_length=1)
    WhisperProcessor(extractor, tokenizer).save_pretrained(folder)


SAVED = {"llama": save_tokenizer, "whisper": save_listener}


@pytest.fixture(params=list(SAVED))
def saved(request, tmp_path):
    """A random model, and the directory that holds it whole."""
    model = tiny(request.param)
    model.hf.save_pretrained(tmp_path / "saved")
    SAVED[request.param](tmp_path / "saved")
    return model, tmp_path / "saved"


@pytest.fixture
def llama(tmp_path):
    tiny("llama").hf.save_pretrained(tmp_path / "llama")
    save_tokenizer(tmp_path / "llama")
    return tmp_path / "llama"


def change_weights(folder: Path, change) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_saved_model_comes_back_bit_for_bit(saved):
    model, folder = saved
    again = load_model(folder, attention="eager")
    with torch.no_grad():
        before, after = (each.forward(example_inputs(model)).logits for each in (model, again))
    assert torch.equal(before, after)
    assert again.tokenizer.convert_ids_to_tokens(5) == "t5"
    assert again.origin.path == folder


@pytest.mark.parametrize("lost", ["norm", "embed", "layers.1"])
def test_a_model_that_lacks_a_weight_is_refused_by_its_name(saved, lost):
    _, folder = saved
    names: list[str] = []

    def lose(weights) -> None:
        names.append(next(name for name in sorted(weights) if lost in name))
        del weights[names[0]]

    change_weights(folder, lose)
    with pytest.raises(ModelError, match="lacks") as caught:
        load_model(folder)
    assert names[0] in caught.value.reason


def test_of_many_lost_weights_three_are_named(llama):
    change_weights(llama, lambda weights: [weights.pop(name) for name in list(weights) if "layers.1" in name])
    with pytest.raises(ModelError, match=r"lacks: ([\w.]+, ){2}[\w.]+ and \d+ more"):
        load_model(llama)


def test_a_weight_of_another_shape_is_refused_by_its_name(llama):
    change_weights(llama, lambda weights: weights.update({"model.norm.weight": torch.ones(31)}))
    with pytest.raises(ModelError, match=r"another shape .*: model\.norm\.weight"):
        load_model(llama)


def test_a_tied_weight_is_not_missed(tmp_path):
    model = tiny("llama", tie_word_embeddings=True)
    model.hf.save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    again = load_model(tmp_path).hf
    assert again.lm_head.weight.data_ptr() == again.model.embed_tokens.weight.data_ptr()


def test_a_tokenizer_that_cannot_be_had_without_its_code_is_refused_with_the_reason(llama):
    (llama / "tokenizer_config.json").write_text('{"auto_map": ["evil.Evil", "evil.Evil"]}')
    with pytest.raises(ModelError, match="otoscope runs none that comes with a model"):
        load_model(llama)


HOSTILE = {
    "AutoTokenizer": ["evil.Evil", "evil.Evil"],
    "AutoConfig": "evil.Evil",
    "AutoModelForCausalLM": "evil.Evil",
    "AutoProcessor": "evil.Evil",
    "AutoFeatureExtractor": "evil.Evil",
}


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize("class_name", [None, "Evil"])
def test_a_model_that_brings_code_has_none_of_it_run_and_nobody_is_asked(
    saved, tmp_path, monkeypatch, legacy, class_name
):
    _, folder = saved
    asked = []
    monkeypatch.setattr("builtins.input", lambda *question: asked.append(question) or "y")
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: pass\n")
    for path in folder.glob("*config.json"):
        settings = json.loads(path.read_text())
        settings["auto_map"] = HOSTILE
        if path.name == "tokenizer_config.json":
            settings |= {"tokenizer_class": class_name, "processor_class": class_name}
            settings["auto_map"] = HOSTILE["AutoTokenizer"] if legacy else HOSTILE
        path.write_text(json.dumps(settings))
    with suppress(ModelError):  # either is right: the plain classes, or a refusal
        assert type(load_model(folder).hf).__module__.startswith("transformers.")
    assert not asked
    assert not (tmp_path / "ran").exists()


def test_everything_that_is_loaded_from_a_directory_is_loaded_without_its_code():
    calls = [
        (path.name, call)
        for path in Path(otoscope.models.__file__).parent.glob("*.py")
        for call in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(call, ast.Call) and getattr(call.func, "attr", "") == "from_pretrained"
    ]
    assert len(calls) >= 6
    for name, call in calls:
        trust = {key.arg: ast.unparse(key.value) for key in call.keywords}.get("trust_remote_code")
        assert trust == "False", f"{name}:{call.lineno}"
