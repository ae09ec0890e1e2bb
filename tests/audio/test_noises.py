from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otoscope.audio import Clip, noises, read, silence, white_noise
from otoscope.audio.samples import sample
from otoscope.errors import AudioError, OptionError


@pytest.fixture(scope="module")
def austen() -> Clip:
    return read(sample("austen-0880"))


def spectrum(clip: Clip) -> tuple[np.ndarray, np.ndarray]:
    power = np.abs(np.fft.rfft(clip.samples.astype(np.float64))) ** 2
    return np.fft.rfftfreq(len(clip.samples), 1 / 16_000), power


def power_between(clip: Clip, low: float, high: float) -> float:
    frequencies, power = spectrum(clip)
    return float(power[(frequencies >= low) & (frequencies < high)].sum())


MADE = {
    "pink": lambda seed, rms: noises.pink_noise(0.5, seed=seed, rms=rms),
    "brown": lambda seed, rms: noises.coloured_noise(0.5, 2, seed=seed, rms=rms),
    "modulated": lambda seed, rms: noises.modulated_noise(0.5, seed=seed, rms=rms),
    "hum": lambda seed, rms: noises.hum(0.5, seed=seed, rms=rms),
    "clicks": lambda seed, rms: noises.clicks(0.5, seed=seed, rms=rms),
    "chords": lambda seed, rms: noises.chords(0.5, seed=seed, rms=rms),
    "speech-shaped": lambda seed, rms: noises.speech_shaped_noise(
        white_noise(1, seed=0), 0.5, seed=seed, rms=rms
    ),
    "babble": lambda seed, rms: noises.babble([white_noise(1, seed=0)], 0.5, seed=seed, rms=rms),
}


@pytest.mark.parametrize("name", MADE)
@settings(deadline=None)  # the first call imports scipy
@given(seed=st.integers(0, 2**32), rms=st.floats(1e-3, 1))
def test_a_noise_has_its_rms_and_length_and_repeats_with_its_seed(name, seed, rms):
    make = MADE[name]
    noise = make(seed, rms)
    assert noise.samples.dtype == np.float32
    assert len(noise.samples) == 8000
    assert noises.rms_of(noise) == pytest.approx(rms, rel=1e-5)
    np.testing.assert_array_equal(noise.samples, make(seed, rms).samples)
    assert not np.array_equal(noise.samples, make(seed + 1, rms).samples)


@pytest.mark.parametrize("exponent, decibels", [(0, 3.01), (1, 0), (2, -3.01)])
def test_the_power_of_an_octave_changes_with_the_colour(exponent, decibels):
    noise = noises.coloured_noise(20, exponent, seed=0)
    octaves = [10 * math.log10(power_between(noise, 2**k * 62.5, 2 ** (k + 1) * 62.5)) for k in range(7)]
    np.testing.assert_allclose(np.diff(octaves), decibels, atol=0.6)


def test_hum_is_mains_and_harmonics_alone():
    frequencies, power = spectrum(noises.hum(1, seed=0, mains_hz=60))
    loud = frequencies[power > 1e-6 * power.max()]
    np.testing.assert_allclose(loud, 60 * np.arange(1, 21))
    assert frequencies[power.argmax()] == 60


def test_a_tone_is_at_its_frequency():
    frequencies, power = spectrum(noises.tone(1, 440))
    assert frequencies[power.argmax()] == 440


def test_a_chirp_begins_and_ends_where_it_should():
    clip = noises.chirp(2, 300, 3000)
    for part, frequency in ((clip.span(0, 0.2), 300), (clip.span(1.8, 2), 3000)):
        frequencies, power = spectrum(part)
        assert frequencies[power.argmax()] == pytest.approx(frequency, rel=0.25)


def test_modulated_noise_goes_up_and_down_four_times_a_second():
    envelope = np.abs(noises.modulated_noise(10, seed=1).samples.astype(np.float64))
    rhythm = np.abs(np.fft.rfft(envelope - envelope.mean()))[: 10 * 20]  # up to 20 Hz in steps of 0.1 Hz
    assert rhythm.argmax() == 40


def test_speech_shaped_noise_has_the_colour_of_the_speech(austen):
    noise = noises.speech_shaped_noise(austen, 10, seed=0)
    for low, high in ((100, 300), (300, 1000), (1000, 2000), (2000, 4000)):
        share = power_between(austen, low, high) / power_between(austen, 0, 8000)
        assert power_between(noise, low, high) / power_between(noise, 0, 8000) == pytest.approx(
            share, rel=0.25
        )


def test_babble_is_the_sum_of_its_voices():
    voices = [noises.tone(1, 500), noises.tone(0.5, 1500, rms=0.001)]
    both = noises.babble(voices, 2, seed=0)
    assert power_between(both, 400, 600) == pytest.approx(power_between(both, 1400, 1600), rel=0.05)
    assert len(both.samples) == 32_000


