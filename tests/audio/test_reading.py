from __future__ import annotations

import os
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from otoscope.audio import SAMPLING_RATE, Clip, info, read, windows
from otoscope.errors import AudioError, OptionError


def tone(rate: int, seconds: float, frequency: float = 440.0) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * frequency * np.arange(round(rate * seconds)) / rate)


def noise(seconds: float, rate: int = SAMPLING_RATE, seed: int = 0) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal(round(rate * seconds))


@pytest.fixture
def wav(tmp_path) -> Path:
    path = tmp_path / "speech.wav"
    soundfile.write(path, noise(2.0), SAMPLING_RATE)
    return path


def joined(clips: list[Clip]) -> np.ndarray:
    return np.concatenate([clip.samples for clip in clips])


# What must simply work


@pytest.mark.parametrize(
    "name, rate, channels, subtype, tolerance",
    [
        ("a.wav", 8_000, 2, "PCM_24", 2e-3),
        ("a.wav", 96_000, 1, "FLOAT", 2e-3),
        ("a.wav", 16_000, 1, "PCM_U8", 1e-2),
        ("a.wav", 44_100, 6, "DOUBLE", 2e-3),
        ("a.wav", 8_000, 1, "ULAW", 2e-2),
        ("a.flac", 16_000, 1, "PCM_16", 1e-4),
        ("a.flac", 48_000, 2, "PCM_24", 2e-3),
        ("a.ogg", 22_050, 2, "VORBIS", 5e-2),
        ("a.opus", 48_000, 1, "OPUS", 5e-2),
        ("a.mp3", 44_100, 2, "MPEG_LAYER_III", 5e-2),
        ("a.aiff", 32_000, 1, "PCM_16", 2e-3),
    ],
)
def test_any_rate_channel_count_and_sample_format_is_heard_the_same(
    tmp_path, name, rate, channels, subtype, tolerance
):
    path = tmp_path / name
    container = "OGG" if name.endswith(".opus") else None
    sound = np.repeat(tone(rate, 1.5)[:, None], channels, axis=1)
    soundfile.write(path, sound, rate, subtype=subtype, format=container)
    clip = read(path)
    assert clip.duration == pytest.approx(1.5, abs=1e-4)
    assert (clip.source, clip.start) == (str(path), 0.0)
    inner = slice(2000, -2000)
    np.testing.assert_allclose(clip.samples[inner], tone(16_000, 1.5)[inner], atol=tolerance)
    header = info(path)
    assert (header.rate, header.channels, header.subtype) == (rate, channels, subtype)
    assert header.duration == pytest.approx(1.5, abs=1e-4)


def test_a_16_khz_float_recording_is_read_bit_for_bit(tmp_path):
    samples = (30 * noise(1.0)).astype(np.float32)  # well beyond full scale, as float files may be
    soundfile.write(tmp_path / "a.wav", samples, SAMPLING_RATE, subtype="FLOAT")
    np.testing.assert_array_equal(read(tmp_path / "a.wav").samples, samples)


def test_a_recording_and_an_array_are_resampled_alike(tmp_path):
    samples = noise(20, rate=44_100).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", samples, 44_100, subtype="FLOAT")
    np.testing.assert_array_equal(read(tmp_path / "a.wav").samples, Clip.of(samples, 44_100).samples)


def test_a_span_of_a_recording_is_read_where_it_lies(wav):
    whole = read(wav)
    part = read(wav, offset=0.5, duration=0.25)
    np.testing.assert_array_equal(part.samples, whole.samples[8000:12000])
    assert (part.start, part.duration) == (0.5, 0.25)


def test_a_span_that_reaches_beyond_the_end_stops_there(wav):
    assert read(wav, offset=1.5, duration=9.0).duration == 0.5


def test_a_path_may_hold_anything_a_file_system_allows(tmp_path, wav):
    for name in (
        "with spaces ünd 音.wav",
        "-rf.wav",
        "%s{0}.wav",
        "no suffix",
        os.fsdecode(b"latin-\xe9.wav"),
    ):
        path = tmp_path / name
        path.write_bytes(wav.read_bytes())
        assert read(path).duration == 2.0


def test_a_wav_written_into_a_pipe_is_whole_though_its_header_leaves_the_size_open(tmp_path, wav):
    content = bytearray(wav.read_bytes())
    for size in (0xFFFFFFFF, 0x7FFFF000, 0x80000000):
        content[40:44] = struct.pack("<I", size)
        (tmp_path / "piped.wav").write_bytes(content)
        np.testing.assert_array_equal(read(tmp_path / "piped.wav").samples, read(wav).samples)


