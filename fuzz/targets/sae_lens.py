"""SAELens' dictionaries: JSON and safetensors, a folder a layer."""

from __future__ import annotations

from pathlib import Path

from fuzz.small_dictionaries import files_of, transcoders, use
from otoscope.dictionaries.formats.sae_lens import save_sae_lens

FILES = tuple(f"layer_{layer}/{name}" for layer in (0, 1) for name in ("cfg.json", "sae_weights.safetensors"))


def seeds() -> list[tuple[bytes, ...]]:
    """Transcoders."""
    made = (transcoders("jumprelu"), transcoders("relu"))
    return [files_of(lambda folder, one=one: save_sae_lens(one, folder, "m"), FILES) for one in made]


def parse(folder: Path) -> None:
    """See `use`."""
    use(folder)
