"""Edits in one safetensors file, with JSON in its header."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from otoscope.activations import Edit
from otoscope.activations.edits import load_edits, save_edits

FILES = ("edits.safetensors",)


def seeds() -> list[tuple[bytes]]:
    """Edits of several operations and places."""
    edits = [
        Edit.zero("decoder_blocks.2.cross_attn.hook_z", heads=(0, 3), positions=5),
        Edit.mix("encoder_blocks.0.hook_resid_post", torch.ones(4), 0.5, rows=(1,), steps=(0, 2)),
        Edit.replace("decoder_blocks.2.cross_attn.hook_pattern", torch.zeros(1, 2), keys=(7,)),
    ]
    with tempfile.TemporaryDirectory() as folder:
        save_edits(edits, Path(folder) / FILES[0])
        return [((Path(folder) / FILES[0]).read_bytes(),)]


def parse(folder: Path) -> None:
    """Read them; saved and read again they are the same."""
    found = load_edits(folder / FILES[0])
    save_edits(found, folder / "again.safetensors")
    assert [edit.to_dict() for edit in load_edits(folder / "again.safetensors")] == [
        edit.to_dict() for edit in found
    ]
