"""What is free in a container: what its limit leaves, with the pages of files that give way at once."""

import pytest

from otoscope.machine import _of_container


@pytest.mark.parametrize(
    ("limit", "used", "pages", "free"),
    [("1000", "900", 300, 400), ("1000", "1100", 0, 0), ("max", "900", 300, float("inf"))],
)
def test_pages_of_files_that_nobody_uses_are_free(tmp_path, limit, used, pages, free):
    (tmp_path / "memory.max").write_text(f"{limit}\n")
    (tmp_path / "memory.current").write_text(f"{used}\n")
    (tmp_path / "memory.stat").write_text(f"anon 5\ninactive_file {pages}\nactive_file 7\n")
    assert _of_container(tmp_path) == free


def test_without_a_container_there_is_no_limit(tmp_path):
    assert _of_container(tmp_path) == float("inf")
