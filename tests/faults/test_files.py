"""Files and folders are there whole or not at all; what a dead process left is removed, what a living one writes is not."""

from __future__ import annotations

import signal

import pytest
from tests.faults.killing import contents, forks, run, unfinished

from otoscope.files import atomic_folder, atomic_write, remove_abandoned, remove_folder

fcntl = pytest.importorskip("fcntl")  # Windows has no locks that die with their process in this form


def saved(folder, text="new"):
    """A result of two files that belong together."""
    with atomic_folder(folder / "result", last="about.json") as begun:
        (begun / "about.json").write_text(text)
        (begun / "weights").write_text(text)


def exported(folder):
    """A folder that is new."""
    with atomic_folder(folder / "export") as begun:
        (begun / "config").write_text("c")
        (begun / "weights").write_text("w")


def written(folder):
    with atomic_write(folder / "result.json") as file:
        file.write("{}")


def removed(folder):
    remove_folder(folder / "parts")


def changes_of(job, folder):
    end = run(job, folder)
    assert end.code == 0
    return len(end.changes)


def test_a_new_folder_appears_whole_and_the_next_attempt_leaves_nothing_else(tmp_path):
    for change in range(changes_of(exported, tmp_path / "dry")):
        folder = tmp_path / str(change)
        assert run(exported, folder, at_change=change).killed
        there = {name for name in contents(folder) if name.startswith("export/")}
        assert there in (set(), {"export/config", "export/weights"})
        if not there:
            assert run(exported, folder).code == 0
        assert contents(folder).keys() == {"export/config", "export/weights"}


def test_files_that_belong_together_are_never_taken_for_whole_when_they_are_mixed(tmp_path):
    saved(tmp_path / "dry", "old")
    for change in range(changes_of(saved, tmp_path / "dry")):
        folder = tmp_path / str(change)
        saved(folder, "old")
        assert run(saved, folder, at_change=change).killed
        found = {name: data for name, data in contents(folder).items() if name.startswith("result/")}
        if "result/about.json" in found:
            assert found["result/about.json"] == found["result/weights"]
        assert run(saved, folder).code == 0
        assert contents(folder) == {"result/about.json": b"new", "result/weights": b"new"}


def test_a_folder_is_removed_whole_or_not_at_all(tmp_path):
    def fill(folder):
        (folder / "parts").mkdir(parents=True)
        for name in ("run.json", "index-00000.parquet", "vectors-00000.safetensors"):
            (folder / "parts" / name).write_text("x")

    fill(tmp_path / "dry")
    for change in range(changes_of(removed, tmp_path / "dry")):
        folder = tmp_path / str(change)
        fill(folder)
        run(removed, folder, at_change=change)
        assert not (folder / "parts").exists() or len(contents(folder / "parts")) == 3
        remove_abandoned(folder)
        assert not unfinished(folder)


def test_a_file_that_another_process_is_writing_is_left_to_it(tmp_path):
    begun, go_on = forks().Event(), forks().Event()
    writer = forks().Process(target=write_slowly, args=(tmp_path / "slow.json", begun, go_on))
    writer.start()
    assert begun.wait(60)
    remove_abandoned(tmp_path)
    written(tmp_path)  # sweeps the folder, too
    go_on.set()
    writer.join(60)
    assert writer.exitcode == 0
    assert contents(tmp_path).keys() == {"slow.json", "result.json"}


def write_slowly(path, begun, go_on):
    with atomic_write(path) as file:
        file.write("half")
        begun.set()
        go_on.wait(60)


def test_what_a_killed_writer_left_goes_with_the_next_file_in_the_folder(tmp_path):
    assert run(written, tmp_path / "run", at_change=changes_of(written, tmp_path / "dry") - 1).killed
    assert len(unfinished(tmp_path / "run")) == 1
    assert run(written, tmp_path / "run").code == 0
    assert contents(tmp_path / "run").keys() == {"result.json"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_told_to_end_a_command_cleans_up_and_says_so(number, tmp_path):
    end = run(command, tmp_path / "run", after=3.0, by=number)
    assert end.code == 128 + number
    assert "no half-written file was left" in (tmp_path / "run.said").read_text()
    assert not unfinished(tmp_path / "run")


def command(folder):
    """A command in the middle of a file that does not come to its end."""
    import sys
    import time

    from otoscope.cli import main

    def wait(_arguments):
        with atomic_write(folder / "result.json") as file:
            file.write("half")
            time.sleep(60)

    main._invoke = wait
    sys.argv = ["otoscope"]
    main.run()
