"""What a server takes of a request, and the forms in which it answers and refuses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from otoscope.errors import AudioError, DocumentError, OptionError, OtoscopeError
from otoscope.text_values import object_of
from otoscope.views.server_jobs import FullError
from otoscope.views.server_runs import ReplacedError, UnknownRunError


class RefusalError(Exception):
    """Why a request is refused: a status of HTTP, a reason and a remedy."""

    def __init__(self, status: int, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.status, self.reason, self.remedy = status, reason, remedy


async def pieces_of(request: Request, most: int, idle: float) -> AsyncIterator[bytes]:
    """What a request sends, piece by piece, never more than it may and never for ever.

    Args:
        request: The request.
        most: Bytes of the whole.
        idle: Seconds without a byte after which it is given up.

    Raises:
        RefusalError: It is too much, or nothing came for too long.
    """
    told = request.headers.get("content-length", "")
    count, pieces = int(told) if told.isdecimal() else 0, request.stream()
    too_big = RefusalError(413, f"That is more than {most / 2**20:.0f} MB.", "Send less.")
    if count > most:
        raise too_big
    count = 0
    while True:
        try:
            piece = await asyncio.wait_for(anext(pieces, None), idle)
        except TimeoutError:
            raise RefusalError(408, "Nothing came for too long.", "Try again.") from None
        if piece is None:
            return
        count += len(piece)
        if count > most:
            raise too_big
        yield piece


async def json_body(request: Request, most: int, idle: float) -> dict[str, Any]:
    """The JSON object that a request sends; see `pieces_of`.

    Raises:
        RefusalError: It sends none.
    """
    text = b"".join([piece async for piece in pieces_of(request, most, idle)])
    try:
        return object_of(text)
    except ValueError:
        raise RefusalError(400, "The request is no JSON object.", "Send one.") from None


def key_in(request: Request) -> str:
    """The key that a request shows, "" if it shows none."""
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    return token if kind.lower() == "bearer" else ""


def version_in(request: Request) -> str | None:
    """Which version of a document a page was made of, by the digest that it was given; None: it does not say."""
    return request.headers.get("if-match", "").strip('"') or None


def json_answer(value: Any, status: int = 200) -> Response:
    """An answer in JSON. It is ASCII: names of files may hold what no UTF-8 text can."""
    return Response(json.dumps(value, allow_nan=False), status, media_type="application/json")


def refused(status: int, reason: str, remedy: str) -> Response:
    """A refusal, in the one form that all have."""
    return json_answer({"reason": reason, "remedy": remedy}, status)


def status_of(error: OtoscopeError) -> int:
    """The status of HTTP that says what sort of refusal an error is."""
    statuses = (
        (UnknownRunError, 404),
        (ReplacedError, 412),
        (FullError, 429),
        ((AudioError, DocumentError), 422),
        (OptionError, 400),
    )
    return next((status for kinds, status in statuses if isinstance(error, kinds)), 500)