def test_a_flac_written_into_a_pipe_is_whole_though_its_header_leaves_the_length_open(tmp_path):
    path = tmp_path / "a.flac"
    soundfile.write(path, noise(3.0), SAMPLING_RATE)
    expected = read(path).samples
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0  # the 36-bit number of samples in STREAMINFO
    content[22:26] = bytes(4)
    path.write_bytes(content)
    assert info(path).duration is None
    np.testing.assert_array_equal(read(path).samples, expected)
    np.testing.assert_array_equal(read(path, offset=1.0).samples, expected[16_000:])
    with pytest.raises(AudioError, match="beyond the end"):
        read(path, offset=60.0)


def test_a_wav_without_its_last_padding_byte_is_whole(tmp_path):
    path = tmp_path / "odd.wav"
    soundfile.write(path, noise(0.5)[:7771], SAMPLING_RATE, subtype="PCM_24")
    path.write_bytes(path.read_bytes()[: 44 + 3 * 7771])
    assert len(read(path).samples) == 7771


def test_an_mp3_of_constant_bitrate_without_a_length_header_is_read_to_its_end(tmp_path):
    path = tmp_path / "a.mp3"
    soundfile.write(path, tone(16_000, 5.0), SAMPLING_RATE, compression_level=0.5, bitrate_mode="CONSTANT")
    content = path.read_bytes()
    second_frame = content.index(content[:2], 4)  # the first holds the length
    path.write_bytes(content[second_frame:])
    assert read(path).duration == pytest.approx(5.0, abs=0.2)


# What must be refused


def refused(path: Path | str, reason: str, **span) -> None:
    for attempt in (lambda: read(path, **span), lambda: list(windows(path, **span))):
        with pytest.raises(AudioError, match=reason) as caught:
            attempt()
        assert caught.value.reason.endswith(".")
        assert caught.value.remedy.endswith(".")
        assert "\n" not in caught.value.reason + caught.value.remedy


def test_a_missing_file_is_refused(tmp_path):
    refused(tmp_path / "none.wav", "none.wav does not exist")
    refused(tmp_path / "folder" / "none.wav", "none.wav does not exist")


def test_a_folder_is_refused(tmp_path):
    refused(tmp_path, "is a folder")


def test_an_impossible_path_is_refused():
    refused("nul\0byte.wav", "cannot be read")
    refused("x" * 5000 + ".wav", "cannot be read")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_refused_instead_of_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    refused(tmp_path / "pipe.wav", "not a regular file")


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="whoever may read everything cannot be refused"
)
def test_a_file_that_may_not_be_read_is_refused(wav):
    wav.chmod(0)
    refused(wav, "Permission denied")


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "empty.wav").touch()
    refused(tmp_path / "empty.wav", r"empty \(0 bytes\)")


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3", ".raw", ""])
@pytest.mark.parametrize(
    "content", [b"Dear diary,\n" * 300, np.random.default_rng(1).bytes(5000)], ids=["text", "random bytes"]
)
def test_a_file_that_is_no_audio_is_refused(tmp_path, suffix, content):
    (tmp_path / f"diary{suffix}").write_bytes(content)
    refused(tmp_path / f"diary{suffix}", "is not audio")


@pytest.mark.parametrize("fraction", [0.2, 0.6, 0.99])
@pytest.mark.parametrize(
    "name, subtype, container",
    [
        ("a.wav", "PCM_16", "WAV"),
        ("a.wav", "PCM_24", "WAVEX"),
        ("a.wav", "PCM_16", "RF64"),
        ("a.aiff", "PCM_16", "AIFF"),
        ("a.au", "PCM_16", "AU"),
        ("a.flac", "PCM_16", "FLAC"),
        ("a.ogg", "VORBIS", "OGG"),
        ("a.opus", "OPUS", "OGG"),
        ("a.mp3", "MPEG_LAYER_III", "MP3"),
    ],
)
def test_a_truncated_file_is_refused_instead_of_heard_in_part(tmp_path, name, subtype, container, fraction):
    path = tmp_path / name
    soundfile.write(path, noise(20.0), SAMPLING_RATE, subtype=subtype, format=container)
    content = path.read_bytes()
    path.write_bytes(content[: int(fraction * len(content))])
    refused(path, "is truncated")


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg"])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lost=st.integers(1, 9_000))
def test_a_recording_cut_at_any_byte_is_refused(tmp_path, name, lost):
    whole = tmp_path / f"whole_{name}"
    if not whole.exists():
        soundfile.write(whole, noise(1.0), SAMPLING_RATE)
    content = whole.read_bytes()
    (tmp_path / name).write_bytes(content[: max(0, len(content) - lost)])
    with pytest.raises(AudioError):
        read(tmp_path / name)


