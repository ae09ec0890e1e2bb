"""What a path stands for."""

from __future__ import annotations

import json

from tests.corpora.sounds import write_sound

from otoscope.corpora import items, items_or_texts


def test_a_folder_with_a_manifest_stands_for_what_the_manifest_lists_labels_and_all(tmp_path):
    for name in ("a.wav", "b.wav"):
        write_sound(tmp_path / name)
    (tmp_path / "manifest.jsonl").write_text(json.dumps({"audio_filepath": "b.wav", "speaker": "x"}))
    (item,) = items(tmp_path)
    assert item.audio_filepath == "b.wav"
    assert item.labels == {"speaker": "x"}


def test_lines_with_text_and_no_recording_are_texts_and_all_others_recordings(tmp_path):
    (tmp_path / "t.jsonl").write_text('{"text": "one", "kind": "number"}\n{"text": "tree"}\n')
    (tmp_path / "t.txt").write_text("one\n\ntree\n")
    assert [item.text for item in items_or_texts(tmp_path / "t.jsonl")] == ["one", "tree"]
    assert [item.text for item in items_or_texts(tmp_path / "t.txt")] == ["one", "tree"]
    write_sound(tmp_path / "a.wav")
    (tmp_path / "m.jsonl").write_text('{"audio_filepath": "a.wav", "text": "one"}')
    assert items_or_texts(tmp_path / "m.jsonl")[0].audio_filepath == "a.wav"
    assert items_or_texts(tmp_path / "a.wav")[0].path == tmp_path / "a.wav"
