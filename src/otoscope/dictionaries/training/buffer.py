"""Vectors in random order from a stream that is too long to hold, repeatable and resumable.

The stream is cut into blocks that fit into memory; each is shuffled whole. So the state of the buffer is a place in the stream
and a few numbers, no vectors: who goes on reads one block again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch

from otoscope.errors import OptionError

if TYPE_CHECKING:
    from torch import Tensor


class Vectors(NamedTuple):
    """What layers read, and what is to be written.

    Attributes:
        inputs: `(layer, n, d_in)`.
        targets: `(layer, n, d_out)`; None: the inputs themselves.
    """

    inputs: Tensor
    targets: Tensor | None = None

    def rows(self, which: slice | Tensor) -> Vectors:
        """Some of the rows, in the order that is asked for."""
        return Vectors(*(None if x is None else x[:, which] for x in self))  # type: ignore[arg-type]


Source = Callable[[int], Iterator[Vectors]]
"""A stream from its chunk of this number on (from 0); the same chunks whenever it is asked."""


class ShuffleBuffer:
    """Batches of a stream, shuffled block by block.

    Iterating ends when the stream ends; its last vectors that fill no batch are left out.

    Args:
        source: The stream.
        batch: Vectors a batch.
        capacity: Vectors that are shuffled together; what is held in memory.
        seed: Of the order.

    Raises:
        OptionError: Not even one batch fits in.
    """

    def __init__(self, source: Source, *, batch: int, capacity: int, seed: int = 0) -> None:
        if not 1 <= batch <= capacity:
            raise OptionError(
                f"A buffer of {capacity} vectors cannot give batches of {batch}.",
                "Choose a capacity of many batches.",
            )
        self.batch, self.capacity, self.seed = batch, capacity - capacity % batch, seed
        self._source = source
        self.restore({"block": 0, "batch": 0, "chunk": 0, "row": 0})

    def state(self) -> dict[str, int]:
        """Where it is, JSON-ready: `restore` makes a buffer of the same source and seed go on from there."""
        return {"block": self._block, "batch": self._given, "chunk": self._start[0], "row": self._start[1]}

    def restore(self, state: dict[str, int]) -> None:
        """Go to where another buffer was."""
        self._block, self._given = state["block"], state["batch"]
        self._start = (state["chunk"], state["row"])
        self._next = self._start  # first row that is not in the block
        self._chunks: Iterator[Vectors] | None = None
        self._rest: Vectors | None = None
        self._held: Vectors | None = None

    def __iter__(self) -> ShuffleBuffer:
        return self

    def __next__(self) -> Vectors:
        while True:
            if self._held is None:
                self._fill()
            held = 0 if self._held is None else self._held.inputs.shape[1]
            first = self._given * self.batch
            if self._held is not None and first + self.batch <= held:
                self._given += 1
                return self._held.rows(self._order[first : first + self.batch])
            if held < self.capacity:  # the stream has ended
                raise StopIteration
            self._block, self._given, self._start, self._held = self._block + 1, 0, self._next, None

    def _fill(self) -> None:
        pieces, room = [], self.capacity
        while room and (piece := self._take(room)) is not None:
            pieces.append(piece)
            room -= piece.inputs.shape[1]
        if not pieces:
            return
        whole = [torch.cat(parts, dim=1) for parts in zip(*pieces, strict=True) if parts[0] is not None]
        self._held = Vectors(*whole)
        self._order = _order(self.capacity - room, self.seed, self._block)

    def _take(self, most: int) -> Vectors | None:
        """At most so many of the next rows; None at the end of the stream."""
        if self._chunks is None:
            self._chunks = iter(self._source(self._next[0]))
        chunk, row = self._next
        rest = self._rest if self._rest is not None else next(self._chunks, None)
        if rest is None:
            return None
        length = rest.inputs.shape[1]
        end = min(length, row + most)
        self._rest, self._next = (rest, (chunk, end)) if end < length else (None, (chunk + 1, 0))
        return rest.rows(slice(row, end))


def from_iterable(make: Callable[[], Iterable[Vectors]]) -> Source:
    """A stream that can only be read from its beginning, such as a model that listens to a corpus.

    Args:
        make: Begins it; whoever resumes passes over what was used.
    """
    return lambda start: islice(iter(make()), start, None)


class Shards:
    """A stream of the vectors in safetensors files, a file a chunk, in another order every epoch.

    Args:
        files: The files; those that lack the first tensor, as those of unreadable recordings do, are passed over.
        inputs: Names of the tensors `(row, d_in)` that are read, one a layer.
        targets: Names of the tensors that are to be reconstructed; None: the inputs.
        seed: Of the order.
        epochs: How often everything is read; None: without end.

    Raises:
        OptionError: A file cannot be read, or none has the tensors.
    """

    def __init__(
        self,
        files: Sequence[Path],
        inputs: Sequence[str],
        targets: Sequence[str] | None = None,
        *,
        seed: int = 0,
        epochs: int | None = None,
    ) -> None:
        self.inputs, self.targets, self.seed, self.epochs = inputs, targets, seed, epochs
        self.files = [path for path in files if inputs[0] in _names(path)]
        if not self.files:
            raise OptionError(
                f"None of {len(files)} files holds vectors {inputs[0]!r}.",
                "Name vectors that were harvested.",
            )

    @property
    def widths(self) -> tuple[int, int]:
        """Dimensions of an input and of a target; 0 where the inputs are the targets."""
        first = self._read(self.files[0])
        return first.inputs.shape[2], 0 if first.targets is None else first.targets.shape[2]

    def __call__(self, start: int) -> Iterator[Vectors]:
        """Chunks from number `start` on."""
        for number in count(start):
            epoch, place = divmod(number, len(self.files))
            if self.epochs is not None and epoch >= self.epochs:
                return
            order = _order(len(self.files), self.seed, epoch)
            yield self._read(self.files[int(order[place])])

    def in_order(self) -> Iterator[Vectors]:
        """Every file once, in the order in which they were given."""
        yield from map(self._read, self.files)

    def _read(self, path: Path) -> Vectors:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "pt") as file:
                inputs = torch.stack([_whole(file.get_tensor(name)) for name in self.inputs])
                if self.targets is None:
                    return Vectors(inputs)
                return Vectors(inputs, torch.stack([_whole(file.get_tensor(name)) for name in self.targets]))
        except (OSError, SafetensorError, RuntimeError) as error:
            reason = str(error).splitlines()[0][:200]
            raise OptionError(f"{path} cannot be used: {reason}.", "Harvest it again.") from error


def _whole(x: Tensor) -> Tensor:
    """Half precision is for the disk alone."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _order(count: int, seed: int, turn: int) -> Tensor:
    """A permutation of its own for every seed and turn; the generator takes the lower 32 bits alone."""
    mixed = (seed * 0x9E3779B1 + turn) % 2**32
    return torch.randperm(count, generator=torch.Generator().manual_seed(mixed))


def _names(path: Path) -> list[str]:
    from safetensors import SafetensorError, safe_open

    with suppress(OSError, SafetensorError), safe_open(path, "pt") as file:
        return list(file.keys())
    raise OptionError(f"{path} cannot be read.", "Harvest it again.")