def test_an_ogg_cut_between_two_pages_is_refused(tmp_path):
    path = tmp_path / "a.ogg"
    soundfile.write(path, noise(20.0), SAMPLING_RATE)
    content = path.read_bytes()
    path.write_bytes(content[: content.rindex(b"OggS")])
    refused(path, "truncated: its last page is missing")


def test_bytes_that_other_programs_append_do_no_harm(tmp_path):
    for name in ("a.wav", "a.ogg", "a.mp3"):
        path = tmp_path / name
        soundfile.write(path, noise(2.0), SAMPLING_RATE)
        expected = read(path).samples
        path.write_bytes(path.read_bytes() + b"TAG" + bytes(125))
        np.testing.assert_array_equal(read(path).samples, expected)


def test_a_flac_damaged_in_the_middle_is_refused(tmp_path):
    path = tmp_path / "a.flac"
    soundfile.write(path, noise(5.0), SAMPLING_RATE)
    content = bytearray(path.read_bytes())
    content[40_000:40_100] = bytes(100)
    path.write_bytes(content)
    refused(path, "truncated or damaged")


def test_a_header_without_sound_is_refused(tmp_path, wav):
    (tmp_path / "header.wav").write_bytes(wav.read_bytes()[:44])
    refused(tmp_path / "header.wav", "truncated: its header promises 64000 bytes of sound, it holds 0")


@pytest.mark.parametrize("name", ["zero.wav", "zero.ogg"])
def test_a_recording_of_no_length_is_refused(tmp_path, name):
    soundfile.write(tmp_path / name, np.zeros(0), SAMPLING_RATE)
    refused(tmp_path / name, "holds no samples")


@pytest.mark.parametrize("name", ["one.wav", "one.flac", "one.ogg", "one.mp3"])
def test_a_recording_of_one_sample_is_refused(tmp_path, name):
    soundfile.write(tmp_path / name, np.zeros(1), SAMPLING_RATE)
    refused(tmp_path / name, r"holds 1 sample \(0.062 ms\); nothing can be heard")


def test_25_ms_can_be_heard_and_less_cannot(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(1103), 44_100)
    assert len(read(tmp_path / "a.wav").samples) == 400
    soundfile.write(tmp_path / "b.wav", np.zeros(1102), 44_100)
    refused(tmp_path / "b.wav", r"holds 1102 samples \(25 ms\)")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("rate", [8_000, 16_000])
def test_samples_that_are_no_numbers_are_refused(tmp_path, value, rate):
    samples = np.zeros((2 * rate, 2), np.float32)
    samples[rate:, 1] = value
    soundfile.write(tmp_path / "a.wav", samples, rate, subtype="FLOAT")
    refused(tmp_path / "a.wav", r"a.wav holds samples that are NaN or infinite, the first at 1.000 s")


@pytest.mark.parametrize("rate", [1, 2_000_000_000])
def test_a_rate_that_would_blow_memory_up_is_refused(tmp_path, rate):
    soundfile.write(tmp_path / "a.wav", np.zeros(1000), rate)
    refused(tmp_path / "a.wav", f"sampling rate of {rate} Hz")


@pytest.mark.parametrize("offset", [2.0, 2.5, 1e9])
def test_an_offset_beyond_the_end_is_refused(wav, offset):
    refused(wav, r"beyond the end of .*speech.wav", offset=offset)


@pytest.mark.parametrize(
    "offset, duration", [(-1, None), (float("nan"), None), (0, 0), (0, -1), (0, float("nan"))]
)
def test_a_span_that_is_none_is_refused(wav, offset, duration):
    refused(wav, "does not lie in .*speech.wav", offset=offset, duration=duration)


@pytest.mark.parametrize("span", [{"offset": 1.999}, {"duration": 0.01}])
def test_a_span_too_short_to_hear_is_refused(wav, span):
    refused(wav, "nothing can be heard", **span)


