"""CTranslate2's Whisper directories: `model.bin`, `config.json` and `tokenizer.json`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from tests.models.ctranslate2_files import TOKENS, Sizes, binary, whisper_variables

from otoscope.models.ctranslate2 import load

FILES = ("model.bin", "config.json", "tokenizer.json")
SIZES = Sizes(width=2, ffn=3, mels=2, layers=1, vocabulary=2 + len(TOKENS), positions=(4, 4))


def _tokenizer() -> bytes:
    from tokenizers import Tokenizer
    from tokenizers.models import BPE

    made = Tokenizer(BPE({"a": 0, "b": 1}, []))
    made.add_special_tokens(list(TOKENS))
    return made.to_str().encode()


def seeds() -> list[tuple[bytes, bytes, bytes]]:
    """In half precision, and with one weight in eight bits."""
    told = {"suppress_ids": [0], "suppress_ids_begin": [1], "alignment_heads": [[0, 0]]}
    quantised = whisper_variables(SIZES)
    quantised["encoder/layer_0/ffn/linear_0/weight"] = np.ones((SIZES.ffn, SIZES.width), np.int8)
    quantised["encoder/layer_0/ffn/linear_0/weight_scale"] = np.full(SIZES.ffn, 2, np.float32)
    return [
        (binary(made), json.dumps(told).encode(), _tokenizer())
        for made in (whisper_variables(SIZES), quantised)
    ]


def parse(folder: Path) -> None:
    """Read the whole directory."""
    parts = load(folder)
    assert parts.config.d_model == parts.state_dict["proj_out.weight"].shape[1]
