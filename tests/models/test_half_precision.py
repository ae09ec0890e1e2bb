"""Checkpoints in several files and weights in half precision: loading, reading, changing and writing, in every kind of model."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file
from tests.conftest import example_inputs, tiny
from tests.models.talking import sound, talking_whisper
from tests.models.test_loading import save_listener
from tests.models.tokenizers import audio_processor, word_tokenizer

from otoscope.activations import Edit
from otoscope.circuits.tape import record
from otoscope.errors import ModelError, OptionError
from otoscope.models.decoding import decode
from otoscope.models.loading import load_model

KINDS = ("whisper", "qwen2_audio", "llama", "gpt2")
HALVES = ("float16", "bfloat16")


@pytest.fixture(scope="module", params=KINDS)
def sharded(request, tmp_path_factory):
    """A random model, and a directory that holds it in many files."""
    folder = tmp_path_factory.mktemp(request.param)
    model = tiny(request.param)
    model.hf.save_pretrained(folder, max_shard_size="20KB")
    if request.param == "whisper":
        save_listener(folder)
    else:
        audio = request.param == "qwen2_audio"
        (audio_processor(model.config) if audio else word_tokenizer()).save_pretrained(folder)
    return model, folder


def logits(model, inputs=None):
    with torch.no_grad():
        return model.forward(inputs or example_inputs(model)).logits


def test_a_checkpoint_in_several_files_comes_back_bit_for_bit(sharded):
    model, folder = sharded
    names = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    assert len(set(names.values())) > 3
    assert torch.equal(logits(load_model(folder, attention="eager")), logits(model))


def test_a_file_that_is_missing_is_named(sharded, tmp_path):
    _, folder = sharded
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    lost = sorted(tmp_path.glob("model-*.safetensors"))[1]
    lost.unlink()
    with pytest.raises(ModelError, match=lost.name):
        load_model(tmp_path)
    lost.write_bytes(b"\x08")
    with pytest.raises(ModelError, match="truncated or corrupted"):
        load_model(tmp_path)


@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision_holds_the_rounded_weights_and_is_near(sharded, dtype):
    model, folder = sharded
    half = load_model(folder, dtype=dtype, attention="eager")
    kind = getattr(torch, dtype)
    stored = {name: w for path in folder.glob("model-*") for name, w in load_file(path).items()}
    ours = dict(half.hf.named_parameters())
    shared = [
        name for name in ours if name in stored
    ]  # Qwen2-Audio's parts are called otherwise in its files
    assert shared
    assert all(torch.equal(ours[name], stored[name].to(kind)) for name in shared)
    exact, rounded = logits(model), logits(half, example_inputs(half)).float()
    assert half.dtype == kind
    assert (rounded - exact).norm() / exact.norm() < (0.01 if dtype == "float16" else 0.08)


@pytest.mark.parametrize("dtype", HALVES)
def test_reading_changes_no_bit_and_an_edit_reaches_its_row_alone(sharded, dtype):
    _, folder = sharded
    half = load_model(folder, dtype=dtype, attention="eager")
    main = next(iter(half.points.stacks.values()))
    point, inputs = f"{main}.1.hook_resid_pre", example_inputs(half)
    plain = logits(half, inputs)
    with half.capturing([point]) as cache:
        assert torch.equal(logits(half, inputs), plain)
    assert cache[point].dtype == half.dtype
    with half.editing([Edit.zero(point, rows=0)]):
        changed = logits(half, inputs)
    assert torch.equal(changed[1], plain[1])
    assert not torch.equal(changed[0], plain[0])
    assert half.open_hooks == 0


@pytest.mark.parametrize("dtype", HALVES)
def test_a_recogniser_writes_in_half_precision_as_it_does_without_a_cache(dtype):
    model = talking_whisper(dtype=getattr(torch, dtype))
    features = sound(2, dtype=model.dtype)
    with torch.no_grad():
        heard = model.encode(features)
        prompts = torch.tensor([[2, 80, 83, 95]] * 2)
        texts = decode(model, heard, prompts)
        for row, text in enumerate(texts):
            ids = torch.tensor([[*text.prompt, *text.ids]])
            again = model.forward(
                {"encoder_outputs": (heard[row : row + 1],), "decoder_input_ids": ids}
            ).logits
            steps = again[0, len(text.prompt) - 1 : -1].float()
            written = torch.tensor(text.ids)
            chosen = steps.gather(1, written[:, None])[:, 0]
            free = [i for i in range(80) if i not in (2, 3, 7)]
            assert (
                steps[:, free].amax(-1) - chosen
            ).max() < 0.1 * steps.abs().max()  # a near tie may fall the other way


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_refused_for_a_trace_with_what_helps(dtype):
    model = tiny("llama", dtype=dtype)
    with pytest.raises(OptionError, match="too coarse") as caught:
        record(model, torch.tensor([3, 4, 5]))
    assert "float32" in caught.value.remedy
