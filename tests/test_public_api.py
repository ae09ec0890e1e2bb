"""What users build on changes only where somebody meant it."""

from tests.public_api import LISTED, listing


def test_the_public_interface_is_what_is_written_down():
    message = (
        "The public interface is another. If that is meant, run `make api` and tell users in CHANGELOG.md."
    )
    assert listing().splitlines() == LISTED.read_text("utf-8").splitlines(), message
