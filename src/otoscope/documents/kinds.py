"""All kinds of documents, and a document out of its JSON."""

from __future__ import annotations

import pkgutil
from functools import cache
from importlib import import_module
from typing import Any

from pydantic import ValidationError

import otoscope.documents
from otoscope.documents.base import Document
from otoscope.errors import DocumentError
from otoscope.text_values import object_of

_NEWER = "Make it again, or use the version of otoscope that made it."


@cache
def kinds() -> dict[str, type[Document]]:
    """Every kind of document by its name: all that any module of this room defines."""
    for module in pkgutil.iter_modules(otoscope.documents.__path__):
        import_module(f"otoscope.documents.{module.name}")
    return {
        kind.model_fields["kind"].default: kind
        for kind in Document.__subclasses__()
        if "kind" in kind.model_fields
    }


def parse_document(text: str | bytes) -> Document:
    """A document out of its JSON text, checked as strictly as when it was made.

    Args:
        text: What `Document.dumps` gave; it may come from anywhere.

    Raises:
        DocumentError: It is no JSON, no document of a known kind and version, or holds what no document does.
    """
    return document_of(parse_values(text))


def parse_values(text: str | bytes) -> dict[str, Any]:
    """The JSON values of a document, not checked yet.

    Raises:
        DocumentError: It is no JSON object.
    """
    try:
        return object_of(text)
    except ValueError:
        raise DocumentError("The document is no JSON object.", "Make it again.") from None


def document_of(data: Any) -> Document:
    """A document out of its JSON values.

    Raises:
        DocumentError: See `parse_document`.
    """
    kind = data.get("kind") if isinstance(data, dict) else None
    known = kinds().get(kind) if isinstance(kind, str) else None
    if known is None:
        raise DocumentError(f"A document of kind {str(kind)[:40]!r} is not known.", _NEWER)
    try:
        return known.model_validate(data)
    except (ValidationError, RecursionError) as error:
        where = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": "too deep"}
        place = ".".join(str(step)[:40] for step in where["loc"][:8]) or "the document"
        raise DocumentError(
            f"The {kind} document is not valid at {place}: {where['msg'][:200]}.", _NEWER
        ) from None
