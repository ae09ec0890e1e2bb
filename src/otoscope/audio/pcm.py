"""Raw samples as they come over a wire."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from otoscope.audio.clip import SAMPLING_RATE, check_finite
from otoscope.audio.reading import Samples
from otoscope.errors import AudioError, OptionError

Format = Literal["s16le", "f32le"]
"""Little-endian samples of one channel: signed integers of 16 bits, or floats with full scale -1..1."""

LOWEST, HIGHEST = 8_000, 48_000
"""Samples a second that are taken."""

_LOUDEST = 8.0  # full scale is 1: what lies far beyond is integers that were sent as floats


class Pcm:
    """Turns raw samples into float32 at 16 kHz, message by message (soxr, HQ).

    Args:
        rate: Samples a second, 8000 to 48000.
        format: How they are written.

    Raises:
        OptionError: The rate or the format is not known here.
    """

    def __init__(self, rate: int = SAMPLING_RATE, format: str = "s16le") -> None:
        import soxr

        if not LOWEST <= rate <= HIGHEST:
            raise OptionError(
                f"A rate of {rate} samples a second is not taken.", f"Send {LOWEST} to {HIGHEST}."
            )
        if format not in get_args(Format):
            raise OptionError(
                f"The format {format!r} is not known.", f"Send {' or '.join(get_args(Format))}."
            )
        self.rate, self.format, self.taken = rate, format, 0
        self._resampler = (
            None
            if rate == SAMPLING_RATE
            else soxr.ResampleStream(rate, SAMPLING_RATE, 1, dtype="float32", quality="HQ")
        )

    def take(self, data: bytes) -> Samples:
        """Samples `(n,)` at 16 kHz; a resampler gives some of them only with the next message.

        Raises:
            AudioError: Not a whole number of samples, or floats that are no sound.
        """
        size = 2 if self.format == "s16le" else 4
        if len(data) % size:
            raise AudioError(
                f"A message of {len(data)} bytes is no whole number of {self.format} samples.",
                f"Send multiples of {size} bytes.",
            )
        samples = self._floats(data)
        self.taken += len(samples)
        return samples if self._resampler is None else self._resampler.resample_chunk(samples)

    def end(self) -> Samples:
        """What the resampler still holds, `(n,)`."""
        empty = np.empty(0, np.float32)
        return empty if self._resampler is None else self._resampler.resample_chunk(empty, last=True)

    def _floats(self, data: bytes) -> Samples:
        if self.format == "s16le":
            return np.frombuffer(data, "<i2").astype(np.float32) / np.float32(2**15)
        samples = np.frombuffer(data, "<f4").astype(np.float32)
        check_finite("The stream", samples, self.rate, self.taken)
        if len(samples) and np.abs(samples).max() > _LOUDEST:
            raise AudioError(
                f"A sample is {np.abs(samples).max():.3g}, far beyond full scale.", "Scale floats to -1..1."
            )
        return samples
