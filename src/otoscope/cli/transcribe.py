"""`otoscope transcribe`."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from otoscope.cli.options import (
    Common,
    Mend,
    StoreOfTexts,
    mended,
    repair_of,
    require_different,
    require_own_texts,
    with_common,
    with_engine,
)
from otoscope.cli.show import say, table, warn, write_json
from otoscope.cli.skipping import end, warn_of_skipped
from otoscope.errors import OptionError

if TYPE_CHECKING:
    from otoscope.outcomes import ErrorRates
    from otoscope.studies.transcription import CorpusTranscript


class Task(StrEnum):
    """What to write."""

    TRANSCRIBE = "transcribe"
    TRANSLATE = "translate"


@with_common
@with_engine
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
    task: Annotated[Task, typer.Option(help="Write what is said, or its English translation.")] = Task(
        "transcribe"
    ),
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
    mend: Mend = None,
    store: StoreOfTexts = None,
    srt: Annotated[
        Path | None, typer.Option(help="Write SubRip subtitles: a file, or a folder for several recordings.")
    ] = None,
    vtt: Annotated[
        Path | None, typer.Option(help="Write WebVTT subtitles: a file, or a folder for several recordings.")
    ] = None,
    common: Common,
) -> None:
    """Write down what is said; with references, say how well. Word times are in --json, --srt and --vtt.

    Recordings of a manifest or folder that cannot be read are named and skipped, and the exit code is 3.

    Example: otoscope transcribe jfk.flac --json jfk.json --srt jfk.srt
    """
    outputs = {"srt": srt, "vtt": vtt}
    require_different(common.json_path, srt, vtt, source=target)

    from otoscope.corpora import items
    from otoscope.runs import elsewhere
    from otoscope.studies.transcription import require_readable, require_subtitles, transcribe_corpus

    require_own_texts(store, mend)
    if store is None and elsewhere():
        raise OptionError(
            "Workers compute parts, and without a directory to keep them in there are none.",
            "Name one with --store DIR.",
        )
    if store is not None and temperature > 0:
        raise OptionError("Sampled texts are not kept.", "Leave --store or --temperature out.")
    recordings = items(target)
    for out in filter(None, outputs.values()):
        require_subtitles(out, len(recordings))
    require_readable(recordings)  # before a model is fetched for them

    from otoscope.cli.loading import load_for
    from otoscope.models.transcripts import DecodeOptions

    options = DecodeOptions(
        language, task.value, timestamps, previous, temperature, common.seed, max_positions, suppress
    )
    repair = repair_of(mend)
    loaded = load_for("transcribe", model, common, recordings)
    with mended(loaded, repair) as watch:
        if watch is not None and timestamps:
            raise OptionError(
                "A repair that waits for alarms needs a text without timestamps.", "Leave one of them out."
            )
        result = transcribe_corpus(
            loaded, recordings, options, batch=common.batch, watcher=watch, store=store
        )
    for format, out in outputs.items():
        if out:
            result.save_subtitles(out, format)  # pyright: ignore[reportArgumentType]
    if common.json:
        write_json(result.to_dict(), common.json)
    skipped = [asdict(one) for one in result.skipped]
    warn_of_skipped(skipped, len(result.items) + len(skipped))
    for doubt in result.doubts():
        warn(doubt)
    if not common.json_on_stdout:
        _say(result)
    end(skipped)


def _say(result: CorpusTranscript) -> None:
    texts = [transcript.text for transcript in result.transcripts]
    if len(texts) + len(result.skipped) == 1:
        say(*texts)
    else:
        say(*(f"{item.audio_filepath}: {text}" for item, text in zip(result.items, texts, strict=True)))
    if any(rates.reference_words for rates in result.rates.values()):
        say("", *table([_HEADER, *(_row(name, rates) for name, rates in result.rates.items())]))


_HEADER = ("language", "recordings", "words", "WER", "95 % interval", "CER")


def _row(name: str, rates: ErrorRates) -> tuple[str, ...]:
    interval = (
        "–".join(f"{100 * end:.1f}" for end in rates.wer_interval) + " %" if rates.wer_interval else "–"
    )
    return name, str(rates.n), str(rates.reference_words), _percent(rates.wer), interval, _percent(rates.cer)


def _percent(rate: float | None) -> str:
    return "–" if rate is None else f"{100 * rate:.1f} %"
