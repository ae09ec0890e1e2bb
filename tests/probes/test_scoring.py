"""Scores by hand-worked answers, intervals over groups, and control labels that mean nothing."""

from __future__ import annotations

import numpy as np
import pytest

from otoscope.probes.scoring import (
    auc,
    balanced_accuracy,
    balanced_interval,
    class_table,
    is_nested,
    predicted,
    r_squared,
    shuffled,
)


def test_balanced_accuracy_is_the_mean_recall_whatever_the_sizes_of_the_classes():
    y = np.array([0, 0, 0, 0, 1])
    assert balanced_accuracy(y, np.zeros(5, int)) == 0.5
    assert balanced_accuracy(y, np.array([0, 0, 1, 1, 1])) == 0.75


def test_predictions_of_two_classes_come_from_the_sign_and_of_more_from_the_largest():
    assert predicted(np.array([[-1.0], [2.0]])).tolist() == [0, 1]
    assert predicted(np.array([[0.1, 0.3, 0.2]])).tolist() == [1]


def test_the_class_table_counts_items_groups_recall_and_precision():
    y, guess, groups = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]), np.array([7, 7, 8, 9])
    first, second = class_table(y, guess, groups, ["f", "m"])
    assert (first.n, first.groups, first.recall, first.precision) == (2, 1, 0.5, 1.0)
    assert (second.n, second.groups, second.recall) == (2, 2, 1.0)
    assert second.precision == pytest.approx(2 / 3)


def test_the_interval_is_wide_when_few_groups_differ_and_narrow_when_items_are_independent():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], 200)
    groups = np.repeat(np.arange(8), 50)
    wrong_groups = np.isin(groups, [1, 6])  # two speakers of eight are always wrong
    guess = np.where(wrong_groups, 1 - y, y)
    low, high = balanced_interval(y, guess, groups)
    assert low <= 0.5
    assert high == 1.0
    independent = rng.random(400) < 0.25
    alone = balanced_interval(y, np.where(independent, 1 - y, y), np.arange(400))
    assert alone[1] - alone[0] < 0.1


def test_nested_labels_are_recognised():
    assert is_nested(np.array([0, 0, 1]), np.array([5, 5, 6]))
    assert not is_nested(np.array([0, 1, 1]), np.array([5, 5, 6]))


def test_shuffled_labels_of_speakers_move_whole_speakers_and_never_keep_the_same_ones_together():
    groups = np.repeat(np.arange(4), 10)
    y = np.repeat([0, 0, 1, 1], 10)
    for seed in range(30):
        new = shuffled(y, groups, np.random.default_rng(seed))
        by_group = new.reshape(4, 10)
        assert (by_group == by_group[:, :1]).all()
        assert sorted(new.tolist()) == sorted(y.tolist())
        assert not np.array_equal(new, y)
        assert not np.array_equal(new, 1 - y)


def test_shuffled_labels_of_items_stay_within_their_speaker():
    groups = np.repeat([0, 1], 50)
    y = np.concatenate([np.repeat([0, 1], [40, 10]), np.repeat([0, 1], [5, 45])])
    new = shuffled(y, groups, np.random.default_rng(0))
    assert new[:50].sum() == 10
    assert new[50:].sum() == 45
    assert not np.array_equal(new, y)


def test_auc_and_r_squared_on_known_answers():
    assert auc(np.array([0, 0, 1, 1]), np.array([[0.1], [0.4], [0.35], [0.8]])) == 0.75
    y = np.array([1.0, 2, 3])
    assert r_squared(y, y) == 1.0
    assert r_squared(y, np.full(3, 2.0)) == 0.0
