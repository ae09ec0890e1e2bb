"""Dictionaries in otoscope's own format."""

from __future__ import annotations

from pathlib import Path

from fuzz.small_dictionaries import cross_layer, files_of, transcoders, use
from otoscope.dictionaries.formats.own import save_dictionary

FILES = ("dictionary.json", "layer_0.safetensors", "layer_1.safetensors")


def seeds() -> list[tuple[bytes, ...]]:
    """Transcoders and a cross-layer transcoder."""
    made = (transcoders(), transcoders("batchtopk"), cross_layer("topk"))
    return [files_of(lambda folder, one=one: save_dictionary(one, folder), FILES) for one in made]


def parse(folder: Path) -> None:
    """See `use`."""
    use(folder)
