"""Repairs: `repair.json`, edits and weights."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from otoscope.activations import Edit
from otoscope.mending.breaker import Breaker
from otoscope.mending.features import FeatureGate
from otoscope.mending.repair import Repair, load_repair

FILES = ("repair.json", "edits.safetensors", "weights.safetensors")


def seeds() -> list[tuple[bytes, ...]]:
    """One with a part of every kind."""
    facts = {"name": "m", "family": "whisper", "source": "s", "digest": "0" * 64}
    repair = Repair(
        "all of it", facts,
        edits=(Edit.scale("decoder_blocks.1.hook_mlp_out", -3.0), Edit.add("decoder_blocks.0.hook_attn_out", torch.ones(4))),
        features=(FeatureGate("neurons", "decoder_blocks.0.mlp", (1, 2)),),
        weights={"model.decoder.layers.0.fc2.weight": torch.ones(2, 3)},
        breaker=Breaker(4, 9, action="forbid"), made={"seed": 3},
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        repair.save(folder)
        return [tuple((Path(folder) / name).read_bytes() for name in FILES)]


def parse(folder: Path) -> None:
    """Read one; saved and read again it is the same."""
    found = load_repair(folder)
    with tempfile.TemporaryDirectory() as other:
        assert load_repair(found.save(other)).to_dict() == found.to_dict()
    assert found.stacks <= {"encoder", "decoder"}
