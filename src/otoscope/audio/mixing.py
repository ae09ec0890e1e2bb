"""Reference sounds, and mixing at a signal-to-noise ratio."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from otoscope.audio.clip import SAMPLING_RATE, Clip
from otoscope.errors import AudioError, OptionError


def silence(seconds: float) -> Clip:
    """Digital silence.

    Raises:
        OptionError: `seconds` is not a positive number.
        AudioError: It is less than 25 ms.
    """
    return Clip(np.zeros(_samples_in(seconds), np.float32))


def white_noise(seconds: float, *, seed: int, rms: float = 0.1) -> Clip:
    """Gaussian white noise, the same for the same seed.

    Args:
        seconds: Length.
        seed: Seed of the generator.
        rms: Root mean square of the samples; full scale is 1.

    Raises:
        OptionError: `seconds` is not a positive number.
        AudioError: It is less than 25 ms.
    """
    noise = np.random.default_rng(seed).standard_normal(_samples_in(seconds))
    return Clip((noise * (rms / math.sqrt(np.mean(noise**2)))).astype(np.float32))


def mix(clip: Clip, noise: Clip, snr_db: float) -> Clip:
    """The clip with noise added at a signal-to-noise ratio.

    The ratio is that of mean powers over the whole clip, pauses included:
    `snr_db` = 10 log10(P_clip / P_noise). The clip itself is not scaled, so the sum may exceed -1..1.

    Args:
        clip: What is to be heard; its source, start and labels are kept.
        noise: What disturbs it, repeated or cut to the clip's length.
        snr_db: Decibels; the lower, the louder the noise.

    Raises:
        AudioError: The clip or the used part of the noise is silent, so that no ratio is defined, or the
            ratio is so low that the noise exceeds float32.
        OptionError: `snr_db` is not a finite number.
    """
    if not math.isfinite(snr_db):
        raise OptionError(f"An SNR of {snr_db} dB cannot be mixed.", "Give a finite number of decibels.")
    signal = clip.samples.astype(np.float64)
    disturbance = np.resize(noise.samples, len(signal)).astype(np.float64)
    gain = math.sqrt(_power(signal, "clip") / _power(disturbance, "noise")) * 10 ** (-snr_db / 20)
    with np.errstate(over="ignore"):
        mixed = (signal + gain * disturbance).astype(np.float32)
    return replace(clip, samples=mixed)


def _power(samples: np.ndarray, role: str) -> float:
    power = float(np.mean(samples**2))
    if power == 0:
        raise AudioError(f"The {role} is silent, so an SNR has no meaning.", f"Give a {role} that has sound.")
    return power


def _samples_in(seconds: float) -> int:
    if not 0 < seconds < math.inf:
        raise OptionError(f"{seconds} s is no length of a sound.", "Give a positive number of seconds.")
    return round(seconds * SAMPLING_RATE)
