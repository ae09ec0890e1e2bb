"""The options that every command takes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from otoscope.cli.reporter import reporting
from otoscope.errors import OptionError, OutputError
from otoscope.files import require_regular, require_writable
from otoscope.progress import Silence, reporting_to

if TYPE_CHECKING:
    from otoscope.mending.repair import Repair

_PANEL = "Options of every command"

ModelName = Annotated[str, typer.Option(help="An alias, a hub id or a directory.")]
Spoken = Annotated[str | None, typer.Option(help="Language of the recordings.")]
MonitorFolder = Annotated[
    Path | None,
    typer.Option(
        "--monitor", metavar="DIR", help="What `monitor fit` wrote; the one that comes with otoscope."
    ),
]
ReadAt = Annotated[
    str | None, typer.Option(metavar="POINT", help="Where it reads; what otoscope trained says so itself.")
]
Mend = Annotated[
    Path | None, typer.Option("--mend", metavar="DIR", help="Apply a repair that `otoscope mend` made.")
]

StoreOfTexts = Annotated[
    Path | None,
    typer.Option(
        "--store",
        metavar="DIR",
        help="Keep there what is written, while it is written: the same command goes on where it was stopped, and of a corpus "
        "that has grown only what is new is heard.",
    ),
]

Force = Annotated[bool, typer.Option("--force", help="Replace a page that is there already.")]

SilencedSpans = Annotated[
    list[str] | None,
    typer.Option(
        "--silence", metavar="T0-T1", help="Silence a span of the sound, in seconds; several times."
    ),
]
ZeroedComponents = Annotated[
    list[str] | None,
    typer.Option(
        "--zero",
        metavar="COMPONENT",
        help="Zero a block, or a head of it: decoder_blocks.2.mlp, decoder_blocks.2.cross_attn.3, of a language model "
        "blocks.9.attn.3; several times.",
    ),
]
ScaledComponents = Annotated[
    list[str] | None,
    typer.Option(
        "--scale", metavar="COMPONENTxF", help="Multiply one by a factor: blocks.9.attn.3x0.5; several times."
    ),
]
ChangedFeatures = Annotated[
    list[str] | None,
    typer.Option(
        "--feature",
        metavar="STACK:LAYER:FEATURE=V",
        help="Set a feature (=V) or scale it (xV); @T0-T1 in a span of the sound, @5 at a position of the text; several times.",
    ),
]


def repair_of(folder: Path | None) -> Repair | None:
    """The repair that --mend names, read before a model is loaded for it.

    Raises:
        OptionError: The folder holds none.
    """
    if folder is None:
        return None
    from otoscope.mending.repair import load_repair

    return load_repair(folder)


def require_own_texts(store: Path | None, mend: Path | None) -> None:
    """Refuse to keep what a repaired model writes: it could not be told from the model's own texts.

    Raises:
        OptionError: Both are given.
    """
    if store is not None and mend is not None:
        raise OptionError(
            "What a repaired model writes is not kept.", "Leave --store or --mend out; or export the repair."
        )


@contextmanager
def mended(model: Any, repair: Repair | None, monitor: Any = None) -> Iterator[Any]:
    """The model with a repair in force, if there is one; yields what watches for alarms, if the repair needs it."""
    if repair is None:
        yield None
        return
    from otoscope.mending.applying import mended as in_force

    with in_force(model, repair, monitor) as watch:
        yield watch


@dataclass(frozen=True)
class Common:
    """Values of the options that every command takes; see `otoscope COMMAND --help`."""

    device: str
    dtype: str
    batch: int | None
    seed: int
    json: str | None
    quiet: bool
    debug: bool

    @property
    def json_path(self) -> Path | None:
        """The file that gets the JSON, if one does."""
        return None if self.json in (None, "-") else Path(self.json)

    @property
    def json_on_stdout(self) -> bool:
        """Whether stdout is for JSON alone."""
        return self.json == "-"


def _declared(
    *,
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.", rich_help_panel=_PANEL)
    ] = "auto",
    dtype: Annotated[
        str,
        typer.Option(help="auto, float32, float16, bfloat16 or float64.", rich_help_panel=_PANEL),
    ] = "auto",
    batch: Annotated[
        int | None, typer.Option(min=1, help="Rows run at once.", rich_help_panel=_PANEL)
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything random.", rich_help_panel=_PANEL)] = 0,
    json: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="Write the result as JSON, in place of what is there; - for stdout alone.",
            rich_help_panel=_PANEL,
        ),
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="No progress and no notices.", rich_help_panel=_PANEL)
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error.", rich_help_panel=_PANEL)
    ] = False,
) -> None: ...


def with_common(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the common options; their values reach it as its keyword argument `common`."""
    own = inspect.signature(command, eval_str=True)
    shared = inspect.signature(_declared, eval_str=True).parameters.values()
    parameters = [p for name, p in own.parameters.items() if name != "common"]

    @wraps(command)
    def run(**values: Any) -> None:
        common = Common(**{field.name: values.pop(field.name) for field in fields(Common)})
        if common.device == "meta":
            raise OptionError(
                "On the device meta there are no weights, and nothing is computed.",
                "Leave --device out; `otoscope models check NAME --plan` tells what a command takes.",
            )
        if common.json_path:
            require_writable(common.json_path)
        with reporting_to(Silence()) if common.quiet else reporting():
            command(**values, common=common)

    del run.__wrapped__  # Typer would look through it and see `common`
    every = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in (*parameters, *shared)]
    run.__signature__ = own.replace(parameters=every)  # pyright: ignore[reportAttributeAccessIssue]
    run.__annotations__ = {p.name: p.annotation for p in every}
    return run


