"""Page files, from which the document is taken back out, and the list that a server makes of a folder of them."""

from __future__ import annotations

import base64
import gzip
from pathlib import Path

from tests.documents.samples import a_curve, a_lens

from otoscope.views.page import render_page
from otoscope.views.page_reading import read_document
from otoscope.views.server_entries import entry_of, found

FILES = ("page.html", "run/run.json")
_RUN = b'{"kind": "activations", "settings": {"model": "whisper-tiny.en", "corpus": "c"}, "versions": {"otoscope": "0"}}'


def _slim(page: str) -> str:
    """Without the bundle, which is long and is never looked at."""
    head, _, rest = page.partition("<style>")
    body = rest[rest.index("</style>") :]
    return f'{head}<style>{body[: body.rindex("<script")]}<script type="module"></script></body></html>'


def seeds() -> list[tuple[bytes, bytes]]:
    """A plain one and a packed one, each beside a run directory."""
    packed = base64.b64encode(gzip.compress(a_lens().dumps().encode(), mtime=0)).decode()
    plain = _slim(render_page(a_curve()))
    begin = plain.index('<script type="application/json"')
    end = plain.index("</script>", begin)
    tagged = f'<script type="application/json" id="document" data-encoding="gzip">{packed}'
    return [(plain.encode(), _RUN), ((plain[:begin] + tagged + plain[end:]).encode(), _RUN)]


def parse(folder: Path) -> None:
    """List the folder, whatever is in it, and open the page."""
    for path, stamp in found(folder):
        entry = entry_of(folder, path, stamp)
        assert entry is None or entry.digest
    read_document(folder / FILES[0])
