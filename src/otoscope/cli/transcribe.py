"""`otoscope transcribe`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from otoscope.cli.options import Common, require_output, with_common
from otoscope.cli.show import plain, say, table, warn, write_json

if TYPE_CHECKING:
    from otoscope.outcomes import ErrorRates
    from otoscope.studies.transcription import CorpusTranscript


class Task(StrEnum):
    """What to write."""

    transcribe = "transcribe"
    translate = "translate"


@with_common
def transcribe(
    target: Annotated[
        Path,
        typer.Argument(
            metavar="CLIP|MANIFEST|FOLDER",
            help="A recording, a manifest (JSON lines with audio_filepath) or a folder of recordings.",
        ),
    ],
    *,
    model: Annotated[str, typer.Option(help="An alias, a hub id or a model directory.")] = "whisper-tiny.en",
    language: Annotated[
        str | None, typer.Option(help="Language to decode in, such as fr, for every recording.")
    ] = None,
    task: Annotated[Task, typer.Option(help="Write what is said, or its English translation.")] = Task.transcribe,
    timestamps: Annotated[bool, typer.Option("--timestamps", help="Let the model write timestamps.")] = False,
    previous: Annotated[str | None, typer.Option(help="Earlier text to condition on.")] = None,
    temperature: Annotated[
        float, typer.Option(min=0, max=100, help="0 is greedy; above, tokens are sampled.")
    ] = 0.0,
    max_positions: Annotated[
        int | None, typer.Option(min=1, help="Decoder positions at most, prompt included.")
    ] = None,
    suppress: Annotated[
        bool, typer.Option("--suppress/--no-suppress", help="Apply the model's suppress lists.")
    ] = True,
    srt: Annotated[
        Path | None, typer.Option(help="Write SubRip subtitles: a file, or a folder for several recordings.")
    ] = None,
    vtt: Annotated[
        Path | None, typer.Option(help="Write WebVTT subtitles: a file, or a folder for several recordings.")
    ] = None,
    common: Common,
) -> None:
    """Write down what is said, with word times; with references, say how well.

    Recordings of a manifest or folder that cannot be read are named and skipped.

    Example: otoscope transcribe jfk.flac --json jfk.json --srt jfk.srt
    """
    from otoscope.corpora import items
    from otoscope.studies.subtitles import require_subtitles, save_subtitles
    from otoscope.studies.transcription import require_readable, transcribe_corpus

    for output in filter(None, (srt, vtt)):
        require_output(output, source=target)

    raise NotImplementedError
