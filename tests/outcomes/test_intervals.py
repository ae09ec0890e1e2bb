from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from otoscope.outcomes import Rate, bootstrap, wilson

COUNTS = st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(counts=COUNTS, level=st.sampled_from([0.8, 0.95, 0.99]))
def test_wilsons_interval_is_the_one_of_scipy(counts, level):
    count, n = counts
    theirs = binomtest(count, n).proportion_ci(confidence_level=level, method="wilson")
    assert wilson(count, n, level) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_published_intervals_come_out():
    # 78 of 102 (67.4 to 83.6 %) and 136 of 153 (82.9 to 92.9 %)
    assert wilson(78, 102) == pytest.approx((0.674, 0.836), abs=5e-4)
    assert wilson(136, 153) == pytest.approx((0.829, 0.929), abs=5e-4)


@given(counts=COUNTS)
def test_the_interval_holds_the_rate_and_stays_within_0_and_1(counts):
    low, high = wilson(*counts)
    assert 0 <= low <= counts[0] / counts[1] <= high <= 1


def test_nothing_is_known_of_no_trials():
    assert wilson(0, 0) == (0, 1)
    rate = Rate(0, 0)
    assert rate.rate is None
    assert rate.interval is None
    assert json.dumps(rate.to_dict()) == '{"count": 0, "n": 0, "rate": null, "ci_low": null, "ci_high": null}'


def test_a_rate_as_json_has_its_interval():
    assert Rate(1, 4).to_dict() == {
        "count": 1,
        "n": 4,
        "rate": 0.25,
        "ci_low": pytest.approx(0.0456, abs=1e-4),
        "ci_high": pytest.approx(0.6994, abs=1e-4),
    }
    assert Rate.of([True, False, False, False]) == Rate(1, 4)


@pytest.mark.parametrize("count, n", [(-1, 3), (4, 3), (0, -1)])
def test_impossible_counts_are_refused(count, n):
    with pytest.raises(ValueError, match="no proportion"):
        Rate(count, n)
    with pytest.raises(ValueError, match="no proportion"):
        wilson(count, n)


@pytest.mark.parametrize("level", [0, 1, 95, float("nan")])
def test_impossible_levels_are_refused(level):
    with pytest.raises(ValueError, match="level"):
        wilson(1, 2, level)
    with pytest.raises(ValueError, match="level"):
        bootstrap(np.mean, [1, 2], level=level)


def test_the_bootstrap_of_a_mean_is_as_wide_as_theory_says():
    values = np.random.default_rng(1).normal(size=500)
    low, high = bootstrap(np.mean, values, resamples=2000)
    half = 1.96 * values.std() / np.sqrt(500)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.015)


def test_whole_groups_are_drawn():
    # Ten utterances of a speaker are alike: 20 speakers are 20 observations, not 200.
    speakers = np.repeat(np.arange(20), 10)
    values = np.random.default_rng(2).normal(size=20)[speakers]
    alone, grouped = bootstrap(np.mean, values), bootstrap(np.mean, values, groups=speakers)
    assert (grouped[1] - grouped[0]) / (alone[1] - alone[0]) == pytest.approx(np.sqrt(10), rel=0.1)


@given(
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=8),
    seed=st.integers(0, 3),
    order=st.randoms(use_true_random=False),
)
def test_a_draw_holds_as_many_groups_each_whole_whatever_the_order_of_rows(sizes, seed, order):
    rows = [group for group, size in enumerate(sizes) for _ in range(size)]
    order.shuffle(rows)
    seen = []

    def look(drawn: np.ndarray) -> float:
        seen.append(np.bincount(drawn, minlength=len(sizes)))
        return 0.0

    bootstrap(look, rows, groups=rows, resamples=5, seed=seed)
    for counts in seen:
        assert (counts % sizes == 0).all()
        assert (counts // sizes).sum() == len(sizes)


def test_each_stratum_keeps_its_size():
    strata = ["a"] * 3 + ["b"] * 40
    shares = []

    def share(drawn: np.ndarray) -> float:
        shares.append((drawn == "a").sum())
        return 0.0

    bootstrap(share, np.array(strata), strata=strata, resamples=50)
    assert set(shares) == {3}
    shares.clear()
    bootstrap(share, np.array(strata), resamples=50)
    assert len(set(shares)) > 1


def test_groups_are_drawn_within_their_stratum():
    groups, strata = [1, 1, 2, 3, 4], ["x", "x", "x", "y", "y"]
    drawn = []
    bootstrap(lambda g: float(drawn.append(g) or 0), groups, groups=groups, strata=strata, resamples=50)
    assert all(np.isin(rows, [1, 2]).sum() + np.isin(rows, [3, 4]).sum() == len(rows) for rows in drawn)
    assert all(np.isin(rows, [3, 4]).sum() == 2 for rows in drawn)


def test_arrays_are_drawn_together():
    x = np.arange(50)
    assert bootstrap(lambda a, b: float((a == b).all()), x, x, resamples=20) == (1, 1)


def test_rows_may_be_vectors():
    matrix = np.arange(12.0).reshape(6, 2)
    low, high = bootstrap(lambda m: m.sum(axis=0)[1] - m.sum(axis=0)[0], matrix, resamples=20)
    assert (low, high) == (6, 6)


def test_the_same_seed_gives_the_same_interval_and_another_another():
    values = np.random.default_rng(0).normal(size=30)
    assert bootstrap(np.mean, values, seed=1) == bootstrap(np.mean, values, seed=1)
    assert bootstrap(np.mean, values, seed=1) != bootstrap(np.mean, values, seed=2)


def test_draws_for_which_the_statistic_is_undefined_are_left_out():
    errors, words = np.array([1.0, 1.0]), np.array([0.0, 2.0])
    assert bootstrap(lambda e, w: e.sum() / w.sum(), errors, words) == (0.5, 1.0)


def test_a_statistic_that_is_never_defined_is_refused():
    with pytest.raises(ValueError, match="finite for no draw"):
        bootstrap(lambda x: x.sum() / np.zeros(1)[0], [0.0, 0.0])


@pytest.mark.parametrize(
    "arrays, labels",
    [
        (([],), {}),
        (([1, 2], [1]), {}),
        (([1, 2],), {"groups": [1]}),
        (([1, 2],), {"strata": [1, 1, 1]}),
    ],
)
def test_rows_that_do_not_fit_are_refused(arrays, labels):
    with pytest.raises(ValueError, match="needs rows"):
        bootstrap(lambda *x: 0.0, *arrays, **labels)


def test_a_group_in_two_strata_is_refused():
    with pytest.raises(ValueError, match="two strata"):
        bootstrap(np.mean, [1, 2], groups=["a", "a"], strata=["x", "y"])
