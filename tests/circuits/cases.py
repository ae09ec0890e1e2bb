"""Random models and dictionaries of every kind, in float64."""

from __future__ import annotations

import torch
from tests.conftest import tiny

from otoscope.dictionaries.activation import Activation
from otoscope.dictionaries.cross_layer import CrossLayer, CrossLayerTranscoder
from otoscope.dictionaries.neurons import NeuronBasis
from otoscope.dictionaries.transcoder import Transcoder, TranscoderSet

FAMILIES = ("llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "gpt2")
IDS = [3, 5, 9, 11, 4, 7, 8, 20, 21]
LAYERS, WIDTH, FEATURES = 3, 32, 24
ACTIVATIONS = ("relu", "jumprelu", "topk", "batchtopk")


class Random:
    """Random weights of one seed."""

    def __init__(self, seed: int = 0, dtype: torch.dtype = torch.float64) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.dtype = dtype

    def __call__(self, *shape: int) -> torch.Tensor:
        raw = torch.randn(*shape, generator=self.generator, dtype=torch.float64)
        return (raw * shape[-1] ** -0.5).to(self.dtype)

    def activation(self, kind: str) -> Activation:
        if kind == "jumprelu":
            return Activation("jumprelu", threshold=self(FEATURES).abs() / 2)
        return Activation(kind, k=5 if kind.endswith("topk") else None, signed=kind == "topk")

    def transcoder(self, kind: str = "relu", skip: bool = False) -> Transcoder:
        return Transcoder(
            self(FEATURES, WIDTH), self(FEATURES), self(FEATURES, WIDTH), self(WIDTH), self.activation(kind),
            self(WIDTH, WIDTH) if skip else None,
        )  # fmt: skip

    def cross_layer(self, kind: str = "relu", skip: bool = False) -> CrossLayerTranscoder:
        return CrossLayerTranscoder([
            CrossLayer(
                self(FEATURES, WIDTH), self(FEATURES), [self(FEATURES, WIDTH) for _ in range(LAYERS - layer)],
                self(WIDTH), self.activation(kind), self(WIDTH, WIDTH) if skip else None,
            )
            for layer in range(LAYERS)
        ])  # fmt: skip

    def transcoders(self, kind: str = "relu", skip: bool = False, **places: str) -> TranscoderSet:
        return TranscoderSet([self.transcoder(kind, skip) for _ in range(LAYERS)], **places)


def dictionaries(model, seed: int = 0) -> dict:
    """One of every kind, and every activation, skip and place at least once."""
    make = Random(seed)
    return {
        "neurons, gate frozen": NeuronBasis(model, "frozen"),
        "neurons, up frozen": NeuronBasis(model, "up"),
        "neurons, half": NeuronBasis(model),
        **{
            f"{kind}, skip {skip}": make.transcoders(kind, skip)
            for kind in ACTIVATIONS
            for skip in (False, True)
        },
        **{
            f"{reads} to {writes}": make.transcoders("relu", True, reads=reads, writes=writes)
            for reads in ("mlp_in", "normalized", "resid_mid")
            for writes in ("mlp_raw", "mlp_out")
        },
        "one layer missing": TranscoderSet({0: make.transcoder(), 2: make.transcoder()}, layers=LAYERS),
        **{f"cross-layer {kind}": make.cross_layer(kind, kind == "topk") for kind in ACTIVATIONS},
    }


def model_of(family: str, **changes):
    return tiny(family, dtype=torch.float64, **changes)
