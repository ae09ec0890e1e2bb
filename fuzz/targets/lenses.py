"""Tuned lenses: a header, and tensors under its checksum (made right again, so that what lies behind it is reached)."""

from __future__ import annotations

import hashlib
import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tests.conftest import tiny

from otoscope.lenses.tuned_lens import Translators, TunedLens, TunedSettings, fingerprint

FILES = ("tuned_lens.json", "tuned_lens.safetensors")


@cache
def _model() -> Any:
    return tiny("gpt2")


def seeds() -> list[tuple[bytes, bytes]]:
    """One of a small random model."""
    width, layers = _model().config.hidden_size, _model().config.num_hidden_layers
    maps = Translators(torch.zeros(layers, width, width), torch.zeros(layers, width))
    lens = TunedLens({"text": maps}, fingerprint(_model()), TunedSettings(), {"text": []})
    with tempfile.TemporaryDirectory() as folder:
        lens.save(folder)
        return [tuple((Path(folder) / name).read_bytes() for name in FILES)]  # pyright: ignore


def parse(folder: Path) -> None:
    """Read one and apply it."""
    _seal(folder)
    lens = TunedLens.load(folder, _model())
    layers, width = _model().config.num_hidden_layers, _model().config.hidden_size
    for stack in lens.stacks:
        moved = lens.apply([torch.zeros(1, width)] * layers, stack)
        assert all(each.shape == (1, width) for each in moved)


def _seal(folder: Path) -> None:
    try:
        told = json.loads((folder / FILES[0]).read_bytes())
        told["sha256"] = hashlib.sha256((folder / FILES[1]).read_bytes()).hexdigest()
        (folder / FILES[0]).write_text(json.dumps(told))
    except (ValueError, TypeError, OSError, RecursionError):
        pass
