"""The head of a GGUF file (versions 2 and 3), walked through before a reader that believes it is let loose on it.

A head is u32 magic, u32 version, u64 tensor count, u64 field count; per field a key, a u32 type and a value; per tensor a name,
u32 axes, u64 sizes, u32 type, u64 offset. A text is a u64 length and bytes; an array is a u32 type, a u64 count and items. All is
little-endian. Source: the specification of GGUF in the ggml project (`docs/gguf.md`).
"""

from __future__ import annotations

from pathlib import Path

from otoscope.errors import ModelError
from otoscope.models.cursor import Cursor

_SCALARS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of each type that has a fixed size."""

_TEXT, _ARRAY = 8, 9
_UNSIGNED = {0: "<B", 2: "<H", 4: "<I", 10: "<Q"}
_MOST_AXES = 4
_LONGEST_NAME = 2**16 - 1  # bytes of a key, by the specification
_DEEPEST = 4  # arrays in arrays
_LAYERS = ".block_count"


def check_head(path: Path) -> None:
    """Refuse a file whose head announces more than the file holds, or more layers than it has tensors.

    Raises:
        ModelError: It does, or is no GGUF file.
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        _Head(path, file).check()


class _Head(Cursor):
    """The head; nothing that it holds is kept."""

    def check(self) -> None:
        if self.raw(4) != b"GGUF":
            raise self._corrupted("it does not begin like one")
        version = self.integer("<I")
        if version not in (2, 3):
            raise self._corrupted(f"its version is {version}, not 2 or 3")
        tensors, fields = self.integer("<Q"), self.integer("<Q")
        self.require(13 * fields)  # bytes of the least field: an empty key, its type, a value of one byte
        layers = 0
        for _ in range(fields):
            name = self._text(_LONGEST_NAME)
            kind = self.integer("<I")
            if name.endswith(_LAYERS.encode()) and kind in _UNSIGNED:
                layers = self.integer(_UNSIGNED[kind])
            else:
                self._skip_value(kind)
        if layers > tensors:
            raise self._corrupted(f"it announces {layers} layers and has {tensors} tensors")
        self.require(24 * tensors)
        for _ in range(tensors):
            self._skip_tensor()

    def _skip_tensor(self) -> None:
        self._text(_LONGEST_NAME)
        axes = self.integer("<I")
        if axes > _MOST_AXES:
            raise self._corrupted(f"a tensor has {axes} axes")
        self.skip(8 * axes + 12)

    def _skip_value(self, kind: int, depth: int = 0) -> None:
        if kind in _SCALARS:
            self.skip(_SCALARS[kind])
        elif kind == _TEXT:
            self.skip(self.integer("<Q"))
        elif kind == _ARRAY and depth < _DEEPEST:
            self._skip_array(depth)
        else:
            raise self._corrupted("a field is of an unknown type, or of arrays in arrays without end")

    def _skip_array(self, depth: int) -> None:
        kind, count = self.integer("<I"), self.integer("<Q")
        if kind in _SCALARS:
            self.skip(_SCALARS[kind] * count)
            return
        self.require(8 * count)  # every other item begins with a length
        for _ in range(count):
            self._skip_value(kind, depth + 1)

    def _text(self, longest: int) -> bytes:
        size = self.integer("<Q")
        if size > longest:
            raise self._corrupted(f"a name has {size} bytes")
        return self.raw(size)

    def too_short(self) -> ModelError:
        return self._corrupted("it announces more than it holds")

    def _corrupted(self, what: str) -> ModelError:
        return ModelError(f"{self.path} is no whole GGUF file: {what}.", "Fetch the file again.")
