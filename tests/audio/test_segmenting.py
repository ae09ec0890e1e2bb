"""Where a stream is cut depends on its sound, and without pauses it is cut as a recording is."""

from __future__ import annotations

import numpy as np
import pytest

from otoscope.audio import SAMPLING_RATE, Clip, Segmenter, is_silent, read, windows
from otoscope.errors import OptionError

RATE = SAMPLING_RATE


def noise(seconds, level=0.1, seed=0):
    rng = np.random.default_rng(seed)
    return (level * rng.standard_normal(round(seconds * RATE))).astype(np.float32)


def quiet(seconds):
    return np.zeros(round(seconds * RATE), np.float32)


def segments(samples, pieces, **more):
    """Starts and sounds of the segments of `samples` that come in pieces of these lengths, in turn."""
    segmenter, found, at = Segmenter(**more), [], 0
    while at < len(samples):
        step = pieces[len(found) % len(pieces)]
        segmenter.feed(samples[at : at + step])
        at += step
        while segmenter.cut is not None:
            start = segmenter.start
            found.append((start, segmenter.take(segmenter.cut)))
    start = segmenter.start
    return [*found, (start, segmenter.take(segmenter.count))]


def test_without_pauses_segments_are_the_windows_of_a_recording(jfk):
    clip = Clip(np.tile(read(jfk).samples, 5))
    for seconds in (30.0, 7.0):
        found = segments(clip.samples, [1600], seconds=seconds, pause=None)
        expected = list(windows(clip, seconds))
        assert [start / RATE for start, _ in found] == [w.start for w in expected]
        for (_, sound), window in zip(found, expected, strict=True):
            np.testing.assert_array_equal(sound, window.samples)


def test_a_pause_ends_a_segment_in_its_quiet_middle():
    sound = np.concatenate([noise(11), noise(1.2, 1e-3), noise(2)])
    (first, a), (second, b) = segments(sound, [160], pause=0.6)
    assert first == 0
    assert 11.0 < second / RATE < 11.6
    np.testing.assert_array_equal(np.concatenate([a, b]), sound)


def test_the_rest_of_a_pause_is_known_as_such():
    def rest(after):
        segmenter = Segmenter(pause=0.6)
        segmenter.feed(np.concatenate([noise(11), noise(0.7, 1e-3), after]))
        segmenter.take(segmenter.cut)
        return segmenter.is_tail

    assert rest(quiet(0))
    assert not rest(noise(0.1))
    assert not rest(noise(2, 1e-3))  # so much of it may be something quiet


def test_a_short_segment_needs_a_longer_pause():
    def count(quiet_seconds):
        return len(segments(np.concatenate([noise(2), quiet(quiet_seconds), noise(2)]), [160], pause=0.6))

    assert (count(1.7), count(1.9)) == (1, 2)


def test_a_short_gap_and_steady_noise_end_nothing():
    assert len(segments(np.concatenate([noise(11), quiet(0.5), noise(2)]), [1600], pause=0.6)) == 1
    assert len(segments(noise(9), [1600], pause=0.6)) == 1


@pytest.mark.parametrize("pieces", [[1], [777, 3], [16_000], [10**7]])
def test_cuts_do_not_depend_on_the_pieces_in_which_sound_comes(pieces):
    parts = [quiet(1.5), noise(0.8), quiet(1.6), noise(2.3, seed=1), noise(0.7, 1e-3), noise(4, seed=2)]
    sound = np.concatenate(parts)[: 40_000 if pieces == [1] else None]
    expected = segments(sound, [1600], seconds=3.0, pause=0.5, search=1.0)
    found = segments(sound, pieces, seconds=3.0, pause=0.5, search=1.0)
    assert [start for start, _ in found] == [start for start, _ in expected]
    for (_, a), (_, b) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_digital_silence_before_the_first_sound_is_let_go_and_counts_for_nothing():
    segmenter = Segmenter(pause=0.6)
    for _ in range(100):
        segmenter.feed(quiet(0.5))
    assert segmenter.count <= 1.5 * RATE
    assert segmenter.start + segmenter.count == 50 * RATE
    assert segmenter.audible == 0
    segmenter.feed(noise(1.0))
    assert segmenter.audible == pytest.approx(1.0)
    assert is_silent(quiet(1))
    assert not is_silent(noise(1, 1e-3))


def test_room_is_one_segment_and_comes_back_when_it_is_taken():
    segmenter = Segmenter(seconds=2.0, pause=None)
    segmenter.feed(noise(2.0))
    assert (segmenter.room, segmenter.cut) == (1, None)
    segmenter.feed(noise(0.5))
    assert segmenter.room == 0
    segmenter.take(segmenter.cut)
    assert segmenter.room > RATE


def test_a_pause_within_a_word_is_refused():
    with pytest.raises(OptionError, match=r"A pause of 0\.1 s"):
        Segmenter(pause=0.1)
