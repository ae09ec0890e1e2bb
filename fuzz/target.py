"""What a fuzz target is: files that a parser reads, valid ones to start from, and what has to hold whatever they hold."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType

from otoscope.errors import OtoscopeError

SEPARATOR = b"\n--8<--\n"
"""Between the files of one case, so that a fuzzer has a single run of bytes to change."""

LONGEST_MESSAGE = 1_000

NAMES = tuple(
    sorted(
        path.stem for path in (Path(__file__).parent / "targets").glob("[a-z]*.py") if path.stem != "__init__"
    )
)
"""All targets, one module of `fuzz.targets` each."""


class BrokenPromiseError(AssertionError):
    """An error that is not told as a person needs it."""


@dataclass(frozen=True)
class Target:
    """One parser.

    Attributes:
        name: Its module's name.
        module: Has `FILES`, the names under which the parts of a case are laid into a folder; `seeds()`, valid cases, each the
            bytes of those files; and `parse(folder)`, which reads them and raises nothing but an `OtoscopeError`.
    """

    name: str
    module: ModuleType

    @classmethod
    def of(cls, name: str) -> Target:
        """The target of a name."""
        return cls(name, import_module(f"fuzz.targets.{name}"))

    def seeds(self) -> list[bytes]:
        """Valid cases."""
        return [SEPARATOR.join(files) for files in self.module.seeds()]

    def once(self, case: bytes, folder: Path) -> bool:
        """Parse one case in an empty folder, or one that the last case of this target was laid into.

        Returns:
            Whether it was valid.

        Raises:
            BrokenPromiseError: It was refused in a way that is not one reason and one remedy.
            Exception: Anything else that the parser let out, which is a bug.
        """
        lay(split(case, len(self.module.FILES)), self.module.FILES, folder)
        try:
            self.module.parse(folder)
        except OtoscopeError as error:
            _check_told(error)
            return False
        return True


def split(case: bytes, count: int) -> list[bytes | None]:
    """The files of a case; those that it does not have are None."""
    parts: list[bytes | None] = [*case.split(SEPARATOR, count - 1)]
    return parts + [None] * (count - len(parts))


def lay(parts: Sequence[bytes | None], names: Sequence[str], folder: Path) -> None:
    """Write the files of a case into a folder; those that it does not have are removed."""
    for part, name in zip(parts, names, strict=True):
        path = folder / name
        if part is None:
            path.unlink(missing_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(part)


def _check_told(error: OtoscopeError) -> None:
    for what, text in (("reason", error.reason), ("remedy", error.remedy)):
        if not text.strip():
            raise BrokenPromiseError(f"{type(error).__name__} without a {what}")
        if len(text) > LONGEST_MESSAGE:
            raise BrokenPromiseError(f"the {what} has {len(text)} characters")
        if not re.search(r"[.!?…]['\"”)]?\s*$", text) and what == "remedy":
            raise BrokenPromiseError(f"the {what} is no sentence: {text[:200]!r}")
