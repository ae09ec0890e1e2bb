from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from otoscope.corpora import Item, items, read_manifest
from otoscope.errors import AudioError, ManifestError


def write_sound(path: Path, seconds: float = 2.0) -> np.ndarray:
    samples = (0.1 * np.random.default_rng(0).standard_normal(round(16_000 * seconds))).astype(np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, 16_000, subtype="FLOAT")
    return samples


@pytest.fixture
def manifest(tmp_path):
    def write(*lines: object, encoding: str = "utf-8", name: str = "manifest.jsonl") -> Path:
        text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
        (tmp_path / name).write_text(text, encoding=encoding)
        return tmp_path / name

    return write


def test_a_line_becomes_an_item_and_further_keys_become_labels(manifest, tmp_path):
    path = manifest(
        {
            "audio_filepath": "a/b.wav",
            "text": "Hi.",
            "duration": 1.5,
            "offset": 2,
            "language": "en",
            "speaker": "x",
        }
    )
    assert read_manifest(path) == [
        Item("a/b.wav", tmp_path / "a/b.wav", "Hi.", 1.5, 2.0, "en", {"speaker": "x"})
    ]


def test_only_the_recording_is_required(manifest, tmp_path):
    (item,) = read_manifest(manifest({"audio_filepath": "b.wav"}))
    assert item == Item("b.wav", tmp_path / "b.wav", None, None, 0.0, None, {})


def test_null_stands_for_what_is_not_given(manifest):
    keys = ("text", "duration", "offset", "language")
    (item,) = read_manifest(manifest({"audio_filepath": "b.wav"} | dict.fromkeys(keys)))
    assert (item.text, item.duration, item.offset, item.language) == (None, None, 0.0, None)


def test_an_absolute_path_stays_as_it_is(manifest, tmp_path):
    elsewhere = str(tmp_path.parent / "elsewhere" / "b.wav")
    (item,) = read_manifest(manifest({"audio_filepath": elsewhere}))
    assert (item.audio_filepath, item.path) == (elsewhere, Path(elsewhere))


def test_blank_lines_a_byte_order_mark_and_windows_line_ends_do_no_harm(tmp_path):
    path = tmp_path / "m.json"
    path.write_bytes(b'\xef\xbb\xbf{"audio_filepath": "a.wav"}\r\n\r\n  \n{"audio_filepath": "b.wav"}\r\n')
    assert [item.audio_filepath for item in read_manifest(path)] == ["a.wav", "b.wav"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    text=st.text(),
    name=st.text(min_size=1),
    ascii_only=st.booleans(),
    label=st.recursive(st.none() | st.booleans() | st.text(), lambda inner: st.lists(inner)),
)
def test_any_text_and_any_label_come_back_as_they_were_written(tmp_path, text, name, ascii_only, label):
    line = json.dumps({"audio_filepath": name, "text": text, "label": label}, ensure_ascii=ascii_only)
    path = tmp_path / "m.jsonl"
    path.write_bytes(line.encode("utf-8", "surrogatepass") + b"\n")
    (item,) = read_manifest(path)
    assert (item.audio_filepath, item.text, item.labels) == (name, text, {"label": label})


GOOD = '{"audio_filepath": "a.wav"}'


