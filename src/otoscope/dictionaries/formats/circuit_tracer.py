"""circuit-tracer's dictionaries: `config.yaml` with per-layer transcoders (PLT) or a cross-layer transcoder (CLT)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from otoscope.dictionaries.activation import Activation
from otoscope.dictionaries.base import Origin
from otoscope.dictionaries.cross_layer import CrossLayer, CrossLayerTranscoder
from otoscope.dictionaries.formats.files import (
    HOOK_OF_READS,
    HOOK_OF_WRITES,
    READS,
    WRITES,
    inside,
    place,
    settings,
    take,
    tensors,
    write_tensors,
)
from otoscope.dictionaries.rows import FileRows, as_rows
from otoscope.dictionaries.transcoder import Transcoder, TranscoderSet
from otoscope.errors import DictionaryError
from otoscope.files import atomic_write

if TYPE_CHECKING:
    from torch import Tensor

CONFIG = "config.yaml"
_THRESHOLDS = ("activation_function.threshold", "threshold")


def load_circuit_tracer(
    folder: Path, dtype: torch.dtype = torch.float32
) -> TranscoderSet | CrossLayerTranscoder:
    """Read a folder with a `config.yaml`.

    Raises:
        DictionaryError: A file is missing or damaged, or features read or write at a place that tracing does not know.
    """
    told = settings(folder / CONFIG)
    places: dict[str, Any] = {
        "reads": place(told.get("feature_input_hook"), READS, "reads"),
        "writes": place(told.get("feature_output_hook"), WRITES, "writes"),
        "origin": Origin(str(told.get("model_name", folder)), "circuit-tracer"),
    }
    if told.get("model_kind") == "cross_layer_transcoder":
        return CrossLayerTranscoder(_cross_layers(folder, told, dtype), **places)
    if told.get("model_kind") != "transcoder_set":
        raise DictionaryError(
            f"{folder / CONFIG} says model_kind {told.get('model_kind')!r}.",
            "It has to be transcoder_set or cross_layer_transcoder.",
        )
    paths = _paths(folder, told)
    return TranscoderSet({layer: _transcoder(path, told, dtype) for layer, path in paths.items()}, **places)


def _paths(folder: Path, told: dict[str, Any]) -> dict[int, Path]:
    listed = told.get("transcoders")
    if listed:
        return {layer: inside(folder, str(name)) for layer, name in enumerate(listed)}
    found = {
        int(p.stem.rpartition("_")[2]): p for p in folder.glob("layer_*.safetensors") if p.stem[6:].isdigit()
    }
    return dict(sorted(found.items()))


def _activation(told: dict[str, Any], threshold: Tensor | None, k: int | None) -> Activation:
    if threshold is not None:
        return Activation("jumprelu", threshold=threshold)
    if told.get("activation") == "topk" or k:
        return Activation("topk", k=int(k or told.get("k") or 0), signed=True)
    return Activation()


def _transcoder(path: Path, told: dict[str, Any], dtype: torch.dtype) -> Transcoder:
    found = tensors(path, dtype)
    threshold = next((found[name] for name in _THRESHOLDS if name in found), None)
    k = int(found["k"]) if "k" in found else None
    w_enc, b_enc, w_dec, b_dec = (take(found, name, path) for name in ("W_enc", "b_enc", "W_dec", "b_dec"))
    return Transcoder(w_enc, b_enc, w_dec, b_dec, _activation(told, threshold, k), found.get("W_skip"))


def _cross_layers(folder: Path, told: dict[str, Any], dtype: torch.dtype) -> list[CrossLayer]:
    count = len(list(folder.glob("W_enc_*.safetensors")))
    parts = []
    for layer in range(count):
        path, decoder = folder / f"W_enc_{layer}.safetensors", folder / f"W_dec_{layer}.safetensors"
        found = tensors(path, dtype)
        w_enc, b_enc, b_dec = (take(found, f"{name}_{layer}", path) for name in ("W_enc", "b_enc", "b_dec"))
        activation = _activation(told, found.get(f"threshold_{layer}"), None)
        rows = [FileRows(decoder, f"W_dec_{layer}", i, dtype) for i in range(_written(decoder, layer))]
        parts.append(CrossLayer(w_enc, b_enc, rows, b_dec, activation, found.get(f"W_skip_{layer}")))
    return parts


def _written(path: Path, layer: int) -> int:
    """Layers that the decoders of a file write to."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return int(file.get_slice(f"W_dec_{layer}").get_shape()[1])
    except (OSError, SafetensorError, IndexError) as error:
        raise DictionaryError(f"{path} has no decoders W_dec_{layer}: {error}.", "Fetch it again.") from error