class EngineName(StrEnum):
    """Where the parts of a job are computed."""

    HERE = "here"
    RAY = "ray"


def _engine_declared(
    *,
    engine: Annotated[
        EngineName,
        typer.Option(
            help="Where parts are computed: in this process, or by Ray (the cluster at RAY_ADDRESS, else this machine's)."
        ),
    ] = EngineName.HERE,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Workers of Ray; as many as there are processors or accelerators."),
    ] = None,
) -> None: ...


def with_engine(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the choice of where its parts are computed; stands below `with_common`."""
    own = inspect.signature(command, eval_str=True)
    shared = inspect.signature(_engine_declared, eval_str=True).parameters

    @wraps(command)
    def run(**values: Any) -> None:
        from otoscope.runs import OnRay, running_on

        engine, workers = (values.pop(name) for name in shared)
        with running_on(OnRay(workers=workers)) if engine is EngineName.RAY else nullcontext():
            command(**values)

    del run.__wrapped__
    every = [*own.parameters.values(), *shared.values()]
    every = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in every]
    run.__signature__ = own.replace(parameters=every)  # pyright: ignore[reportAttributeAccessIssue]
    run.__annotations__ = {p.name: p.annotation for p in every}
    return run


def require_different(*outputs: Path | None, source: Path) -> None:
    """Refuse outputs that would overwrite each other, a device or what is to be read.

    Raises:
        OutputError: Two of the paths are the same, or one is no place for a file.
    """
    seen = {source.resolve()}
    for output in filter(None, outputs):
        require_regular(output)
        if output.resolve() in seen:
            raise OutputError(f"{output} would be overwritten.", "Give every output a name of its own.")
        seen.add(output.resolve())


def require_page(page: Path | None, force: bool) -> None:
    """Refuse, before any work, a page that cannot be written, or that would take the place of a file that is there.

    Pages hold what people wrote beside them, so none is replaced unless that is asked for.

    Raises:
        OutputError: A file has this name, or the place may not be written to.
    """
    if page is None:
        return
    require_writable(page)
    if page.exists() and not force:
        raise OutputError(f"{page} is there already.", "Name another page, or replace it with --force.")