@pytest.mark.parametrize(
    "line, reason",
    [
        ('{"audio_filepath": ', "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "is not a JSON object"),
        ('"a.wav"', "is not a JSON object"),
        ('{"text": "Hi."}', "has no audio_filepath"),
        ('{"audio_filepath": ""}', "has no audio_filepath"),
        ('{"audio_filepath": null}', "has no audio_filepath"),
        ('{"audio_filepath": 7}', "audio_filepath that is not text"),
        ('{"audio_filepath": "a.wav", "text": 12}', "text that is not text"),
        ('{"audio_filepath": "a.wav", "language": ["en"]}', "language that is not text"),
        ('{"audio_filepath": "a.wav", "duration": "1.5"}', "duration that is not a length"),
        ('{"audio_filepath": "a.wav", "duration": 0}', "duration that is not a length"),
        ('{"audio_filepath": "a.wav", "duration": -1}', "duration that is not a length"),
        ('{"audio_filepath": "a.wav", "duration": NaN}', "duration that is not a length"),
        ('{"audio_filepath": "a.wav", "duration": 1e999}', "duration that is not a length"),
        ('{"audio_filepath": "a.wav", "duration": 1' + "0" * 400 + "}", "duration that is not a length"),
        ('{"audio_filepath": "a.wav", "duration": 1' + "0" * 5000 + "}", "is not JSON"),
        ('{"audio_filepath": "a.wav", "offset": -0.1}', "offset that is not a length"),
        ('{"audio_filepath": "a.wav", "offset": true}', "offset that is not a length"),
    ],
)
def test_a_line_that_cannot_be_used_is_named_by_its_number(manifest, line, reason):
    with pytest.raises(ManifestError, match=rf"^Line 3 of .*manifest.jsonl .*{reason}") as caught:
        read_manifest(manifest(GOOD, "", line))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_a_manifest_in_another_encoding_is_refused(manifest, encoding):
    with pytest.raises(ManifestError, match=r"Line 1 of .* is not UTF-8"):
        read_manifest(manifest('{"audio_filepath": "é.wav"}', encoding=encoding))


@pytest.mark.parametrize("content", ["", "\n \n", "\ufeff"])
def test_an_empty_manifest_is_refused(manifest, content):
    with pytest.raises(ManifestError, match="is empty"):
        read_manifest(manifest(content))


def test_a_manifest_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(ManifestError, match="No such file"):
        read_manifest(tmp_path / "none.jsonl")
    with pytest.raises(ManifestError, match="directory"):
        read_manifest(tmp_path)
    with pytest.raises(ManifestError, match="cannot be read"):
        read_manifest("nul\0byte.jsonl")


# Targets


@pytest.mark.parametrize("name", ["m.jsonl", "m.json", "m.ndjson", "M.JSONL"])
def test_a_manifest_is_recognised_by_its_suffix(manifest, name):
    assert [item.audio_filepath for item in items(manifest(GOOD, name=name))] == ["a.wav"]


def test_a_folder_stands_for_every_recording_in_it_sorted_and_named_from_there(tmp_path):
    for name in (
        "b.wav",
        "a.FLAC",
        "deep/er/c.ogg",
        "deep/.hidden/d.wav",
        "._b.wav",
        "note.txt",
        "deep/e.mp3",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.wav").mkdir()
    found = items(tmp_path)
    assert [item.audio_filepath for item in found] == ["a.FLAC", "b.wav", "deep/e.mp3", "deep/er/c.ogg"]
    assert [item.path for item in found] == [tmp_path / item.audio_filepath for item in found]


def test_a_folder_that_is_itself_hidden_may_be_named(tmp_path):
    write_sound(tmp_path / ".cache" / "a.wav")
    assert len(items(tmp_path / ".cache")) == 1


def test_one_recording_stands_for_itself(tmp_path):
    samples = write_sound(tmp_path / "a.wav")
    (item,) = items(tmp_path / "a.wav")
    assert item.audio_filepath == str(tmp_path / "a.wav")
    np.testing.assert_array_equal(item.clip().samples, samples)


def test_a_folder_without_recordings_is_refused(tmp_path):
    (tmp_path / "note.txt").touch()
    with pytest.raises(ManifestError, match="holds no recordings"):
        items(tmp_path)


def test_a_path_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(ManifestError, match="does not exist"):
        items(tmp_path / "none.wav")


# Sound


def test_an_item_reads_its_span_under_the_name_the_manifest_gives_it(manifest, tmp_path):
    samples = write_sound(tmp_path / "a.wav")
    path = manifest({"audio_filepath": "a.wav", "offset": 0.5, "duration": 0.75, "speaker": "x"})
    (item,) = read_manifest(path)
    clip = item.clip()
    np.testing.assert_array_equal(clip.samples, samples[8000:20000])
    assert (clip.source, clip.start, clip.labels) == ("a.wav", 0.5, {"speaker": "x"})


@pytest.mark.parametrize("duration", [1.99, 2.0, 2.01])
def test_a_rounded_duration_does_not_cut_the_end_of_a_recording_off(manifest, tmp_path, duration):
    samples = write_sound(tmp_path / "a.wav")
    (item,) = read_manifest(manifest({"audio_filepath": "a.wav", "duration": duration}))
    np.testing.assert_array_equal(item.clip().samples, samples)


def test_an_item_of_any_length_comes_window_by_window(manifest, tmp_path):
    samples = write_sound(tmp_path / "a.wav", 50.0)
    path = manifest({"audio_filepath": "a.wav", "offset": 5, "duration": 40, "speaker": "x"})
    (item,) = read_manifest(path)
    clips = list(item.windows())
    np.testing.assert_array_equal(np.concatenate([clip.samples for clip in clips]), samples[80_000:720_000])
    assert len(clips) == 2
    assert clips[0].start == 5.0
    assert all((clip.source, clip.labels) == ("a.wav", {"speaker": "x"}) for clip in clips)


def test_a_missing_recording_shows_when_it_is_read(manifest):
    (item,) = read_manifest(manifest({"audio_filepath": "none.wav", "duration": 1.0}))
    with pytest.raises(AudioError, match=r"none\.wav does not exist"):
        item.clip()
