"""Activations of a corpus on disk: vectors in safetensors shards, and a Parquet index that says whose they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from otoscope.errors import OptionError
from otoscope.files import atomic_write
from otoscope.runs.run import Run

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

KIND = "activations"
_INDEX = "index"


class ActivationStore:
    """Vectors of recordings, shard by shard.

    A shard is `vectors-00003.safetensors` with one tensor `(row, d)` a name (such as `encoder.mean.2`) and, written after it,
    `index-00003.parquet` with one line an item. A shard counts once its index is there. Only what is asked for is read.

    Args:
        run: A run of kind `activations`, open to append to or only to be read.
    """

    def __init__(self, run: Run) -> None:
        self.run = run

    @classmethod
    def read_from(cls, path: Path | str) -> ActivationStore:
        """A store to read from.

        Raises:
            OptionError: The directory holds no activations.
        """
        return cls(Run.read(path, KIND))

    def has(self, shard: int) -> bool:
        """Whether this shard is finished."""
        return self.run.has_part(_INDEX, shard)

    @property
    def shards(self) -> list[int]:
        """Numbers of the finished shards, ascending."""
        return self.run.parts(_INDEX)

    @property
    def files(self) -> list[Path]:
        """Files with the vectors of the finished shards, in order."""
        return [self._vectors(shard) for shard in self.shards]

    def append(self, shard: int, vectors: Mapping[str, np.ndarray], index: pd.DataFrame) -> None:
        """Write one shard: its vectors first, then the index that makes it count.

        Args:
            shard: Its number.
            vectors: `(row, d)` each; rows in the order of the index's lines that have `reason` null.
            index: One line an item; `reason` tells why an item has no vectors.

        Raises:
            OutputError: The shard cannot be written.
        """
        from safetensors.numpy import save_file

        with atomic_write(self._vectors(shard), "wb") as file:
            # Not through `save`, which makes a copy of them all.
            save_file({name: _contiguous(x) for name, x in vectors.items()}, file.name)
        self.run.write_part(_INDEX, shard, index)

    @contextmanager
    def written_behind(self) -> Iterator[Callable[[int, Mapping[str, np.ndarray], pd.DataFrame], None]]:
        """Append while the next shard is computed: a disk is waited for, not worked for. Two shards are in memory then.

        Yields:
            `append`. It returns once the shard before is written; the block ends once all are.

        Raises:
            OutputError: A shard cannot be written; by the next `append`, or at the end of the block.
        """
        before: Future[None] | None = None

        def append(shard: int, vectors: Mapping[str, np.ndarray], index: pd.DataFrame) -> None:
            nonlocal before
            if before is not None:
                before.result()
            before = writer.submit(self.append, shard, vectors, index)

        with ThreadPoolExecutor(1, "store") as writer:
            yield append
            if before is not None:
                before.result()

    @cached_property
    def _table(self) -> pd.DataFrame:
        return self.run.table(_INDEX)

    @property
    def index(self) -> pd.DataFrame:
        """The items that have vectors, one line each, in the order of the rows."""
        table = self._table
        return table[table["reason"].isna()].reset_index(drop=True) if len(table) else table  # type: ignore[return-value]

    @property
    def skipped(self) -> pd.DataFrame:
        """The items that could not be read, with `reason` and `remedy`."""
        table = self._table
        return table[table["reason"].notna()].reset_index(drop=True) if len(table) else table  # type: ignore[return-value]

    @cached_property
    def names(self) -> list[str]:
        """Names of the vectors, sorted."""
        from safetensors import safe_open

        for shard in self.shards:
            with safe_open(self._vectors(shard), "np") as file:
                if file.keys():
                    return sorted(file.keys())
        return []

    def read(self, name: str) -> np.ndarray:
        """Vectors `(row, d)` of one name, over all shards.

        Raises:
            OptionError: There are no such vectors.
        """
        import numpy as np
        from safetensors import SafetensorError, safe_open

        if name not in self.names:
            raise OptionError(f"{self.run.path} holds no {name}.", f"It holds: {', '.join(self.names)}.")
        parts = []
        for shard in self.shards:
            try:
                with safe_open(self._vectors(shard), "np") as file:
                    if name in file.keys():  # noqa: SIM118 - no mapping; a shard of unreadable items is empty
                        parts.append(file.get_tensor(name))
            except (OSError, SafetensorError) as error:
                path = self._vectors(shard)
                raise OptionError(
                    f"{path} is damaged.", f"Delete {self.run.part(_INDEX, shard)} and harvest again."
                ) from error
        return np.concatenate(parts)

    @property
    def nbytes(self) -> int:
        """Bytes on disk."""
        return sum(self._vectors(shard).stat().st_size for shard in self.shards)

    def _vectors(self, shard: int) -> Path:
        return self.run.path / f"vectors-{shard:05d}.safetensors"

    def __repr__(self) -> str:
        return f"ActivationStore({str(self.run.path)!r}, {len(self.index)} items, {len(self.names)} names)"


def _contiguous(x: np.ndarray) -> np.ndarray:
    import numpy as np

    return np.ascontiguousarray(x)
