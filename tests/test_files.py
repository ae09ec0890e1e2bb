"""No file is ever half-written under its final name, and nothing but a regular file is replaced."""

import os

import pytest

from otoscope.errors import OutputError
from otoscope.files import atomic_folder, atomic_write, require_writable


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "result.json"
    path.write_text("old")
    with pytest.raises(TypeError), atomic_write(path) as file:  # noqa: PT012
        file.write("half of the n")
        file.write(None)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_finished_write_replaces_the_file_with_ordinary_permissions(tmp_path):
    path = tmp_path / "result.json"
    with atomic_write(path) as file:
        file.write("néw")
    plain = tmp_path / "plain"
    plain.touch()
    assert path.read_bytes() == "néw".encode()
    assert path.stat().st_mode == plain.stat().st_mode


def test_a_link_goes_on_leading_to_the_file(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with atomic_write(tmp_path / "link") as file:
        file.write("new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_pipes_and_folders_are_refused_before_any_work(tmp_path, make):
    path = tmp_path / "taken"
    make(path)
    with pytest.raises(OutputError):
        require_writable(path)
    with pytest.raises(OutputError), atomic_write(path):
        pass
    assert path.is_fifo() or path.is_dir()


def test_a_missing_folder_is_named_with_its_remedy(tmp_path):
    with pytest.raises(OutputError, match="Create the folder"):
        require_writable(tmp_path / "nowhere" / "result.json")


def test_folders_replace_no_older_files_and_leave_them_whole(tmp_path):
    old = tmp_path / "result"
    old.mkdir()
    (old / "about.json").write_text("old")
    with pytest.raises(OutputError, match="new or empty"), atomic_folder(old, last="about.json") as new:  # noqa: PT012
        (new / "about.json").write_text("new")
        (new / "more").mkdir()
    assert (old / "about.json").read_text() == "old"
    assert list(tmp_path.iterdir()) == [old]
