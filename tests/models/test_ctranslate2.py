from __future__ import annotations

import json
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.models.ctranslate2_files import TIED, TOKENS, Sizes, binary, string, whisper_variables
from transformers import WhisperForConditionalGeneration

from otoscope.errors import ModelError
from otoscope.models import ctranslate2
from otoscope.models.sources import locate

WIDTH, FFN, LAYERS = 64, 96, 2
VOCABULARY = 2 + len(TOKENS) + 1501
SIZES = Sizes(WIDTH, FFN, 80, LAYERS, VOCABULARY, (50, 32))


def quantised(variables: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Eight-bit weights with one scale a row, as CTranslate2's converter writes them for int8."""
    result = {}
    for name, value in variables.items():
        if name.endswith("weight") and value.ndim == 2:
            scale = 127 / np.abs(value.astype(np.float32)).max(1)
            result[name] = np.rint(value.astype(np.float32) * scale[:, None]).astype(np.int8)
            result[f"{name}_scale"] = scale.astype(np.float32)
        else:
            result[name] = value
    return result


def write_model(folder: Path, variables: dict[str, np.ndarray], aliases: dict[str, str] = TIED) -> Path:
    vocabulary = {"a": 0, "b": 1}
    added = [
        {"id": 2 + index, "content": token, "special": True, "normalized": False}
        | dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
        for index, token in enumerate(TOKENS)
    ]
    bpe = {"type": "BPE", "vocab": vocabulary, "merges": []}
    tokenizer = {"version": "1.0", "added_tokens": added, "model": bpe}
    settings = {"suppress_ids": [1], "suppress_ids_begin": [0, 2], "alignment_heads": [[1, 0]]}
    (folder / "model.bin").write_bytes(binary(variables, aliases))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "config.json").write_text(json.dumps(settings))
    return folder


def test_every_parameter_of_whisper_is_filled_and_none_is_left_over(tmp_path):
    parts = ctranslate2.load(write_model(tmp_path, whisper_variables(SIZES)))
    model = WhisperForConditionalGeneration(parts.config)
    report = model.load_state_dict(parts.state_dict)
    assert not report.missing_keys
    assert not report.unexpected_keys


def test_stacked_projections_land_in_the_order_query_key_value(tmp_path):
    variables = whisper_variables(SIZES)
    state = ctranslate2.load(write_model(tmp_path, variables)).state_dict
    stacked = variables["decoder/layer_1/self_attention/linear_0/weight"]
    for index, part in enumerate(("q_proj", "k_proj", "v_proj")):
        expected = stacked[index * WIDTH : (index + 1) * WIDTH]
        assert np.array_equal(state[f"model.decoder.layers.1.self_attn.{part}.weight"].numpy(), expected)


def test_float16_weights_arrive_unchanged(tmp_path):
    variables = whisper_variables(SIZES)
    read = ctranslate2.read_variables(write_model(tmp_path, variables) / "model.bin")
    assert set(read) == {*variables, *TIED}
    assert all(np.array_equal(read[name].numpy(), value) for name, value in variables.items())


def test_eight_bit_weights_come_back_within_half_a_step(tmp_path):
    variables = whisper_variables(SIZES)
    parts = ctranslate2.load(write_model(tmp_path, quantised(variables)))
    exact = torch.from_numpy(variables["encoder/layer_0/ffn/linear_0/weight"]).float()
    step = exact.abs().amax(1, keepdim=True) / 127
    read = parts.state_dict["model.encoder.layers.0.fc1.weight"]
    assert read.dtype == torch.float32
    assert ((read - exact).abs() <= step * 0.5001).all()
    assert parts.config.tie_word_embeddings


def test_an_untied_projection_stays_untied(tmp_path):
    variables = whisper_variables(SIZES)
    variables["decoder/projection/weight"] = variables["decoder/embeddings/weight"] * 2
    parts = ctranslate2.load(write_model(tmp_path, variables, {}))
    assert not parts.config.tie_word_embeddings
    ratio = parts.state_dict["proj_out.weight"] / parts.state_dict["model.decoder.embed_tokens.weight"]
    assert torch.nanmedian(ratio.float()) == 2


def test_sizes_and_tokens_are_read_off_the_files(tmp_path):
    parts = ctranslate2.load(write_model(tmp_path, whisper_variables(SIZES)))
    config, generation = parts.config, parts.generation_config
    assert (config.d_model, config.encoder_layers, config.decoder_ffn_dim) == (WIDTH, LAYERS, FFN)
    assert (config.max_source_positions, generation.max_length) == (50, 32)
    assert (generation.decoder_start_token_id, generation.eos_token_id) == (3, 2)
    assert (generation.suppress_tokens, generation.begin_suppress_tokens) == ([1], [0, 2])
    assert not generation.is_multilingual
    assert not hasattr(generation, "lang_to_id")
    assert parts.processor.tokenizer.convert_ids_to_tokens(VOCABULARY - 1) == "<|30.00|>"


