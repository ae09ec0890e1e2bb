from __future__ import annotations

import json
import os
import sys

import pytest
import torch

from otoscope.errors import ModelError
from otoscope.models.cache import sha256
from otoscope.models.gguf import safetensors_copy
from otoscope.models.sources import locate

gguf = pytest.importorskip("gguf", reason="install otoscope[gguf] to read GGUF files")

WIDTH, FFN, HEADS, VOCABULARY = 32, 64, 2, 40


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("OTOSCOPE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write_llama(path, scale: float = 0.1):
    """A Llama of one layer in GGUF, its weights in eight bits; returns what each tensor stands for."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_vocab_size(VOCABULARY)
    tokens = ["<unk>", "<s>", "</s>", *[chr(97 + index) for index in range(26)], "ab"]
    tokens += [f"<{index}>" for index in range(VOCABULARY - len(tokens))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, 3, *[1] * (VOCABULARY - 3)])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    shapes = {f"blk.0.attn_{part}": (WIDTH, WIDTH) for part in ("q", "k", "v", "output")}
    shapes |= {"blk.0.ffn_gate": (FFN, WIDTH), "blk.0.ffn_up": (FFN, WIDTH), "blk.0.ffn_down": (WIDTH, FFN)}
    shapes |= {"token_embd": (VOCABULARY, WIDTH)}
    generator = torch.Generator().manual_seed(0)
    meant = {}
    for name, shape in shapes.items():
        weight = (torch.randn(shape, generator=generator) * scale).numpy()
        packed = gguf.quants.quantize(weight, gguf.GGMLQuantizationType.Q8_0)
        meant[name] = torch.from_numpy(gguf.quants.dequantize(packed, gguf.GGMLQuantizationType.Q8_0))
        writer.add_tensor(f"{name}.weight", packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    for name in ("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"):
        writer.add_tensor(f"{name}.weight", torch.ones(WIDTH).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return meant


def test_a_copy_has_the_same_weights_and_is_made_once(tmp_path, own_cache, capfd):
    from transformers import AutoModelForCausalLM

    path = tmp_path / "tiny.gguf"
    meant = write_llama(path)
    folder = safetensors_copy(path, sha256(path))
    state = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict()
    read = state["model.layers.0.mlp.up_proj.weight"]
    assert torch.allclose(read, meant["blk.0.ffn_up"], rtol=2**-11, atol=2**-24)
    path.unlink()
    assert safetensors_copy(path, folder.name) == folder
    assert {entry.name for entry in folder.parent.iterdir() if not entry.name.endswith(".lock")} == {
        folder.name
    }
    assert locate(folder).layout == "transformers"


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "copy.sha256"])
@pytest.mark.parametrize("damage", ["one bit", "gone"])
def test_a_damaged_copy_is_made_anew(tmp_path, own_cache, name, damage):
    path = tmp_path / "tiny.gguf"
    write_llama(path)
    folder = safetensors_copy(path, sha256(path))
    whole = (folder / name).read_bytes()
    if damage == "gone":
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert safetensors_copy(path, sha256(path)) == folder
    assert (folder / name).read_bytes() == whole


@pytest.mark.parametrize(
    "auto_map", [["evil.Evil", "evil.Evil"], {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}]
)
def test_code_beside_a_file_is_neither_run_nor_asked_about(tmp_path, own_cache, monkeypatch, auto_map):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked whether to run foreign code"))
    write_llama(tmp_path / "tiny.gguf")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"auto_map": auto_map}))
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(ModelError, match="custom code"):
        safetensors_copy(tmp_path / "tiny.gguf", sha256(tmp_path / "tiny.gguf"))
    assert not (tmp_path / "ran").exists()


def test_weights_beyond_half_precision_stay_in_single(tmp_path, own_cache):
    from safetensors import safe_open

    path = tmp_path / "large.gguf"
    write_llama(path, scale=1e6)
    folder = safetensors_copy(path, sha256(path))
    with safe_open(folder / "model.safetensors", "pt") as file:
        weight = file.get_tensor("model.layers.0.mlp.up_proj.weight")
    assert weight.dtype == torch.float32
    assert weight.isfinite().all()


@pytest.mark.parametrize("share", [0.01, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused_and_nothing_is_kept(tmp_path, own_cache, share):
    path = tmp_path / "tiny.gguf"
    write_llama(path)
    os.truncate(path, int(path.stat().st_size * share))
    with pytest.raises(ModelError, match=r"cannot be unpacked|no whole GGUF file"):
        safetensors_copy(path, sha256(path))
    assert [
        entry.name for entry in (own_cache / "converted").iterdir() if not entry.name.endswith(".lock")
    ] == []


def test_an_absurd_header_is_refused(tmp_path, own_cache):
    path = tmp_path / "bad.gguf"
    path.write_bytes(b"GGUF" + b"\3\0\0\0" + b"\xff" * 200)
    with pytest.raises(ModelError, match=r"cannot be unpacked|no whole GGUF file"):
        safetensors_copy(path, sha256(path))


def test_a_missing_package_is_named_with_the_extra_that_brings_it(tmp_path, own_cache, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    monkeypatch.setattr(
        "otoscope.models.gguf.util.find_spec", lambda name: None if name == "gguf" else object()
    )
    with pytest.raises(ModelError, match="needs gguf") as caught:
        safetensors_copy(tmp_path / "x.gguf", "0" * 64)
    assert "otoscope[gguf]" in caught.value.remedy


def test_only_a_checksum_can_name_a_copy(tmp_path, own_cache):
    with pytest.raises(ValueError, match="not a SHA-256"):
        safetensors_copy(tmp_path / "x.gguf", "../../elsewhere")


@pytest.mark.weights
@pytest.mark.slow
def test_smollm2_knows_the_capital_of_france():
    from transformers import AutoModelForCausalLM, AutoTokenizer

    local = locate("smollm2-135m")
    folder = safetensors_copy(local.path, local.sha256)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        logits = model(**tokenizer("The capital of France is", return_tensors="pt")).logits[0, -1]
    assert tokenizer.decode(logits.argmax()) == " Paris"
    assert logits.softmax(-1).max() > 0.7
