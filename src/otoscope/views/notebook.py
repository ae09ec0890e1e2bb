"""A document in a cell of a notebook: its page in a sandboxed frame, and its summary as text."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from otoscope.views.page import render_page

if TYPE_CHECKING:
    from otoscope.views.page import Shown

LARGEST = 2_000_000
"""Characters of a page that a notebook is made to keep; every save of it writes them again."""

_FRAME = """<iframe title="otoscope" sandbox="allow-scripts allow-downloads" srcdoc="{page}"
 style="width:100%;height:600px;border:0;resize:vertical;overflow:auto"></iframe>"""

# The frame tells its height. Its origin is "null", so the sender is known by its window alone.
_FOLLOW_HEIGHT = """<script>
(() => {
  const frame = document.currentScript && document.currentScript.previousElementSibling;
  if (!frame) return;
  addEventListener("message", (event) => {
    if (event.source !== frame.contentWindow || !event.data || event.data.otoscope !== "height") return;
    const height = Number(event.data.height);
    if (height > 0) frame.style.height = Math.min(Math.max(height, 120), 0.85 * screen.availHeight) + "px";
  });
})();
</script>"""

_SUMMARY = (
    """<details{open}><summary>{title}</summary><pre style="white-space:pre-wrap">{text}</pre></details>"""
)

_TOO_LARGE = """<p>Its page has {size:.1f} MB, which the notebook would keep. <code>doc.save("page.html")</code> writes
it to a file; <code>doc.widget()</code> shows it here without keeping it.</p>"""


def mimebundle(doc: Shown) -> dict[str, str]:
    """What a notebook shows of a document, by media type."""
    return {"text/plain": doc.summary(), "text/html": frame_of(doc)}


def frame_of(doc: Shown, largest: int | None = None) -> str:
    """HTML that shows a document's page in a frame of its own, which can neither reach the notebook nor any other machine.

    The summary stands below it: a notebook that is not trusted takes the frame away. A page that is too large for a notebook
    is left out; the summary and what to do instead take its place.

    Args:
        doc: The document.
        largest: Characters of a page that is shown; None: `LARGEST`.
    """
    page = render_page(doc)
    summary = doc.summary()
    if len(page) > (LARGEST if largest is None else largest):
        return _summary(summary, " open") + _TOO_LARGE.format(size=len(page) / 1e6)
    # The whole attribute is escaped; nothing of the page is read as part of the notebook.
    return _FRAME.replace("{page}", html.escape(page)) + _FOLLOW_HEIGHT + _summary(summary, "")


def _summary(text: str, opened: str) -> str:
    title, *_ = text.splitlines() or ["otoscope"]
    return _SUMMARY.format(open=opened, title=html.escape(title[:200]), text=html.escape(text))
