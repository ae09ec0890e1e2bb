"""What a result was made with."""

from __future__ import annotations

import platform
from importlib.metadata import version

_PACKAGES = ("otoscope", "torch", "transformers", "numpy", "soundfile", "soxr")


def versions() -> dict[str, str]:
    """Python and the packages that a number depends on, with their versions."""
    return {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES}
