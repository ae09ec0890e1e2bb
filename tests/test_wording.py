"""Numbers as people say them."""

from __future__ import annotations

import pytest

from otoscope.wording import counted, duration, number


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.4, "0 s"), (70, "70 s"), (119, "119 s"), (183, "3 minutes"), (5584, "93 minutes"), (161_021, "44.7 hours")],
)  # fmt: skip
def test_a_duration_is_said_in_the_unit_that_fits(seconds, said):
    assert duration(seconds) == said


def test_counts_and_numbers():
    assert (counted(1, "window"), counted(2, "window")) == ("1 window", "2 windows")
    assert (number(0.12345), number(None)) == ("0.123", "–")
