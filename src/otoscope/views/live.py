"""Live transcription under a monitor over WebSocket, and the page that shows it.

A connection is one stream: a JSON message that begins it, then binary messages of PCM, then `{"type": "end"}`. Events come back
as JSON, see `otoscope.monitors.streaming.Stream`. Whatever is wrong closes the connection with a code and a reason, and touches
no other. While a stream has no room, its socket is not read, so that TCP slows its sender down; while it does not read, nothing
is written for it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from otoscope.audio import Pcm
from otoscope.errors import OptionError, OtoscopeError
from otoscope.text_values import object_of
from otoscope.views.gate import HEADERS, UNKNOWN_NAME, Gate
from otoscope.views.live_page import render_live

if TYPE_CHECKING:
    from otoscope.monitors.engine import Engine
    from otoscope.monitors.streaming import Event, Stream

NOT_TEXT, BAD_DATA, REFUSED, FAILED, BUSY = 1003, 1007, 1008, 1011, 1013
"""Close codes of RFC 6455 and IANA's register; 1009 (a message too big) and 1012 (the server stops) come from the protocol."""

_LONGEST_REASON = 123  # bytes: what a close frame holds
_LINGER = 2.0  # seconds


@dataclass(frozen=True)
class Limits:
    """What one server takes.

    Attributes:
        streams: At once.
        waiting: Connections at once that have not begun a stream.
        message: Bytes.
        begin: Seconds until a stream must have begun.
        idle: Seconds without a message, or without the other side reading, after which a stream is given up.
    """

    streams: int = 8
    waiting: int = 32
    message: int = 2**18
    begin: float = 10.0
    idle: float = 60.0


@dataclass(frozen=True)
class Begin:
    """The first message, `{"type": "start", ...}`.

    Attributes:
        token: What the server was started with, unless the address has it.
        rate: Samples a second, 8000 to 48000.
        format: `s16le` or `f32le`.
        language: Code, or None to detect.
        pause: Seconds of quiet that end a segment, 0 for none, or None for the server's.
    """

    token: str | None = None
    rate: int = 16_000
    format: str = "s16le"
    language: str | None = None
    pause: float | None = None

    @classmethod
    def of(cls, text: str) -> Begin:
        """Read it.

        Raises:
            RefusalError: It is something else.
        """
        told = _message(text)
        if told.pop("type", None) != "start":
            raise RefusalError(BAD_DATA, 'The first message is not of type "start".')
        kinds = {"token": str, "rate": int, "format": str, "language": str, "pause": int | float}
        for name, value in told.items():
            if name not in kinds:
                raise RefusalError(BAD_DATA, f"The start message has no {name!r}.")
            if value is not None and (isinstance(value, bool) or not isinstance(value, kinds[name])):
                raise RefusalError(BAD_DATA, f"{name} of the start message is of a wrong type.")
        return cls(
            **{field.name: told[field.name] for field in fields(cls) if told.get(field.name) is not None}
        )


