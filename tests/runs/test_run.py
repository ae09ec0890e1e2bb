"""A run explains itself, refuses what does not belong to it, and can be resumed."""

from __future__ import annotations

import json
import subprocess
import sys

import pandas as pd
import pytest

from otoscope.errors import OptionError, OutputError
from otoscope.runs import Run

SETTINGS = {"model": {"name": "m", "sha256": "abc"}, "batch": 16}


def test_a_run_says_what_it_is(tmp_path):
    with Run.opened(tmp_path / "deep" / "run", "sweep", SETTINGS) as run:
        described = json.loads((run.path / "run.json").read_text())
    assert described["kind"] == "sweep"
    assert described["settings"] == SETTINGS
    assert "torch" in described["versions"]


def test_parts_are_kept_in_order_and_found_again(tmp_path):
    with Run.opened(tmp_path / "r", "sweep", SETTINGS) as run:
        run.write_part("effects", 1, pd.DataFrame({"x": [3]}))
        run.write_part("effects", 0, pd.DataFrame({"x": [1, 2]}))
    with Run.opened(tmp_path / "r", "sweep", SETTINGS) as run:
        assert run.parts("effects") == [0, 1]
        assert run.has_part("effects", 1)
        assert not run.has_part("effects", 2)
        assert run.table("effects")["x"].tolist() == [1, 2, 3]
        assert run.table("other").empty


def test_another_job_or_other_settings_are_refused_by_name(tmp_path):
    with Run.opened(tmp_path, "sweep", SETTINGS):
        pass
    with pytest.raises(OptionError, match="another job"), Run.opened(tmp_path, "activations", SETTINGS):
        pass
    other = {"model": {"name": "m", "sha256": "abd"}, "batch": 16}
    with (
        pytest.raises(OptionError, match=r"model.sha256 = \"abc\", now it is \"abd\""),
        Run.opened(tmp_path, "sweep", other),
    ):
        pass


def test_an_interrupt_says_where_the_job_goes_on(tmp_path):
    with pytest.raises(KeyboardInterrupt) as stopped, Run.opened(tmp_path / "r", "sweep", SETTINGS):
        raise KeyboardInterrupt
    assert stopped.value.__notes__ == [f"The same command goes on with what is kept in {tmp_path / 'r'}."]


def test_a_directory_with_other_files_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match="not empty"), Run.opened(tmp_path, "sweep", SETTINGS):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_what_a_killed_job_left_half_written_is_swept_away(tmp_path):
    with Run.opened(tmp_path, "sweep", SETTINGS):
        pass
    (tmp_path / ".effects-00000.parquet.abc.oto.part").write_bytes(b"half")
    with Run.opened(tmp_path, "sweep", SETTINGS):
        assert not list(tmp_path.glob("*.part"))
        assert not list(tmp_path.glob(".*.part"))


def test_a_broken_description_is_told_with_a_remedy(tmp_path):
    for broken in ("{", "[]", '{"kind": "sweep", "settings": [1]}'):
        (tmp_path / "run.json").write_text(broken)
        with pytest.raises(OptionError, match="cannot be read"):
            Run.read(tmp_path)


def test_reading_what_is_no_run_or_another_kind_is_refused(tmp_path):
    with pytest.raises(OptionError, match="no run"):
        Run.read(tmp_path)
    with Run.opened(tmp_path, "sweep", SETTINGS):
        pass
    with pytest.raises(OptionError, match="holds sweep, not activations"):
        Run.read(tmp_path, "activations")


OPEN = """
import sys
from otoscope.errors import OutputError
from otoscope.runs import Run
try:
    with Run.opened(sys.argv[1], "sweep", {"model": {"name": "m", "sha256": "abc"}, "batch": 16}):
        print("opened")
except OutputError as error:
    print(error.reason)
"""


def opened_by_another_process(path):
    return subprocess.run(
        [sys.executable, "-c", OPEN, path], capture_output=True, text=True, check=True
    ).stdout


def test_two_processes_in_one_directory_refuse_each_other(tmp_path):
    with Run.opened(tmp_path, "sweep", SETTINGS):
        assert "Another process works in" in opened_by_another_process(tmp_path)
    assert opened_by_another_process(tmp_path) == "opened\n"
