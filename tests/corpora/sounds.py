"""Small recordings for the tests of this folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile


def write_sound(path: Path, seconds: float = 2.0, *, seed: int = 0, level: float = 0.1) -> np.ndarray:
    """Write noise in 32-bit floats at 16 kHz; its samples come back from reading unchanged."""
    noise = np.random.default_rng(seed).standard_normal(round(16_000 * seconds))
    return write_samples(path, level * noise)


def write_samples(path: Path, samples: np.ndarray) -> np.ndarray:
    samples = samples.astype(np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, 16_000, subtype="FLOAT")
    return samples
