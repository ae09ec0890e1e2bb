"""Who may ask a local server: its own pages and programs of this machine that know its token, under its own names."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING

from otoscope.errors import OptionError

if TYPE_CHECKING:
    import socket

    from starlette.requests import HTTPConnection

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
}
"""Of every answer."""

UNKNOWN_NAME = "This server is not known under that name."


@dataclass(frozen=True)
class Gate:
    """What a request must show.

    Attributes:
        token: The secret of this start.
        hosts: Names with port under which a browser may reach the server, in lower case; None: any, for it is reached from other
            machines.
    """

    token: str
    hosts: frozenset[str] | None = None

    @classmethod
    def at(cls, token: str, origin: str | None) -> Gate:
        """The gate of a server.

        Args:
            token: The secret.
            origin: `HOST:PORT` of the address it is reached at; None: it may be reached from other machines, under any name.
        """
        return cls(token, None if origin is None else frozenset(_names(origin)))

    def is_ours(self, connection: HTTPConnection) -> bool:
        """Whether a request names this server, and comes from its own page or from no page (DNS rebinding)."""
        host = connection.headers.get("host", "").lower()
        origin = connection.headers.get("origin")
        return (self.hosts is None or host in self.hosts) and (
            origin is None or origin.lower() in (f"http://{host}", f"https://{host}")
        )

    def knows(self, shown: str) -> bool:
        """Whether the token is right; how long this takes tells nothing of it."""
        return hmac.compare_digest(shown.encode("utf-8", "replace"), self.token.encode())


def _names(origin: str) -> set[str]:
    """What a browser on this machine may call `HOST:PORT`."""
    host, _, port = origin.rpartition(":")
    names = {host.lower()} | ({"localhost", "127.0.0.1", "[::1]"} if is_loopback(host) else set())
    return {f"{name}:{port}" for name in names} | (names if port == "80" else set())


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        OptionError: The address cannot be had.
    """
    import socket

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise OptionError(
            f"{host}:{port} cannot be listened on: {error}.",
            "Choose another --host or --port; 0 finds a free port.",
        ) from error