def test_every_truncation_is_refused(tmp_path):
    path = write_model(tmp_path, whisper_variables(SIZES)) / "model.bin"
    whole = path.read_bytes()
    for length in [0, 1, 3, 4, 10, *range(17, len(whole), len(whole) // 40), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(ModelError, match="truncated"):
            ctranslate2.read_variables(path)


def test_bytes_after_the_end_are_refused(tmp_path):
    path = write_model(tmp_path, whisper_variables(SIZES)) / "model.bin"
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(ModelError, match="follow its end"):
        ctranslate2.read_variables(path)


HEAD = struct.pack("<I", 6) + string("WhisperSpec") + struct.pack("<I", 3)
ONE = HEAD + struct.pack("<I", 1)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"PK\x03\x04" + bytes(100), "binary version"),
        (struct.pack("<I", 6) + string("TransformerSpec") + bytes(100), "TransformerSpec"),
        (HEAD + struct.pack("<I", 2**32 - 1), "truncated"),
        (ONE + struct.pack("<H", 65535), "truncated"),
        (ONE + string("w") + struct.pack("<BIBI", 1, 2**30, 0, 2**32 - 4) + bytes(64), "does not fit"),
        (ONE + string("w") + struct.pack("<BIBI", 1, 2**30 - 1, 0, 2**32 - 4) + bytes(64), "truncated"),
        (ONE + string("w") + struct.pack("<B4IBI", 4, *[2**32 - 1] * 4, 0, 4) + bytes(64), "does not fit"),
        (ONE + string("w") + struct.pack("<B", 255) + bytes(4000), "255 axes"),
        (ONE + string("w") + struct.pack("<BIBI", 1, 1, 99, 4) + bytes(64), "does not fit"),
        (ONE + struct.pack("<H", 4) + b"\xff\xfe\xfd\0" + bytes(64), "not text"),
        (HEAD + struct.pack("<II", 0, 1) + string("a") + string("b"), "points at nothing"),
    ],
)
def test_hostile_headers_are_refused_without_taking_memory(tmp_path, content, reason):
    path = tmp_path / "model.bin"
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(ModelError, match=reason):
            ctranslate2.read_variables(path)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_a_missing_variable_is_named(tmp_path):
    variables = whisper_variables(SIZES)
    del variables["decoder/layer_0/ffn/linear_1/bias"]
    with pytest.raises(ModelError, match="decoder/layer_0/ffn/linear_1/bias"):
        ctranslate2.load(write_model(tmp_path, variables))


def test_a_variable_that_whisper_does_not_have_is_named(tmp_path):
    with pytest.raises(ModelError, match="adapter"):
        ctranslate2.load(
            write_model(tmp_path, whisper_variables(SIZES) | {"encoder/adapter": np.ones(3, np.float32)})
        )


def test_integer_weights_without_a_scale_are_refused(tmp_path):
    variables = quantised(whisper_variables(SIZES))
    del variables["encoder/layer_0/ffn/linear_0/weight_scale"]
    with pytest.raises(ModelError, match="no usable scale"):
        ctranslate2.load(write_model(tmp_path, variables))


def test_a_key_bias_is_refused_because_transformers_has_no_place_for_it(tmp_path):
    variables = whisper_variables(SIZES)
    variables["encoder/layer_0/self_attention/linear_0/bias"][WIDTH] = 1
    with pytest.raises(ModelError, match="no bias"):
        ctranslate2.load(write_model(tmp_path, variables))


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{",
        '{"suppress_ids": "x"}',
        '{"suppress_ids": 0}',
        '{"alignment_heads": false}',
        '{"alignment_heads": [[0.5]]}',
        "[" * 99999,
    ],
)
def test_unusable_settings_are_refused(tmp_path, content):
    write_model(tmp_path, whisper_variables(SIZES))
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ModelError, match=r"config\.json"):
        ctranslate2.load(tmp_path)


@pytest.mark.parametrize("name", ["model.bin", "config.json", "tokenizer.json"])
def test_a_missing_file_is_named(tmp_path, name):
    (write_model(tmp_path, whisper_variables(SIZES)) / name).unlink()
    with pytest.raises(ModelError, match=name):
        ctranslate2.load(tmp_path)


def test_a_tokenizer_of_another_model_is_refused(tmp_path):
    write_model(tmp_path, whisper_variables(SIZES))
    tokenizer = json.loads((tmp_path / "tokenizer.json").read_text())
    tokenizer["added_tokens"] = tokenizer["added_tokens"][:1]
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ModelError, match="does not belong"):
        ctranslate2.load(tmp_path)


@pytest.mark.weights
@pytest.mark.parametrize(
    ("alias", "start", "no_timestamps", "multilingual"),
    [("whisper-tiny.en", 50257, 50362, False), ("whisper-base", 50258, 50363, True)],
)
def test_registered_models_load_strictly_with_their_published_token_ids(
    alias, start, no_timestamps, multilingual
):
    parts = ctranslate2.load(locate(alias).path)
    with torch.device("meta"):
        model = WhisperForConditionalGeneration(parts.config)
    report = model.load_state_dict(parts.state_dict, assign=True)
    generation, tokenizer = parts.generation_config, parts.processor.tokenizer
    assert not report.missing_keys
    assert not report.unexpected_keys
    assert (generation.decoder_start_token_id, generation.no_timestamps_token_id) == (start, no_timestamps)
    assert generation.is_multilingual == multilingual
    assert tokenizer.convert_tokens_to_ids("<|nocaptions|>") == no_timestamps - 1
    assert tokenizer.decode([start, 843, no_timestamps], skip_special_tokens=True).strip("<|>")
    assert hasattr(generation, "lang_to_id") == multilingual
    if multilingual:
        assert generation.lang_to_id["<|fr|>"] == 50265
        assert parts.processor.get_decoder_prompt_ids(language="fr", task="transcribe") == [
            (1, 50265),
            (2, 50359),
            (3, 50363),
        ]


@pytest.mark.weights
def test_whisper_tiny_en_carries_the_sinusoids_of_the_paper():
    # Radford et al. 2022 fix the encoder's positions to the sinusoids of Vaswani et al. 2017.
    read = ctranslate2.load(locate("whisper-tiny.en").path).state_dict["model.encoder.embed_positions.weight"]
    rates = np.exp(-np.log(10000) / 191 * np.arange(192))
    angles = np.arange(1500)[:, None] * rates
    assert np.abs(read.float().numpy() - np.concatenate([np.sin(angles), np.cos(angles)], 1)).max() < 1e-3
