"""`otoscope monitor`: `fit` and `run`; `serve` lies beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from otoscope.cli.monitor_serve import serve
from otoscope.cli.options import (
    Common,
    Mend,
    ModelName,
    MonitorFolder,
    Spoken,
    StoreOfTexts,
    mended,
    repair_of,
    require_own_texts,
    with_common,
)
from otoscope.cli.show import say, table, write_json
from otoscope.cli.skipping import end, warn_of_skipped

if TYPE_CHECKING:
    from otoscope.monitors.monitor import Monitor
    from otoscope.monitors.running import Watched

monitor = typer.Typer(
    name="monitor",
    no_args_is_help=True,
    help="Warn while a text is written: risk of every token that it is invented, loops or is badly wrong.\n\n"
    "Example: otoscope monitor run call.wav",
)

monitor.command()(serve)


@monitor.command()
@with_common
def fit(
    data: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="MANIFEST",
            help="Speech with its text, sounds without speech, what makes the model loop; one or several corpora. "
            "None: they are made, in DIR-data.",
        ),
    ] = None,
    *,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the monitor.")],
    model: ModelName = "whisper-tiny.en",
    language: Spoken = None,
    false_alarms: Annotated[
        float, typer.Option(metavar="SHARE", help="Share of ordinary speech segments on which it may ring.")
    ] = 0.05,
    exclude: Annotated[
        Path | None,
        typer.Option(metavar="MANIFEST", help="Recordings to judge by later: none with their texts is used."),
    ] = None,
    dictionary: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|neurons",
            help="Look at a dictionary's features, too: one of the decoder's, or the model's own neurons. The monitor needs it "
            "wherever it runs.",
        ),
    ] = None,
    point: Annotated[
        str, typer.Option(help="Where the dictionary reads, a place of the decoder.")
    ] = "decoder_blocks.*.mlp",
    divisions: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="Divide the texts N times in all, and tell how the scores vary; each further division takes as long as fitting.",
        ),
    ] = 1,
    common: Common,
) -> None:
    """Fit a monitor to a model, and say how good it is beside what needs no look inside.

    What is true of a text is told by the reference, or by the labels `invented` and `loop` (yes or no).

    Example: otoscope monitor fit speech/manifest.jsonl nonspeech/manifest.jsonl loops/manifest.jsonl --out monitor
    """
    from otoscope.corpora import items
    from otoscope.models.loading import load_model
    from otoscope.models.whisper import require_speech
    from otoscope.monitors.fitting import FitOptions, check_fit, fit_monitor
    from otoscope.monitors.thresholds import check_rate
    from otoscope.studies.monitors import monitor_corpora

    recordings = [item for path in data or () for item in items(path)]
    excluded = None if exclude is None else str(exclude)
    options = FitOptions(false_alarms, common.seed, language, excluded, dictionary, point, divisions)
    check_rate(false_alarms)
    if data:
        check_fit(recordings, options)
    loaded = require_speech(load_model(model, common.device, common.dtype))
    if not data:
        recordings = monitor_corpora(loaded, out.parent / f"{out.name}-data", common.seed)
    _, told = fit_monitor(loaded, recordings, out, options, common.batch)
    if common.json:
        write_json(told, common.json)
    if not common.json_on_stdout:
        say(*report_lines(told), f"The monitor: {out}")


_BESIDE = {"inside": "", "outside": "  (baseline)", "label": "  (makes the label)"}
"""What a line of a report is, by its kind."""


def _divided(target: str, scorers: Sequence[Mapping[str, Any]]) -> list[str]:
    """How the scores of a target vary over divisions."""
    from otoscope.monitors.judging import MONITOR

    rows = [(f"{target}, over divisions", "AUC", "monitor better", "F1", "monitor better")]
    for s in sorted(scorers, key=lambda s: -s["auc"]):
        better = ["" if s["name"] == MONITOR else f"{100 * s[f'{of}_beaten']:.0f} %" for of in ("auc", "f1")]
        outside = _BESIDE[s["kind"]]
        auc, f1 = (f"{s[of]:.3f} ± {s[f'{of}_sd']:.3f}" for of in ("auc", "f1"))
        rows.append((s["name"] + outside, auc, better[0], f1, better[1]))
    return [*table(rows), ""]


def report_lines(told: Mapping[str, Any]) -> list[str]:
    """A report for people."""
    lines: list[str] = []
    for target, found in told["targets"].items():
        rows = [(f"{target}, {found['yes']} of {found['yes'] + found['no']}", "AUC", "95 %", "F1", "95 %")]
        for s in sorted(found["scorers"], key=lambda s: -s["auc"]):
            outside = _BESIDE[s["kind"]]
            rows.append(
                (
                    s["name"] + outside, f"{s['auc']:.3f}", f"{s['ci_low']:.3f}–{s['ci_high']:.3f}",
                    f"{s['f1']:.3f}", f"{s['f1_low']:.3f}–{s['f1_high']:.3f}",
                )
            )  # fmt: skip
        lines += [*table(rows), ""]
    lines += [
        line
        for target, scorers in told.get("divisions", {}).get("targets", {}).items()
        for line in _divided(target, scorers)
    ]
    false, delay = told["false_alarms"], told["delay"]
    lines.append(
        f"Alarms on {false['count']} of {false['n']} texts of ordinary speech; asked for were at most "
        f"{100 * told['asked_false_alarms']:g} %."
    )
    for target, rate in told["detected"].items():
        lines.append(f"Alarms on {rate['count']} of {rate['n']} texts of the kind: {target}.")
    hindsight = told["hindsight"]
    lines.append(
        "In hindsight, doubtful: "
        + ", ".join(
            f"{hindsight[name]['count']} of {hindsight[name]['n']} {said}"
            for name, said in (
                ("false_alarms", "of ordinary speech"),
                ("invented", "invented"),
                ("loop", "that loop"),
            )
        )
        + "."
    )
    if delay["median"] is not None:
        lines.append(
            f"From the second copy of a loop to the alarm: {delay['median']:g} tokens (median of {delay['n']})."
        )
    return lines


@monitor.command()
@with_common
def run(
    target: Annotated[
        Path, typer.Argument(metavar="CLIP|MANIFEST|FOLDER", help="A recording, a manifest or a folder.")
    ],
    *,
    model: ModelName = "whisper-tiny.en",
    language: Spoken = None,
    folder: MonitorFolder = None,
    false_alarms: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Another rate of false alarms, by the risks of ordinary speech in fitting; of hindsight, too.",
        ),
    ] = None,
    mend: Mend = None,
    store: StoreOfTexts = None,
    common: Common,
) -> None:
    """Transcribe under a monitor: what was written, and how far it can be trusted.

    A window is `ok`, an `ALARM`, which rang while it was written, or to `CHECK`: it did not ring, but is doubtful in hindsight.
    Recordings of a manifest or folder that cannot be read are named and skipped, and the exit code is 3.

    Example: otoscope monitor run jfk.flac --json jfk.json
    """
    from otoscope.cli.loading import load_for
    from otoscope.corpora import items
    from otoscope.errors import AudioError
    from otoscope.models.transcripts import DecodeOptions
    from otoscope.models.whisper import require_speech
    from otoscope.monitors.monitor import Monitor
    from otoscope.monitors.running import watch_all
    from otoscope.monitors.thresholds import check_rate
    from otoscope.studies.kept_transcripts import kept_watches
    from otoscope.studies.transcription import none_readable, require_readable

    require_own_texts(store, mend)
    recordings = items(target)
    require_readable(recordings)  # before a model is fetched for them
    if false_alarms is not None:
        check_rate(false_alarms)
    own, repair = None if folder is None else Monitor.load(folder), repair_of(mend)
    loaded = require_speech(load_for("monitor", model, common, recordings))
    used = own or Monitor.shipped(loaded)
    if false_alarms is not None:
        used = used.at(false_alarms)
    single = len(recordings) == 1 and target.suffix != ".jsonl"
    found: list[dict[str, Any]] = []
    skipped: list[dict[str, str]] = []
    errors: list[AudioError] = []
    kinds: list[list[str | None]] = []
    doubtful = 0
    options = DecodeOptions(language=language)
    stops = repair is not None and repair.stop
    with mended(loaded, repair, used) as watch:
        if store is None:
            watched = watch_all(
                loaded, recordings, used, options, batch=common.batch, keep_going=True, watch=watch
            )
        else:
            watched = kept_watches(loaded, recordings, used, options, store, batch=common.batch)
        for item, one in zip(recordings, watched, strict=True):
            if isinstance(one, AudioError):
                errors.append(one)
                skipped.append(
                    {"audio_filepath": item.audio_filepath, "reason": one.reason, "remedy": one.remedy}
                )
                continue
            found.append({"audio_filepath": item.audio_filepath} | one.to_dict())
            doubtful += any(segment["hindsight"]["doubtful"] for segment in found[-1]["segments"])
            kinds.append([progress.kind for progress in one.progress if progress.alarm])
            if not common.json_on_stdout:
                say(*_lines(item.audio_filepath, one, single, stops))
        used = used if watch is None else watch.monitor
    if not found:
        raise none_readable(errors)
    if not common.json_on_stdout:
        say(*_summary(kinds, doubtful, used, single))
    if common.json:
        shared = {
            "threshold": used.threshold, "hindsight_threshold": used.hindsight.threshold,
            "false_alarm_rate": used.false_alarm_rate, "skipped": skipped,
        }  # fmt: skip
        write_json(found[0] if single else {"items": found, **shared}, common.json)
    warn_of_skipped(skipped, len(recordings))
    end(skipped)


_KINDS = {"invented": "may be invented", "loop": "loops"}
"""What an alarm says of a text."""

_SHOWN = 200
"""Characters that are shown of a text in alarm or doubt: a loop says nothing new after that."""


def _lines(name: str, watched: Watched, single: bool, stops: bool) -> list[str]:
    """What was written, window by window; `stops`: whether a repair ends a text at its alarm."""
    lines = [] if single else [f"{name}:"]
    limit = watched.monitor.hindsight.threshold
    windows = zip(watched.segments(), watched.in_hindsight(), strict=True)
    for (segment, tokens, progress), afterwards in windows:
        span = f"{segment.start:6.2f}–{segment.end:6.2f} s  risk {progress.risk:.2f}"
        doubtful = afterwards.risk >= limit
        if progress.alarm_token is None:
            lines.append(
                f"CHECK {span}  {_shortened(segment.text)}" if doubtful else f"ok    {span}  {segment.text}"
            )
            if doubtful:
                lines.append(
                    f"      did not ring, but is doubtful in hindsight: {afterwards.risk:.2f}, from {limit:.2f} on"
                )
            continue
        text = _shortened(segment.text) or "nothing is written"
        lines.append(f"ALARM {span}, {_KINDS[progress.kind or '']}:  {text}")
        if progress.alarm_token < len(tokens):
            first = tokens[progress.alarm_token][0]
            at = f"rang at {first.start:.2f} s, when “{first.text.strip()}” was written"
            lines.append(f"      {at} (token {progress.alarm_token}, counted from 0)")
        else:
            lines.append(
                f"      {'ended at its alarm, by the repair' if stops else 'rang as the text ended'}"
            )
        if not doubtful and not stops:
            lines.append(f"      not doubtful in hindsight: {afterwards.risk:.2f}, below {limit:.2f}")
    return lines


def _shortened(text: str) -> str:
    more = len(text) - _SHOWN
    return f"{text[:_SHOWN].rstrip()} … ({more} more characters; --json has them all)" if more > 0 else text


def _summary(kinds: Sequence[Sequence[str | None]], doubtful: int, used: Monitor, single: bool) -> list[str]:
    """How many recordings are in alarm, of what kind, how many doubtful in hindsight, and from which risk on.

    Args:
        kinds: The kinds of each recording's alarms.
        doubtful: Recordings of which a window is doubtful now that it is written.
        used: What told it.
        single: Whether there is one recording alone.
    """
    lines = []
    if not single:
        rung = [of for of in kinds if of]
        counts = [(said, sum(name in of for of in rung)) for name, said in _KINDS.items()]
        told = ", ".join(f"{n} {'loop' if said == 'loops' and n != 1 else said}" for said, n in counts if n)
        lines.append(f"Alarms in {len(rung)} of {len(kinds)} recordings" + (f": {told}." if told else "."))
        lines.append(f"Doubtful in hindsight: {doubtful}, from {used.hindsight.threshold:.2f} on.")
    promise = f"which at most {100 * used.false_alarm_rate:g} % of ordinary speech reaches"
    return [*lines, f"An alarm is a risk from {used.threshold:.2f} on, {promise}."]
