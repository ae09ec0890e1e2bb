"""The document of a page file, read back out of it. Nothing of the page is run, and nothing is trusted."""

from __future__ import annotations

import base64
import binascii
import os
import re
import stat
import zlib
from pathlib import Path

from otoscope.documents.base import Document
from otoscope.documents.kinds import parse_document
from otoscope.errors import DocumentError

FILE_LIMIT = 64 * 2**20
"""Bytes of the largest page file that is read."""

TEXT_LIMIT = 192 * 2**20
"""Bytes of the largest document, inflated: where a file that unpacks to gigabytes is given up."""

_HEAD = 2**12  # bytes in which a page says what made it
_GENERATOR = b'<meta name="generator" content="otoscope">'
_DATA = re.compile(rb'<script type="application/json" id="document"( data-encoding="gzip")?>')
_GZIP = 16 + zlib.MAX_WBITS
_NO_PAGE = "Name a page that otoscope made."


def read_document(path: Path | str) -> Document:
    """Read the document out of a page file that `save_page` wrote.

    The page may come from anywhere: its JSON is taken out as text, bounded in size, and checked; its scripts are not looked at.

    Args:
        path: The page.

    Raises:
        DocumentError: The file cannot be read, is no page of otoscope, is damaged or too large.
    """
    return parse_document(document_text(path))


def document_text(path: Path | str) -> bytes:
    """The JSON of a page file's document, not checked yet.

    Raises:
        DocumentError: See `read_document`.
    """
    page = _bytes_of(Path(path))
    found = _DATA.search(page) if _GENERATOR in page[:_HEAD] else None
    end = page.find(b"</script>", found.end()) if found else -1
    if found is None or end < 0:
        raise DocumentError(f"{path} is no page of otoscope, or was cut short.", _NO_PAGE)
    text = page[found.end() : end]
    return _inflated(text, path) if found[1] else text


def is_page(path: Path | str) -> bool:
    """Whether a file says that it is a page of otoscope; it may still be damaged."""
    try:
        with Path(path).open("rb") as file:
            return _GENERATOR in file.read(_HEAD)
    except OSError:
        return False


def _bytes_of(path: Path) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # a pipe must not hold us up
        with os.fdopen(descriptor, "rb") as file:
            about = os.fstat(descriptor)
            if not stat.S_ISREG(about.st_mode):
                raise DocumentError(f"{path} is no file.", _NO_PAGE)
            if about.st_size > FILE_LIMIT:
                raise DocumentError(
                    f"{path} has {about.st_size / 2**20:.0f} MB, more than a page may have.", _NO_PAGE
                )
            return file.read(FILE_LIMIT)
    except OSError as error:
        raise DocumentError(f"{path} cannot be read: {error.strerror}.", "Check the path.") from None


def _inflated(packed: bytes, path: Path | str) -> bytes:
    damaged = DocumentError(f"The document in {path} is damaged.", "Make the page again.")
    try:
        inflater = zlib.decompressobj(_GZIP)
        text = inflater.decompress(base64.b64decode(packed, validate=True), TEXT_LIMIT)
    except (binascii.Error, zlib.error):
        raise damaged from None
    if inflater.unconsumed_tail:
        raise DocumentError(
            f"The document in {path} unpacks to more than {TEXT_LIMIT // 2**20} MB.", "Do not open it."
        )
    if not inflater.eof:
        raise damaged
    return text
