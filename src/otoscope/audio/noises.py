"""Sounds that are no speech, and what rooms and wires do to speech; the same for the same seed.

Noises have the RMS that is asked for; full scale is 1. Changes of a clip keep its length, source, start and labels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from otoscope.audio.clip import SAMPLING_RATE, Clip
from otoscope.audio.mixing import silence
from otoscope.errors import AudioError, OptionError

_LOWEST = 20.0  # Hz: below it nobody hears anything, and 1/f grows without bound
_NYQUIST = SAMPLING_RATE / 2
_SEMITONE = 2 ** (1 / 12)
_CHORDS = ((0, 4, 7), (5, 9, 12), (7, 11, 14), (9, 12, 16), (2, 5, 9))  # I, IV, V, vi, ii in semitones

Samples = npt.NDArray[np.float64]


def coloured_noise(seconds: float, exponent: float, *, seed: int, rms: float = 0.1) -> Clip:
    """Gaussian noise whose power falls as 1/f^exponent: 0 white, 1 pink, 2 brown; flat below 20 Hz.

    Raises:
        OptionError: `seconds` is not a positive number.
        AudioError: It is less than 25 ms.
    """
    count = _count(seconds)
    shape = np.maximum(np.fft.rfftfreq(count, 1 / SAMPLING_RATE), _LOWEST) ** (-exponent / 2)
    shape[0] = 0
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(count))
    return _at(np.fft.irfft(spectrum * shape, count), rms)


def pink_noise(seconds: float, *, seed: int, rms: float = 0.1) -> Clip:
    """Noise with the same power in every octave; see `coloured_noise`."""
    return coloured_noise(seconds, 1, seed=seed, rms=rms)


def speech_shaped_noise(clip: Clip, seconds: float, *, seed: int, rms: float = 0.1) -> Clip:
    """Noise with the long-term spectrum of a clip and random phases, so with its colour and no word of it.

    The spectrum is the mean over windows of 32 ms (Welch), which leaves no trace of the clip's course.

    Raises:
        OptionError: `seconds` is not a positive number.
        AudioError: It is less than 25 ms, or the clip is silent.
    """
    from scipy.signal import welch

    count = _count(seconds)
    _require_sound(clip)
    frequencies, power = welch(
        clip.samples.astype(np.float64), SAMPLING_RATE, nperseg=min(512, len(clip.samples))
    )
    shape = np.sqrt(np.interp(np.fft.rfftfreq(count, 1 / SAMPLING_RATE), frequencies, power))
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(count))
    return _at(np.fft.irfft(spectrum * shape, count), rms)


def babble(clips: Sequence[Clip], seconds: float, *, seed: int, rms: float = 0.1) -> Clip:
    """Several people at once: every clip at the same RMS, begun at a random place, repeated to the length and summed.

    Raises:
        OptionError: There are no clips, or `seconds` is not a positive number.
        AudioError: It is less than 25 ms, or a clip is silent.
    """
    if not clips:
        raise OptionError("Babble needs somebody who speaks.", "Give at least one clip.")
    rng, count = np.random.default_rng(seed), _count(seconds)
    total = np.zeros(count)
    for clip in clips:
        _require_sound(clip)
        voice = clip.samples.astype(np.float64)
        total += np.resize(np.roll(voice, -int(rng.integers(len(voice)))), count) / _rms(voice)
    return _at(total, rms)


def modulated_noise(
    seconds: float, *, seed: int, rate_hz: float = 4.0, depth: float = 1.0, rms: float = 0.1
) -> Clip:
    """Pink noise whose loudness goes up and down as a sine, by default at 4 Hz, the pace of syllables.

    Args:
        seconds: Length.
        seed: Of the noise and of the phase at which the sine begins.
        rate_hz: Modulation frequency.
        depth: 0 (even) to 1 (down to silence).
        rms: Root mean square of the samples.

    Raises:
        OptionError: A number is out of range.
        AudioError: It is less than 25 ms.
    """
    _require_frequency(rate_hz)
    if not 0 <= depth <= 1:
        raise OptionError(f"A modulation depth of {depth} has no meaning.", "Give a number from 0 to 1.")
    carrier = pink_noise(seconds, seed=seed, rms=rms).samples.astype(np.float64)
    phase = np.random.default_rng([seed, 1]).uniform(0, 2 * np.pi)
    wave = 1 + depth * np.sin(2 * np.pi * rate_hz * _times(len(carrier)) + phase)
    return _at(carrier * wave, rms)


def hum(seconds: float, *, seed: int, mains_hz: float = 50.0, rms: float = 0.1) -> Clip:
    """Mains hum: 50 or 60 Hz and nineteen harmonics that fall as 1/k, at random phases.

    Raises:
        OptionError: A number is out of range.
        AudioError: It is less than 25 ms.
    """
    _require_frequency(mains_hz)
    times = _times(_count(seconds))
    phases = np.random.default_rng(seed).uniform(0, 2 * np.pi, 20)
    partials = [k for k in range(1, 21) if k * mains_hz < _NYQUIST]
    return _at(sum(np.sin(2 * np.pi * k * mains_hz * times + phases[k - 1]) / k for k in partials), rms)


def tone(seconds: float, frequency: float, *, rms: float = 0.1) -> Clip:
    """A sine tone, faded in and out over 10 ms.

    Raises:
        OptionError: A number is out of range.
        AudioError: It is less than 25 ms.
    """
    return chirp(seconds, frequency, frequency, rms=rms)


def chirp(seconds: float, start: float, end: float, *, rms: float = 0.1) -> Clip:
    """A sine that glides exponentially from one frequency to another, faded in and out over 10 ms.

    Args:
        seconds: Length.
        start: First frequency in Hz.
        end: Last frequency in Hz.
        rms: Root mean square of the samples.

    Raises:
        OptionError: A number is out of range.
        AudioError: It is less than 25 ms.
    """
    count = _count(seconds)
    _require_frequency(start, end)
    course = start * (end / start) ** (np.arange(count) / count)
    return _at(np.sin(2 * np.pi * np.cumsum(course) / SAMPLING_RATE) * _faded(count), rms)


def clicks(seconds: float, *, seed: int, per_second: float = 4.0, rms: float = 0.02) -> Clip:
    """Single samples at random places, positive and negative, at least one.

    Raises:
        OptionError: A number is out of range.
        AudioError: It is less than 25 ms.
    """
    _require_frequency(per_second)
    rng, count = np.random.default_rng(seed), _count(seconds)
    wave = np.zeros(count)
    places = rng.choice(count, max(1, min(count, round(seconds * per_second))), replace=False)
    wave[places] = rng.choice([-1.0, 1.0], len(places))
    return _at(wave, rms)


def chords(seconds: float, *, seed: int, rms: float = 0.1) -> Clip:
    """Something like music: plucked triads of one key in random order, two a second, with a tune above them.

    Raises:
        OptionError: `seconds` is not a positive number.
        AudioError: It is less than 25 ms.
    """
    rng, count = np.random.default_rng(seed), _count(seconds)
    key, beat = 110.0 * 2 ** rng.uniform(), SAMPLING_RATE // 2
    wave = np.zeros(count + 4 * beat)
    for start in range(0, count, beat):
        chord = _CHORDS[rng.integers(len(_CHORDS))]
        tune = 24 + chord[rng.integers(3)]
        for note in (*chord, tune):
            wave[start : start + 4 * beat] += _plucked(key * _SEMITONE**note, 4 * beat)
    return _at(wave[:count], rms)


def reverberated(clip: Clip, rt60: float, *, seed: int, wet: float = 0.5) -> Clip:
    """The clip in a room: convolved with white noise that decays by 60 dB in `rt60` seconds (Polack's model).

    The length stays, so the last reverberation is cut off, and so does the RMS.

    Args:
        clip: What is said.
        rt60: Reverberation time in seconds, above 0 and up to 10.
        seed: Of the room.
        wet: Share of the reverberation's power in the whole, 0 to 1.

    Raises:
        OptionError: A number is out of range.
        AudioError: The clip is silent.
    """
    from scipy.signal import fftconvolve

    if not 0 < rt60 <= 10 or not 0 <= wet <= 1:
        raise OptionError(
            f"A room with an RT60 of {rt60} s and a share of {wet} cannot be made.",
            "Give a time above 0 and up to 10 s and a share from 0 to 1.",
        )
    _require_sound(clip)
    dry = clip.samples.astype(np.float64)
    response = np.random.default_rng(seed).standard_normal(max(1, round(rt60 * SAMPLING_RATE)))
    response *= 10 ** (-3 * _times(len(response)) / rt60)  # 60 dB are a factor of 1000 in amplitude
    tail = fftconvolve(dry, response / np.linalg.norm(response))[: len(dry)]
    tail *= _rms(dry) / _rms(tail)
    return _changed(clip, math.sqrt(1 - wet) * dry + math.sqrt(wet) * tail, _rms(dry))


def telephone(clip: Clip) -> Clip:
    """The clip through an old telephone: 300 to 3,400 Hz (a Butterworth filter of order 4, run both ways), RMS kept.

    Raises:
        AudioError: The clip is silent or has nothing in that band.
    """
    from scipy.signal import butter, sosfiltfilt

    _require_sound(clip)
    filter = butter(4, (300, 3400), "bandpass", fs=SAMPLING_RATE, output="sos")
    samples = clip.samples.astype(np.float64)
    band = sosfiltfilt(filter, samples, padlen=min(100, len(samples) - 1))
    return _changed(clip, band, _rms(samples))


def reversed_in_time(clip: Clip) -> Clip:
    """The clip backwards."""
    return replace(clip, samples=np.ascontiguousarray(clip.samples[::-1]))


def clipped(clip: Clip, share: float) -> Clip:
    """The clip cut off at the level that the given share of its samples exceeds, RMS kept.

    Args:
        clip: What is to be distorted.
        share: Of all samples, 0 to 1; 0.5 is very hard.

    Raises:
        OptionError: The share is out of range.
        AudioError: The clip is silent, or so much of it that nothing would be left.
    """
    if not 0 <= share < 1:
        raise OptionError(f"{share} is no share of the samples.", "Give a number from 0 to below 1.")
    _require_sound(clip)
    samples = clip.samples.astype(np.float64)
    level = np.quantile(np.abs(samples), 1 - share)
    return _changed(clip, np.clip(samples, -level, level), _rms(samples))


def with_rms(clip: Clip, rms: float) -> Clip:
    """The clip scaled to an RMS; full scale is 1 and may be exceeded.

    Raises:
        OptionError: `rms` is not a positive number.
        AudioError: The clip is silent.
    """
    if not 0 < rms < math.inf:
        raise OptionError(f"A clip cannot have an RMS of {rms}.", "Give a positive number.")
    _require_sound(clip)
    return _changed(clip, clip.samples.astype(np.float64), rms)


def rms_of(clip: Clip) -> float:
    """Root mean square of the samples; full scale is 1."""
    return _rms(clip.samples.astype(np.float64))


def _plucked(frequency: float, count: int) -> Samples:
    times = _times(count)
    partials = [k for k in range(1, 7) if k * frequency < _NYQUIST]
    wave = sum(np.sin(2 * np.pi * k * frequency * times) * np.exp(-2.5 * k * times) / k for k in partials)
    return np.asarray(wave) * _faded(count)


def _faded(count: int) -> Samples:
    """1, but for a raised cosine over 10 ms at either end."""
    length = min(SAMPLING_RATE // 100, count // 2)
    ramp = 0.5 - 0.5 * np.cos(np.pi * np.arange(length) / max(1, length))
    return np.concatenate([ramp, np.ones(count - 2 * length), ramp[::-1]])


def _at(wave: npt.ArrayLike, rms: float) -> Clip:
    if not 0 < rms < math.inf:
        raise OptionError(f"A noise cannot have an RMS of {rms}.", "Give a positive number.")
    wave = np.asarray(wave, np.float64)
    return Clip((wave * (rms / _rms(wave))).astype(np.float32))


def _changed(clip: Clip, wave: Samples, rms: float) -> Clip:
    now = _rms(wave)
    if now == 0:
        raise AudioError(
            "Nothing of the clip would be left.", "Give a clip with sound in it, or change it less."
        )
    return replace(clip, samples=(wave * (rms / now)).astype(np.float32))


def _rms(wave: Samples) -> float:
    return math.sqrt(float(np.mean(wave**2)))


def _count(seconds: float) -> int:
    return len(silence(seconds).samples)  # refuses what is no length


def _times(count: int) -> Samples:
    return np.arange(count) / SAMPLING_RATE


def _require_sound(clip: Clip) -> None:
    if not clip.samples.any():
        raise AudioError(f"{clip.source or 'The clip'} is silent.", "Give a clip that has sound.")


def _require_frequency(*frequencies: float) -> None:
    for frequency in frequencies:
        if not 0 < frequency < _NYQUIST:
            raise OptionError(
                f"{frequency} Hz cannot be heard at a sampling rate of 16 kHz.",
                "Give more than 0 and less than 8000 Hz.",
            )
