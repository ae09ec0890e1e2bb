from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otoscope.audio import Clip, mix, silence, white_noise
from otoscope.errors import AudioError, OptionError


def power(samples: np.ndarray) -> float:
    return float(np.mean(samples.astype(np.float64) ** 2))


@given(snr_db=st.floats(-30, 40), noise_seconds=st.floats(0.03, 0.5), seed=st.integers(0, 100))
def test_a_mixture_has_the_snr_that_was_asked_for(snr_db, noise_seconds, seed):
    clip = white_noise(0.2, seed=seed, rms=0.2)
    mixed = mix(clip, white_noise(noise_seconds, seed=seed + 1), snr_db)
    added = mixed.samples.astype(np.float64) - clip.samples
    assert 10 * math.log10(power(clip.samples) / power(added)) == pytest.approx(snr_db, abs=1e-3)


def test_short_noise_is_repeated_and_long_noise_cut():
    clip = white_noise(0.1, seed=0)
    short = white_noise(0.03, seed=1)
    added = mix(clip, short, 0).samples - clip.samples
    np.testing.assert_allclose(added[: len(short.samples)], added[480 : 480 + len(short.samples)], atol=1e-6)
    assert len(mix(clip, white_noise(3, seed=1), 0).samples) == len(clip.samples)


def test_a_mixture_is_still_the_same_clip():
    clip = Clip(white_noise(0.1, seed=0).samples, "a.wav", 1.5, {"speaker": "x"})
    mixed = mix(clip, white_noise(0.1, seed=1), 10)
    assert (mixed.source, mixed.start, mixed.labels) == ("a.wav", 1.5, {"speaker": "x"})


@pytest.mark.parametrize(
    "clip, noise, role",
    [
        (silence(0.1), white_noise(0.1, seed=0), "clip"),
        (white_noise(0.1, seed=0), silence(0.1), "noise"),
        (
            white_noise(0.1, seed=0),
            Clip(np.r_[np.zeros(1600), np.ones(1600)].astype(np.float32)),
            "noise",
        ),
    ],
    ids=["silent clip", "silent noise", "noise silent for as long as the clip"],
)
def test_silence_has_no_snr(clip, noise, role):
    with pytest.raises(AudioError, match=f"The {role} is silent"):
        mix(clip, noise, 10)


@pytest.mark.parametrize("snr_db", [math.nan, math.inf, -math.inf])
def test_an_snr_that_is_no_finite_number_is_refused(snr_db):
    with pytest.raises(OptionError):
        mix(white_noise(0.1, seed=0), white_noise(0.1, seed=1), snr_db)


def test_noise_louder_than_float32_can_hold_is_refused():
    with pytest.raises(AudioError, match="infinite"):
        mix(white_noise(0.1, seed=0), white_noise(0.1, seed=1), -1000)


@given(seed=st.integers(0, 2**32), rms=st.floats(1e-4, 10))
def test_white_noise_has_its_rms_and_repeats_with_its_seed(seed, rms):
    noise = white_noise(0.1, seed=seed, rms=rms)
    assert math.sqrt(power(noise.samples)) == pytest.approx(rms, rel=1e-5)
    np.testing.assert_array_equal(noise.samples, white_noise(0.1, seed=seed, rms=rms).samples)
    assert not np.array_equal(noise.samples, white_noise(0.1, seed=seed + 1, rms=rms).samples)


def test_white_noise_has_the_same_power_in_every_band():
    bands = np.abs(np.fft.rfft(white_noise(10, seed=0).samples.astype(np.float64)))[1:] ** 2
    octiles = bands.reshape(8, -1).mean(axis=1)
    np.testing.assert_allclose(octiles / octiles.mean(), 1, atol=0.05)


def test_silence_is_zero_for_its_whole_length():
    clip = silence(1.5)
    assert clip.duration == 1.5
    assert not clip.samples.any()


@pytest.mark.parametrize("seconds", [0, -1, math.nan, math.inf])
def test_a_sound_needs_a_length(seconds):
    with pytest.raises(OptionError):
        silence(seconds)
    with pytest.raises(OptionError):
        white_noise(seconds, seed=0)
