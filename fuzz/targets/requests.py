"""Requests to `otoscope serve`, as the application sees them; what pages act on is a graph of a small model's own prompt."""

from __future__ import annotations

import json
import tempfile
from functools import cache
from pathlib import Path
from urllib.parse import quote

import httpx
from starlette.testclient import TestClient
from tests.conftest import tiny
from tests.documents.samples import a_curve
from tests.models.tokenizers import word_tokenizer

import otoscope as oto
from otoscope.circuits.tracer import TraceSettings
from otoscope.errors import OptionError
from otoscope.models.base import Model
from otoscope.views.gate import Gate
from otoscope.views.page import save_page
from otoscope.views.server import Limits, Server
from otoscope.views.server_entries import id_of
from otoscope.views.server_jobs import Queue
from otoscope.views.server_runs import Shelf
from otoscope.views.server_work import Setup, Workshop

FILES = ("request.json", "body")
KEY, PAGE, GRAPH, ADDRESS = "key", "curve.html", "graph.html", "http://testserver:80"
_TRIED = {"tokens": 1, "controls": 0}
_ACTS = (
    ("split", {"place": "graph", "source": "token/4", "target": "target/0"}),
    ("split", {"place": "resources/audio", "source": "", "target": ""}),
    ("intervene", _TRIED | {"intervention": {"zero": ["blocks.0.attn.1"], "features": ["text:0:1=0"]}}),
    ("intervene", _TRIED | {"intervention": {"scale": ["blocks.0.mlpx0.5"], "dictionary": "/"}}),
)
_LIMITS = Limits(body=2**16, upload=2**16, idle=2.0)


def seeds() -> list[tuple[bytes, bytes]]:
    """One to every address; no recording that could be heard; operations on a graph are real ones."""
    run, graph, owner = id_of(PAGE), id_of(GRAPH), {"authorization": f"Bearer {KEY}"}

    def asked(method: str, path: str, body: object = None, **query: str) -> tuple[bytes, bytes]:
        told = {"method": method, "path": path, "query": query, "headers": owner}
        return json.dumps(told).encode(), b"" if body is None else json.dumps(body).encode()

    return [
        asked("GET", "/"), asked("GET", f"/run/{run}"), asked("GET", "/static/page.js"), asked("GET", "/api/about"),
        asked("GET", "/api/runs", seen="x"), asked("GET", f"/api/runs/{run}/document"), asked("GET", f"/api/runs/{run}/page"),
        asked("GET", f"/api/runs/{run}/description"), asked("PUT", f"/api/runs/{run}/note", {"text": "odd"}),
        asked("PUT", f"/api/runs/{run}/annotations", {"place": "graph", "annotations": {"labels": {}}}),
        asked("POST", "/api/explain", "no sound", options='{"offset": 1}', name="a.wav"), asked("GET", "/api/jobs/1"),
        asked("DELETE", "/api/jobs/1"), asked("POST", "/api/act", {"run": run, "op": "none", "args": {}}),
        *(asked("POST", "/api/act", {"run": graph, "op": op, "args": args}) for op, args in _ACTS),
    ]  # fmt: skip


@cache
def _model() -> Model:
    model = tiny("llama")
    model.processor = word_tokenizer(97)
    return model


class _Workshop(Workshop):
    """One whose only model is in memory."""

    def model(self, name: str | None) -> Model:
        return _model()


@cache
def _shelf() -> Shelf:
    """A folder with two pages."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-served-"))
    save_page(a_curve(), folder / PAGE)
    save_page(
        oto.graph_doc(oto.trace(_model(), "w5 w9 w11", settings=TraceSettings(nodes=20))), folder / GRAPH
    )
    shelf = Shelf(folder)
    shelf.refresh()
    return shelf


def parse(folder: Path) -> None:
    """Send one; it is answered, with no failure of the server's own and nothing of the file system."""
    try:
        told = json.loads((folder / FILES[0]).read_bytes())
        method, path, query, headers = (told[name] for name in ("method", "path", "query", "headers"))
        path = "/" + quote(str(path), safe="/%?#:&=.", errors="replace").lstrip("/")
        headers = {_ascii(name) or "x": _ascii(value) for name, value in dict(headers).items()}
        query = {str(name): str(value) for name, value in dict(query).items()}
        body = (folder / FILES[1]).read_bytes() if (folder / FILES[1]).exists() else b""
        httpx.URL(f"{ADDRESS}{path}")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, httpx.InvalidURL):
        raise OptionError("It is no request at all.", "Send one.") from None
    with Queue(4) as queue:
        shelf = _shelf()
        server = Server(
            shelf, _Workshop(shelf.folder, Setup()), queue, Gate.at(KEY, "testserver:80"), _LIMITS
        )
        client = TestClient(server.app, base_url=ADDRESS)
        answer = client.request(
            _ascii(method)[:20] or "GET", path, params=_plain(query), headers=headers, content=body
        )
    assert answer.status_code < 500, answer.text
    if (
        path.startswith("/api/")
        and answer.status_code >= 400
        and answer.headers.get("content-type") == "application/json"
    ):
        assert {"reason", "remedy"} <= set(answer.json())
    assert "root:" not in answer.text


def _ascii(value: object) -> str:
    return "".join(c for c in str(value) if " " < c < "\x7f" or c == " ").strip()[:2_000]


def _plain(query: dict[str, str]) -> dict[str, str]:
    return {
        name.encode("utf-8", "replace").decode(): value.encode("utf-8", "replace").decode()
        for name, value in query.items()
    }
