from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otoscope.outcomes import RepeatFidelity, repeat_fidelity

SENTENCE = "The conference is now muted. "


def fidelity(reference: str, hypothesis: str, language: str | None = None) -> RepeatFidelity:
    found = repeat_fidelity(reference, hypothesis, language)
    assert found is not None
    return found


@pytest.mark.parametrize(
    "written, kept, ratio",
    [
        (12, True, 1),
        (10, True, 10 / 12),
        (14, True, 14 / 12),
        (9, False, 0.75),
        (18, False, 1.5),
        (1, False, 1 / 12),
        (0, False, 0),
    ],
)
def test_twelve_spoken_copies_may_be_off_by_two(written, kept, ratio):
    found = fidelity(SENTENCE * 12, SENTENCE * written)
    assert (found.true_repeats, found.predicted_repeats, found.kept) == (12, written, kept)
    assert found.over_generation == pytest.approx(ratio)


def test_few_copies_must_be_exact():
    assert fidelity("no no no", "No, no, no!").kept
    assert not fidelity("no no no", "no no").kept
    assert not fidelity("no no no", "no no no no").kept


@pytest.mark.parametrize("n", [1, 3, 8, 30])
@pytest.mark.parametrize("times", [2, 5, 12])
def test_a_unit_of_any_length_repeated_is_found(n, times):
    unit = [f"word{i}" for i in range(n)]
    text = " ".join(unit * times)
    assert fidelity(text, text) == RepeatFidelity(tuple(unit), times, times)


def test_the_repetition_that_takes_most_words_counts():
    found = fidelity("no no no I said no no no I said", "no no no I said")
    assert found == RepeatFidelity(("no", "no", "no", "i", "said"), 2, 1)


def test_copies_that_are_misheard_alike_count():
    found = fidelity(SENTENCE * 12, "The conference is no muted. " * 12)
    assert (found.predicted_repeats, found.kept) == (12, True)


def test_another_loop_is_no_repetition_of_what_was_said():
    found = fidelity(SENTENCE * 12, "Thank you. " * 12)
    assert (found.predicted_repeats, found.kept) == (0, False)


def test_text_around_the_copies_does_not_matter():
    assert fidelity("go go go now", "well go go go now then").predicted_repeats == 3


def test_copies_that_stand_apart_do_not_follow_each_other():
    assert fidelity("go go go", "go on go on go").predicted_repeats == 1


def test_characters_are_counted_where_there_are_no_spaces():
    assert fidelity("谢谢大家" * 3, "谢谢大家" * 3, "zh") == RepeatFidelity(("谢", "谢", "大", "家"), 3, 3)


@pytest.mark.parametrize("reference", ["", "...", "one", "one two three"])
def test_without_repetition_in_the_reference_nothing_can_be_kept(reference):
    assert repeat_fidelity(reference, "no no no") is None


@given(times=st.integers(2, 40), written=st.integers(0, 60))
def test_the_verdict_is_the_documented_tolerance(times, written):
    found = RepeatFidelity(("a",), times, written)
    assert found.kept == (abs(written - times) <= times // 5)


def test_a_comparison_is_json():
    assert json.loads(json.dumps(fidelity("a a", "a a a a").to_dict())) == {
        "ngram": ["a"], "true_repeats": 2, "predicted_repeats": 4, "over_generation": 2.0, "kept": False,
    }  # fmt: skip


@pytest.mark.parametrize("text", ["a " * 20_000, "\ud800 " * 1000, "ab " * 3 + "x" * 100_000])
def test_hostile_hypotheses_are_compared(text):
    assert repeat_fidelity("no no no", text) is not None
    repeat_fidelity(text, "no no no")
