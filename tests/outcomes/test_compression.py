from __future__ import annotations

import zlib

import pytest

from otoscope.outcomes import compression_ratio


def test_a_loop_shrinks_far_more_than_a_sentence():
    assert compression_ratio("I'm going to go to the store. " * 20) > 10
    assert compression_ratio("And so, my fellow Americans, ask not what your country can do for you.") < 1.2


def test_bytes_are_counted_and_not_characters():
    text = "音" * 50
    assert compression_ratio(text) == pytest.approx(150 / len(zlib.compress(text.encode())))


def test_nothing_has_the_ratio_zero():
    assert compression_ratio("") == 0


def test_half_a_surrogate_pair_counts_three_bytes():
    assert compression_ratio("\ud800" * 50) == pytest.approx(150 / len(zlib.compress(b"\xed\xa0\x80" * 50)))
