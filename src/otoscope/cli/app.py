"""All commands in one application."""

from __future__ import annotations

from typing import Annotated

import typer

from otoscope import __version__
from otoscope.cli.corpus import corpus
from otoscope.cli.doctor import doctor
from otoscope.cli.explain import explain
from otoscope.cli.features import features
from otoscope.cli.intervene import intervene
from otoscope.cli.lens import lens
from otoscope.cli.mend import mend
from otoscope.cli.models import models
from otoscope.cli.monitor import monitor
from otoscope.cli.patch import patch
from otoscope.cli.probe import probe
from otoscope.cli.serve import serve
from otoscope.cli.study import study
from otoscope.cli.trace import trace
from otoscope.cli.transcribe import transcribe

app = typer.Typer(
    name="otoscope", add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich"
)
app.command()(explain)
app.command()(transcribe)
app.command()(lens)
app.command()(probe)
app.command()(patch)
app.command()(trace)
app.command()(intervene)
app.command()(study)
app.command()(serve)
app.add_typer(models)
app.add_typer(corpus)
app.add_typer(features)
app.add_typer(monitor)
app.add_typer(mend)
app.command()(doctor)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"otoscope {__version__}")
        raise typer.Exit


@app.callback()
def otoscope(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Look inside models that listen and speak.

    Every command has its own --help with an example.

    Example: otoscope explain jfk.flac --out page.html
    """
