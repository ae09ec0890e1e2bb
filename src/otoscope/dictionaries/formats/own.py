"""The own format: `dictionary.json` and one `layer_{i}.safetensors` a layer, in one folder.

Tensors are `w_enc`, `b_enc`, `b_dec`, `w_dec` (transcoders) or `w_dec.{out}` (cross-layer), and where they apply `threshold` and
`w_skip`, in the shapes of `Transcoder` and `CrossLayer`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from otoscope.dictionaries.activation import Activation
from otoscope.dictionaries.base import Origin
from otoscope.dictionaries.cross_layer import CrossLayer, CrossLayerTranscoder
from otoscope.dictionaries.formats.files import settings, take, tensors, write_tensors
from otoscope.dictionaries.rows import FileRows, as_rows
from otoscope.dictionaries.transcoder import Transcoder, TranscoderSet
from otoscope.errors import DictionaryError
from otoscope.files import atomic_write

if TYPE_CHECKING:
    from torch import Tensor

FORMAT, VERSION, HEADER = "otoscope.dictionary", 1, "dictionary.json"


def save_dictionary(dictionary: TranscoderSet | CrossLayerTranscoder, folder: Path | str) -> None:
    """Write a dictionary into a folder, which is made if it is not there.

    Raises:
        OutputError: A file cannot be written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    crossing = isinstance(dictionary, CrossLayerTranscoder)
    parts: dict[int, Any] = dict(enumerate(dictionary.parts)) if crossing else dictionary.transcoders
    for layer, part in parts.items():
        write_tensors(folder / f"layer_{layer}.safetensors", _tensors_of(layer, part))
    told = {
        "format": FORMAT,
        "version": VERSION,
        "kind": "cross_layer" if crossing else "transcoders",
        "layers": dictionary.layers,
        "reads": dictionary.reads,
        "writes": dictionary.writes,
        "activation": {str(layer): part.activation.describe() for layer, part in parts.items()},
        "name": dictionary.origin.name,
    }
    with atomic_write(folder / HEADER) as file:
        json.dump(told, file, indent=1)  # ASCII: a name from elsewhere need not be Unicode


def _tensors_of(layer: int, part: Transcoder | CrossLayer) -> dict[str, Tensor | None]:
    told: dict[str, Tensor | None] = {
        "w_enc": part.w_enc,
        "b_enc": part.b_enc,
        "b_dec": part.b_dec,
        "w_skip": part.w_skip,
        "threshold": part.activation.threshold,
    }
    if isinstance(part, Transcoder):
        return told | {"w_dec": as_rows(part.w_dec)[None]}
    return told | {f"w_dec.{layer + i}": as_rows(rows)[None] for i, rows in enumerate(part.w_dec)}


def load_own(folder: Path, dtype: torch.dtype = torch.float32) -> TranscoderSet | CrossLayerTranscoder:
    """Read what `save_dictionary` wrote; decoder rows of cross-layer transcoders when they are needed.

    Raises:
        DictionaryError: A file is damaged or of a later version.
    """
    told = settings(folder / HEADER)
    if told.get("format") != FORMAT or told.get("version", VERSION + 1) > VERSION:
        raise DictionaryError(
            f"{folder / HEADER} is of another format or a later version.", "Update otoscope."
        )
    if type(told["layers"]) is not int:
        raise DictionaryError(
            f"{folder / HEADER} does not say how many layers there are.", "Fetch or save it again."
        )
    places = {"reads": told["reads"], "writes": told["writes"], "origin": Origin(told["name"], "otoscope")}
    layers = sorted(int(layer) for layer in told["activation"])
    if told["kind"] == "cross_layer":
        if layers != list(range(len(layers))) or told["layers"] != len(layers):
            raise DictionaryError(
                f"{folder / HEADER} does not tell of every layer.", "Fetch or save it again."
            )
        parts = [_cross_layer(folder, layer, told, dtype) for layer in layers]
        return CrossLayerTranscoder(parts, **places)
    found = {layer: _transcoder(folder, layer, told, dtype) for layer in layers}
    return TranscoderSet(found, layers=told["layers"], **places)


def _part(
    folder: Path, layer: int, told: dict[str, Any], dtype: torch.dtype
) -> tuple[Path, dict, Activation]:
    path = folder / f"layer_{layer}.safetensors"
    found = tensors(path, dtype)
    said = told["activation"][str(layer)]
    activation = Activation(said["kind"], said.get("k"), found.get("threshold"), said.get("signed", False))
    return path, found, activation


def _transcoder(folder: Path, layer: int, told: dict[str, Any], dtype: torch.dtype) -> Transcoder:
    path, found, activation = _part(folder, layer, told, dtype)
    w_enc, b_enc, w_dec, b_dec = (take(found, name, path) for name in ("w_enc", "b_enc", "w_dec", "b_dec"))
    return Transcoder(w_enc, b_enc, w_dec, b_dec, activation, found.get("w_skip"))


def _cross_layer(folder: Path, layer: int, told: dict[str, Any], dtype: torch.dtype) -> CrossLayer:
    path, found, activation = _part(folder, layer, told, dtype)
    w_enc, b_enc, b_dec = (take(found, name, path) for name in ("w_enc", "b_enc", "b_dec"))
    rows = [FileRows(path, f"w_dec.{out}", None, dtype) for out in range(layer, told["layers"])]
    return CrossLayer(w_enc, b_enc, rows, b_dec, activation, found.get("w_skip"))