def test_reverberation_decays_by_sixty_decibels_in_its_time():
    impulse = np.zeros(32_000, np.float32)
    impulse[0] = 1
    wet = noises.reverberated(Clip(impulse), 0.8, seed=0, wet=1.0)
    energy = np.cumsum((wet.samples.astype(np.float64) ** 2)[::-1])[::-1]  # Schroeder's backward integral
    decay = 10 * np.log10(energy[: round(0.6 * 16_000)] / energy[0])
    slope = np.polyfit(np.arange(len(decay)) / 16_000, decay, 1)[0]
    assert -60 / slope == pytest.approx(0.8, rel=0.05)


def test_reverberation_can_be_a_share(austen):
    np.testing.assert_allclose(
        noises.reverberated(austen, 0.5, seed=0, wet=0).samples, austen.samples, atol=1e-6
    )
    wet = noises.reverberated(austen, 0.5, seed=0)
    assert noises.rms_of(wet) == pytest.approx(noises.rms_of(austen), rel=1e-5)
    assert np.corrcoef(wet.samples, austen.samples)[0, 1] == pytest.approx(math.sqrt(0.5), abs=0.15)


def test_a_telephone_lets_only_its_band_through():
    through = noises.telephone(white_noise(5, seed=0))
    inside = power_between(through, 300, 3400)
    assert inside / power_between(through, 0, 8000) > 0.97
    assert power_between(through, 0, 150) + power_between(through, 5000, 8000) < 1e-3 * inside


@given(seed=st.integers(0, 50), share=st.floats(0.01, 0.9))
def test_clipping_flattens_the_share_it_is_given(seed, share):
    clip = white_noise(0.2, seed=seed)
    flat = noises.clipped(clip, share)
    top = np.abs(flat.samples).max()
    assert np.mean(np.isclose(np.abs(flat.samples), top)) == pytest.approx(share, abs=0.01)
    assert noises.rms_of(flat) == pytest.approx(noises.rms_of(clip), rel=1e-5)


def test_twice_reversed_is_the_same(austen):
    backwards = noises.reversed_in_time(austen)
    np.testing.assert_array_equal(backwards.samples[0], austen.samples[-1])
    np.testing.assert_array_equal(noises.reversed_in_time(backwards).samples, austen.samples)


@pytest.mark.parametrize(
    "change",
    [
        noises.telephone,
        noises.reversed_in_time,
        lambda c: noises.clipped(c, 0.3),
        lambda c: noises.reverberated(c, 0.3, seed=0),
        lambda c: noises.with_rms(c, 0.2),
    ],
)
def test_a_changed_clip_is_still_the_same_recording(change):
    clip = Clip(white_noise(0.1, seed=0).samples, "a.wav", 1.5, {"speaker": "x"})
    changed = change(clip)
    assert (changed.source, changed.start, changed.labels) == ("a.wav", 1.5, {"speaker": "x"})
    assert len(changed.samples) == len(clip.samples)


@pytest.mark.parametrize(
    "make",
    [
        lambda: noises.pink_noise(-1, seed=0),
        lambda: noises.pink_noise(1, seed=0, rms=0),
        lambda: noises.tone(1, 8000),
        lambda: noises.tone(1, math.nan),
        lambda: noises.chirp(1, 0, 100),
        lambda: noises.hum(1, seed=0, mains_hz=-50),
        lambda: noises.modulated_noise(1, seed=0, depth=2),
        lambda: noises.babble([], 1, seed=0),
        lambda: noises.reverberated(white_noise(1, seed=0), 0, seed=0),
        lambda: noises.clipped(white_noise(1, seed=0), 1),
        lambda: noises.with_rms(white_noise(1, seed=0), math.inf),
    ],
)
def test_numbers_out_of_range_are_refused(make):
    with pytest.raises(OptionError):
        make()


@pytest.mark.parametrize(
    "change",
    [
        noises.telephone,
        lambda c: noises.clipped(c, 0.3),
        lambda c: noises.reverberated(c, 0.3, seed=0),
        lambda c: noises.with_rms(c, 0.2),
        lambda c: noises.speech_shaped_noise(c, 1, seed=0),
        lambda c: noises.babble([c], 1, seed=0),
    ],
)
def test_silence_cannot_be_scaled(change):
    with pytest.raises(AudioError, match="is silent"):
        change(silence(0.5))


def test_clipping_that_leaves_nothing_is_refused():
    click = Clip(np.r_[np.zeros(999), 1].astype(np.float32))
    with pytest.raises(AudioError, match="Nothing of the clip"):
        noises.clipped(click, 0.5)
