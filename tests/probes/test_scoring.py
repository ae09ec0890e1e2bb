"""Scores by hand-worked answers, intervals over groups, and control labels that mean nothing."""

from __future__ import annotations

import numpy as np
import pytest

from otoscope.probes.scoring import (
    auc,
    auc_interval,
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


def test_shuffled_labels_of_items_lose_even_what_the_proportions_of_their_speakers_told():
    groups = np.repeat([0, 1], 50)
    y = np.concatenate([np.repeat([0, 1], [40, 10]), np.repeat([0, 1], [5, 45])])
    drawn = [shuffled(y, groups, np.random.default_rng(seed)) for seed in range(50)]
    assert all(new.sum() == y.sum() for new in drawn)
    assert abs(np.mean([new[:50].sum() for new in drawn]) - y.sum() / 2) < 2


def test_one_mislabelled_item_does_not_save_the_others_from_the_shuffle():
    groups = np.repeat(np.arange(24), 8)
    y = np.repeat(np.arange(24) % 2, 8)
    y[3] = 1 - y[3]
    for seed in range(20):
        new = shuffled(y, groups, np.random.default_rng(seed))
        assert 0.1 < np.mean(new != y) < 0.9
        assert (new[8:].reshape(23, 8) == new[8:].reshape(23, 8)[:, :1]).all()


def test_auc_and_r_squared_on_known_answers():
    assert auc(np.array([0, 0, 1, 1]), np.array([[0.1], [0.4], [0.35], [0.8]])) == 0.75
    y = np.array([1.0, 2, 3])
    assert r_squared(y, y) == 1.0
    assert r_squared(y, np.full(3, 2.0)) == 0.0


def test_the_auc_is_that_of_scikit_learn_ties_included():
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    y, scores = rng.integers(2, size=300), rng.integers(5, size=300).astype(float)
    assert auc(y, scores) == pytest.approx(roc_auc_score(y, scores))
    three, columns = rng.integers(3, size=300), rng.standard_normal((300, 3))
    wanted = np.mean([roc_auc_score(three == c, columns[:, c]) for c in range(3)])
    assert auc(three, columns) == pytest.approx(wanted)


def test_the_interval_of_the_auc_draws_whole_groups():
    rng = np.random.default_rng(0)
    y, groups = np.repeat([0, 1], 200), np.repeat(np.arange(8), 50)
    scores = y + rng.standard_normal(8)[groups] * 2  # speakers differ more than classes
    low, high = auc_interval(y, scores, groups)
    alone = auc_interval(y, scores, np.arange(400))
    assert high - low > 3 * (alone[1] - alone[0])
