"""SAELens' transcoders and autoencoders: one folder a layer, with `cfg.json` and `sae_weights.safetensors`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from otoscope.dictionaries.activation import Activation
from otoscope.dictionaries.base import Origin
from otoscope.dictionaries.formats.files import (
    HOOK_OF_READS,
    HOOK_OF_WRITES,
    READS,
    WRITES,
    below,
    layer_in,
    place,
    settings,
    take,
    tensors,
    write_tensors,
)
from otoscope.dictionaries.rows import as_rows
from otoscope.dictionaries.transcoder import Transcoder, TranscoderSet
from otoscope.errors import DictionaryError
from otoscope.files import atomic_write

if TYPE_CHECKING:
    from torch import Tensor

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
ARCHITECTURES = (
    "transcoder",
    "skip_transcoder",
    "jumprelu_transcoder",
    "jumprelu_skip_transcoder",
    "topk_transcoder",
)
"""Transcoders that are read; SAELens itself has no TopK transcoder."""

AUTOENCODERS = ("standard", "topk", "jumprelu")
"""Sparse autoencoders that are read."""


def load_sae_lens(
    folder: Path, dtype: torch.dtype = torch.float32, layers: int | None = None
) -> TranscoderSet:
    """Read one layer's folder, or a folder of them.

    Args:
        folder: Where they lie.
        dtype: Of the weights in memory.
        layers: Layers of the model, which the files do not tell; None: up to the last one that is there.

    Raises:
        DictionaryError: An architecture is no transcoder, activations are normalised in a way that is not folded into the
            weights, two folders are of one layer, or the layers read or write at different places.
    """
    folders = [folder] if (folder / CONFIG).exists() else sorted(p.parent for p in below(folder, CONFIG))
    found: dict[int, Transcoder] = {}
    places: set[tuple[str, str]] = set()
    for each in folders:
        told = settings(each / CONFIG)
        layer, where = _where(each, told)
        if layer in found:
            raise DictionaryError(f"{folder} has layer {layer} twice.", "Keep one folder a layer.")
        found[layer] = _transcoder(each, told, dtype)
        places.add(where)
    if len(places) != 1:
        raise DictionaryError(
            f"The layers in {folder} read or write at {len(places)} places.", "Use those of one."
        )
    reads, writes = places.pop()
    count = max(layers or 0, max(found) + 1)
    origin = Origin(folder.name, "saelens")
    return TranscoderSet(found, layers=count, reads=reads, writes=writes, origin=origin)  # type: ignore[arg-type]


def _where(folder: Path, told: dict[str, Any]) -> tuple[int, tuple[str, str]]:
    metadata = told.get("metadata") or told
    hook = str(metadata.get("hook_name"))
    layer = layer_in(hook)
    if layer is None:
        layer = layer_in(folder.name)
    if layer is None:
        raise DictionaryError(
            f"{folder / CONFIG} does not say its layer.", "Its hook_name has to be blocks.N.…"
        )
    if told.get("architecture") in AUTOENCODERS:
        return layer, ("point", "point")
    out = metadata.get("hook_name_out") or f"blocks.{layer}.hook_mlp_out"
    return layer, (place(hook, READS, "reads"), place(out, WRITES, "writes"))


def _transcoder(folder: Path, told: dict[str, Any], dtype: torch.dtype) -> Transcoder:
    path, kind = folder / WEIGHTS, told.get("architecture")
    if kind not in (*ARCHITECTURES, *AUTOENCODERS):
        raise DictionaryError(
            f"{folder / CONFIG} is of the architecture {kind!r}, which is not known.",
            f"Those that are read: {', '.join((*ARCHITECTURES, *AUTOENCODERS))}.",
        )
    if told.get("normalize_activations", "none") not in ("none", None) or told.get(
        "rescale_acts_by_decoder_norm"
    ):
        raise DictionaryError(
            f"{folder} normalises activations.", "Fold the normalisation into its weights first."
        )
    found = tensors(path, dtype)
    w_enc, b_enc, w_dec, b_dec = (take(found, name, path) for name in ("W_enc", "b_enc", "W_dec", "b_dec"))
    if told.get("apply_b_dec_to_input"):
        b_enc = b_enc - b_dec @ w_enc
    return Transcoder(
        w_enc.T.contiguous(), b_enc, w_dec, b_dec, _activation(str(kind), told, found), found.get("W_skip")
    )


def _activation(kind: str, told: dict[str, Any], found: dict[str, Tensor]) -> Activation:
    if kind.startswith("jumprelu"):
        return Activation("jumprelu", threshold=found.get("threshold"))
    return Activation("topk", k=int(told.get("k") or 0)) if kind.startswith("topk") else Activation()


def save_sae_lens(
    dictionary: TranscoderSet, folder: Path | str, model_name: str, point: str | None = None
) -> None:
    """Write one folder a layer, `layer_{i}`, as SAELens reads it.

    Args:
        dictionary: Transcoders or autoencoders.
        folder: Where to.
        model_name: What the model is called there.
        point: The point that autoencoders read, with a star or number for the layer; transcoders say theirs.

    Raises:
        DictionaryError: SAELens has no such activation, or the point of an autoencoder is not told.
        OutputError: A file cannot be written.
    """
    alone = dictionary.reads == "point"
    if alone and point is None:
        raise DictionaryError("An autoencoder does not say what it reads.", "Name its point.")
    for layer, part in dictionary.transcoders.items():
        allowed = ("relu", "jumprelu", "topk") if alone else ("relu", "jumprelu")
        if part.activation.kind not in allowed or (part.activation.kind == "topk" and part.activation.signed):
            raise DictionaryError(
                f"SAELens has no transcoder with {part.activation.kind}.", "Save it as otoscope's own."
            )
        own = Path(folder) / f"layer_{layer}"
        own.mkdir(parents=True, exist_ok=True)
        write_tensors(own / WEIGHTS, _tensors_of(part))
        with atomic_write(own / CONFIG) as file:
            json.dump(_config(dictionary, layer, part, model_name, point), file, indent=1)


def _tensors_of(part: Transcoder) -> dict[str, Tensor | None]:
    return {
        "W_enc": part.w_enc.T,
        "W_dec": as_rows(part.w_dec)[None],
        "b_enc": part.b_enc,
        "b_dec": part.b_dec,
        "threshold": part.activation.threshold,
        "W_skip": part.w_skip,
    }


def _config(
    dictionary: TranscoderSet, layer: int, part: Transcoder, model_name: str, point: str | None
) -> dict[str, Any]:
    jump, skip = part.activation.kind == "jumprelu", part.w_skip is not None
    told: dict[str, Any]
    if dictionary.reads == "point":
        kind = part.activation.kind
        told = {"architecture": "standard" if kind == "relu" else kind}
        if kind == "topk":
            told |= {"k": part.activation.k, "rescale_acts_by_decoder_norm": False}
        hook = re.sub(r"\.(\d+|\*)\.", f".{layer}.", str(point), count=1)
        places = {"hook_name": hook}
    else:
        told = {"architecture": f"{'jumprelu_' * jump}{'skip_' * skip}transcoder"}
        places = {
            "hook_name": f"blocks.{layer}.{HOOK_OF_READS[dictionary.reads]}",
            "hook_name_out": f"blocks.{layer}.{HOOK_OF_WRITES[dictionary.writes]}",
        }
    return told | {
        "d_in": part.w_enc.shape[1],
        "d_sae": len(part.w_enc),
        "d_out": len(part.b_dec),
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": False,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {
            "sae_lens_version": "6.54.0",  # older ones are converted in ways that change the numbers
            "model_name": model_name,
            **places,
        },
    }
