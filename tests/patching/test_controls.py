"""The statistics of a sweep, against brute force and against what it would find where nothing is to be found."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest

from otoscope.patching.controls import (
    coverage,
    greedy_set,
    halves,
    holm,
    minimal_set,
    others,
    shares,
    tail,
    tail_of_mean,
)


def test_the_tail_equals_an_enumeration_of_all_outcomes():
    p = np.array([0.1, 0.9, 0.5, 0.0, 1.0, 0.3])
    for count in range(8):
        expected = sum(
            np.prod([q if hit else 1 - q for q, hit in zip(p, outcome, strict=True)])
            for outcome in product([0, 1], repeat=6)
            if sum(outcome) >= count
        )
        assert tail(count, p) == pytest.approx(expected, abs=1e-12)


def test_the_tail_of_equal_probabilities_is_the_binomial():
    binom = pytest.importorskip("scipy.stats").binom
    for count in (0, 1, 7, 20):
        assert tail(count, np.full(20, 0.3)) == pytest.approx(binom.sf(count - 1, 20, 0.3), abs=1e-12)


def test_nothing_is_told_without_others():
    assert np.isnan(tail(1, np.array([np.nan, 0.5])))
    assert np.isnan(shares(np.ones((1, 3)), ["a"])).all()
    assert np.isnan(others(np.ones((1, 3)), ["a"])).all()


def test_a_component_is_compared_with_others_of_its_kind_alone():
    resolved = np.array([[1, 0], [0, 0], [1, 1], [0, 1]], dtype=bool)
    kinds = ["head", "head", "head", "block"]
    np.testing.assert_allclose(others(resolved, kinds)[:3], [[0.5, 0.5], [1, 0.5], [0.5, 0]])
    np.testing.assert_allclose(shares(resolved, kinds)[:3], [[2 / 3, 1 / 3]] * 3)
    assert np.isnan(shares(resolved, kinds)[3]).all()


def test_one_lucky_item_proves_nothing():
    """Of 24 components one resolves the only item: any of them might have."""
    resolved = np.zeros((24, 1), dtype=bool)
    resolved[5] = True
    assert tail(1, shares(resolved, ["head"] * 24)[5]) == pytest.approx(1 / 24)


def test_where_nothing_is_to_be_found_a_winner_is_named_no_more_often_than_promised():
    rng = np.random.default_rng(0)
    false, runs = 0, 300
    for _ in range(runs):
        items = rng.beta(0.5, 3, size=12)  # some are resolved by almost anything, most by nothing
        resolved = rng.random((16, 12)) < items
        p = shares(resolved, ["head"] * 16)
        adjusted = holm([tail(int(row.sum()), q) for row, q in zip(resolved, p, strict=True)])
        false += min(adjusted) <= 0.05
    assert false / runs <= 0.05 + 2 * (0.05 * 0.95 / runs) ** 0.5


def test_what_is_there_is_found():
    rng = np.random.default_rng(1)
    resolved = rng.random((24, 15)) < 0.1
    resolved[7] = rng.random(15) < 0.8
    p = shares(resolved, ["head"] * 24)
    adjusted = holm([tail(int(row.sum()), q) for row, q in zip(resolved, p, strict=True)])
    assert int(np.argmin(adjusted)) == 7
    assert adjusted[7] < 1e-3


def test_holms_correction_is_that_of_a_textbook():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    found = holm([0.5, float("nan"), 0.02])
    assert found[0] == 0.5
    assert np.isnan(found[1])
    assert found[2] == pytest.approx(0.04)
    assert holm([]) == []


@pytest.mark.parametrize("seed", range(5))
def test_halves_never_divide_a_group_and_are_about_as_large(seed):
    groups = [i // 3 for i in range(30)]
    chosen = halves(groups, seed)
    for group in set(groups):
        assert len({bool(c) for c, g in zip(chosen, groups, strict=True) if g == group}) == 1
    assert 12 <= chosen.sum() <= 15
    assert (chosen == halves(groups, seed)).all()


def test_a_single_group_is_all_for_discovery_and_no_item_is_no_half():
    assert halves(["a"] * 4, 0).all()
    assert len(halves([], 0)) == 0


def test_the_draw_of_halves_depends_on_the_seed():
    assert len({tuple(halves(range(12), seed)) for seed in range(6)}) > 3


def test_coverage_takes_what_covers_most_of_the_rest():
    rng = np.random.default_rng(3)
    resolved = rng.random((7, 20)) < 0.3
    found = coverage(resolved)
    chosen, left = [], np.ones(20, dtype=bool)
    for component, covered in found:
        gains = (resolved & left).sum(axis=1)
        assert gains[component] == gains.max() > 0
        chosen.append(component)
        left &= ~resolved[component]
        assert covered == resolved[chosen].any(axis=0).sum()
    assert covered == resolved.any(axis=0).sum()
    assert len(coverage(resolved, limit=2)) == 2
    assert coverage(np.zeros((3, 4))) == []
    assert coverage(np.zeros((0, 0))) == []


WORTH = {
    frozenset(m): v for v, m in [(1, "a"), (2, "b"), (1, "c"), (3, "ab"), (2, "ac"), (5, "bc"), (4, "abc")]
}


def scores(sets):
    return [WORTH[frozenset(members)] for members in sets]


def test_a_greedy_set_grows_as_long_as_it_gets_better():
    assert greedy_set("abc", scores, 3) == [(("b",), 2), (("b", "c"), 5)]
    assert greedy_set("abc", scores, 1) == [(("b",), 2)]
    assert greedy_set("", scores, 3) == []


def test_a_minimal_set_has_no_member_to_spare_and_tells_its_own_score():
    worth = {}
    rng = np.random.default_rng(5)
    for n in range(1, 5):
        for members in combinations("abcd", n):
            worth[frozenset(members)] = int(rng.integers(0, 4)) + n

    def of(sets):
        return [worth[frozenset(m)] for m in sets]

    for least in range(1, 7):
        if worth[frozenset("abcd")] < least:
            continue
        kept, score = minimal_set("abcd", of, least)
        assert len(kept) == 1 or max(of([tuple(set(kept) - {m}) for m in kept])) < least
        if len(kept) < 4:
            assert score == worth[frozenset(kept)] >= least
    assert minimal_set("abc", scores, 4) == (("b", "c"), 5)


def test_the_tail_of_a_mean_equals_an_enumeration_and_drawing_comes_near():
    changes = np.random.default_rng(0).normal(size=(4, 5)) + np.array([[2.0], [0], [0], [0]])
    means = [np.mean([changes[i, j] for j, i in enumerate(drawn)]) for drawn in product(range(4), repeat=5)]
    expected = [np.mean(np.abs(means) >= abs(row.mean()) - 1e-12) for row in changes]
    np.testing.assert_allclose(tail_of_mean(changes, 0), expected)
    np.testing.assert_allclose(tail_of_mean(changes, 0, draws=1000), expected, atol=0.05)
    assert tail_of_mean(changes, 0, draws=1000) == tail_of_mean(changes, 0, draws=1000)


def test_the_tail_of_a_mean_is_never_nothing():
    assert tail_of_mean(np.array([[9.0], [0], [0], [0]]), 0)[0] == 1 / 4
    strong = np.vstack([np.full(40, 9.0), np.zeros((7, 40))])
    assert tail_of_mean(strong, 0, draws=999)[0] == 1 / 1000
    assert np.isnan(tail_of_mean(np.ones((1, 3)), 0)).all()
    assert np.isnan(tail_of_mean(np.ones((3, 0)), 0)).all()


def test_where_nothing_is_to_be_found_means_stand_out_no_more_often_than_promised():
    rng = np.random.default_rng(1)
    runs, false = 200, 0
    for run in range(runs):
        scale = rng.exponential(size=8)  # items differ in how much anything does
        changes = rng.standard_t(3, size=(12, 8)) * scale
        false += min(holm(tail_of_mean(changes, run, draws=2000))) <= 0.05
    assert false / runs <= 0.05 + 2 * (0.05 * 0.95 / runs) ** 0.5
