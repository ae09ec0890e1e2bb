"""Monitors: `monitor.json` and tensors, read and made to score a text."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import numpy as np
from tests.conftest import tiny
from tests.monitors.monitors_of import random_monitor

from otoscope.monitors.monitor import Monitor

FILES = ("monitor.json", "monitor.safetensors")


@cache
def _model() -> object:
    return tiny("whisper")


def seeds() -> list[tuple[bytes, bytes]]:
    """Some with random weights: of the model alone, and with features of a dictionary."""
    return [_saved(None), _saved([[0, 1], [1, 3], [1, 2]])]


def _saved(chosen: list[list[int]] | None) -> tuple[bytes, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        random_monitor(_model(), chosen=chosen).save(folder)
        return tuple((Path(folder) / name).read_bytes() for name in FILES)  # pyright: ignore


def parse(folder: Path) -> None:
    """Read one, show it, set it, and let its head judge one step."""
    monitor = Monitor.load(folder)
    monitor.card()
    monitor.at(0.1)
    assert monitor.digest
    state, logits = monitor.head.advance(monitor.head.start(), np.zeros((1, len(monitor.head.mean))))
    assert state.shape == monitor.head.start().shape
    assert logits.shape == (1, len(monitor.slope))
