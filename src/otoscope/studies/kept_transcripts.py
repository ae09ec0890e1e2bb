"""Transcripts of a corpus, and what a monitor says of them, kept while they are made, so that no recording is heard twice."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from otoscope.corpora import Item
from otoscope.errors import AudioError, EditError, OptionError
from otoscope.models.transcribing import fitting, seconds_of, transcribe_all
from otoscope.models.transcripts import DecodeOptions, Transcript
from otoscope.monitors.monitor import Monitor
from otoscope.monitors.running import Watched, watch_all
from otoscope.progress import notice, track, tracked_in
from otoscope.runs import Run, computed, elsewhere

if TYPE_CHECKING:
    import pandas as pd

    from otoscope.models.whisper import SpeechModel

_TABLE = "transcripts"

PART_SECONDS = 1200.0
"""Sound of a part, about: a kill costs some forty windows at most. A longer recording is a part of its own."""

PART_RECORDINGS = 64
"""Recordings of a part at most, however short they are."""


T = TypeVar("T", Transcript, Watched)


def kept_transcripts(
    model: SpeechModel,
    items: Sequence[Item],
    options: DecodeOptions | None,
    store: Path | str,
    *,
    batch: int | None = None,
) -> list[Transcript | AudioError]:
    """Transcribe a corpus, or go on with it, in parts that are kept.

    What is there of a recording is not transcribed again, be the corpus now a larger one, a smaller one or in another order; a
    changed file is another recording. Parts are computed by the engine that is in place. Texts are those of `transcribe_all`,
    but that sampling (`temperature`) draws for the recordings of each part as if it were alone.

    Args:
        model: The recogniser.
        items: The recordings.
        options: How to decode.
        store: A directory, begun or finished.
        batch: Windows at once; None: `model.batch`.

    Returns:
        A transcript of each recording, or why it cannot be read.

    Raises:
        EditError: A hook, an edit or a repair is in place, which the directory could not tell from others.
        OptionError: The language or task does not fit the model, the directory belongs to other settings, or a part is damaged.
        OutputError: It cannot be written.
    """
    options = fitting(model, options)
    facts = model.describe()
    write = partial(transcribe_all, model, options=options, batch=batch, keep_going=True)
    settings = _settings(model, options)
    return _kept("transcripts", settings, items, store, write, lambda text: Transcript.loads(text, facts))


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
        monitor: The monitor; another one, or another threshold, needs a directory of its own.
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
    options = fitting(model, options)
    facts = model.describe()
    write = partial(watch_all, model, monitor=monitor, options=options, batch=batch, keep_going=True)
    settings = _settings(model, options) | {"monitor": monitor.digest}
    return _kept("watches", settings, items, store, write, lambda text: Watched.loads(text, facts, monitor))


def _settings(model: SpeechModel, options: DecodeOptions) -> dict[str, Any]:
    """What texts depend on."""
    if model.open_hooks or model.filters or model.mended:
        raise EditError(
            "A hook, an edit or a repair is in place, and what is kept are the model's own texts.",
            "Transcribe without keeping, or outside of the block.",
        )
    decoding = options.to_dict()
    if options.temperature == 0:
        decoding.pop("seed")  # nothing is drawn
    facts = {key: value for key, value in model.describe().items() if key not in ("device", "source")}
    return {"model": facts, "weights": model.weights_digest(), "decoding": decoding}


def _kept(
    kind: str,
    settings: Mapping[str, Any],
    items: Sequence[Item],
    store: Path | str,
    write: Callable[[Sequence[Item]], Iterator[T | AudioError]],
    loads: Callable[[str], T],
) -> list[T | AudioError]:
    """What `write` makes of each recording, of those that are not there yet."""
    keys = [item.key() for item in items]
    with Run.opened(store, kind, settings) as run:
        found = _found(run)
        missing = {key: item for key, item in zip(keys, items, strict=True) if key not in found}
        if not missing:
            notice(f"The {kind} are there already: {store}.")
        with track("Transcribing", sum(map(seconds_of, items)) or None, "s of sound") as task:
            task.advance(sum(seconds_of(item) for key, item in zip(keys, items, strict=True) if key in found))
            parts = dict(enumerate(_parts(missing), max(run.parts(_TABLE), default=-1) + 1))
            with tracked_in(task):
                for number, rows in computed(partial(_part, write, parts), parts):
                    run.write_part(_TABLE, number, _table(rows))
                    if elsewhere():
                        task.advance(sum(map(seconds_of, parts[number].values())))
        found = _found(run)
    return [_outcome(found[key], item, loads, store) for key, item in zip(keys, items, strict=True)]


def _parts(missing: Mapping[str, Item]) -> Iterator[dict[str, Item]]:
    """Recordings in their order, cut where a part is large enough."""
    part: dict[str, Item] = {}
    seconds = 0.0
    for key, item in missing.items():
        more = seconds_of(item)
        if part and (len(part) == PART_RECORDINGS or seconds + more > PART_SECONDS):
            yield part
            part, seconds = {}, 0.0
        part[key] = item
        seconds += more
    if part:
        yield part


Row = dict[str, str | None]


def _part(
    write: Callable[[Sequence[Item]], Iterator[Transcript | Watched | AudioError]],
    parts: Mapping[int, Mapping[str, Item]],
    number: int,
) -> list[Row]:
    part = parts[number]
    return [_row(key, one) for key, one in zip(part, write(list(part.values())), strict=True)]


def _row(key: str, outcome: Transcript | Watched | AudioError) -> Row:
    if isinstance(outcome, AudioError):
        reason, remedy = (
            text.encode("utf-8", "backslashreplace").decode() for text in (outcome.reason, outcome.remedy)
        )
        return {"key": key, "written": None, "reason": reason, "remedy": remedy}
    return {"key": key, "written": outcome.dumps(), "reason": None, "remedy": None}


def _table(rows: Iterable[Row]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(rows, columns=["key", "written", "reason", "remedy"], dtype=object)


def _found(run: Run) -> dict[str, dict[str, Any]]:
    return {row["key"]: row for row in run.table(_TABLE).to_dict("records")}


def _outcome(
    row: Mapping[str, Any], item: Item, loads: Callable[[str], T], store: Path | str
) -> T | AudioError:
    if not isinstance(row["written"], str):
        return AudioError(str(row["reason"]), str(row["remedy"]))
    try:
        return loads(row["written"])
    except ValueError as error:
        raise OptionError(
            f"What {store} keeps of {item.audio_filepath} is no transcript.",
            "Delete the directory and begin again.",
        ) from error
