"""A shuffling buffer gives everything once, mixed, and goes on where it was."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from otoscope.dictionaries.training.buffer import Shards, ShuffleBuffer, Vectors, from_iterable
from otoscope.errors import OptionError
from otoscope.runs.run import Run
from otoscope.runs.store import KIND, ActivationStore


def numbered(sizes=(7, 30, 1, 22, 40), targets=True):
    """Rows that say their own number."""
    first = 0
    for size in sizes:
        x = torch.arange(first, first + size, dtype=torch.float64)[None, :, None]
        yield Vectors(x, 2 * x if targets else None)
        first += size


def seen(batches):
    return [batch.inputs.flatten().tolist() for batch in batches]


def buffer(batch=8, capacity=32, seed=0):
    return ShuffleBuffer(from_iterable(numbered), batch=batch, capacity=capacity, seed=seed)


def test_every_row_comes_once_with_its_target_and_in_another_order():
    batches = list(buffer())
    assert all(torch.equal(batch.targets, 2 * batch.inputs) for batch in batches)
    assert all(batch.inputs.shape == (1, 8, 1) for batch in batches)
    flat = [number for batch in seen(batches) for number in batch]
    assert sorted(flat[:96]) == list(range(96))
    assert len(flat) == 96  # of 100, four fill no batch
    assert flat[:32] != sorted(flat[:32])


def test_order_hangs_on_the_seed_alone():
    assert seen(buffer()) == seen(buffer())
    assert seen(buffer(seed=1)) != seen(buffer())


@pytest.mark.parametrize("used", range(13))
def test_a_buffer_goes_on_from_its_state(used):
    one, other = buffer(), buffer()
    for _ in range(used):
        next(one, None)
    other.restore(one.state())
    assert seen(other) == seen(one)


def test_a_buffer_that_holds_no_batch_is_refused():
    with pytest.raises(OptionError, match="cannot give batches of 9"):
        buffer(batch=9, capacity=8)


@pytest.fixture
def files(tmp_path):
    paths = []
    for number, vectors in enumerate(numbered()):
        paths.append(tmp_path / f"{number}.safetensors")
        x = vectors.inputs[0]
        save_file({"a": x, "b": x + 0.5, "out": x * 2} if number != 2 else {}, paths[-1])
    return paths


def test_shards_come_in_another_order_every_epoch(files):
    chunks = list(Shards(files, ["a", "b"], ["out", "out"], epochs=3)(0))
    assert len(chunks) == 12  # one file of five is empty
    firsts = [float(chunk.inputs[0, 0, 0]) for chunk in chunks]
    epochs = [firsts[at : at + 4] for at in (0, 4, 8)]
    assert all(sorted(epoch) == [0, 7, 38, 60] for epoch in epochs)
    assert epochs[0] != epochs[1] or epochs[1] != epochs[2]
    assert all(torch.equal(chunk.inputs[1], chunk.inputs[0] + 0.5) for chunk in chunks)
    assert all(torch.equal(chunk.targets[0], chunk.inputs[0] * 2) for chunk in chunks)


def test_shards_go_on_from_any_chunk(files):
    shards = Shards(files, ["a"], epochs=2)
    whole = [chunk.inputs for chunk in shards(0)]
    for start in range(8):
        assert all(torch.equal(a.inputs, b) for a, b in zip(shards(start), whole[start:], strict=True))


def test_a_store_is_read_as_it_was_written(tmp_path):
    import numpy as np
    import pandas as pd

    index = pd.DataFrame({"reason": [None]})
    with Run.opened(tmp_path / "store", KIND, {}) as run:
        store = ActivationStore(run)
        store.append(0, {"encoder.frames.0": np.ones((5, 3), np.float32)}, index)
        store.append(1, {"encoder.frames.0": np.zeros((4, 3), np.float32)}, index)
    store = ActivationStore.read_from(tmp_path / "store")
    shards = Shards(store.files, ["encoder.frames.0"], epochs=1)
    assert sorted(chunk.inputs.shape for chunk in shards(0)) == [(1, 4, 3), (1, 5, 3)]


def test_files_without_the_vectors_or_damaged_are_refused(files):
    with pytest.raises(OptionError, match="holds vectors 'c'"):
        Shards(files, ["c"])
    files[0].write_bytes(b"nothing")
    with pytest.raises(OptionError, match="cannot be read"):
        Shards(files, ["a"])
