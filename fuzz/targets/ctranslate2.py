"""CTranslate2's Whisper directories: `model.bin`, `config.json` and `tokenizer.json`."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np

from otoscope.models.ctranslate2 import load

FILES = ("model.bin", "config.json", "tokenizer.json")
WIDTH, MELS = 2, 2
SPECIAL = ("<|endoftext|>", "<|startoftranscript|>", "<|startofprev|>", "<|nocaptions|>", "<|notimestamps|>")
VOCABULARY = 2 + len(SPECIAL)
_DTYPES = {"float32": 0, "int8": 1, "int16": 2, "int32": 3, "float16": 4}


def _string(text: str) -> bytes:
    raw = text.encode() + b"\0"
    return struct.pack("<H", len(raw)) + raw


def _variable(name: str, value: np.ndarray) -> bytes:
    shape = struct.pack(f"<B{value.ndim}I", value.ndim, *value.shape)
    return (
        _string(name) + shape + struct.pack("<BI", _DTYPES[value.dtype.name], value.nbytes) + value.tobytes()
    )


def _variables(kind: type = np.float16) -> dict[str, np.ndarray]:
    """A Whisper of one layer a stack and two dimensions."""
    found: dict[str, np.ndarray] = {"decoder/embeddings/weight": np.ones((VOCABULARY, WIDTH), kind)}

    def linear(name: str, out: int, into: int) -> None:
        found[f"{name}/weight"], found[f"{name}/bias"] = np.ones((out, into), kind), np.zeros(out, kind)

    def norm(name: str) -> None:
        found[f"{name}/gamma"], found[f"{name}/beta"] = np.ones(WIDTH, kind), np.zeros(WIDTH, kind)

    for stack in ("encoder", "decoder"):
        found[f"{stack}/position_encodings/encodings"] = np.zeros((4, WIDTH), kind)
        found[f"{stack}/num_heads"] = np.array(1, np.int16)
        norm(f"{stack}/layer_norm")
        base = f"{stack}/layer_0"
        linear(f"{base}/self_attention/linear_0", 3 * WIDTH, WIDTH)
        linear(f"{base}/self_attention/linear_1", WIDTH, WIDTH)
        norm(f"{base}/self_attention/layer_norm")
        if stack == "decoder":
            for number, out in enumerate((WIDTH, 2 * WIDTH, WIDTH)):
                linear(f"{base}/attention/linear_{number}", out, WIDTH)
            norm(f"{base}/attention/layer_norm")
        linear(f"{base}/ffn/linear_0", 3, WIDTH)
        linear(f"{base}/ffn/linear_1", WIDTH, 3)
        norm(f"{base}/ffn/layer_norm")
    for name, into in (("conv1", MELS), ("conv2", WIDTH)):
        found[f"encoder/{name}/weight"] = np.ones((WIDTH, into, 3), kind)
        found[f"encoder/{name}/bias"] = np.zeros(WIDTH, kind)
    return found


def _binary(variables: dict[str, np.ndarray]) -> bytes:
    head = struct.pack("<I", 6) + _string("WhisperSpec") + struct.pack("<II", 3, len(variables))
    body = b"".join(_variable(name, value) for name, value in variables.items())
    return (
        head
        + body
        + struct.pack("<I", 1)
        + _string("decoder/projection/weight")
        + _string("decoder/embeddings/weight")
    )


def _tokenizer() -> bytes:
    from tokenizers import Tokenizer
    from tokenizers.models import BPE

    made = Tokenizer(BPE({"a": 0, "b": 1}, []))
    made.add_special_tokens(list(SPECIAL))
    return made.to_str().encode()


def seeds() -> list[tuple[bytes, bytes, bytes]]:
    """In half precision, and with one weight in eight bits."""
    told = {"suppress_ids": [0], "suppress_ids_begin": [1], "alignment_heads": [[0, 0]]}
    quantised = _variables()
    quantised["encoder/layer_0/ffn/linear_0/weight"] = np.ones((3, WIDTH), np.int8)
    quantised["encoder/layer_0/ffn/linear_0/weight_scale"] = np.full(3, 2, np.float32)
    return [(_binary(made), json.dumps(told).encode(), _tokenizer()) for made in (_variables(), quantised)]


def parse(folder: Path) -> None:
    """Read the whole directory."""
    parts = load(folder)
    assert parts.config.d_model == parts.state_dict["proj_out.weight"].shape[1]
