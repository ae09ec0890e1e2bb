"""Gemma Scope: transcoders as one `.npz` a layer, and Gemma Scope 2 as one `.safetensors` a layer.

They read after the division of the norm before the MLP and write after its post-norm (as circuit-tracer's configurations of
them say). Source: Lieberum et al. 2024.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from otoscope.dictionaries.activation import Activation
from otoscope.dictionaries.base import Origin
from otoscope.dictionaries.cross_layer import CrossLayer, CrossLayerTranscoder
from otoscope.dictionaries.formats.files import below, layer_in, take, tensors
from otoscope.dictionaries.transcoder import Transcoder, TranscoderSet
from otoscope.errors import DictionaryError

if TYPE_CHECKING:
    from torch import Tensor


def load_gemma_scope(
    folder: Path, dtype: torch.dtype = torch.float32
) -> TranscoderSet | CrossLayerTranscoder:
    """Read a folder with one file a layer, its layer told by a name such as `layer_3/params.npz`.

    Raises:
        DictionaryError: No file names a layer, two name the same one, or a file is damaged.
    """
    paths = _paths(folder)
    found = {layer: tensors(path, dtype) for layer, path in paths.items()}
    places: dict[str, Any] = {
        "reads": "normalized",
        "writes": "mlp_out",
        "origin": Origin(folder.name, "gemma-scope"),
    }
    if all(_decoder(t).dim() == 3 for t in found.values() if "w_dec" in t or "W_dec" in t):
        parts = [_cross_layer(found[layer], paths[layer], layer) for layer in sorted(found)]
        return CrossLayerTranscoder(parts, **places)
    return TranscoderSet({layer: _transcoder(t, paths[layer]) for layer, t in found.items()}, **places)


def _paths(folder: Path) -> dict[int, Path]:
    files = sorted(p for ending in ("npz", "safetensors") for p in below(folder, f"*.{ending}"))
    paths: dict[int, Path] = {}
    for path in files:
        layer = layer_in(path.relative_to(folder).as_posix())
        if layer is None:
            continue
        if layer in paths:
            raise DictionaryError(
                f"{paths[layer]} and {path} are both layer {layer}.", "Keep one file a layer."
            )
        paths[layer] = path
    if not paths:
        raise DictionaryError(
            f"No file in {folder} names its layer.", "Name them layer_0/params.npz and so on."
        )
    return dict(sorted(paths.items()))


def _decoder(found: Mapping[str, Tensor]) -> Tensor:
    return found["w_dec"] if "w_dec" in found else found["W_dec"]


def _shared(found: Mapping[str, Tensor], path: Path) -> dict[str, Any]:
    encoder = found["w_enc"] if "w_enc" in found else take(found, "W_enc", path)
    skip = found.get("affine_skip_connection")
    return {
        "w_enc": encoder.T.contiguous(),
        "b_enc": take(found, "b_enc", path),
        "activation": Activation("jumprelu", threshold=take(found, "threshold", path)),
        "w_skip": None if skip is None else skip.T.contiguous(),  # stored for x @ W
    }


def _transcoder(found: Mapping[str, Tensor], path: Path) -> Transcoder:
    return Transcoder(**_shared(found, path), w_dec=_decoder(found), b_dec=take(found, "b_dec", path))


def _cross_layer(found: Mapping[str, Tensor], path: Path, layer: int) -> CrossLayer:
    decoder, bias = _decoder(found), take(found, "b_dec", path)
    rows = [decoder[:, out] for out in range(layer, decoder.shape[1])]
    return CrossLayer(**_shared(found, path), w_dec=rows, b_dec=bias if bias.dim() == 1 else bias[layer])
