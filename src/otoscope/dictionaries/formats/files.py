"""What all formats share: tensors from safetensors and npz, settings from JSON and YAML, names of places."""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import torch

from otoscope.dictionaries.base import Reads, Writes
from otoscope.errors import DictionaryError
from otoscope.files import atomic_write
from otoscope.text_values import object_of, yaml_of

if TYPE_CHECKING:
    from torch import Tensor

_RATIO, _ALWAYS = 20, 2**26
"""How often its own size an archive may unpack to, and bytes that it always may: weights hardly shrink, zeros do."""

_DEEPEST = 3

READS: dict[str, Reads] = {
    "mlp.hook_in": "mlp_in",
    "ln2.hook_normalized": "normalized",
    "hook_resid_mid": "resid_mid",
    "hook_mlp_in": "resid_mid",  # TransformerLens' name for the copy of the stream that ln2 reads
}
"""TransformerLens' names of the places that features read."""

WRITES: dict[str, Writes] = {"mlp.hook_out": "mlp_raw", "hook_mlp_out": "mlp_out"}
"""And of those that they write."""

HOOK_OF_READS = {"mlp_in": "mlp.hook_in", "normalized": "ln2.hook_normalized", "resid_mid": "hook_resid_mid"}
HOOK_OF_WRITES = {"mlp_raw": "mlp.hook_out", "mlp_out": "hook_mlp_out"}


def place(hook: Any, known: Mapping[str, str], what: str) -> str:
    """A place by the hook that names it, with or without `blocks.N.` before it.

    Raises:
        DictionaryError: Features cannot be traced there.
    """
    plain = re.sub(r"^blocks\.\d+\.", "", str(hook))
    if plain not in known:
        raise DictionaryError(
            f"The dictionary {what} at {str(hook)!r}, which tracing does not know.",
            f"It knows {', '.join(known)}.",
        )
    return known[plain]


def below(folder: Path, pattern: str) -> Iterator[Path]:
    """Files of a folder and down to three folders inside it: Gemma Scope's lie that deep, and no whole disk is searched."""
    for depth in range(_DEEPEST + 1):
        yield from folder.glob("*/" * depth + pattern)


def tensors(path: Path, dtype: torch.dtype) -> dict[str, Tensor]:
    """Every tensor of a .safetensors or .npz file; floating ones in `dtype`.

    Raises:
        DictionaryError: The file is not there, damaged, or holds pickled objects.
    """
    try:
        if path.suffix == ".npz":
            import numpy as np

            _require_plain(path)
            with np.load(path, allow_pickle=False) as file:
                found = {name: torch.from_numpy(file[name]) for name in file.files}
        else:
            from safetensors.torch import load_file

            found = load_file(path)
    except Exception as error:  # every reader has its own errors for the same damage
        if isinstance(error, (MemoryError, KeyboardInterrupt)):
            raise
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise DictionaryError(f"{path} cannot be read: {reason}.", "Fetch the dictionary again.") from error
    return {name: t.to(dtype) if t.is_floating_point() else t for name, t in found.items()}


def _require_plain(path: Path) -> None:
    """Refuse an archive that unpacks to much more than it takes on disk, or arrays that announce more than they hold.

    Raises:
        ValueError: It is one.
        zipfile.BadZipFile: It is no archive.
    """
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        size = sum(member.file_size for member in members)
        if size > _ALWAYS + _RATIO * path.stat().st_size:
            raise ValueError(f"it would unpack to {size / 2**20:,.0f} MB")
        for member in members:
            with archive.open(member) as file:
                announced = _announced(file)
            if announced > member.file_size:
                raise ValueError(f"{member.filename[:80]} announces more than it holds")


def _announced(file: IO[bytes]) -> int:
    """Bytes that an array's head announces; 0 of objects, which NumPy itself refuses."""
    from numpy.lib import format as npy

    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    version = npy.read_magic(file)
    if version not in readers:
        raise ValueError(f"it holds an array of version {version}")
    shape, _, dtype = readers[version](file)
    return 0 if dtype.hasobject else math.prod(shape) * dtype.itemsize


def take(found: Mapping[str, Tensor], name: str, path: Path) -> Tensor:
    """One tensor of a file.

    Raises:
        DictionaryError: The file does not have it.
    """
    if name not in found:
        raise DictionaryError(
            f"{path} has no tensor {name!r}; it has {', '.join(sorted(found))}.", "Check which format it is."
        )
    return found[name]


def settings(path: Path) -> dict[str, Any]:
    """A JSON or YAML file that holds a table.

    Raises:
        DictionaryError: It cannot be read.
    """
    try:
        text = path.read_text("utf-8")
        table = object_of(text) if path.suffix == ".json" else yaml_of(text)
        if not isinstance(table, dict):
            raise ValueError("it holds no table")
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0][:200]
        raise DictionaryError(f"{path} cannot be read: {reason}.", "Fetch the dictionary again.") from error
    return table


def inside(folder: Path, name: str) -> Path:
    """A file that a settings file names, which must lie in its folder.

    Raises:
        DictionaryError: It names a place elsewhere, or on the hub.
    """
    if "://" in name:
        raise DictionaryError(
            f"{folder} names {name!r}, which is not here.", "Download it and name the local file."
        )
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise DictionaryError(
            f"{folder} names {name!r}, outside its own folder.", "Copy the file into the folder."
        )
    return path


def write_tensors(path: Path, found: Mapping[str, Tensor | None]) -> None:
    """Write tensors as safetensors; None is left out."""
    from safetensors.torch import save

    present = {name: tensor.contiguous().clone() for name, tensor in found.items() if tensor is not None}
    with atomic_write(path, "wb") as file:
        file.write(save(present))


def layer_in(name: str) -> int | None:
    """The layer that a path names (`layer_12`, `layers.12`, `blocks.12.`), or None."""
    found = re.findall(r"(?:layer|layers|blocks)[_.]?(\d+)", name)
    return int(found[-1]) if found else None
