from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otoscope.audio import SAMPLING_RATE, Clip
from otoscope.errors import AudioError


def tone(rate: int, seconds: float, frequency: float = 440.0) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * frequency * np.arange(round(rate * seconds)) / rate)


def test_a_clip_knows_its_duration_and_rate():
    clip = Clip(np.zeros(8000, np.float32))
    assert (clip.duration, clip.sampling_rate) == (0.5, SAMPLING_RATE)


def test_samples_of_a_clip_cannot_be_written_to():
    clip = Clip(np.zeros(8000, np.float32))
    with pytest.raises(ValueError):
        clip.samples[0] = 1


def test_making_a_clip_leaves_the_callers_array_writable():
    samples = np.zeros(8000, np.float32)
    Clip(samples)
    samples[0] = 1


def test_a_clip_made_from_an_array_does_not_change_with_it():
    samples = np.zeros(8000, np.float32)
    clip = Clip.of(samples, SAMPLING_RATE)
    samples[:] = 1
    assert not clip.samples.any()


@given(
    n=st.integers(800, 4000),
    t0=st.floats(0, 0.02),
    length=st.floats(0.026, 1),
)
def test_a_span_is_that_part_of_the_samples_and_knows_where_it_began(n, t0, length):
    clip = Clip(np.linspace(-1, 1, n, dtype=np.float32), "a.wav", 2.0, {"speaker": "x"})
    span = clip.span(t0, t0 + length)
    first = round(t0 * SAMPLING_RATE)
    last = round(min(t0 + length, clip.duration) * SAMPLING_RATE)
    np.testing.assert_array_equal(span.samples, clip.samples[first:last])
    assert span.start == 2.0 + first / SAMPLING_RATE
    assert (span.source, span.labels) == ("a.wav", {"speaker": "x"})


@pytest.mark.parametrize("t0, t1", [(-0.1, 0.2), (0.3, 0.2), (0.2, 0.2), (0.5, 0.6), (float("nan"), 0.2)])
def test_a_span_outside_the_clip_is_refused(t0, t1):
    with pytest.raises(AudioError, match=r"does not lie in a clip of 0\.5 s"):
        Clip(np.zeros(8000, np.float32)).span(t0, t1)


def test_a_span_too_short_to_hear_is_refused():
    with pytest.raises(AudioError, match=r"holds 160 samples \(10 ms\)"):
        Clip(np.zeros(8000, np.float32)).span(0.1, 0.11)


@pytest.mark.parametrize("rate", [8_000, 11_025, 44_100, 96_000])
def test_resampling_keeps_length_and_tone(rate):
    clip = Clip.of(tone(rate, 1.0), rate)
    assert len(clip.samples) == SAMPLING_RATE
    inner = slice(1000, -1000)  # the filter rings where the tone begins and ends
    np.testing.assert_allclose(clip.samples[inner], tone(SAMPLING_RATE, 1.0)[inner], atol=1e-3)


def test_resampling_lets_nothing_above_the_new_nyquist_frequency_through():
    clip = Clip.of(tone(48_000, 1.0, frequency=12_000), 48_000)
    assert np.abs(clip.samples[1000:-1000]).max() < 1e-4


def test_channels_are_averaged():
    left, right = tone(16_000, 0.1), tone(16_000, 0.1, 900.0)
    clip = Clip.of(np.stack([left, right], axis=1), 16_000)
    np.testing.assert_allclose(clip.samples, (left + right) / 2, atol=1e-6)


@pytest.mark.parametrize(
    "samples",
    [
        np.full(800, -(2**15), np.int16),
        np.full(800, -(2**31), np.int32),
        np.zeros(800, np.uint8),
        np.full(800, -1.0),
    ],
    ids=["int16", "int32", "uint8", "float64"],
)
def test_integers_are_read_at_the_full_scale_of_their_type(samples):
    assert (Clip.of(samples, 16_000).samples == -1).all()


def test_values_beyond_full_scale_are_kept():
    assert Clip.of(np.full(800, 3.5), 16_000).samples.max() == 3.5


@pytest.mark.parametrize(
    "samples, rate, reason",
    [
        (np.zeros(0), 16_000, "holds no samples"),
        (np.zeros(1), 16_000, r"holds 1 sample \(0.062 ms\)"),
        (np.zeros(399), 16_000, "holds 399 samples"),
        (np.full(800, np.nan), 16_000, "NaN or infinite, the first at 0.000 s"),
        (np.r_[np.zeros(800), np.inf], 16_000, "NaN or infinite, the first at 0.050 s"),
        (np.zeros(800), 0, "sampling rate of 0 Hz"),
        (np.zeros(800), -16_000, "sampling rate of -16000 Hz"),
        (np.zeros((2, 2, 800)), 16_000, "no recording"),
        (np.zeros((800, 0)), 16_000, "no recording"),
        (np.zeros(800, bool), 16_000, "no known full scale"),
        (np.zeros(800, complex), 16_000, "no known full scale"),
    ],
)
def test_an_array_that_is_no_sound_is_refused(samples, rate, reason):
    with pytest.raises(AudioError, match=reason):
        Clip.of(samples, rate)


@pytest.mark.parametrize("samples", [np.zeros(800), np.zeros((800, 2), np.float32)])
def test_the_bare_constructor_refuses_what_it_would_have_to_convert(samples):
    with pytest.raises(AudioError, match="not float32"):
        Clip(samples)