class RefusalError(Exception):
    """Why a connection is closed."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


def _message(text: str) -> dict[str, Any]:
    try:
        return object_of(text)
    except ValueError:
        raise RefusalError(BAD_DATA, "A text message is no JSON object.") from None


class Live:
    """The application, and what it knows of its connections.

    Args:
        engine: Writes for the streams; inside its `with` block.
        token: What every stream must show.
        origin: `HOST:PORT` of the address it is reached at; None: it may be reached from other machines, under any name.
        limits: What it takes.
    """

    def __init__(
        self, engine: Engine, token: str, origin: str | None = None, limits: Limits | None = None
    ) -> None:
        self.engine, self.limits, self.gate = engine, limits or Limits(), Gate.at(token, origin)
        self.streams: set[Stream] = set()
        self.waiting = 0
        self.app = Starlette(routes=[Route("/", self._page), WebSocketRoute("/stream", self._serve)])

    def _page(self, request: HTTPConnection) -> Response:
        if not self.gate.is_ours(request):
            return PlainTextResponse(UNKNOWN_NAME, 403)
        page, headers = render_live(self.engine.model.origin.name, self.engine.monitor.threshold)
        return HTMLResponse(page, headers=HEADERS | headers)

    async def _serve(self, socket: WebSocket) -> None:
        if not self.gate.is_ours(socket):
            await socket.send_denial_response(PlainTextResponse(UNKNOWN_NAME, 403))
            return
        await socket.accept()
        try:
            await self._converse(socket)
        except RefusalError as refusal:
            await self._close(socket, refusal.code, refusal.reason)
        except (WebSocketDisconnect, OSError):
            pass

    async def _converse(self, socket: WebSocket) -> None:
        begin = await self._begin(socket)
        if len(self.streams) >= self.limits.streams:
            raise RefusalError(BUSY, f"All {self.limits.streams} streams are taken; try again later.")
        async with self._stream(begin) as (stream, pcm, events, roomy):
            await self._send(socket, self._ready(begin, stream))
            reading = asyncio.create_task(self._read(socket, stream, pcm, roomy))
            writing = asyncio.create_task(self._write(socket, stream, events))
            try:
                done, _ = await asyncio.wait({reading, writing}, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
                if reading in done:  # it was told that the sound has ended
                    await writing
            finally:
                reading.cancel()
                writing.cancel()
                await asyncio.gather(reading, writing, return_exceptions=True)
        await self._close(socket, 1000, "")

    async def _begin(self, socket: WebSocket) -> Begin:
        if self.waiting >= self.limits.waiting:
            raise RefusalError(BUSY, "Too many connections have not begun a stream.")
        self.waiting += 1
        try:
            message = await asyncio.wait_for(socket.receive(), self.limits.begin)
        except TimeoutError:
            raise RefusalError(REFUSED, f"No start message came within {self.limits.begin:g} s.") from None
        finally:
            self.waiting -= 1
        text = _text(message)
        if text is None:
            raise RefusalError(NOT_TEXT, "The first message must be text: JSON that begins the stream.")
        begin = Begin.of(text)
        shown = begin.token or socket.query_params.get("token", "")
        if not self.gate.knows(shown):
            raise RefusalError(REFUSED, "The token is wrong.")
        return begin

    @asynccontextmanager
    async def _stream(
        self, begin: Begin
    ) -> AsyncIterator[tuple[Stream, Pcm, asyncio.Queue[Event], asyncio.Event]]:
        """A stream of the engine's, what reads its samples, its events, and the sign that it has room again."""
        loop, events, roomy = asyncio.get_running_loop(), asyncio.Queue[Any](), asyncio.Event()

        def soon(call: Callable[..., None], *values: Any) -> None:
            with suppress(RuntimeError):  # the server has stopped
                loop.call_soon_threadsafe(call, *values)

        try:
            pcm = Pcm(begin.rate, begin.format)
            stream = self.engine.open(
                lambda event: soon(events.put_nowait, event),
                lambda: soon(roomy.set),
                begin.language,
                begin.pause,
            )
        except OptionError as error:
            raise RefusalError(BAD_DATA, error.reason) from None
        self.streams.add(stream)
        try:
            yield stream, pcm, events, roomy
        finally:
            stream.close()
            self.streams.discard(stream)

    def _ready(self, begin: Begin, stream: Stream) -> Event:
        return {
            "type": "ready",
            "model": self.engine.model.origin.name,
            "threshold": round(self.engine.monitor.threshold, 4),
            "rate": begin.rate,
            "format": begin.format,
            "language": stream.language,
            "longest_message": self.limits.message,
        }

    async def _read(self, socket: WebSocket, stream: Stream, pcm: Pcm, roomy: asyncio.Event) -> None:
        """Feed the stream until its end is told; while it has no room, nothing is read."""
        while True:
            try:
                message = await asyncio.wait_for(socket.receive(), self.limits.idle)
            except TimeoutError:
                raise RefusalError(REFUSED, f"Nothing came for {self.limits.idle:g} s.") from None
            text = _text(message)
            if text is not None:
                if _message(text).get("type") != "end":
                    raise RefusalError(BAD_DATA, 'After the start, the only text message is {"type": "end"}.')
                stream.feed(pcm.end())
                stream.end()
                return
            try:
                stream.feed(pcm.take(message["bytes"]))
            except OtoscopeError as error:
                raise RefusalError(BAD_DATA, error.reason) from None
            while not stream.room:
                roomy.clear()
                if not stream.room:
                    await roomy.wait()

    async def _write(self, socket: WebSocket, stream: Stream, events: asyncio.Queue[Event]) -> None:
        """Send events until the last."""
        while True:
            event = await events.get()
            if event["type"] == "error":
                raise RefusalError(FAILED, event["reason"])
            await self._send(socket, event)
            stream.sent()
            if event["type"] == "end":
                return

    async def _send(self, socket: WebSocket, event: Event) -> None:
        try:
            await asyncio.wait_for(socket.send_text(json.dumps(event)), self.limits.idle)
        except TimeoutError:
            raise RefusalError(REFUSED, f"Nothing was read for {self.limits.idle:g} s.") from None

    async def _close(self, socket: WebSocket, code: int, reason: str) -> None:
        short = reason.encode("utf-8", "replace")[:_LONGEST_REASON].decode("utf-8", "ignore")
        with suppress(TimeoutError, RuntimeError, OSError, WebSocketDisconnect):
            await asyncio.wait_for(socket.close(code, short), 1.0)


def _text(message: Any) -> str | None:
    """Text of a message, None where it is binary.

    Raises:
        WebSocketDisconnect: It is the end of the connection.
    """
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1005))
    return message.get("text")


def server(live: Live) -> Any:
    """A uvicorn server of the application; `.run(sockets=[...])` serves, `.should_exit = True` ends it.

    Nothing is logged but failures: neither addresses, which may hold the token, nor sound, nor text.
    """
    import uvicorn

    return uvicorn.Server(
        uvicorn.Config(
            live.app,
            log_level="error",
            access_log=False,
            server_header=False,
            ws=_lingering(),
            ws_max_size=live.limits.message,
            ws_per_message_deflate=False,  # a small message would grow beyond the limit
            ws_ping_interval=None,  # an answer would wait behind sound that is not read; idle streams end anyway
            timeout_graceful_shutdown=5,
            lifespan="off",
        )
    )


def _lingering() -> type[asyncio.Protocol]:
    """Uvicorn's protocol, but for what follows a message that is refused unread (too long, or no WebSocket at all).

    It goes on reading for a moment: a connection that is closed with data unread is reset, and its code and reason are lost.
    """
    from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

    class Lingering(WebSocketsSansIOProtocol):
        def handle_parser_exception(self) -> None:
            if self.close_timer is not None:
                return
            close = self.conn.close_sent
            assert close is not None
            self.queue.put_nowait(
                {"type": "websocket.disconnect", "code": close.code, "reason": close.reason}
            )
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.close_sent = True
            self.close_timer = self.loop.call_later(_LINGER, self.transport.close)
            if self.read_paused:
                self.read_paused = False
                self.transport.resume_reading()

    return Lingering
