"""The recordings that ship with the package."""

from __future__ import annotations

from pathlib import Path

from otoscope.errors import AudioError

NAMES = ("jfk", "austen-0870", "austen-0880", "austen-0890")
"""The recordings that ship with the package."""

_FOLDER = Path(__file__).parent / "samples"


def sample(name: str = "jfk") -> Path:
    """Path of a shipped public-domain recording: `jfk`, `austen-0870`, `austen-0880` or `austen-0890`.

    Raises:
        AudioError: There is no such recording.
    """
    if name not in NAMES:
        raise AudioError(f"There is no sample recording {name!r}.", f"Choose one of: {', '.join(NAMES)}.")
    return _FOLDER / f"{name}.flac"


def where_else(path: Path | str, otherwise: str = "Check the path.") -> str:
    """What to do about a recording that is not there: a sample's name, as examples write it, leads to the sample."""
    name = Path(path).name.removesuffix(".flac")
    return f"The sample of that name is {sample(name)}." if name in NAMES else otherwise
