"""`otoscope features export`, `push` and `pull`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from otoscope.cli.options import Common, ModelName, with_common
from otoscope.cli.show import say, write_json


class Format(StrEnum):
    """Formats of other programs."""

    CIRCUIT_TRACER = "circuit-tracer"
    SAE_LENS = "sae-lens"


@with_common
def export_command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A dictionary.")],
    *,
    to: Annotated[Format, typer.Option(help="The program that shall read it.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="A new folder.")],
    model: ModelName = "whisper-tiny.en",
    common: Common,
) -> None:
    """Write a dictionary as circuit-tracer or SAELens reads it.

    Example: otoscope features export features --to circuit-tracer --out for-circuit-tracer --model smollm2-135m
    """
    from otoscope.models.loading import load_model
    from otoscope.studies.feature_training import export_features

    export_features(load_model(model, common.device, common.dtype), folder, out, to.value)
    if common.json:
        write_json({"folder": str(out), "format": to.value}, common.json)
    if not common.json_on_stdout:
        say(f"{out}")


@with_common
def push_command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A dictionary that otoscope trained.")],
    repo: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Where to on the model hub.")],
    *,
    public: Annotated[bool, typer.Option("--public", help="Make a new repository public.")] = False,
    card: Annotated[bool, typer.Option("--card", help="Only show the model card, and send nothing.")] = False,
    common: Common,
) -> None:
    """Put a dictionary on the model hub, with a card that says what it is and how good.

    Example: otoscope features push features me/whisper-tiny.en-decoder-transcoders
    """
    from otoscope.dictionaries.sharing import model_card, push

    told = model_card(folder) if card else push(folder, repo, private=not public)
    if common.json:
        write_json({"card" if card else "commit": told}, common.json)
    if not common.json_on_stdout:
        say(told)


@with_common
def pull_command(
    repo: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="A dictionary on the model hub.")],
    *,
    out: Annotated[Path, typer.Option(metavar="DIR", help="A new folder.")],
    common: Common,
) -> None:
    """Fetch a dictionary from the model hub; its size is said first.

    Example: otoscope features pull me/whisper-tiny.en-decoder-transcoders --out features
    """
    from otoscope.dictionaries.sharing import pull

    folder = pull(repo, out)
    if common.json:
        write_json({"folder": str(folder)}, common.json)
    if not common.json_on_stdout:
        say(f"{folder}")
