"""Whisper weights as CTranslate2's converter writes them, of any size."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

TOKENS = ("<|endoftext|>", "<|startoftranscript|>", "<|startofprev|>", "<|nocaptions|>", "<|notimestamps|>")
TIED = {"decoder/projection/weight": "decoder/embeddings/weight"}
_DTYPES = {"float32": 0, "int8": 1, "int16": 2, "int32": 3, "float16": 4}


@dataclass(frozen=True)
class Sizes:
    width: int
    ffn: int
    mels: int
    layers: int
    vocabulary: int
    positions: tuple[int, int]
    """Of the encoder and of the decoder."""


def string(text: str) -> bytes:
    raw = text.encode() + b"\0"
    return struct.pack("<H", len(raw)) + raw


def variable(name: str, value: np.ndarray) -> bytes:
    shape = struct.pack(f"<B{value.ndim}I", value.ndim, *value.shape)
    return (
        string(name) + shape + struct.pack("<BI", _DTYPES[value.dtype.name], value.nbytes) + value.tobytes()
    )


def binary(
    variables: Mapping[str, np.ndarray], aliases: Mapping[str, str] = TIED, spec: str = "WhisperSpec"
) -> bytes:
    """A `model.bin`."""
    head = struct.pack("<I", 6) + string(spec) + struct.pack("<II", 3, len(variables))
    body = b"".join(variable(name, value) for name, value in variables.items())
    names = b"".join(string(alias) + string(target) for alias, target in aliases.items())
    return head + body + struct.pack("<I", len(aliases)) + names


def whisper_variables(sizes: Sizes) -> dict[str, np.ndarray]:
    """Random weights in half precision."""
    rng, width = np.random.default_rng(0), sizes.width

    def draw(*shape: int) -> np.ndarray:
        return rng.normal(0, 0.05, shape).astype(np.float16)

    variables: dict[str, np.ndarray] = {"decoder/embeddings/weight": draw(sizes.vocabulary, width)}

    def linear(name: str, out: int, into: int) -> None:
        variables[f"{name}/weight"], variables[f"{name}/bias"] = draw(out, into), draw(out)

    def norm(name: str) -> None:
        variables[f"{name}/gamma"], variables[f"{name}/beta"] = draw(width), draw(width)

    for stack, positions in zip(("encoder", "decoder"), sizes.positions, strict=True):
        variables[f"{stack}/position_encodings/encodings"] = draw(positions, width)
        variables[f"{stack}/num_heads"] = np.array(1, np.int16)
        norm(f"{stack}/layer_norm")
        for layer in range(sizes.layers):
            base = f"{stack}/layer_{layer}"
            linear(f"{base}/self_attention/linear_0", 3 * width, width)
            variables[f"{base}/self_attention/linear_0/bias"][width : 2 * width] = 0
            linear(f"{base}/self_attention/linear_1", width, width)
            norm(f"{base}/self_attention/layer_norm")
            if stack == "decoder":
                linear(f"{base}/attention/linear_0", width, width)
                linear(f"{base}/attention/linear_1", 2 * width, width)
                variables[f"{base}/attention/linear_1/bias"][:width] = 0
                linear(f"{base}/attention/linear_2", width, width)
                norm(f"{base}/attention/layer_norm")
            linear(f"{base}/ffn/linear_0", sizes.ffn, width)
            linear(f"{base}/ffn/linear_1", width, sizes.ffn)
            norm(f"{base}/ffn/layer_norm")
    for name, into in (("conv1", sizes.mels), ("conv2", width)):
        variables[f"encoder/{name}/weight"], variables[f"encoder/{name}/bias"] = (
            draw(width, into, 3),
            draw(width),
        )
    return variables
