"""Transcripts of a corpus that are kept while it is transcribed, so that no recording is transcribed twice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otoscope.corpora import Item
from otoscope.errors import AudioError, EditError, OptionError
from otoscope.models.transcribing import fitting, seconds_of, transcribe_all
from otoscope.models.transcripts import DecodeOptions, Transcript
from otoscope.progress import notice, track, tracked_in
from otoscope.runs import Run, computed, elsewhere

if TYPE_CHECKING:
    import pandas as pd

    from otoscope.models.whisper import SpeechModel

KIND, TABLE = "transcripts", "transcripts"

PART_SECONDS = 1200.0
"""Sound of a part, about: a kill costs some forty windows at most. A longer recording is a part of its own."""

PART_RECORDINGS = 64
"""Recordings of a part at most, however short they are."""


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
    if model.open_hooks or model.filters or model.mended:
        raise EditError(
            "A hook, an edit or a repair is in place, and what is kept are the model's own texts.",
            "Transcribe without keeping, or outside of the block.",
        )
    options, keys = fitting(model, options), [item.key() for item in items]
    decoding = options.to_dict()
    if options.temperature == 0:
        decoding.pop("seed")  # nothing is drawn
    facts = {key: value for key, value in model.describe().items() if key not in ("device", "source")}
    settings = {"model": facts, "weights": model.weights_digest(), "decoding": decoding}
    with Run.opened(store, KIND, settings) as run:
        found = _found(run)
        missing = {key: item for key, item in zip(keys, items, strict=True) if key not in found}
        if not missing:
            notice(f"The transcripts are there already: {store}.")
        with track("Transcribing", sum(map(seconds_of, items)) or None, "s of sound") as task:
            task.advance(sum(seconds_of(item) for key, item in zip(keys, items, strict=True) if key in found))
            parts = dict(enumerate(_parts(missing), max(run.parts(TABLE), default=-1) + 1))
            with tracked_in(task):
                for number, rows in computed(partial(_part, model, parts, options, batch), parts):
                    run.write_part(TABLE, number, _table(rows))
                    if elsewhere():
                        task.advance(sum(map(seconds_of, parts[number].values())))
        found = _found(run)
    return [
        _outcome(found[key], item, model.describe(), store) for key, item in zip(keys, items, strict=True)
    ]


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
    model: SpeechModel,
    parts: Mapping[int, Mapping[str, Item]],
    options: DecodeOptions,
    batch: int | None,
    number: int,
) -> list[Row]:
    part = parts[number]
    outcomes = transcribe_all(model, list(part.values()), options, batch=batch, keep_going=True)
    return [_row(key, outcome) for key, outcome in zip(part, outcomes, strict=True)]


def _row(key: str, outcome: Transcript | AudioError) -> Row:
    if isinstance(outcome, AudioError):
        reason, remedy = (
            text.encode("utf-8", "backslashreplace").decode() for text in (outcome.reason, outcome.remedy)
        )
        return {"key": key, "transcript": None, "reason": reason, "remedy": remedy}
    return {"key": key, "transcript": outcome.dumps(), "reason": None, "remedy": None}


def _table(rows: Iterable[Row]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(rows, columns=["key", "transcript", "reason", "remedy"], dtype=object)


def _found(run: Run) -> dict[str, dict[str, Any]]:
    return {row["key"]: row for row in run.table(TABLE).to_dict("records")}


def _outcome(
    row: Mapping[str, Any], item: Item, model: dict[str, Any], store: Path | str
) -> Transcript | AudioError:
    if not isinstance(row["transcript"], str):
        return AudioError(str(row["reason"]), str(row["remedy"]))
    try:
        return Transcript.loads(row["transcript"], model)
    except ValueError as error:
        raise OptionError(
            f"What {store} keeps of {item.audio_filepath} is no transcript.",
            "Delete the directory and begin again.",
        ) from error
