from __future__ import annotations

import json

import numpy as np
import pytest
from tests.corpora.sounds import write_sound

from otoscope.corpora import Item, items
from otoscope.errors import ManifestError


def write_csv(folder, *lines, name="metadata.csv", end="\n"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes("".join(line + end for line in lines).encode())
    return folder


def test_columns_become_fields_and_labels(tmp_path):
    write_csv(
        tmp_path,
        "file_name,transcription,language,duration,offset,speaker,age",
        'a.wav,"Hi, ""you"".",en,1.5,0.5,x,',
    )
    assert items(tmp_path) == [
        Item("a.wav", tmp_path / "a.wav", 'Hi, "you".', 1.5, 0.5, "en", {"speaker": "x"})
    ]


def test_json_lines_keep_the_types_of_their_labels(tmp_path):
    line = {"file_name": "sub/a.wav", "sentence": "Hi.", "age": 31, "tags": ["x"], "duration": 2}
    write_csv(tmp_path, json.dumps(line), name="metadata.jsonl")
    assert items(tmp_path) == [
        Item("sub/a.wav", tmp_path / "sub/a.wav", "Hi.", 2.0, labels={"age": 31, "tags": ["x"]})
    ]


@pytest.mark.parametrize("column", ["text", "transcription", "transcript", "sentence"])
def test_the_text_is_found_under_each_of_its_names(tmp_path, column):
    write_csv(tmp_path, f"file_name,{column}", "a.wav,Hi.")
    assert [(item.text, item.labels) for item in items(tmp_path)] == [("Hi.", {})]


def test_of_two_text_columns_the_second_is_a_label(tmp_path):
    write_csv(tmp_path, "file_name,sentence,text", "a.wav,one,two")
    assert [(item.text, item.labels) for item in items(tmp_path)] == [("two", {"sentence": "one"})]


def test_folders_with_metadata_of_their_own_are_splits(tmp_path):
    samples = write_sound(tmp_path / "train" / "a.wav")
    write_csv(tmp_path / "train", "file_name,text", "a.wav,one")
    write_csv(tmp_path / "test", "file_name,text,split", "b.wav,two,", "c.wav,three,dev")
    found = items(tmp_path)
    assert [(item.audio_filepath, item.labels) for item in found] == [
        ("test/b.wav", {"split": "test"}),
        ("test/c.wav", {"split": "dev"}),
        ("train/a.wav", {"split": "train"}),
    ]
    np.testing.assert_array_equal(found[2].clip().samples, samples)


def test_an_absolute_file_name_stays_as_it_is(tmp_path):
    write_csv(tmp_path / "train", "file_name", "/elsewhere/a.wav")
    (item,) = items(tmp_path)
    assert (item.audio_filepath, str(item.path)) == ("/elsewhere/a.wav", "/elsewhere/a.wav")


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_quoted_cells_may_hold_line_ends_and_the_next_line_keeps_its_number(tmp_path, end):
    write_csv(tmp_path, "file_name,text", f'a.wav,"one{end}{end}two"', "b.wav,three", end=end)
    assert [item.text for item in items(tmp_path)] == [f"one{end}{end}two", "three"]
    write_csv(tmp_path, "file_name,text", f'a.wav,"one{end}{end}two"', "b.wav,three,four", end=end)
    with pytest.raises(ManifestError, match=r"^Line 5 of .*metadata\.csv has 3 cells, not 2"):
        items(tmp_path)


@pytest.mark.parametrize(
    "line, reason",
    [
        ("a.wav", "has 1 cells, not 3"),
        (",x,1", "has no file_name"),
        ("a.wav,x,soon", "duration that is not a length"),
        ("a.wav,x,nan", "duration that is not a length"),
        ("a.wav,x,-1", "duration that is not a length"),
        ('a.wav,"x"y,1', "is not CSV"),
        ('a.wav,"x,1', "is not CSV"),
        ("a.wav," + "x" * 200_000 + ",1", "is not CSV"),
    ],
)
def test_a_line_that_cannot_be_used_is_named_by_its_number(tmp_path, line, reason):
    write_csv(tmp_path, "file_name,text,duration", "ok.wav,fine,1", line)
    with pytest.raises(ManifestError, match=rf"^Line [34] of .*metadata\.csv .*{reason}"):
        items(tmp_path)


def test_another_encoding_is_refused_with_the_line(tmp_path):
    (tmp_path / "metadata.csv").write_bytes(b"file_name,text\na.wav,caf\xe9\n")
    with pytest.raises(ManifestError, match=r"^Line 2 of .* is not UTF-8"):
        items(tmp_path)


@pytest.mark.parametrize(
    "lines, reason",
    [
        (["name,text", "a.wav,x"], "Line 2 .* has no file_name"),
        (["file_name,text,text", "a.wav,x,y"], "two columns of one name"),
        (["file_name,text"], "has no rows"),
        ([], "is empty"),
    ],
)
def test_a_table_without_use_is_refused(tmp_path, lines, reason):
    write_csv(tmp_path, *lines)
    with pytest.raises(ManifestError, match=reason):
        items(tmp_path)


def test_two_metadata_files_in_one_folder_are_refused(tmp_path):
    write_csv(tmp_path, "file_name", "a.wav")
    write_csv(tmp_path, '{"file_name": "a.wav"}', name="metadata.jsonl")
    with pytest.raises(ManifestError, match="Keep one of them"):
        items(tmp_path)
