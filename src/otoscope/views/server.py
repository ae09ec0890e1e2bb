"""A local server over the runs of a folder: their list, each run, what is written onto it, and a model that explains and acts.

Every answer under `/api` needs the token of this start in the `Authorization` header; what is refused comes back as JSON with a
`reason` and a `remedy`. Pages and scripts hold no secret and need none.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.routing import Route

from otoscope import __version__
from otoscope.errors import OtoscopeError
from otoscope.text_values import object_of
from otoscope.views.acting import Acts
from otoscope.views.gate import HEADERS, UNKNOWN_NAME, Gate
from otoscope.views.page import render_page, static
from otoscope.views.server_choices import models_offered
from otoscope.views.server_entries import id_of
from otoscope.views.server_jobs import Job, Queue
from otoscope.views.server_requests import (
    RefusalError,
    json_answer,
    json_body,
    key_in,
    pieces_of,
    refused,
    status_of,
    version_in,
)
from otoscope.views.server_runs import Shelf, UnknownRunError
from otoscope.views.server_shell import FILES, render_shell
from otoscope.views.server_work import Parcel, Workshop, checked_options, checked_sound

_log = logging.getLogger("uvicorn.error")
_LOOK = 0.15  # seconds between two looks at a job whose progress is streamed


@dataclass(frozen=True)
class Limits:
    """What one server takes.

    Attributes:
        upload: Bytes of a recording.
        body: Bytes of any other request.
        waiting: Jobs that may wait for the model.
        idle: Seconds without a byte after which a request is given up.
    """

    upload: int = 100 * 2**20
    body: int = 2 * 2**20
    waiting: int = 8
    idle: float = 30.0


Handler = Callable[[Request], Awaitable[Response]]


class Server:
    """The application.

    Args:
        shelf: The runs.
        workshop: Has the model.
        queue: Inside its `with` block.
        gate: Who may ask.
        limits: What it takes.
    """

    def __init__(
        self, shelf: Shelf, workshop: Workshop, queue: Queue, gate: Gate, limits: Limits | None = None
    ) -> None:
        self.shelf, self.workshop, self.queue, self.gate = shelf, workshop, queue, gate
        self.limits = limits or Limits()
        shells = [Route(path, self._guarded(self._shell, secret=False)) for path in
                  ("/", "/run/{id}", "/folder/{id}", "/beside/{id}", "/compare/{one}/{other}")]  # fmt: skip
        self.app = Starlette(
            routes=[
                *shells,
                Route("/static/{name}", self._guarded(self._static, secret=False)),
                self._route("/api/about", self._about),
                self._route("/api/runs", self._runs),
                self._route("/api/runs/{id}/document", self._document),
                self._route("/api/runs/{id}/description", self._description),
                self._route("/api/runs/{id}/page", self._page),
                self._route("/api/runs/{id}/note", self._note, "PUT"),
                self._route("/api/runs/{id}/annotations", self._annotate, "PUT"),
                self._route("/api/explain", self._explain, "POST"),
                self._route("/api/jobs/{id}", self._job),
                self._route("/api/jobs/{id}", self._cancel, "DELETE"),
                self._route("/api/act", self._act, "POST"),
            ]
        )

    # Who may ask ---------------------------------------------------------------------------------------------------------

    def _route(self, path: str, handler: Handler, method: str = "GET") -> Route:
        return Route(path, self._guarded(handler), methods=[method])

    def _guarded(self, handler: Handler, secret: bool = True) -> Handler:
        """A handler that only our own pages reach, and that answers every refusal in one form."""

        async def guarded(request: Request) -> Response:
            try:
                if not self.gate.is_ours(request):
                    raise RefusalError(403, UNKNOWN_NAME, "Use the address that it printed.")
                if secret and not self.gate.knows(key_in(request)):
                    reason = "The key is wrong." if key_in(request) else "The address has no key."
                    raise RefusalError(401, reason, "Open the address that `otoscope serve` printed.")
                answer = await handler(request)
            except RefusalError as refusal:
                answer = refused(refusal.status, refusal.reason, refusal.remedy)
            except OtoscopeError as error:
                answer = refused(status_of(error), error.reason, error.remedy)
            except ClientDisconnect:
                answer = Response(status_code=400)
            except (
                Exception
            ) as error:  # a page is answered in the one form it knows, and the log has the rest
                _log.exception("An error that was not expected.")
                reason = f"otoscope met an error it did not expect: {type(error).__name__}."
                answer = refused(500, reason, "This is a bug; please report it with what the terminal shows.")
            answer.headers.update(
                {name: value for name, value in HEADERS.items() if name not in answer.headers}
            )
            return answer

        return guarded

    # Pages ---------------------------------------------------------------------------------------------------------------

    async def _shell(self, request: Request) -> Response:
        page, headers = render_shell(framed=request.url.path.startswith("/beside/"))
        return HTMLResponse(page, headers=headers)

    async def _static(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in FILES:
            raise RefusalError(404, "There is no such file.", "Go back to the list of runs.")
        return Response(static(name), media_type=FILES[name])

    # Runs ----------------------------------------------------------------------------------------------------------------

    async def _about(self, request: Request) -> Response:
        about = {
            "folder": self.shelf.folder.name or "/",
            "path": str(self.shelf.folder),
            "version": __version__,
            "models": await run_in_threadpool(models_offered, self.workshop.setup.model),
            "monitors": await run_in_threadpool(self.workshop.monitors.offered),
            "ops": list(Acts.ops),
            "upload": self.limits.upload,
        }
        return json_answer(about)

    async def _runs(self, request: Request) -> Response:
        """The list, left out where it is as the asker has seen it, and the jobs."""

        def look() -> dict[str, Any]:
            unread = self.shelf.refresh()
            runs = self.shelf.listing()
            seen = sha256(json.dumps(runs).encode()).hexdigest()[:16]
            told = {"seen": seen, "unread": unread, "jobs": self.queue.listing("explain")}
            return told if request.query_params.get("seen") == seen else told | {"runs": runs}

        return json_answer(await run_in_threadpool(look))

    async def _document(self, request: Request) -> Response:
        """The document, with what tells it from one that takes its place: later requests name it in `If-Match`."""

        def read() -> tuple[str, str]:
            id = self._known(request)
            digest = self.shelf.entry(id).digest
            return self.shelf.document(id, digest).dumps(), digest

        text, digest = await run_in_threadpool(read)
        return Response(text, media_type="application/json", headers={"ETag": f'"{digest}"'})

    async def _description(self, request: Request) -> Response:
        return json_answer(await run_in_threadpool(lambda: self.shelf.description(self._known(request))))

    async def _page(self, request: Request) -> Response:
        """The run as a file to keep, with all that was written onto it."""
        return HTMLResponse(await run_in_threadpool(lambda: render_page(self._opened(request))))  # pyright: ignore[reportArgumentType]

    async def _note(self, request: Request) -> Response:
        text = (await json_body(request, self.limits.body, self.limits.idle)).get("text")
        if not isinstance(text, str):
            raise RefusalError(400, "The note is no text.", 'Send {"text": "..."}.')
        await run_in_threadpool(
            lambda: self.shelf.write_note(self._known(request), text, version_in(request))
        )
        return Response(status_code=204)

    async def _annotate(self, request: Request) -> Response:
        told = await json_body(request, self.limits.body, self.limits.idle)
        place, value = told.get("place"), told.get("annotations")
        if not isinstance(place, str) or not isinstance(value, dict):
            raise RefusalError(400, "place or annotations are missing.", "Send both.")
        await run_in_threadpool(
            lambda: self.shelf.annotate(self._known(request), place, value, version_in(request))
        )
        return Response(status_code=204)

    def _known(self, request: Request) -> str:
        """The id in a request's address; a page that was opened at once is looked for first."""
        id = request.path_params["id"]
        with suppress(UnknownRunError):
            self.shelf.entry(id)
            return id
        self.shelf.refresh()
        return id

    def _opened(self, request: Request) -> Any:
        return self.shelf.document(self._known(request), version_in(request))

    # Work ----------------------------------------------------------------------------------------------------------------

    async def _explain(self, request: Request) -> Response:
        """Take a recording; answers with the job that explains it."""
        self.queue.require_room()
        try:
            options = checked_options(object_of(request.query_params.get("options", "{}")))
        except ValueError:
            raise RefusalError(
                400, "The options are no JSON object.", "Send an object, such as {}."
            ) from None
        parcel = Parcel(request.query_params.get("name", ""))
        try:
            with parcel.path.open("wb") as file:
                async for piece in pieces_of(request, self.limits.upload, self.limits.idle):
                    file.write(piece)
            await run_in_threadpool(checked_sound, parcel.path)

            def work(job: Job) -> dict[str, Any]:
                try:
                    made = self.workshop.explain(job, parcel.path, options)
                finally:
                    parcel.drop()
                self.shelf.refresh()
                return {"run": id_of(made["path"])}

            job = self.queue.add(Job("explain", parcel.path.name, work))
        except BaseException:  # a sender who hangs up cancels this; the half that came must go all the same
            parcel.drop()
            raise
        return json_answer(self.queue.told(job), 202)

    async def _job(self, request: Request) -> Response:
        told = self.queue.job(request.path_params["id"])
        if told is None:
            raise RefusalError(404, "There is no such job, or no longer.", "Look at the list of runs.")
        return json_answer(told)

    async def _cancel(self, request: Request) -> Response:
        if not self.queue.cancel(request.path_params["id"]):
            raise RefusalError(404, "There is no such job, or no longer.", "Look at the list of runs.")
        return Response(status_code=204)

    async def _act(self, request: Request) -> Response:
        """Run an operation on a run's document. Progress and the answer come as lines of JSON; who hangs up cancels it."""
        told = await json_body(request, self.limits.body, self.limits.idle)
        run, op, args = told.get("run"), told.get("op"), told.get("args", {})
        if not (isinstance(run, str) and isinstance(op, str) and isinstance(args, dict)):
            raise RefusalError(400, "run, op or args are missing.", "Send all three.")
        doc = await run_in_threadpool(self.shelf.document, run, version_in(request))
        job = self.queue.add(Job("act", op[:80], lambda job: self.workshop.act(job, op, args, doc)))
        return StreamingResponse(self._lines(job), media_type="application/x-ndjson")

    async def _lines(self, job: Job) -> AsyncIterator[str]:
        last = None
        try:
            while True:
                told = self.queue.told(job)
                if told != last:
                    yield json.dumps(told, allow_nan=False) + "\n"
                if job.finished and told["state"] == job.state:
                    return
                last = told
                await asyncio.sleep(_LOOK)
        finally:
            self.queue.leave(job)


def uvicorn_server(app: Any, graceful: int = 3) -> Any:
    """A uvicorn server of an application; `.run(sockets=[...])` serves, `.should_exit = True` ends it.

    Nothing is logged but failures: neither addresses nor what was sent.
    """
    import uvicorn

    return uvicorn.Server(
        uvicorn.Config(
            app,
            log_level="error",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=graceful,
            lifespan="off",
            ws="none",
        )
    )
