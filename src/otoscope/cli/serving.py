"""What commands that serve share: where they listen, whom they let in, and the extra they need."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated

import typer

from otoscope.errors import OptionError

if TYPE_CHECKING:
    import socket

Host = Annotated[str, typer.Option(help="Address to listen on.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 finds a free one.")]
AllowRemote = Annotated[
    bool,
    typer.Option("--allow-remote", help="Let other machines in; sound and token then travel unencrypted."),
]


@dataclass(frozen=True)
class Listening:
    """Where a server listens.

    Attributes:
        socket: What it listens on.
        address: `HOST:PORT` as it is written in an address.
        origin: The same, or None where other machines reach it, under any name.
    """

    socket: socket.socket
    address: str
    origin: str | None


def require_extra(*packages: str) -> None:
    """Refuse to serve without what serving needs.

    Raises:
        OptionError: A package is not installed.
    """
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise OptionError(
            f"Serving needs {', '.join(missing)}, which is not installed.",
            'Install what belongs to it: pip install "otoscope[serve]".',
        )


def require_local(host: str, allow_remote: bool) -> None:
    """Refuse an address that other machines reach, unless that is meant.

    Raises:
        OptionError: They reach it, and nobody allowed it.
    """
    from otoscope.views.gate import is_loopback

    if not is_loopback(host) and not allow_remote:
        raise OptionError(
            f"{host} is reached from other machines.",
            "Leave --host out, or say --allow-remote if that is meant.",
        )


@contextmanager
def listening(host: str, port: int) -> Iterator[Listening]:
    """Listen for the length of a block.

    Raises:
        OptionError: The address cannot be had.
    """
    from otoscope.views.gate import bind, is_loopback

    with bind(host, port) as socket:
        at = f"[{host}]" if ":" in host else host
        address = f"{at}:{socket.getsockname()[1]}"
        yield Listening(socket, address, address if is_loopback(host) else None)
