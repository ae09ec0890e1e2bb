"""Notes by people: kept, replaced, taken away, and none lost to another program."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from otoscope.errors import OptionError, OutputError
from otoscope.runs.notes import FILE, LONGEST, Notes


def test_a_note_is_kept_replaced_and_taken_away(tmp_path):
    notes = Notes(tmp_path)
    assert notes.read() == {}
    notes.write("feature 2 7", "the vowel of 'see'", "Ann")
    notes.write("feature 2 8", "<script>alert(1)</script>\u202e")
    assert {about: note.text for about, note in Notes(tmp_path).read().items()} == {
        "feature 2 7": "the vowel of 'see'",
        "feature 2 8": "<script>alert(1)</script>\u202e",
    }
    notes.write("feature 2 7", "another name")
    notes.write("feature 2 8", "  ")
    assert [(n.text, n.author) for n in notes.read().values()] == [("another name", "")]
    notes.write("feature 2 7", " ", keep_empty=True)
    assert [n.text for n in notes.read().values()] == [""]


def test_many_programs_write_at_once(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: Notes(tmp_path).write(f"feature 0 {i}", f"n{i}"), range(40)))
    assert {note.text for note in Notes(tmp_path).read().values()} == {f"n{i}" for i in range(40)}


def test_what_cannot_be_kept_is_told(tmp_path):
    with pytest.raises(OptionError, match="too long"):
        Notes(tmp_path).write("feature 0 0", "x" * (LONGEST + 1))
    with pytest.raises(OutputError):
        Notes(tmp_path / "nowhere").write("feature 0 0", "x")
    (tmp_path / FILE).write_bytes(b"no database" * 100)
    with pytest.raises(OutputError, match="cannot be used"):
        Notes(tmp_path).read()
    assert Notes(tmp_path).path.read_bytes().startswith(b"no database")
