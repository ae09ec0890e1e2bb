"""A random Whisper that can be asked to write: languages, tasks, suppressed tokens and an end."""

from __future__ import annotations

import torch
from tests.conftest import tiny

LANGUAGES = {"<|en|>": 80, "<|fr|>": 81, "<|ru|>": 82}


def talking_whisper(end: int = 6, seed: int = 2, **kwargs):
    """A multilingual random Whisper; token 6 as the end makes rows end at different steps, some never."""
    model = tiny("whisper", seed=seed, **kwargs)
    config = model.hf.generation_config
    for key, value in {
        "is_multilingual": True,
        "lang_to_id": LANGUAGES,
        "task_to_id": {"transcribe": 83, "translate": 84},
        "no_timestamps_token_id": 95,
        "suppress_tokens": [2, *range(80, 99)],
        "begin_suppress_tokens": [3, 7],
        "decoder_start_token_id": 2,
        "eos_token_id": end,
        "pad_token_id": end,
        "max_length": 32,
    }.items():
        setattr(config, key, value)
    with torch.no_grad():  # a random model with tied embeddings would only repeat itself
        model.hf.model.decoder.embed_positions.weight.mul_(6)
        for layer in model.hf.model.decoder.layers:
            layer.encoder_attn.q_proj.weight.mul_(3)
            layer.encoder_attn.out_proj.weight.mul_(6)
    return model


def sound(batch: int = 3, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Random spectrograms `(batch, mel, column)`."""
    return torch.randn(batch, 16, 100, generator=torch.Generator().manual_seed(seed)).to(dtype)


def encode(model, features: torch.Tensor) -> torch.Tensor:
    """Encoder output without gradients."""
    with torch.no_grad():
        return model.encode(features)
