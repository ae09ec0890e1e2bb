from __future__ import annotations

import json
import sys

import pytest

from otoscope.cli.show import plain, say, table, write_json

HOSTILE = "a\x1b[31m\u202eb\udcff\u2028c"


def test_what_steers_a_terminal_is_escaped_and_letters_of_all_scripts_are_kept():
    assert plain(HOSTILE) == r"a\x1b[31m\u202eb\udcff\u2028c"
    assert plain("Größe, кот, 猫, خانه‌ها") == "Größe, кот, 猫, خانه‌ها"


def test_said_lines_can_be_printed_whatever_they_hold(capsys):
    say(HOSTILE, "two")
    assert capsys.readouterr().out == plain(HOSTILE) + "\ntwo\n"


def test_table_columns_start_at_the_same_place():
    assert table([("name", "n"), ("whisper", "1")]) == ["name     n", "whisper  1"]


def test_json_survives_names_that_are_no_unicode(tmp_path):
    path = tmp_path / "x.json"
    write_json({"name": HOSTILE, "word": "кот"}, str(path))
    assert json.loads(path.read_bytes().decode("utf-8")) == {"name": HOSTILE, "word": "кот"}
    assert "кот" in path.read_text("utf-8")


def test_json_on_stdout_is_the_same_as_in_a_file(tmp_path, capsysbinary):
    path = tmp_path / "x.json"
    write_json({"word": "кот"}, str(path))
    write_json({"word": "кот"}, "-")
    sys.stdout.flush()
    assert capsysbinary.readouterr().out == path.read_bytes()


def test_json_never_holds_nan(tmp_path):
    with pytest.raises(ValueError):
        write_json({"p": float("nan")}, str(tmp_path / "x.json"))
    assert list(tmp_path.iterdir()) == []
