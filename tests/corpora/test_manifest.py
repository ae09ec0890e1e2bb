from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.corpora.sounds import write_sound

from otoscope.corpora import Item, read_manifest, read_texts, write_manifest
from otoscope.errors import AudioError, ManifestError, OutputError


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
        ('{"audio_filepath": ', "is not a JSON object"),
        ("[" * 100_000, "is not a JSON object"),
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
        ('{"audio_filepath": "a.wav", "duration": 1' + "0" * 5000 + "}", "is not a JSON object"),
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


# Writing


WHOLE_LABELS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
FIELD_NAMES = ("audio_filepath", "text", "duration", "offset", "language")
NAMES = st.text(min_size=1).filter(lambda name: "\0" not in name)


def known(draw_name):
    return st.builds(
        dict,
        name=draw_name,
        text=st.none() | st.text(),
        duration=st.none() | st.floats(1e-6, 1e9),
        offset=st.floats(0, 1e9).map(abs),
        language=st.none() | st.text(min_size=1),
        labels=st.dictionaries(
            st.text().filter(lambda key: key not in FIELD_NAMES), WHOLE_LABELS, max_size=4
        ),
    )


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(known(NAMES), min_size=1, max_size=5))
def test_what_is_written_is_read_back_as_it_was(tmp_path, facts):
    written = [
        Item(
            f["name"], tmp_path / f["name"], f["text"], f["duration"], f["offset"], f["language"], f["labels"]
        )
        for f in facts
    ]
    write_manifest(written, tmp_path / "out.jsonl")
    assert read_manifest(tmp_path / "out.jsonl") == written


def test_a_written_manifest_is_the_same_bytes_again_and_one_object_a_line(manifest, tmp_path):
    write_manifest(
        read_manifest(manifest(GOOD, '{"audio_filepath": "b.wav", "text": "é\\n"}')), tmp_path / "a.jsonl"
    )
    write_manifest(read_manifest(tmp_path / "a.jsonl"), tmp_path / "b.jsonl")
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
    assert (tmp_path / "a.jsonl").read_text(
        "utf-8"
    ) == GOOD + '\n{"audio_filepath": "b.wav", "text": "é\\n"}\n'


def test_a_manifest_in_another_folder_still_leads_to_the_recordings(manifest, tmp_path, monkeypatch):
    samples = write_sound(tmp_path / "a.wav")
    found = read_manifest(manifest(GOOD))
    for place, name in (
        ("below/deep/m.jsonl", "../../a.wav"),
        ("m.jsonl", "a.wav"),
        ("../m.jsonl", f"{tmp_path.name}/a.wav"),
    ):
        out = tmp_path / place
        out.parent.mkdir(parents=True, exist_ok=True)
        write_manifest(found, out)
        (item,) = read_manifest(out)
        assert item.audio_filepath == name
        np.testing.assert_array_equal(item.clip().samples, samples)
    monkeypatch.chdir(tmp_path)
    write_manifest([Item("a.wav", Path("a.wav"))], "below/m.jsonl")
    assert read_manifest("below/m.jsonl")[0].audio_filepath == "../a.wav"


def test_a_way_up_out_of_a_linked_folder_starts_from_the_real_one(tmp_path):
    samples = write_sound(tmp_path / "a.wav")
    (tmp_path / "real" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real" / "deep")
    write_manifest([Item("a.wav", tmp_path / "a.wav")], tmp_path / "link" / "m.jsonl")
    (item,) = read_manifest(tmp_path / "link" / "m.jsonl")
    np.testing.assert_array_equal(item.clip().samples, samples)


def test_an_absolute_name_stays_absolute(tmp_path):
    item = Item("/elsewhere/a.wav", Path("/elsewhere/a.wav"))
    write_manifest([item], tmp_path / "m.jsonl")
    assert read_manifest(tmp_path / "m.jsonl") == [item]


@pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX alone")
def test_a_file_name_that_is_not_unicode_survives(tmp_path):
    name = os.fsdecode(b"caf\xe9.wav")
    samples = write_sound(tmp_path / "a.wav")
    (tmp_path / "a.wav").rename(tmp_path / name)
    write_manifest([Item(name, tmp_path / name)], tmp_path / "m.jsonl")
    (item,) = read_manifest(tmp_path / "m.jsonl")
    np.testing.assert_array_equal(item.clip().samples, samples)


@pytest.mark.parametrize("label", [float("nan"), float("inf"), {1, 2}, Path("x"), np.float32(1)])
def test_a_label_that_json_cannot_hold_is_refused_and_nothing_is_written(tmp_path, label):
    with pytest.raises(ManifestError, match=r"^a\.wav has a label that JSON cannot hold"):
        write_manifest([Item("a.wav", tmp_path / "a.wav", labels={"x": label})], tmp_path / "m.jsonl")
    assert list(tmp_path.iterdir()) == []


def test_a_label_named_like_a_field_is_refused(tmp_path):
    with pytest.raises(ManifestError, match="named like a field: text"):
        write_manifest([Item("a.wav", tmp_path / "a.wav", labels={"text": "x"})], tmp_path / "m.jsonl")


def test_an_empty_corpus_and_a_name_that_would_not_be_recognised_are_refused(tmp_path):
    with pytest.raises(ManifestError, match="nothing to write"):
        write_manifest([], tmp_path / "m.jsonl")
    with pytest.raises(OutputError, match=r"Name it m\.jsonl"):
        write_manifest([Item("a.wav", tmp_path / "a.wav")], tmp_path / "m.txt")


# Texts


def test_plain_text_is_one_text_a_line(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffErste Zeile.\r\n\n  eingerückt \u2028 weiter\n".encode())
    assert read_texts(path) == [
        Item("", Path(), "Erste Zeile."),
        Item("", Path(), "  eingerückt \u2028 weiter"),
    ]


def test_texts_with_labels_are_written_and_read_back(tmp_path):
    texts = [Item("", Path(), "The sky is", language="en", labels={"next": " blue"}), Item("", Path(), "")]
    write_manifest(texts, tmp_path / "m.jsonl")
    assert (tmp_path / "m.jsonl").read_text().splitlines()[1] == '{"text": ""}'
    assert read_texts(tmp_path / "m.jsonl") == texts


@pytest.mark.parametrize(
    "line, reason",
    [
        ('{"label": 1}', "has no text"),
        ('{"text": 1}', "text that is not text"),
        ('{"text": "Hi.", "audio_filepath": "a.wav"}', "names a recording"),
    ],
)
def test_a_text_that_cannot_be_used_is_named_by_its_number(manifest, line, reason):
    with pytest.raises(ManifestError, match=rf"^Line 2 of .* {reason}"):
        read_texts(manifest('{"text": "Hi."}', line))


def test_texts_in_another_encoding_and_no_texts_are_refused(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"fine\ncaf\xe9\n")
    with pytest.raises(ManifestError, match=r"^Line 2 of .*a\.txt is not UTF-8"):
        read_texts(tmp_path / "a.txt")
    (tmp_path / "b.txt").write_bytes(b"\n\n")
    with pytest.raises(ManifestError, match="is empty"):
        read_texts(tmp_path / "b.txt")


def test_a_text_cannot_be_listened_to():
    item = Item("", Path(), "Hi.")
    with pytest.raises(AudioError, match="has no recording"):
        item.clip()
    with pytest.raises(AudioError, match="has no recording"):
        list(item.windows())
