"""`otoscope models list|get|check`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from otoscope.cli.options import Common, with_common
from otoscope.cli.show import say, table, write_json
from otoscope.errors import ModelError
from otoscope.wording import duration

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
        say(*table([("name", "state", "on disk", "licence", "what it is"), *rows]))


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


class Planned(StrEnum):
    """Commands that can be planned."""

    TRANSCRIBE = "transcribe"
    EXPLAIN = "explain"
    LENS = "lens"
    PATCH = "patch"
    TRACE = "trace"
    PROBE = "probe"
    FEATURES = "features"
    MONITOR = "monitor"
    MEND = "mend"


@models.command("check")
@with_common
def check_model(
    name: Name,
    *,
    plan: Annotated[
        Planned | None,
        typer.Option(help="Say what this command takes with the model, whose weights need not be here."),
    ] = None,
    seconds: Annotated[float, typer.Option(help="With --plan: seconds of sound, in all.")] = 30.0,
    units: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="With --plan: features of a trace, steps of `features train`, trials of `mend search`; their defaults.",
        ),
    ] = None,
    recordings: Annotated[
        int,
        typer.Option(
            min=1, help="With --plan: recordings that the sound is in, each with windows of its own."
        ),
    ] = 1,
    common: Common,
) -> None:
    """Verify every file of a model against its SHA-256; with --plan: predict the time and memory of a command.

    Example: otoscope models check whisper-tiny.en

    Example: otoscope models check openai/whisper-large-v3 --plan trace --seconds 30
    """
    if plan is not None:
        _say_plan(name, plan.value, {"seconds": seconds, "units": units, "recordings": recordings}, common)
        return
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


_OFF = 1.5
"""How far memory may be from what was planned; `benchmarks/planning.py` measures it."""


def _room(needed: float, free: float) -> str:
    if needed > free:
        return ", so it does not fit"
    return ", so it may not fit" if needed * _OFF > free else ""


def _say_plan(name: str, command: str, work: dict[str, Any], common: Common) -> None:
    from otoscope.machine import free_memory
    from otoscope.models.loading import load_model
    from otoscope.planning.commands import plan
    from otoscope.planning.machine import measured

    model = load_model(name, "meta", common.dtype)
    made = plan(model, command, measured(), batch=common.batch, **work)
    free = free_memory()
    if common.json:
        write_json(made.to_dict() | {"free_bytes": free, "fits": made.peak_bytes <= free}, common.json)
    if common.json_on_stdout:
        return
    rows = [
        (s.name, f"{s.seconds:.1f} s", f"{s.flops / 1e9:.0f} GFLOP", f"{s.bytes / 1e9:.2f} GB")
        for s in made.stages
    ]
    say(
        f"{made.model}, {made.parameters / 1e6:.0f} M parameters in {made.dtype}: {made.weight_bytes / 1e9:.2f} GB of weights",
        "",
        *table([("stage", "time", "computing", "memory beside"), *rows]),
        "",
        f"`otoscope {made.command}` takes about {duration(made.seconds)} and {made.peak_bytes / 1e9:.1f} GB; "
        f"{free / 1e9:.1f} GB are free{_room(made.peak_bytes, free)}.",
        f"Where plans were measured, time was off by less than 2 times and memory by less than {_OFF} times.",
        *(f"Assumed: {each}." for each in made.assumptions),
    )
