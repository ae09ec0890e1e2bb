"""Linear probes in one safetensors file, with JSON in its header."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from otoscope.probes.linear import LinearProbe, load_probes, save_probes

FILES = ("probes.safetensors",)


def seeds() -> list[tuple[bytes]]:
    """Probes of two layers."""
    probes = {
        i: LinearProbe(np.ones((2, 4), np.float32), np.zeros(2, np.float32), ("f", "m")) for i in (0, 3)
    }
    with tempfile.TemporaryDirectory() as folder:
        save_probes(
            Path(folder) / FILES[0],
            probes,
            {"model": "m", "label": "gender", "stack": "encoder", "pool": "mean"},
        )
        return [((Path(folder) / FILES[0]).read_bytes(),)]


def parse(folder: Path) -> None:
    """Read them and ask each."""
    probes, _ = load_probes(folder / FILES[0])
    for probe in probes.values():
        assert len(probe.predict(np.zeros((3, probe.weight.shape[-1])))) == 3
