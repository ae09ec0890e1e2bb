"""`otoscope monitor serve`: live transcription under a monitor."""

from __future__ import annotations

import secrets
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

import typer

from otoscope.cli.options import Common, ModelName, MonitorFolder, Spoken, with_common
from otoscope.cli.serving import AllowRemote, Host, Port, listening, require_extra, require_local
from otoscope.cli.show import say, warn, write_json
from otoscope.errors import OptionError

if TYPE_CHECKING:
    from otoscope.monitors.engine import Engine
    from otoscope.views.live import Limits

_EXTRA = ("starlette", "uvicorn", "websockets")


@with_common
def serve(
    *,
    model: ModelName = "whisper-tiny.en",
    language: Spoken = None,
    folder: MonitorFolder = None,
    host: Host = "127.0.0.1",
    port: Port = 0,
    allow_remote: AllowRemote = False,
    token: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What every stream must show; a random one.")
    ] = None,
    streams: Annotated[int, typer.Option(min=1, help="Streams at once.")] = 8,
    pause: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", help="Quiet that ends a segment; 0: only 30 s do, as in transcribing."
        ),
    ] = 1.0,
    every: Annotated[
        float,
        typer.Option(
            min=0.1, metavar="SECONDS", help="New sound after which a text under way is written again."
        ),
    ] = 1.0,
    idle: Annotated[
        float, typer.Option(min=1, metavar="SECONDS", help="A stream from which nothing comes is closed.")
    ] = 60.0,
    message: Annotated[int, typer.Option(min=1024, metavar="BYTES", help="Longest message.")] = 2**18,
    common: Common,
) -> None:
    """Serve live transcription under a monitor, over WebSocket and on a page, to this machine.

    Prints the address of the page, with its token, once it listens; Ctrl-C ends it. With --json the addresses come as JSON.

    Example: otoscope monitor serve --port 8765
    """
    require_extra(*_EXTRA)
    from otoscope.audio import Segmenter
    from otoscope.models.loading import load_model
    from otoscope.models.transcripts import DecodeOptions
    from otoscope.models.whisper import require_speech
    from otoscope.monitors.engine import Engine
    from otoscope.monitors.monitor import Monitor
    from otoscope.monitors.streaming import Pacing
    from otoscope.views.live import Limits

    require_local(host, allow_remote)
    Segmenter(pause=pause or None)  # refuses a pause that cannot be used
    if token == "":
        raise OptionError("The token is empty.", "Leave --token out for a random one.")
    own = None if folder is None else Monitor.load(folder)
    loaded = require_speech(load_model(model, common.device, common.dtype))
    used = own or Monitor.shipped(loaded)
    pacing = Pacing(pause=pause or None, every=every)
    limits = Limits(streams=streams, message=message, idle=idle)
    with Engine(loaded, used, DecodeOptions(language=language), pacing) as engine:
        _run(engine, host, port, token or secrets.token_urlsafe(16), limits, common)


def _run(engine: Engine, host: str, port: int, token: str, limits: Limits, common: Common) -> None:
    """Listen until Ctrl-C."""
    from otoscope.views.live import Live, server

    with listening(host, port) as at:
        live = Live(engine, token, at.origin, limits)
        page, stream = f"http://{at.address}/#token={quote(token)}", f"ws://{at.address}/stream"
        if common.json:
            write_json({"page": page, "stream": stream, "token": token}, common.json, indent=None)
        if not common.json_on_stdout:
            say(f"The page: {page}", f"Streams: {stream}", "Ctrl-C ends it.")
        if at.origin is None:
            warn("Sound and token travel unencrypted; put a proxy with TLS before it.")
        sys.stdout.flush()
        with suppress(KeyboardInterrupt):  # how it is meant to end
            server(live).run(sockets=[at.socket])
