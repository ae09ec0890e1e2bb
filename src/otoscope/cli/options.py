"""The options that every command takes."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from otoscope.cli.reporter import reporter
from otoscope.errors import OutputError
from otoscope.files import require_writable
from otoscope.progress import reporting_to

_PANEL = "Options of every command"


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
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of everything random.", rich_help_panel=_PANEL)
    ] = 0,
    json: Annotated[
        str | None,
        typer.Option(
            metavar="PATH", help="Write the result as JSON; - for stdout alone.", rich_help_panel=_PANEL
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
        if common.json and not common.json_on_stdout:
            require_output(Path(common.json))
        with nullcontext() if common.quiet else reporter() as listening, reporting_to(listening) if listening else nullcontext():
            command(**values, common=common)

    del run.__wrapped__  # Typer would look through it and see `common`
    every = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in (*parameters, *shared)]
    run.__signature__ = own.replace(parameters=every)  # pyright: ignore[reportAttributeAccessIssue]
    run.__annotations__ = {p.name: p.annotation for p in every}
    return run


def require_output(path: Path, source: Path | None = None) -> None:
    """Refuse, before any work, an output that cannot be written or would destroy something.

    Args:
        path: What is to be written.
        source: What is to be read.

    Raises:
        OutputError: See `require_writable`; or `path` is a device or the source itself.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise OutputError(f"{path} is not a regular file.", "Name a file; --json - writes to stdout.")
    if source is not None and path.exists() and source.exists() and path.samefile(source):
        raise OutputError(f"{path} is what is to be read.", "Name another file for the result.")
    require_writable(path)
