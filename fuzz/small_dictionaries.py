"""What the targets of dictionary formats share: dictionaries, the model they are for, and what one that was read is asked."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tests.conftest import tiny

from otoscope.dictionaries.activation import Activation
from otoscope.dictionaries.cross_layer import CrossLayer, CrossLayerTranscoder
from otoscope.dictionaries.loading import load_dictionary
from otoscope.dictionaries.transcoder import Transcoder, TranscoderSet

FEATURES = 3


@cache
def model() -> Any:
    """A language model of two layers."""
    return tiny("llama", num_hidden_layers=2)


def transcoders(kind: str = "jumprelu", **places: str) -> TranscoderSet:
    """One for each layer."""
    return TranscoderSet([Transcoder(*_weights(), _activation(kind)) for _ in range(2)], **places)  # pyright: ignore


def cross_layer(kind: str = "relu") -> CrossLayerTranscoder:
    """One that writes to every later layer."""
    w_enc, b_enc, w_dec, b_dec = _weights()
    return CrossLayerTranscoder(
        [CrossLayer(w_enc, b_enc, [w_dec] * (2 - i), b_dec, _activation(kind)) for i in range(2)]
    )


def _weights() -> tuple[torch.Tensor, ...]:
    width = model().config.hidden_size
    return torch.ones(FEATURES, width), torch.zeros(FEATURES), torch.ones(FEATURES, width), torch.zeros(width)


def _activation(kind: str) -> Activation:
    if kind == "jumprelu":
        return Activation(kind, threshold=torch.full((FEATURES,), 0.5))
    return Activation(kind, k=2 if "topk" in kind else None, signed=kind == "topk")  # pyright: ignore


def files_of(save: Callable[[Path], object], names: Sequence[str]) -> tuple[bytes, ...]:
    """What a writer puts into a folder, by name; those at the end that it does not write are left out."""
    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder))
        return tuple((Path(folder) / name).read_bytes() for name in names if (Path(folder) / name).exists())


def use(folder: Path) -> None:
    """Read a dictionary as commands do, and ask it what tracing asks."""
    dictionary = load_dictionary(folder, model())
    x = torch.ones(2, model().config.hidden_size, dtype=model().dtype)
    for layer in range(dictionary.layers):
        active = dictionary.encode(layer, x)
        assert len(active.feature) == len(active.activation)
        for out in dictionary.targets(layer) if dictionary.size(layer) else ():
            assert dictionary.decoder(layer, out, active.feature).shape[-1] == x.shape[-1]
            bias = dictionary.bias(out)
            assert bias is None or bias.shape == x.shape[1:]
    assert dictionary.describe()["features"]