# Windows


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3"])
@pytest.mark.parametrize("seconds", [0.5, 29.99, 30.0])
def test_what_fits_into_one_window_is_what_read_gives(tmp_path, name, seconds):
    soundfile.write(tmp_path / name, noise(seconds, rate=22_050), 22_050)
    (window,) = windows(tmp_path / name)
    expected = read(tmp_path / name)
    np.testing.assert_array_equal(window.samples, expected.samples)
    assert (window.source, window.start, window.labels) == (expected.source, expected.start, expected.labels)


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
def test_windows_tile_the_recording_without_gap_or_overlap(tmp_path, rate):
    soundfile.write(tmp_path / "a.wav", noise(75.3, rate=rate), rate)
    clips = list(windows(tmp_path / "a.wav"))
    np.testing.assert_array_equal(joined(clips), read(tmp_path / "a.wav").samples)
    ends = np.cumsum([0.0] + [clip.duration for clip in clips])
    np.testing.assert_allclose([clip.start for clip in clips], ends[:-1])
    assert all(25 <= clip.duration <= 30 for clip in clips[:-1])


@settings(max_examples=50, deadline=None)
@given(length=st.floats(0.03, 9), seconds=st.floats(0.2, 4), search=st.floats(0.2, 5), seed=st.integers(0, 9))
def test_windows_of_any_size_tile_any_clip(length, seconds, search, seed):
    clip = Clip(noise(length, seed=seed).astype(np.float32), "a.wav", 7.0, {"kind": "noise"})
    clips = list(windows(clip, seconds, search=search))
    np.testing.assert_array_equal(joined(clips), clip.samples)
    starts = 7.0 + np.cumsum([0.0] + [part.duration for part in clips])[:-1]
    np.testing.assert_allclose([part.start for part in clips], starts)
    assert max(len(part.samples) for part in clips) <= round(seconds * SAMPLING_RATE)
    assert all((part.source, part.labels) == ("a.wav", {"kind": "noise"}) for part in clips)


def test_a_long_recording_is_cut_in_its_pauses(tmp_path):
    sound = noise(60.0)
    for begin, end in [(26.0, 26.5), (53.1, 53.4)]:
        sound[round(begin * SAMPLING_RATE) : round(end * SAMPLING_RATE)] *= 1e-3
    soundfile.write(tmp_path / "a.wav", sound, SAMPLING_RATE, subtype="FLOAT")
    first, second, third = windows(tmp_path / "a.wav")
    assert 26.1 <= second.start <= 26.4
    assert 53.2 <= third.start <= 53.3
    assert first.start == 0.0


def test_of_equally_quiet_places_the_latest_is_taken():
    clips = list(windows(Clip(np.zeros(40 * SAMPLING_RATE, np.float32))))
    assert [clip.duration for clip in clips] == [29.9, 10.1]


def test_windows_are_the_same_each_time(tmp_path):
    soundfile.write(tmp_path / "a.mp3", noise(70.0), SAMPLING_RATE)
    starts = [[clip.start for clip in windows(tmp_path / "a.mp3")] for _ in range(2)]
    assert starts[0] == starts[1]


def test_a_span_is_cut_into_windows_like_the_whole(tmp_path):
    soundfile.write(tmp_path / "a.wav", noise(20.0), SAMPLING_RATE)
    whole = read(tmp_path / "a.wav")
    for source in (tmp_path / "a.wav", whole):
        clips = list(windows(source, 4.0, search=1.0, offset=5.0, duration=10.0))
        np.testing.assert_array_equal(joined(clips), whole.samples[80_000:240_000])
        assert clips[0].start == 5.0


@pytest.mark.parametrize("seconds, search", [(0.1, 5), (30, 0.1), (float("nan"), 5), (30, float("inf"))])
def test_windows_that_cannot_be_made_are_refused_at_once(wav, seconds, search):
    with pytest.raises(OptionError):
        windows(wav, seconds, search=search)


def test_a_long_recording_is_never_held_in_memory(tmp_path):
    rate, minutes = 8_000, 40
    with soundfile.SoundFile(tmp_path / "long.wav", "w", rate, 1) as file:
        block = noise(60.0, rate=rate)
        for _ in range(minutes):
            file.write(block)
    list(windows(tmp_path / "long.wav", duration=1.0))  # what is imported once does not count
    tracemalloc.start()
    try:
        seconds = sum(clip.duration for clip in windows(tmp_path / "long.wav"))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert seconds == pytest.approx(60 * minutes)
    assert peak < 20e6  # the whole recording would be 154 MB
