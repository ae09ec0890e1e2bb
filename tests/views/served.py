"""A server of runs in a thread, and a client that knows its key."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass
from pathlib import Path

import httpx

from otoscope.views.gate import Gate, bind
from otoscope.views.server import Limits, Server, uvicorn_server
from otoscope.views.server_entries import id_of
from otoscope.views.server_jobs import Queue
from otoscope.views.server_runs import Shelf
from otoscope.views.server_work import Setup, Workshop

KEY = "a-key-that-nobody-guesses"


@dataclass(frozen=True)
class Served:
    """A server that runs."""

    folder: Path
    address: str
    workshop: Workshop
    queue: Queue

    def url(self, path: str = "/", fragment: str = "") -> str:
        """An address of a page, with the key."""
        return f"http://{self.address}{path}#key={KEY}{'&' if fragment else ''}{fragment.removeprefix('#')}"

    def page_of(self, name: str, fragment: str = "") -> str:
        """The address of the run that a file of the folder is."""
        return self.url(f"/run/{id_of(name)}", fragment)

    def client(self, **more) -> httpx.Client:
        headers = {"Authorization": f"Bearer {KEY}"} | more.pop("headers", {})
        return httpx.Client(base_url=f"http://{self.address}", headers=headers, timeout=60, **more)


@contextlib.contextmanager
def serving(folder, limits=None, setup=None):
    """Serve a folder for the length of a block."""
    limits, shelf = limits or Limits(), Shelf(folder)
    with Queue(limits.waiting) as queue, bind("127.0.0.1", 0) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        workshop = Workshop(shelf.folder, setup or Setup(batch=64))
        running = uvicorn_server(Server(shelf, workshop, queue, Gate.at(KEY, address), limits).app, 1)
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield Served(shelf.folder, address, workshop, queue)
        finally:
            running.should_exit = True
            thread.join(20)
    assert not thread.is_alive()
