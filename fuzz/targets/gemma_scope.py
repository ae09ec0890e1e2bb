"""Gemma Scope's dictionaries: npz archives, whose arrays may be pickles and may unpack to anything."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from fuzz.small_dictionaries import FEATURES, model, use

FILES = ("layer_0/params.npz", "layer_1/params.npz")


def _archive(save: object = np.savez) -> bytes:
    width, file = model().config.hidden_size, io.BytesIO()
    save(  # pyright: ignore
        file, W_enc=np.ones((width, FEATURES), np.float32), b_enc=np.zeros(FEATURES, np.float32),
        W_dec=np.ones((FEATURES, width), np.float32), b_dec=np.zeros(width, np.float32),
        threshold=np.full(FEATURES, 0.5, np.float32),
    )  # fmt: skip
    return file.getvalue()


def seeds() -> list[tuple[bytes, ...]]:
    """Stored and packed."""
    return [(_archive(), _archive()), (_archive(np.savez_compressed), _archive())]


def parse(folder: Path) -> None:
    """See `use`."""
    use(folder)
