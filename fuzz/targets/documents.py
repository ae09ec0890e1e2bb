"""Documents as JSON, which pages, servers and notebooks read."""

from __future__ import annotations

from pathlib import Path

from tests.documents.samples import a_curve, a_lens, a_sweep

from otoscope.documents.kinds import parse_document
from otoscope.views.page import render_page

FILES = ("document.json",)


def seeds() -> list[tuple[bytes]]:
    """Small documents of several kinds."""
    return [(doc.dumps().encode(),) for doc in (a_curve(), a_lens(), a_sweep(items=2))]


def parse(folder: Path) -> None:
    """Read one; it is the same after its own JSON, says itself in words, and no label of it becomes markup."""
    doc = parse_document((folder / FILES[0]).read_bytes())
    text = doc.dumps()
    assert parse_document(text).dumps() == text
    page = render_page(doc)  # pyright: ignore[reportArgumentType]
    assert page.count("<script") == _scripts()
    assert "onerror=" not in page or "<img" not in page


def _scripts() -> int:
    """Scripts of a page whose document is harmless."""
    global _EXPECTED
    if _EXPECTED is None:
        _EXPECTED = render_page(a_curve()).count("<script")
    return _EXPECTED


_EXPECTED: int | None = None
