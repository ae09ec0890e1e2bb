"""The clip: what every model here listens to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from otoscope.errors import AudioError
from otoscope.showing import asked

SAMPLING_RATE = 16_000
"""Samples a second of every `Clip`, as Whisper and Qwen2-Audio expect them."""

SHORTEST = 0.025
"""Seconds that a clip must at least hold: one analysis window of the log-mel spectrogram (400 samples)."""

LOWEST_RATE, HIGHEST_RATE = 1_000, 768_000


@dataclass(frozen=True, eq=False)
class Clip:
    """Mono audio at 16 kHz, with where it comes from and what is known about it.

    The samples are read-only. They are used as they are: values beyond -1..1 are neither clipped nor scaled.

    Attributes:
        samples: float32, shape (n,), n >= 400; full scale is -1..1.
        source: The recording's path as it was given, or None for audio made here.
        start: Where the clip begins in its source, in seconds.
        labels: What is known about the clip (speaker, gender, kind, ...).

    Raises:
        AudioError: The samples are not one channel of float32, are not finite, or last less than 25 ms.
    """

    samples: npt.NDArray[np.float32] = field(repr=False)
    source: str | None = None
    start: float = 0.0
    labels: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        name = self.source or "The clip"
        samples = np.asarray(self.samples).view()
        if samples.dtype != np.float32 or samples.ndim != 1:
            raise AudioError(
                f"{name} has samples of type {samples.dtype} and shape {samples.shape} not float32 (n,).",
                "Make the clip with Clip.of(samples, rate), which converts.",
            )
        check_length(name, len(samples), SAMPLING_RATE)
        check_finite(name, samples, SAMPLING_RATE)
        samples.flags.writeable = False
        object.__setattr__(self, "samples", samples)

    @classmethod
    def of(cls, samples: npt.ArrayLike, rate: int) -> Clip:
        """A clip from samples of any rate and channel count; the channels are averaged.

        Args:
            samples: Shape (n,) or (n, channels). Floats with full scale -1..1, or integers with the full
                scale of their type (as WAV files hold them: signed, or 8 bits unsigned).
            rate: Samples a second.

        Raises:
            AudioError: The samples or the rate cannot be used; see `Clip`.
        """
        import soxr

        name = "The clip"
        check_rate(name, rate)
        mono = mixed_down(_full_scale(np.asarray(samples)))
        check_length(name, len(mono), rate)
        check_finite(name, mono, rate)
        return cls(mono.copy() if rate == SAMPLING_RATE else soxr.resample(mono, rate, SAMPLING_RATE, "HQ"))

    @property
    def sampling_rate(self) -> int:
        """Samples a second: always 16,000."""
        return SAMPLING_RATE

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return len(self.samples) / SAMPLING_RATE

    def _repr_html_(self) -> str:
        return asked("clips").html_of(self)

    def span(self, t0: float, t1: float) -> Clip:
        """The part from `t0` to `t1`, sharing this clip's samples.

        Args:
            t0: Begin, in seconds from the begin of this clip.
            t1: End, in seconds from the begin of this clip; a time beyond the end means the end.

        Raises:
            AudioError: The times are not in order, lie outside, or leave less than 25 ms.
        """
        if not 0 <= t0 < min(t1, self.duration):
            raise AudioError(
                f"The span from {t0:g} to {t1:g} s does not lie in a clip of {self.duration:g} s.",
                f"Give two times in ascending order between 0 and {self.duration:g} s.",
            )
        first, last = round(t0 * SAMPLING_RATE), round(min(t1, self.duration) * SAMPLING_RATE)
        return replace(self, samples=self.samples[first:last], start=self.start + first / SAMPLING_RATE)


def mixed_down(samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The mean of the channels: (n,) or (n, channels) float32 to (n,) float32."""
    return samples if samples.ndim == 1 else samples.mean(axis=1, dtype=np.float32)


def check_rate(name: str, rate: int) -> None:
    """Refuse a sampling rate that no recording has.

    Raises:
        AudioError: The rate is outside 1 to 768 kHz.
    """
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise AudioError(
            f"{name} has a sampling rate of {rate} Hz, outside {LOWEST_RATE} to {HIGHEST_RATE} Hz.",
            "Give the rate at which it was recorded, or export it again at 16000 Hz.",
        )


def check_length(name: str, count: int, rate: float) -> None:
    """Refuse audio too short to be heard.

    Raises:
        AudioError: `count` samples at `rate` Hz last less than 25 ms.
    """
    if count == 0:
        raise AudioError(f"{name} holds no samples.", "Give a recording that has sound in it.")
    if count < SHORTEST * rate:
        samples = "1 sample" if count == 1 else f"{count} samples"
        raise AudioError(
            f"{name} holds {samples} ({1000 * count / rate:.2g} ms); nothing can be heard in that.",
            f"Give a recording or span of at least {1000 * SHORTEST:g} ms.",
        )


def check_finite(name: str, samples: npt.NDArray[np.float32], rate: float, start: int = 0) -> None:
    """Refuse samples that are not numbers.

    Args:
        name: What the samples belong to.
        samples: Shape (n,).
        rate: Samples a second.
        start: How many samples of the recording come before these.

    Raises:
        AudioError: A sample is NaN or infinite.
    """
    finite = np.isfinite(samples)
    if not finite.all():
        first = (start + int(np.argmin(finite))) / rate
        raise AudioError(
            f"{name} holds samples that are NaN or infinite, the first at {first:.3f} s.",
            "Export the recording again, or replace those samples.",
        )


def _full_scale(samples: npt.NDArray) -> npt.NDArray[np.float32]:
    if samples.ndim not in (1, 2) or samples.shape[1:] == (0,):
        raise AudioError(
            f"Samples of shape {samples.shape} are no recording.", "Give shape (n,) or (n, channels)."
        )
    if np.issubdtype(samples.dtype, np.floating):
        return samples.astype(np.float32)
    if samples.dtype == np.uint8:
        return ((samples.astype(np.float32) - 128) / 128).astype(np.float32)
    if np.issubdtype(samples.dtype, np.signedinteger):
        return (samples / -float(np.iinfo(samples.dtype).min)).astype(np.float32)
    raise AudioError(
        f"Samples of type {samples.dtype} have no known full scale.",
        "Give floats between -1 and 1, signed integers or 8-bit unsigned ones.",
    )
