"""A directory that explains itself and can be resumed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otoscope.errors import OptionError, OutputError
from otoscope.files import atomic_write, output_error, remove_abandoned
from otoscope.progress import goes_on_in, notice
from otoscope.text_values import object_in
from otoscope.versions import versions

if TYPE_CHECKING:
    import pandas as pd

DESCRIPTION = "run.json"
_LOCK = ".lock"


class Run:
    """A job's directory: `run.json` says what the job is, parts hold its results.

    A part is a Parquet file `NAME-00003.parquet`, written whole or not at all. A job asks `has_part` before it computes one, so
    that a killed job loses one part at most. Open one with `Run.opened`.

    Attributes:
        path: The directory.
        kind: What the job is, such as `activations`.
        settings: Everything that the results depend on, as JSON holds it.
    """

    def __init__(self, path: Path, kind: str, settings: Mapping[str, Any]) -> None:
        self.path = path
        self.kind = kind
        self.settings = dict(settings)

    @classmethod
    @contextmanager
    def opened(cls, path: Path | str, kind: str, settings: Mapping[str, Any]) -> Iterator[Run]:
        """Begin a job in a directory, or go on with the same job; nobody else may work in it meanwhile.

        Args:
            path: The directory; made if it is not there.
            kind: What the job is.
            settings: JSON values that the results depend on.

        An interrupt inside the block carries a note (PEP 678) that says where the job goes on.

        Raises:
            OptionError: The directory belongs to another job, or to the same with other settings.
            OutputError: It cannot be written, holds other files, or another process works in it.
        """
        from filelock import FileLock, Timeout

        path = Path(path)
        settings = json.loads(json.dumps(settings))
        _make(path)
        _refuse_foreign(path)
        lock = FileLock(path / _LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise OutputError(
                f"Another process works in {path}.",
                "Wait until it has finished, or choose another directory.",
            ) from error
        except OSError as error:
            raise output_error(path, error) from error
        try:
            run = cls(path, kind, settings)
            run._describe()
            remove_abandoned(path)
            with goes_on_in(path):
                yield run
        finally:
            lock.release()

    @classmethod
    def read(cls, path: Path | str, kind: str | None = None) -> Run:
        """A run to read from, under way or finished.

        Raises:
            OptionError: The directory is no run, or one of another kind.
        """
        path = Path(path)
        described = _description(path)
        if described is None:
            raise OptionError(f"{path} is no run of otoscope.", f"Name a directory that holds {DESCRIPTION}.")
        if kind is not None and described["kind"] != kind:
            raise OptionError(
                f"{path} holds {described['kind']}, not {kind}.", f"Name a directory that holds {kind}."
            )
        return cls(path, described["kind"], described["settings"])

    @staticmethod
    @contextmanager
    def kept_free(path: Path | str) -> Iterator[bool]:
        """Whether no process works in a directory; then none begins to for the length of the block."""
        from filelock import FileLock, Timeout

        lock = FileLock(Path(path) / _LOCK)
        try:
            lock.acquire(timeout=0)
        except (Timeout, OSError):
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def _describe(self) -> None:
        """Write `run.json`, or compare with the one that is there."""
        there = _description(self.path)
        if there is not None:
            self._compare(there)
            return
        made_with = {"kind": self.kind, "settings": self.settings, "versions": versions()}
        with atomic_write(self.path / DESCRIPTION) as file:
            json.dump(made_with, file, indent=1)

    def _compare(self, there: Mapping[str, Any]) -> None:
        if there["kind"] != self.kind:
            raise OptionError(
                f"{self.path} holds another job ({there['kind']}).", "Choose another directory for this one."
            )
        differing = _first_difference(there["settings"], self.settings)
        if differing:
            key, old, new = differing
            plain = not any(isinstance(value, list | dict) for value in (old, new))
            said = f"{key} = {_brief(old)}, now it is {_brief(new)}" if plain else f"other {key}"
            raise OptionError(
                f"{self.path} was begun with {said}.",
                "Use the settings it was begun with, or choose another directory.",
            )
        if there.get("versions") != versions():
            notice(
                f"{self.path} was begun with other versions of the software; its parts may differ slightly."
            )

    # Parts -----------------------------------------------------------------------------------------------------------

    def part(self, name: str, number: int) -> Path:
        """Path of one part of a table."""
        return self.path / f"{name}-{number:05d}.parquet"

    def has_part(self, name: str, number: int) -> bool:
        """Whether this part is finished."""
        return self.part(name, number).exists()

    def parts(self, name: str) -> list[int]:
        """Numbers of the finished parts, ascending."""
        pattern = re.compile(re.escape(name) + r"-(\d{5,})\.parquet")
        found = (pattern.fullmatch(path.name) for path in self.path.iterdir())
        return sorted(int(match[1]) for match in found if match)

    def write_part(self, name: str, number: int, table: pd.DataFrame) -> None:
        """Write one part of a table, whole or not at all.

        Raises:
            OutputError: It cannot be written.
        """
        with atomic_write(self.part(name, number), "wb") as file:
            table.to_parquet(file, index=False)

    def read_part(self, name: str, number: int, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """One finished part of a table.

        Args:
            name: The table.
            number: Which part.
            columns: What to read; None: everything.

        Raises:
            OptionError: It is damaged.
        """
        import pandas as pd

        try:
            return pd.read_parquet(
                self.part(name, number), columns=None if columns is None else list(columns)
            )
        except (OSError, ValueError) as error:  # Arrow's errors are of these kinds
            raise self.damaged(name, number) from error

    def damaged(self, name: str, number: int) -> OptionError:
        """What to say of a part that is none; it is computed again when it is gone."""
        return OptionError(
            f"{self.part(name, number)} is damaged.", "Delete this file, and give the same command again."
        )

    def table(self, name: str) -> pd.DataFrame:
        """All finished parts of a table, in order; no rows if there are none."""
        import pandas as pd

        parts = [self.read_part(name, number) for number in self.parts(name)]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, {self.kind})"


def _make(path: Path) -> None:
    if path.is_file():
        raise OutputError(f"{path} is a file.", "Name a directory.")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(path, error) from error


def _refuse_foreign(path: Path) -> None:
    """Refuse a directory that holds other files, before anything is put into it."""
    if _description(path) is None:
        others = [p.name for p in path.iterdir() if p.name != _LOCK and not p.name.endswith(".part")]
        if others:
            raise OutputError(
                f"{path} is not empty and holds no {DESCRIPTION}.", "Choose a new or empty directory."
            )


def _description(path: Path) -> dict[str, Any] | None:
    try:
        described = object_in(path / DESCRIPTION)
        return {**described, "kind": str(described["kind"]), "settings": dict(described["settings"])}
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OptionError(
            f"{path / DESCRIPTION} cannot be read ({type(error).__name__}).",
            "Delete the directory, or choose another.",
        ) from error


def _first_difference(
    old: Mapping[str, Any], new: Mapping[str, Any], under: str = ""
) -> tuple[str, Any, Any] | None:
    for key in dict.fromkeys([*old, *new]):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found = _first_difference(a, b, f"{under}{key}.")
            if found:
                return found
        elif a != b:
            return f"{under}{key}", a, b
    return None


def _brief(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
