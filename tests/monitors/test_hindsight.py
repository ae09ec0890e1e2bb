"""What a monitor says of a written text: a logistic of its steps and of the text, fitted without seeing what it is tried on."""

from __future__ import annotations

import numpy as np
from tests.monitors.monitors_of import plain_hindsight

from otoscope.monitors.hindsight import FACTS, facts_of_text, fit_hindsight
from otoscope.monitors.scoring import calibrated, joined_risk
from otoscope.monitors.signals import LONGEST
from otoscope.monitors.thresholds import conformal_threshold
from otoscope.monitors.verdicts import TARGETS

STEPS = np.array([[0.2, 0.1], [0.9, 0.3], [0.4, 0.2]])


def told(**others):
    """Facts of a text; `others` replace them."""
    return {
        "written": "and so and so and so",
        "language_written": "en",
        "tokens": [1, 2] * 3,
        "compression_ratio": 1.5,
    } | others


def log_odds(p):
    return np.log(p / (1 - p))


def world(count=120, seed=0):
    """Facts of texts in which the truth of target 0 is the second fact and of target 1 the third, three texts a group."""
    rng = np.random.default_rng(seed)
    facts = rng.normal(size=(count, 2, len(FACTS)))
    marks = np.stack([facts[:, 0, 1] > 0, facts[:, 1, 2] > 0], axis=1).astype(float)
    return facts, marks, np.repeat(np.arange(count // 3), 3)


def test_facts_are_those_of_the_steps_and_of_the_text():
    facts = facts_of_text(STEPS, told())
    assert facts.shape == (2, len(FACTS))
    of_the_text = [np.log(1.5), np.log1p(6), np.log1p(6), 0]
    np.testing.assert_allclose(facts[TARGETS.index("loop")], [*log_odds(np.array([0.3, 0.2])), *of_the_text])
    np.testing.assert_allclose(facts[TARGETS.index("invented")], [0, log_odds(0.4), 0, 0, 0, 0])
    assert facts_of_text(STEPS, told(written="and so " * 9))[TARGETS.index("loop"), -1] == 1


def test_steps_that_fitting_does_not_keep_are_not_looked_at():
    steps = np.full((LONGEST, 2), 0.2)
    longer = np.concatenate([steps, [[0.9, 0.9]]])
    np.testing.assert_array_equal(facts_of_text(longer, told()), facts_of_text(steps, told()))


def test_facts_are_finite_where_nothing_was_written():
    nothing = told(written="", tokens=[], compression_ratio=0.0)
    assert np.isfinite(facts_of_text(np.array([[0.0, 1.0]]), nothing)).all()


def test_going_by_the_last_step_alone_it_says_what_that_step_said():
    hindsight = plain_hindsight(np.zeros(1), 0.5)
    np.testing.assert_allclose(hindsight.parts(STEPS.tolist(), told()), [0.4, 0.2])


def test_it_learns_which_facts_tell():
    facts, marks, groups = world()
    hindsight, held_out = fit_hindsight(facts, marks, marks[:, 0] == 0, groups, 0.05)
    assert np.abs(hindsight.weights).argmax(axis=1).tolist() == [1, 2]
    assert ((held_out > 0) == marks).mean() > 0.9


def test_no_text_is_told_by_a_fit_that_saw_its_group():
    facts, marks, groups = world()
    ordinary = marks[:, 0] == 0
    _, before = fit_hindsight(facts, marks, ordinary, groups, 0.05)
    changed = marks.copy()
    changed[groups == 0] = 1 - changed[groups == 0]
    _, after = fit_hindsight(facts, changed, ordinary, groups, 0.05)
    np.testing.assert_array_equal(after[groups == 0], before[groups == 0])
    assert (after[groups != 0] != before[groups != 0]).any()


def test_its_threshold_keeps_the_rate_asked_for_on_ordinary_texts():
    facts, marks, groups = world()
    ordinary = marks.sum(axis=1) == 0
    hindsight, _ = fit_hindsight(facts, marks, ordinary, groups, 0.1)
    assert len(hindsight.ordinary) == ordinary.sum()
    assert (hindsight.ordinary >= hindsight.threshold).mean() <= 0.1
    assert hindsight.at(0.3).threshold == conformal_threshold(hindsight.ordinary, 0.3) < hindsight.threshold
    fresh, truth, _ = world(3000, seed=1)
    odds = hindsight.log_odds(fresh[truth.sum(axis=1) == 0])
    risks = joined_risk(calibrated(odds))
    assert 0.02 < (risks >= hindsight.threshold).mean() < 0.2


def test_with_one_answer_alone_it_goes_by_the_last_step():
    facts, marks, groups = world()
    marks[:, 1] = 0
    hindsight, held_out = fit_hindsight(facts, marks, marks[:, 0] == 0, groups, 0.05)
    np.testing.assert_array_equal(hindsight.weights[1], np.eye(len(FACTS))[1])
    np.testing.assert_array_equal(held_out[:, 1], facts[:, 1, 1])
