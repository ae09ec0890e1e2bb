"""Activations on disk: shards count once whole, and only what is asked for is read."""

from __future__ import annotations

import resource
from contextlib import contextmanager

import numpy as np
import pandas as pd
import pytest

from otoscope.errors import OptionError, OutputError
from otoscope.runs import ActivationStore, Run


def lines(first, reasons):
    numbers = range(first, first + len(reasons))
    return pd.DataFrame(
        {"item": list(numbers), "reason": reasons, "remedy": reasons, "audio_filepath": "a.wav"}
    )


SMALL, LARGE = {"x": np.zeros((1, 2), "f4")}, {"x": np.zeros((100, 100), "f4")}


@contextmanager
def files_of_at_most(size):
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, unlimited[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)


@pytest.fixture
def store(tmp_path):
    with Run.opened(tmp_path / "s", "activations", {}) as run:
        out = ActivationStore(run)
        out.append(0, {"encoder.mean.0": np.array([[1.0, 2], [3, 4]], "f4")}, lines(0, [None, "bad", None]))
        out.append(1, {"encoder.mean.0": np.array([[5.0, 6]], "f4")}, lines(3, [None]))
    return ActivationStore.read_from(tmp_path / "s")


def test_rows_of_all_shards_follow_the_readable_items(store):
    assert store.read("encoder.mean.0").tolist() == [[1, 2], [3, 4], [5, 6]]
    assert store.index["item"].tolist() == [0, 2, 3]
    assert store.skipped["item"].tolist() == [1]


def test_a_shard_without_its_index_does_not_count(store):
    store.run.part("index", 1).unlink()
    again = ActivationStore.read_from(store.run.path)
    assert again.shards == [0]
    assert again.read("encoder.mean.0").shape == (2, 2)


def test_a_shard_of_unreadable_items_is_finished_and_empty(store):
    with Run.opened(store.run.path, "activations", {}) as run:
        ActivationStore(run).append(2, {}, lines(4, ["bad", "bad"]))
    again = ActivationStore.read_from(store.run.path)
    assert again.has(2)
    assert again.read("encoder.mean.0").shape == (3, 2)
    assert len(again.skipped) == 3


def test_a_name_that_is_not_there_is_answered_with_those_that_are(store):
    with pytest.raises(OptionError, match=r"holds no encoder\.mean\.9") as refused:
        store.read("encoder.mean.9")
    assert "encoder.mean.0" in refused.value.remedy


def test_a_shard_that_finds_no_room_leaves_nothing_behind(store):
    before = sorted(store.run.path.iterdir())
    with (
        files_of_at_most(1000),
        Run.opened(store.run.path, "activations", {}) as run,
        pytest.raises(OutputError, match="written"),
    ):
        ActivationStore(run).append(2, LARGE, lines(4, [None]))
    assert sorted(store.run.path.iterdir()) == before


def test_shards_are_written_while_the_next_is_computed_and_are_whole_at_the_end_of_the_block(tmp_path):
    with (
        Run.opened(tmp_path / "s", "activations", {}) as run,
        ActivationStore(run).written_behind() as append,
    ):
        for number in range(5):
            append(number, {"x": np.full((2, 3), number, "f4")}, lines(2 * number, [None, None]))
    store = ActivationStore.read_from(tmp_path / "s")
    assert store.read("x")[:, 0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert store.index["item"].tolist() == list(range(10))


@pytest.mark.parametrize("after", [0, 2])
def test_a_shard_that_finds_no_room_behind_ends_the_block_and_those_before_it_count(tmp_path, after):
    with Run.opened(tmp_path / "s", "activations", {}) as run:
        store = ActivationStore(run)
        with (
            files_of_at_most(20_000),
            pytest.raises(OutputError, match=r"vectors-00001\.safetensors cannot be written"),
        ):
            write_behind(store, [SMALL, LARGE, *[SMALL] * after])
        assert store.shards == [0]


def test_what_ends_the_computing_does_not_end_the_writing(tmp_path):
    def interrupted():
        yield SMALL
        raise KeyboardInterrupt

    with Run.opened(tmp_path / "s", "activations", {}) as run:
        store = ActivationStore(run)
        with pytest.raises(KeyboardInterrupt):
            write_behind(store, interrupted())
        assert store.shards == [0]


def write_behind(store, shards):
    with store.written_behind() as append:
        for number, vectors in enumerate(shards):
            append(number, vectors, lines(number, [None]))
