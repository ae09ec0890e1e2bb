"""`otoscope serve`."""

from __future__ import annotations

import secrets
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from otoscope.cli.options import Common, with_common
from otoscope.cli.serving import AllowRemote, Host, Port, listening, require_extra, require_local
from otoscope.cli.show import say, warn, write_json
from otoscope.files import require_folder

if TYPE_CHECKING:
    from otoscope.cli.serving import Listening
    from otoscope.views.server_work import Setup

_EXTRA = ("starlette", "uvicorn")


@with_common
def serve(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where the runs are.")],
    *,
    model: Annotated[
        str, typer.Option(help="Explains what is brought in; an alias, a hub id or a directory.")
    ] = "whisper-tiny.en",
    monitor: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR",
            help="A monitor that pages may choose, as `monitor fit` wrote it; several times, beside those in the folder.",
        ),
    ] = None,
    host: Host = "127.0.0.1",
    port: Port = 0,
    allow_remote: AllowRemote = False,
    show: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    common: Common,
) -> None:
    """Serve all runs of a folder on one page: find, open, compare and annotate them, and explain new recordings.

    Runs are the pages that otoscope wrote, and the directories of its jobs, in the folder and those below it. Prints the address,
    with its key, once it listens; Ctrl-C ends it. With --json the address comes as JSON.

    Example: otoscope serve runs --open
    """
    require_extra(*_EXTRA)
    require_local(host, allow_remote)
    require_folder(folder, "Name a folder; make one with `mkdir`, it may be empty.")

    from otoscope.cli.loading import exact
    from otoscope.views.server_work import Setup

    setup = Setup(model, common.device, exact(common.dtype), common.batch, common.seed, tuple(monitor or ()))
    with listening(host, port) as at:
        _run(folder, setup, at, show, common)


def _run(folder: Path, setup: Setup, at: Listening, show: bool, common: Common) -> None:
    """Serve until Ctrl-C."""
    from otoscope.views.gate import Gate
    from otoscope.views.server import Limits, Server, uvicorn_server
    from otoscope.views.server_jobs import Queue
    from otoscope.views.server_runs import Shelf
    from otoscope.views.server_work import Workshop

    token, shelf, limits = secrets.token_urlsafe(16), Shelf(folder), Limits()
    workshop = Workshop(shelf.folder, setup)
    with Queue(limits.waiting) as queue:
        server = uvicorn_server(Server(shelf, workshop, queue, Gate.at(token, at.origin), limits).app)
        page = f"http://{at.address}/#key={token}"
        if common.json:
            told = {"page": page, "address": f"http://{at.address}", "token": token}
            write_json(told, common.json, indent=None)
        if not common.json_on_stdout:
            say(f"The runs of {folder} are at {page}", "Ctrl-C ends it.")
        if at.origin is None:
            warn("Sound, runs and key travel unencrypted; put a proxy with TLS before it.")
        sys.stdout.flush()
        if show:
            _open(page)
        with suppress(KeyboardInterrupt):  # how it is meant to end
            server.run(sockets=[at.socket])


def _open(page: str) -> None:
    """Show the page in the person's browser, if there is one; the socket listens already."""
    import webbrowser

    if not webbrowser.open(page):
        warn("No browser was found; open the address in one.")
