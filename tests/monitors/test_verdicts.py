"""What is true of a text."""

from __future__ import annotations

import pytest

from otoscope.corpora import Item
from otoscope.monitors.verdicts import loop_onset, verdict

SAID = "the quick brown fox jumps over the lazy dog"
LOOP = " and so" * 30


@pytest.mark.parametrize(
    ("item", "written", "invented", "loop", "ordinary"),
    [
        (Item("a", "a.wav", text=SAID), SAID, False, False, True),
        (Item("a", "a.wav", text=SAID), SAID + LOOP, True, True, True),
        (Item("a", "a.wav", text=SAID), "I am not here to talk of my new shoes", True, False, True),
        (Item("a", "a.wav", text=SAID), "the quick brown fox jumps", None, False, True),
        (Item("a", "a.wav", text=SAID), "", None, False, True),
        (Item("a", "a.wav", text=SAID, labels={"snr_db": 0.0}), SAID, False, False, False),
        (Item("a", "a.wav", text=""), "Thank you.", True, False, False),
        (Item("a", "a.wav", text=""), "", False, False, False),
        (Item("a", "a.wav", text=""), "[Music]", False, False, False),
        (Item("a", "a.wav", labels={"speech": "no"}), LOOP, True, True, False),
        (Item("a", "a.wav"), "anything", None, False, False),
        (Item("a", "a.wav"), LOOP, None, True, False),
        (Item("a", "a.wav", text="no " * 12), "No, " * 12, False, False, False),
        (Item("a", "a.wav", labels={"invented": "yes", "loop": "no"}), "anything", True, False, False),
    ],
)
def test_a_text_is_judged_by_what_was_said(item, written, invented, loop, ordinary):
    found = verdict(item, written, "en")
    assert (found.invented, found.loop, found.ordinary) == (invented, loop, ordinary)


def test_an_alarm_is_due_where_anything_is_wrong_and_unknown_where_nothing_can_be_told():
    assert verdict(Item("a", "a.wav"), LOOP, "en").bad is True
    assert verdict(Item("a", "a.wav", text=SAID), SAID, "en").bad is False
    assert verdict(Item("a", "a.wav"), "anything", "en").bad is None


@pytest.mark.parametrize(
    ("tokens", "onset"),
    [
        ([1, 2, 3, 4, 5], None),
        ([1, 2, 7, 7, 7, 7], 3),
        ([1, 2, 3, 8, 9, 8, 9, 8, 9, 8, 9], 5),
        ([4, 4, 1, 2, 3, 1, 2, 3, 1, 2, 3], 5),
        ([], None),
    ],
)
def test_a_loop_begins_with_its_second_copy(tokens, onset):
    assert loop_onset(tokens) == onset
