"""Tests that share something are run by one worker."""

import subprocess
import sys

import pytest

from tests.conftest import group_of


@pytest.mark.parametrize(
    ("test", "group"),
    [
        ("tests/a/test_b.py::test_c", "tests/a/test_b.py"),
        ("tests/a/test_b.py::test_c[1-x]", "tests/a/test_b.py"),
        (
            "tests/docs/test_examples.py::test_c[docs/guides/d.md]",
            "tests/docs/test_examples.py docs/guides/d.md",
        ),
        (
            "tests/docs/test_examples.py::test_c[docs/guides/d.md:10]",
            "tests/docs/test_examples.py docs/guides/d.md",
        ),
        ("tests/docs/test_examples.py::test_c[README.md]", "tests/docs/test_examples.py README.md"),
    ],
    ids=["a file", "of one parameter", "a page", "a block of a page", "a page at the top"],
)
def test_a_group_is_a_file_or_a_page_of_the_documentation(test, group):
    assert group_of(test) == group


def test_workers_take_whole_groups(tmp_path):
    """With the versions of pytest and pytest-xdist that are installed: each of three files is begun by one worker alone."""
    (tmp_path / "conftest.py").write_text("from tests.conftest import pytest_xdist_make_scheduler\n")
    test = "import os, pytest\n@pytest.mark.parametrize('n', range(6))\ndef test_a(n): print(os.environ['PYTEST_XDIST_WORKER'])\n"
    for name in "abc":
        (tmp_path / f"test_{name}.py").write_text(test)
    options = [
        "-n",
        "2",
        "--dist",
        "loadscope",
        "--no-loadscope-reorder",
        "-p",
        "no:cacheprovider",
        "-v",
        "--rootdir",
        tmp_path,
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, tmp_path], capture_output=True, text=True, check=False
    )
    begun = [line.split() for line in done.stdout.splitlines() if line.startswith("[gw")]
    workers = {name: {line[0] for line in begun if f"test_{name}.py" in " ".join(line)} for name in "abc"}
    assert [len(of) for of in workers.values()] == [1, 1, 1], done.stdout
