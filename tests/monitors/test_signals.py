"""Signals of a text: the same however its steps come, and telling what their names say."""

from __future__ import annotations

import numpy as np
import pytest

from otoscope.monitors.signals import SIGNALS, Track


def text(seed=0, steps=40, frames=30, window=50):
    rng = np.random.default_rng(seed)
    attention = rng.dirichlet(np.full(window, 0.2), steps)
    return np.log(rng.uniform(0.1, 1, steps)), attention, rng.integers(3, 9, steps).tolist(), frames


def named(signals, name):
    return signals[:, SIGNALS.index(name)]


@pytest.mark.parametrize("sizes", [[1] * 40, [4] * 10, [7, 1, 20, 12]])
def test_steps_in_blocks_of_any_size_have_the_signals_of_all_at_once(sizes):
    sure, attention, written, frames = text()
    whole = Track(frames).advance(sure, attention, written)
    track, at, parts = Track(frames), 0, []
    for size in sizes:
        span = slice(at, at + size)
        parts.append(track.advance(sure[span], attention[span], written[span]))
        at += size
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-12)


def test_an_echo_grows_with_a_loop_and_ends_with_it():
    sure, attention, _, frames = text(steps=12)
    # before step i the token i - 1 is known; the loop 5 6 5 6 5 6 ends with 9
    written = [0, 5, 6, 5, 6, 5, 6, 9, 8, 7, 4, 3]
    echo = np.expm1(named(Track(frames).advance(sure, attention, written), "echo"))
    assert echo.round().astype(int).tolist() == [0, 0, 0, 1, 2, 3, 4, 0, 0, 0, 0, 0]


def test_what_was_written_before_is_stale_and_every_token_counts():
    sure, attention, _, frames = text(steps=9)
    signals = Track(frames).advance(sure, attention, [0, 5, 6, 7, 5, 6, 7, 5, 9])
    stale = np.expm1(named(signals, "stale"))
    assert stale.round().astype(int).tolist() == [0, 0, 0, 0, 0, 0, 1, 2, 2]  # 5 6 7, then 6 7 5
    np.testing.assert_allclose(np.expm1(named(signals, "long")), range(9))


def test_attention_that_goes_on_is_told_from_attention_that_goes_back():
    frames = 20
    onwards = np.eye(frames)[np.arange(0, 20, 2)]
    back = np.concatenate([onwards[:5], onwards[:5]])
    sure, written = np.zeros(10), list(range(10))
    ahead, again = (Track(frames).advance(sure, a, written) for a in (onwards, back))
    assert named(ahead, "again").max() < 1e-6
    assert named(ahead, "behind").max() < 1e-6
    assert named(again, "again")[5:].min() > 0.99
    assert named(again, "behind")[5] > 0.4
    assert named(again, "step")[5] < -0.4


def test_attention_on_the_padding_is_beyond_the_sound():
    attention = np.zeros((3, 50))
    attention[0, 10] = attention[1, 45] = 1
    attention[2, [10, 45]] = 0.5
    beyond = named(Track(30).advance(np.zeros(3), attention, [0, 1, 2]), "beyond")
    np.testing.assert_allclose(beyond, [0, 1, 0.5], atol=1e-8)
