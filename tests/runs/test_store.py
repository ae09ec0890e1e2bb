"""Activations on disk: shards count once whole, and only what is asked for is read."""

from __future__ import annotations

import resource

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
    before, unlimited = sorted(store.run.path.iterdir()), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, unlimited[1]))
    try:
        with (
            Run.opened(store.run.path, "activations", {}) as run,
            pytest.raises(OutputError, match="written"),
        ):
            ActivationStore(run).append(2, {"x": np.zeros((100, 100), "f4")}, lines(4, [None]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert sorted(store.run.path.iterdir()) == before
