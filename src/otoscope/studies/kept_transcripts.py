"""Transcripts of a corpus, and what a monitor says of them, kept while they are made, so that no recording is heard twice."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from otoscope.corpora import Item
from otoscope.errors import AudioError, EditError, OptionError
from otoscope.models.transcribing import checked_options, seconds_of, transcribe_all
from otoscope.models.transcripts import DecodeOptions, Transcript
from otoscope.monitors.monitor import Monitor
from otoscope.monitors.running import Watched, check_watched, watch_all
from otoscope.progress import notice, track, tracked_in
from otoscope.runs import Run, computed, elsewhere

if TYPE_CHECKING:
    from otoscope.models.whisper import SpeechModel

_TABLE = "transcripts"
_WINDOW = 30.0  # s, of a Whisper

_T = TypeVar("_T", Transcript, Watched)
_Outcome = Transcript | Watched | AudioError


def kept_transcripts(
    model: SpeechModel,
    items: Sequence[Item],
    options: DecodeOptions | None,
    store: Path | str,
    *,
    batch: int | None = None,
) -> list[Transcript | AudioError]:
    """Transcribe a corpus, or go on with it, in parts that are kept.

    What is there of a recording is not transcribed again, be the corpus now a larger one, a smaller one or in another order; if
    its file or span was changed it is another recording. What cannot be read is tried again every time. Parts
    are computed by the engine that is in place. Texts are those of `transcribe_all` in other batches.

    Args:
        model: The recogniser.
        items: The recordings.
        options: How to decode; nothing can be sampled, for what is drawn would hang on the parts.
        store: A directory, begun or finished.
        batch: Windows at once; None: `model.batch`.

    Returns:
        A transcript of each recording, or why it cannot be read.

    Raises:
        EditError: A hook, an edit or a repair is in place, which the directory could not tell from others.
        OptionError: The language or task does not fit the model, texts are to be sampled, the directory belongs to other
            settings, or a part is damaged.
        OutputError: It cannot be written.
    """
    options, batch, facts = checked_options(model, options), batch or model.batch, model.describe()
    settings = _settings(model, options)
    write = partial(transcribe_all, model, options=options, batch=batch, keep_going=True)
    loads = partial(Transcript.loads, model=facts)
    found = _kept("transcripts", settings, items, store, batch, write, loads)
    return [
        one if isinstance(one, AudioError) else _called(one, item, options)
        for one, item in zip(found, items, strict=True)
    ]


def kept_watches(
    model: SpeechModel,
    items: Sequence[Item],
    monitor: Monitor,
    options: DecodeOptions | None,
    store: Path | str,
    *,
    batch: int | None = None,
) -> list[Watched | AudioError]:
    """Transcribe a corpus under a monitor, or go on with it, in parts that are kept; see `kept_transcripts`.

    Args:
        model: The recogniser.
        items: The recordings.
        monitor: The monitor; another one needs a directory of its own, another threshold of the same does not.
        options: How to decode, without timestamps.
        store: A directory, begun or finished.
        batch: Windows at once; None: `model.batch`.

    Returns:
        What was written and how far it can be trusted, of each recording, or why it cannot be read.

    Raises:
        EditError: As in `kept_transcripts`.
        ModelError: The monitor was fitted to another model.
        OptionError: As in `kept_transcripts`, or timestamps are asked for.
        OutputError: It cannot be written.
    """
    monitor.check(model)
    check_watched(options)
    options, batch, facts = checked_options(model, options), batch or model.batch, model.describe()
    settings = _settings(model, options) | {"monitor": monitor.digest_of_risks}
    write = partial(watch_all, model, monitor=monitor, options=options, batch=batch, keep_going=True)
    loads = partial(Watched.loads, model=facts, monitor=monitor)
    found = _kept("texts under a monitor", settings, items, store, batch, write, loads)
    return [
        one
        if isinstance(one, AudioError)
        else replace(one, transcript=_called(one.transcript, item, options))
        for one, item in zip(found, items, strict=True)
    ]


def _called(transcript: Transcript, item: Item, options: DecodeOptions) -> Transcript:
    """A transcript as this corpus calls its recording, which may have been kept under another path to the same file."""
    return replace(transcript, source=item.audio_filepath, settings=options)


def _settings(model: SpeechModel, options: DecodeOptions) -> dict[str, Any]:
    """What texts depend on."""
    if model.open_hooks or model.filters or model.mended:
        raise EditError(
            "A hook, an edit or a repair is in place, and what is kept are the model's own texts.",
            "Transcribe without keeping, or outside of the block.",
        )
    if options.temperature > 0:
        raise OptionError("Sampled texts are not kept.", "Transcribe without keeping, or at temperature 0.")
    generation, lists = model.hf.generation_config, ("suppress_tokens", "begin_suppress_tokens")
    return {
        "model": {key: value for key, value in model.describe().items() if key not in ("device", "source")},
        "weights": model.weights_digest(),
        "decoding": {key: value for key, value in options.to_dict().items() if key != "seed"},
        "suppressed": {name: list(getattr(generation, name, None) or ()) for name in lists},
    }


def _kept(
    kind: str,
    settings: Mapping[str, Any],
    items: Sequence[Item],
    store: Path | str,
    batch: int,
    write: Callable[[Sequence[Item]], Iterator[_T | AudioError]],
    loads: Callable[[str], _T],
) -> list[_T | AudioError]:
    """What `write` makes of each recording, of those that are not there yet."""
    keys = [item.key() for item in items]  # once: a file may be changed meanwhile
    wanted = dict(zip(keys, items, strict=True))
    unread: dict[str, AudioError] = {}
    with Run.opened(store, kind, settings) as run:
        there = {key for number in run.parts(_TABLE) for key in run.read_part(_TABLE, number, ["key"])["key"]}
        missing = {key: item for key, item in wanted.items() if key not in there}
        if items and not missing:
            notice(f"The {kind} are there already: {store}.")
        elif missing:
            if len(missing) < len(wanted):
                notice(
                    f"{len(wanted) - len(missing)} of {len(wanted)} recordings are there already: {store}."
                )
            seconds = {key: seconds_of(item) for key, item in wanted.items()}
            first = max(run.parts(_TABLE), default=-1) + 1
            parts = dict(enumerate(_parts(missing, seconds, part_windows(batch)), first))
            with track("Transcribing", sum(seconds.values()) or None, "s of sound") as task:
                task.advance(sum(length for key, length in seconds.items() if key in there))
                with tracked_in(task):
                    for number, (texts, errors) in computed(partial(_part, write, parts), parts):
                        unread |= errors
                        _write(run, number, texts)
                        if elsewhere():
                            task.advance(sum(seconds[key] for key in parts[number]))
        found: dict[str, _T | AudioError] = dict(unread)
        for number in run.parts(_TABLE):
            found |= _read(run, number, wanted, loads)
    return [found[key] for key in keys]


def part_windows(batch: int) -> int:
    """Windows of a part: what a kill costs at most, for each process that transcribes; a longer recording is one of its own."""
    return max(40, 4 * batch)


def _parts(
    missing: Mapping[str, Item], seconds: Mapping[str, float], windows: int
) -> Iterator[dict[str, Item]]:
    """Recordings in their order, cut where a part is large enough; one of unknown length is a part of its own."""
    part: dict[str, Item] = {}
    filled = 0
    for key, item in missing.items():
        more = math.ceil(seconds[key] / _WINDOW) or windows
        if part and filled + more > windows:
            yield part
            part, filled = {}, 0
        part[key] = item
        filled += more
    if part:
        yield part


def _part(
    write: Callable[[Sequence[Item]], Iterator[_Outcome]],
    parts: Mapping[int, Mapping[str, Item]],
    number: int,
) -> tuple[dict[str, str], dict[str, AudioError]]:
    """What was written for the recordings of a part, and why others cannot be read, by key."""
    texts, errors = {}, {}
    for (key, item), one in zip(parts[number].items(), write(list(parts[number].values())), strict=True):
        if isinstance(one, AudioError):
            errors[key] = one
        elif (
            item.key() != key
        ):  # it is another sound by now, and this text must not be found as the old one's
            errors[key] = AudioError(
                f"{item.audio_filepath} was changed while it was heard.", "Give the same command again."
            )
        else:
            texts[key] = one.dumps()
    return texts, errors


def _write(run: Run, number: int, texts: Mapping[str, str]) -> None:
    import pandas as pd

    if texts:
        run.write_part(_TABLE, number, pd.DataFrame({"key": texts.keys(), "written": texts.values()}))


def _read(run: Run, number: int, wanted: Mapping[str, Item], loads: Callable[[str], _T]) -> dict[str, _T]:
    table = run.read_part(_TABLE, number, ["key", "written"])
    try:
        return {
            key: loads(text)
            for key, text in zip(table["key"], table["written"], strict=True)
            if key in wanted
        }
    except ValueError as error:
        raise run.damaged(_TABLE, number) from error
