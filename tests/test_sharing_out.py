"""Tests that share something are run by one worker."""

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
