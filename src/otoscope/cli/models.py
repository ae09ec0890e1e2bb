"""`otoscope models list|get|check`."""

from __future__ import annotations

from typing import Annotated

import typer

from otoscope.cli.options import Common, with_common
from otoscope.cli.show import say, table, write_json
from otoscope.errors import ModelError

models = typer.Typer(name="models", help="See, fetch and verify models.")

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="An alias, a hub id, a model directory or a .gguf file.")
]


@models.command("list")
@with_common
def list_models(*, common: Common) -> None:
    """List the models known by a short name, and which of them are here.

    Example: otoscope models list
    """
    from otoscope.models.sources import status

    known = status()
    if common.json:
        facts = [
            {
                "alias": s.entry.alias,
                "default": s.entry.default,
                "cached": s.cached,
                "size_bytes": s.size_bytes,
                "family": s.entry.family,
                "licence": s.entry.licence,
                "hub_id": s.entry.hub_id,
                "source": s.entry.source,
                "description": s.entry.description,
            }
            for s in known
        ]
        write_json({"models": facts}, common.json)
    if not common.json_on_stdout:
        rows = [
            (
                s.entry.alias + (" (default)" if s.entry.default else ""),
                "here" if s.cached else "not fetched",
                f"{s.size_bytes / 1e6:.0f} MB",
                s.entry.licence,
                s.entry.description,
            )
            for s in known
        ]
        say(*table([("name", "state", "size", "licence", "what it is"), *rows]))


@models.command("get")
@with_common
def get_model(
    name: Name,
    *,
    force: Annotated[bool, typer.Option("--force", help="Fetch again what is here.")] = False,
    common: Common,
) -> None:
    """Fetch a model, unless it is here, and verify it.

    Example: otoscope models get whisper-tiny.en
    """
    from otoscope.models.sources import locate

    local = locate(name, force=force)
    if common.json:
        write_json(
            {
                "name": local.name,
                "path": str(local.path),
                "layout": local.layout,
                "source": local.source,
                "sha256": local.sha256,
            },
            common.json,
        )
    if not common.json_on_stdout:
        say(f"{local.name} is at {local.path}", f"from {local.source}", f"sha256 {local.sha256}")


@models.command("check")
@with_common
def check_model(name: Name, *, common: Common) -> None:
    """Verify every file of a model against its SHA-256.

    Example: otoscope models check whisper-tiny.en
    """
    from otoscope.models.sources import REGISTRY, locate, verify

    problems = verify(name if name in REGISTRY else locate(name))
    if common.json:
        write_json({"name": name, "problems": problems}, common.json)
    if problems and all("missing" in problem for problem in problems):
        raise ModelError(f"{name} is not fetched yet.", f"Fetch it with `otoscope models get {name}`.")
    if problems:
        raise ModelError(" ".join(problems), f"Fetch it again: `otoscope models get {name} --force`.")
    if not common.json_on_stdout:
        say(f"{name} is whole.")
