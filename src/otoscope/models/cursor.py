"""A cursor over a binary file that never believes a size: what the file does not hold is neither read nor made room for."""

from __future__ import annotations

import os
import struct
from abc import ABC, abstractmethod
from pathlib import Path
from typing import IO

from otoscope.errors import ModelError


class Cursor(ABC):
    """Goes through a file from its start.

    Args:
        path: The file's name, for what is said of it.
        file: The file, opened.
    """

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self.path, self.file = path, file
        self.left = os.fstat(file.fileno()).st_size

    @abstractmethod
    def too_short(self) -> ModelError:
        """What is said of a file that announces more than it holds."""

    def integer(self, form: str) -> int:
        """The next number, of a form that `struct` knows."""
        return struct.unpack(form, self.raw(struct.calcsize(form)))[0]

    def raw(self, size: int) -> bytes:
        """The next bytes."""
        self.take(size)
        found = self.file.read(size)
        if len(found) != size:
            raise self.too_short()
        return found

    def skip(self, size: int) -> None:
        """Pass the next bytes over."""
        self.take(size)
        self.file.seek(size, os.SEEK_CUR)

    def take(self, size: int) -> None:
        """Count the next bytes as read, before anything is done with them."""
        self.require(size)
        self.left -= size

    def require(self, size: int) -> None:
        """Refuse a file in which so many bytes are not left."""
        if size > self.left:
            raise self.too_short()