def save_circuit_tracer(
    dictionary: TranscoderSet | CrossLayerTranscoder, folder: Path | str, model_name: str
) -> None:
    """Write a dictionary as circuit-tracer reads it; skip matrices of a CLT are written as `W_skip_{i}`, which it ignores.

    Raises:
        DictionaryError: The format has no word for the activation, or layers are missing.
        OutputError: A file cannot be written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    crossing = isinstance(dictionary, CrossLayerTranscoder)
    parts: dict[int, Any] = dict(enumerate(dictionary.parts)) if crossing else dictionary.transcoders
    kinds = {(p.activation.kind, p.activation.k, p.activation.signed) for p in parts.values()}
    if len(kinds) > 1 or len(parts) != dictionary.layers:
        raise DictionaryError(
            "circuit-tracer needs every layer, all with one activation.", "Save it as otoscope's own."
        )
    kind, k, signed = kinds.pop()
    if kind == "batchtopk" or (kind == "topk" and not signed):
        raise DictionaryError(
            f"circuit-tracer has no activation {kind} with ReLU.", "Save it as otoscope's own."
        )
    for layer, part in parts.items():
        _write_cross_layer(folder, layer, part) if crossing else _write_transcoder(folder, layer, part)
    _write_config(
        dictionary, folder, model_name, "cross_layer_transcoder" if crossing else "transcoder_set", kind, k
    )


def _write_config(
    dictionary: TranscoderSet | CrossLayerTranscoder,
    folder: Path,
    name: str,
    kind: str,
    activation: str,
    k: int | None,
) -> None:
    import yaml

    told: dict[str, Any] = {
        "model_name": name,
        "model_kind": kind,
        "feature_input_hook": HOOK_OF_READS[dictionary.reads],
        "feature_output_hook": HOOK_OF_WRITES[dictionary.writes],
    }
    told |= {"activation": "topk", "k": k} if activation == "topk" else {}
    with atomic_write(folder / CONFIG) as file:
        yaml.safe_dump(told, file, sort_keys=False)


def _write_transcoder(folder: Path, layer: int, part: Transcoder) -> None:
    write_tensors(
        folder / f"layer_{layer}.safetensors",
        {
            "W_enc": part.w_enc,
            "b_enc": part.b_enc,
            "W_dec": as_rows(part.w_dec)[None],
            "b_dec": part.b_dec,
            "W_skip": part.w_skip,
            "activation_function.threshold": part.activation.threshold,
        },
    )


def _write_cross_layer(folder: Path, layer: int, part: CrossLayer) -> None:
    write_tensors(
        folder / f"W_enc_{layer}.safetensors",
        {
            f"W_enc_{layer}": part.w_enc,
            f"b_enc_{layer}": part.b_enc,
            f"b_dec_{layer}": part.b_dec,
            f"threshold_{layer}": part.activation.threshold,
            f"W_skip_{layer}": part.w_skip,
        },
    )
    decoders = torch.stack([as_rows(rows)[None] for rows in part.w_dec], dim=1)
    write_tensors(folder / f"W_dec_{layer}.safetensors", {f"W_dec_{layer}": decoders})
