"""One document as one HTML file that opens from disk, offline, and asks no other machine for anything."""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from otoscope.files import atomic_write

if TYPE_CHECKING:
    from otoscope.documents.curve import CurveDoc
    from otoscope.documents.explain import ExplainDoc
    from otoscope.documents.features import FeaturesDoc
    from otoscope.documents.graph import GraphDoc
    from otoscope.documents.intervention import Outcome
    from otoscope.documents.lens import LensDoc
    from otoscope.documents.sweep import SweepDoc

    Shown = CurveDoc | ExplainDoc | FeaturesDoc | GraphDoc | LensDoc | Outcome | SweepDoc

_COMPRESS_ABOVE = 64_000  # characters; smaller documents stay readable in the file

_CSP = (
    "default-src 'none'; script-src '{script}'; style-src 'unsafe-inline'; img-src data: blob:; "
    "media-src data: blob:; worker-src blob:; base-uri 'none'; form-action 'none'"
)

# Only trusted text is filled in here; what may be hostile is joined on later, never filled into other text.
_HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{csp}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="otoscope">
<style>{css}</style>
"""


def save_page(doc: Shown, path: Path | str) -> None:
    """Write a document as one self-contained HTML file.

    Args:
        doc: What to show.
        path: The file to write; it appears complete or not at all.

    Raises:
        OutputError: The file cannot be written.
    """
    page = render_page(doc)
    with atomic_write(path) as file:
        file.write(page)


def render_page(doc: Shown, ops: Sequence[str] = ()) -> str:
    """A document as the text of one self-contained HTML file.

    Every label in the document is taken for hostile: it is escaped here and reaches the page as text only,
    and the content security policy runs no script but the bundle, by its hash.

    Args:
        doc: What to show.
        ops: Operations that whoever frames the page will run for it; see `otoscope.views.acting`.
    """
    script, css = static("page.js"), static("page.css")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    csp = _CSP.format(script=f"sha256-{digest}")
    return "".join(
        (
            _HEAD.format(csp=csp, css=css),
            f"<title>{html.escape(doc.title)} · otoscope</title>\n</head>\n<body>\n",
            f'<div id="page"{_offered(ops)}><p class="loading">Opening…</p></div>\n',
            f"<noscript><pre>{html.escape(doc.summary())}</pre></noscript>\n",
            _data_element(doc.dumps()),
            f'<script type="module">{script}</script>\n</body>\n</html>\n',
        )
    )


def static(name: str) -> str:
    """Text of a file that comes with the pages."""
    return (resources.files("otoscope.views") / "static" / name).read_text(encoding="utf-8")


def _offered(ops: Sequence[str]) -> str:
    return f' data-ops="{html.escape(" ".join(ops))}"' if ops else ""


def _data_element(text: str) -> str:
    """The document's JSON in an element that browsers neither run nor let it end early."""
    if len(text) > _COMPRESS_ABOVE:
        packed = base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode("ascii")
        return f'<script type="application/json" id="document" data-encoding="gzip">{packed}</script>\n'
    escaped = text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return f'<script type="application/json" id="document">{escaped}</script>\n'
