"""Raw samples become what a recording of them would be."""

from __future__ import annotations

import numpy as np
import pytest

from otoscope.audio import Clip, Pcm
from otoscope.errors import AudioError, OptionError


def sent(pcm, data, step):
    pieces = [pcm.take(data[i : i + step]) for i in range(0, len(data), step)]
    return np.concatenate([*pieces, pcm.end()])


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000])
@pytest.mark.parametrize("step", [64, 20_000])
def test_a_stream_is_resampled_as_a_recording_is(rate, step):
    samples = np.sin(np.arange(rate) * 440 * 2 * np.pi / rate) * 0.5
    integers = (samples * 32768).astype("<i2")
    got = sent(Pcm(rate, "s16le"), integers.tobytes(), step)
    expected = Clip.of(integers.astype(np.int16), rate).samples
    assert len(got) == len(expected)
    np.testing.assert_allclose(got, expected, atol=2e-6)


def test_floats_stay_as_they_are():
    samples = np.linspace(-1, 1, 1000, dtype="<f4")
    np.testing.assert_array_equal(sent(Pcm(16_000, "f32le"), samples.tobytes(), 400), samples)


@pytest.mark.parametrize(
    "format, data, reason",
    [
        ("s16le", b"abc", "3 bytes is no whole number of s16le"),
        ("f32le", b"abcdef", "6 bytes is no whole number of f32le"),
        ("f32le", np.array([0, np.nan], "<f4").tobytes(), "NaN or infinite"),
        ("f32le", np.array([0, np.inf], "<f4").tobytes(), "NaN or infinite"),
        ("f32le", np.array([0, 20_000], "<f4").tobytes(), "far beyond full scale"),
    ],
)
def test_what_is_no_sound_is_refused(format, data, reason):
    with pytest.raises(AudioError, match=reason):
        Pcm(16_000, format).take(data)


@pytest.mark.parametrize("rate, format", [(4_000, "s16le"), (96_000, "s16le"), (16_000, "mp3")])
def test_unknown_rates_and_formats_are_refused(rate, format):
    with pytest.raises(OptionError):
        Pcm(rate, format)
