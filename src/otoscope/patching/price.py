"""What an edit costs: errors on ordinary speech, repetitions that were really said, invented text, speed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from otoscope.audio.samples import NAMES, sample
from otoscope.corpora import Item, items
from otoscope.errors import AudioError
from otoscope.models.decoding import batches
from otoscope.outcomes import (
    OutputType,
    Rate,
    bootstrap,
    error_rates,
    hallucination_rates,
    is_loop,
    normaliser,
    output_type,
    repeat_fidelity,
)
from otoscope.outcomes import Written as Judged
from otoscope.outcomes.hallucination import NO_SPEECH, SURE
from otoscope.outcomes.repetition import units
from otoscope.patching.changes import Change
from otoscope.patching.judging import is_sound
from otoscope.patching.writing import Writer, Written
from otoscope.progress import notice, track
from otoscope.runs import Run
from otoscope.wording import number

if TYPE_CHECKING:
    import pandas as pd

    from otoscope.audio import Clip

WriteInWays = Callable[
    [Mapping[int, "Clip"], Mapping[int, str | None]], Iterable[tuple[list[Written], float]]
]
"""`(clips by number, languages by number) -> (texts, seconds)` of the untouched model, then of every other way to write."""

PART = "price"
_KINDS = {"raw": "raw", "filtered": "filtered", "gate": "log-probability gate"}
_SHARD = 16  # recordings a part, whatever the batch, so that a job may go on with another
SHIPPED = (
    "Priced on the {} shipped recordings alone: that shows gross damage at most. Give ordinary speech of your own "
    "with --price."
)

_SHIPPED_TEXTS = {
    "jfk": "And so my fellow Americans ask not what your country can do for you, ask what you can do for your country.",
    "austen-0870": "And Mister John Dashwood had then leisure to consider how much there might be prudently in his power to do "
    "for them.",
    "austen-0880": "He was not an ill-disposed young man.",
    "austen-0890": "Unless to be rather cold hearted and rather selfish is to be ill-disposed.",
}


def shipped() -> list[Item]:
    """The recordings that ship with otoscope and have a text."""
    return [Item(f"{n}.flac", sample(n), text=_SHIPPED_TEXTS[n], language="en") for n in NAMES]


def priced_on(manifests: Sequence[Path | str]) -> list[Item]:
    """The corpora that edits are priced on; without one, the shipped recordings.

    Raises:
        ManifestError: A corpus cannot be read.
    """
    return [item for path in manifests for item in items(path)] or shipped()


@dataclass(frozen=True)
class _Line:
    """One item under one edit; edit -1 is the untouched model."""

    item: int
    edit: int
    text: str
    tokens: int
    language: str
    avg_logprob: float | None
    no_speech_prob: float | None
    seconds: float


def price(
    writer: Writer,
    corpus: Sequence[Item],
    changes: Sequence[Change],
    run: Run,
    batch: int,
    window: float = 30.0,
) -> list[dict[str, Any]]:
    """The price of each of several edits on the same recordings.

    Every recording is heard once and written without an edit and with each, batch by batch, so that speeds compare.

    Args:
        writer: The model.
        corpus: Ordinary speech with its text; sounds without speech; genuine repetitions. Recordings longer than a window are
            left out.
        changes: The edits, all with one reference.
        run: Where parts are kept.
        batch: Recordings at once.
        window: Length of a window in seconds.

    Returns:
        One JSON-ready card an edit; see `card`.
    """
    ways = 1 + len(changes)
    table = written_in_ways(corpus, partial(_under_changes, writer, changes), ways, run, batch, window)
    return [card(corpus, table, i) for i in range(len(changes))]


def written_in_ways(
    corpus: Sequence[Item], write: WriteInWays, ways: int, run: Run, batch: int, window: float = 30.0
) -> pd.DataFrame:
    """The texts of a corpus, written in several ways, part by part; a job that was stopped goes on.

    Args:
        corpus: The recordings. Those that cannot be read or are longer than a window are left out, and it is said.
        write: Writes a batch in every way.
        ways: How many ways there are.
        run: Where parts are kept.
        batch: Recordings at once.
        window: Length of a window in seconds.

    Returns:
        One line a recording and way; column `edit` is -1 for the first way, then 0, 1, ...
    """
    import pandas as pd

    with track("Pricing", len(corpus) * ways, "texts") as task:
        for number, chunk in enumerate(batches(enumerate(corpus), _SHARD)):
            left = len(chunk) * ways
            if not run.has_part(PART, number):
                lines = []
                for some in _lines(write, chunk, batch, window):
                    lines += some
                    task.advance(len(some))
                run.write_part(PART, number, pd.DataFrame(lines, columns=list(_Line.__dataclass_fields__)))
                left -= len(lines)
            task.advance(left)
    table = run.table(PART)
    skipped = len(corpus) - len(set(table["item"]))
    if skipped:
        notice(f"{skipped} recordings could not be priced: unreadable, or longer than {window:g} s.")
    return table


def price_told(
    writer: Writer,
    corpus: Sequence[Item],
    changes: Sequence[Change],
    winners: Sequence[Mapping[str, Any]],
    run: Run,
    batch: int,
    window: float,
    given: bool,
) -> dict[str, Any]:
    """The prices of a sweep's winners, JSON-ready.

    Args:
        writer: The model.
        corpus: What they are priced on.
        changes: The winners' edits.
        winners: The winners, JSON-ready.
        run: Where parts are kept.
        batch: Recordings at once.
        window: Length of a window in seconds.
        given: Whether the corpus was given; else it is the shipped recordings, and it is said how little that proves.
    """
    cards = price(writer, corpus, changes, run, batch, window)
    return {
        "edits": [{**w, "card": of_edit} for w, of_edit in zip(winners, cards, strict=True)],
        "n_items": len(corpus),
        "note": None if given else SHIPPED.format(len(shipped())),
    }


def _lines(
    write: WriteInWays, chunk: Sequence[tuple[int, Item]], batch: int, window: float
) -> Iterator[list[_Line]]:
    """A part's lines, batch by batch and way by way."""
    languages = {i: item.language for i, item in chunk}
    for together in batches(_readable(chunk, window), batch):
        clips = dict(together)
        for way, (written, seconds) in enumerate(write(clips, languages), start=-1):
            each = seconds / len(clips)
            yield [_line(i, way, text, each) for i, text in zip(clips, written, strict=True)]


def _under_changes(
    writer: Writer, changes: Sequence[Change], clips: Mapping[int, Clip], languages: Mapping[int, str | None]
) -> Iterator[tuple[list[Written], float]]:
    """The untouched model, then each change."""
    heard = [writer.hear(clip, languages[i]) for i, clip in clips.items()]
    references = _references(writer, clips, changes)
    for change in (None, *changes):
        elsewhere = None if change is None else references
        yield timed(lambda change=change, elsewhere=elsewhere: writer.write(heard, change, elsewhere))


def timed(write: Callable[[], list[Written]]) -> tuple[list[Written], float]:
    """What is written, and the seconds that it took."""
    start = time.perf_counter()
    written = write()
    return written, time.perf_counter() - start


def _references(writer: Writer, clips: Mapping[int, Clip], changes: Sequence[Change]) -> list[Any] | None:
    """What is heard of each clip's reference, the same for all edits; None where none is heard."""
    reference = next((change.reference for change in changes), None)
    if reference is None or not reference.is_heard:
        return None
    return [writer.hear(reference.sound(clip, i), "en") for i, clip in clips.items()]


def _line(item: int, edit: int, text: Written, seconds: float) -> _Line:
    return _Line(
        item,
        edit,
        text.text,
        len(text.ids),
        text.language or "",
        text.avg_logprob,
        text.no_speech_prob,
        seconds,
    )


def _readable(chunk: Sequence[tuple[int, Item]], window: float) -> Iterator[tuple[int, Clip]]:
    for i, item in chunk:
        try:
            first, *more = islice(item.windows(window), 2)
        except AudioError as error:
            notice(f"{item.audio_filepath} is left out: {error.reason}")
            continue
        if not more:
            yield i, first


def card(corpus: Sequence[Item], table: pd.DataFrame, edit: int) -> dict[str, Any]:
    """The price card of one edit.

    Args:
        corpus: The recordings.
        table: Their texts, without (edit -1) and with edits.
        edit: Which edit.

    Returns:
        `speech`: WER (and CER) by language before and after, with the difference and its interval over recordings; `repeats`:
        genuine repetitions kept; `nonspeech`: the hallucination rates in use, before and after; `loops` on speech; `false_stops`:
        speech that was right before and has lost half of its text or more; and `tokens_per_second`.
    """
    before, after = ({int(r["item"]): r for r in rows_of(table, e)} for e in (-1, edit))
    common = [i for i in before if i in after]
    speech = [i for i in common if corpus[i].text and not is_sound(corpus[i]) and not is_repeat(corpus[i])]
    repeats = [i for i in common if is_repeat(corpus[i])]
    sounds = [i for i in common if is_sound(corpus[i])]
    untold = [i for i in common if corpus[i].text is None and not is_repeat(corpus[i])]
    return {
        "n": len(common),
        "speech": _speech(corpus, before, after, speech),
        "repeats": _both(before, after, lambda rows: _kept(corpus, rows, repeats)) if repeats else None,
        "nonspeech": _both(before, after, lambda rows: _invented(rows, sounds)) if sounds else None,
        "loops": _both(before, after, lambda rows: _loops(rows, [*speech, *untold]))
        if speech or untold
        else None,
        "false_stops": _stopped(corpus, before, after, speech) if speech else None,
        "tokens_per_second": _both(before, after, lambda rows: _speed(rows, common)),
    }


def rows_of(table: pd.DataFrame, edit: int) -> list[dict[str, Any]]:
    """What was written under one edit; -1: without any."""
    return table[table["edit"] == edit].to_dict("records")  # type: ignore[call-overload, return-value]


def _both(before: Any, after: Any, of: Any) -> dict[str, Any]:
    return {"before": of(before), "after": of(after)}


def is_repeat(item: Item) -> bool:
    """Whether something is really said several times: the label `times` of the recipe, or a reference that loops."""
    return "times" in item.labels or bool(item.text and is_loop(item.text, language=item.language))


def _speech(
    corpus: Sequence[Item], before: Mapping[int, Any], after: Mapping[int, Any], chosen: Sequence[int]
) -> dict[str, Any]:
    by_language: dict[str, list[int]] = {}
    for i in chosen:
        by_language.setdefault(corpus[i].language or before[i]["language"] or "unknown", []).append(i)
    return {
        language: _errors(corpus, before, after, rows, language)
        for language, rows in sorted(by_language.items())
    }


def _errors(
    corpus: Sequence[Item],
    before: Mapping[int, Any],
    after: Mapping[int, Any],
    rows: Sequence[int],
    language: str,
) -> dict[str, Any]:
    said = [corpus[i].text or "" for i in rows]
    texts = [[side[i]["text"] for i in rows] for side in (before, after)]
    old, new = (error_rates(said, written, language) for written in texts)
    out: dict[str, Any] = {"n": len(rows), "language": language}
    for measure in ("wer", "cer"):
        a, b = getattr(old, measure), getattr(new, measure)
        low, high = _difference(said, texts, language, measure)
        out[measure] = {
            "before": a,
            "after": b,
            "difference": None if a is None or b is None else b - a,
            "ci_low": low,
            "ci_high": high,
        }
    return out


def _difference(
    said: Sequence[str], texts: Sequence[Sequence[str]], language: str, measure: str
) -> tuple[float | None, float | None]:
    """Interval of the change of an error rate, over recordings."""
    counts = [
        [_counted(reference, text, language, measure) for reference, text in zip(said, side, strict=True)]
        for side in texts
    ]
    errors = [np.array([c[0] for c in side], dtype=float) for side in counts]
    lengths = np.array([c[1] for c in counts[0]], dtype=float)
    if not lengths.sum():
        return None, None
    return bootstrap(lambda a, b, n: (b.sum() - a.sum()) / n.sum(), *errors, lengths)


def _counted(reference: str, text: str, language: str, measure: str) -> tuple[float, int]:
    rates = error_rates([reference], [text], language)
    length = rates.reference_words if measure == "wer" else len(normaliser(language)(reference))
    rate = getattr(rates, measure)
    return (0.0 if rate is None else rate * length), length


def _kept(corpus: Sequence[Item], rows: Mapping[int, Any], chosen: Sequence[int]) -> dict[str, Any]:
    fidelity = [
        found.kept
        for i in chosen
        if (found := repeat_fidelity(corpus[i].text or "", rows[i]["text"], corpus[i].language)) is not None
    ]
    return Rate.of(fidelity).to_dict()


def _invented(rows: Mapping[int, Any], chosen: Sequence[int]) -> dict[str, Any]:
    written = [
        Judged(
            rows[i]["text"],
            _number(rows[i]["no_speech_prob"]),
            _number(rows[i]["avg_logprob"]),
            rows[i]["language"],
        )
        for i in chosen
    ]
    return hallucination_rates(written).to_dict()


def _number(value: Any) -> float | None:
    return None if value is None or value != value else float(value)


def _loops(rows: Mapping[int, Any], chosen: Sequence[int]) -> dict[str, Any]:
    return Rate.of([is_loop(rows[i]["text"], language=rows[i]["language"]) for i in chosen]).to_dict()


def _stopped(
    corpus: Sequence[Item], before: Mapping[int, Any], after: Mapping[int, Any], chosen: Sequence[int]
) -> dict[str, Any]:
    """Of the recordings that were right, those of which less than half is written now."""
    right = [i for i in chosen if _type(corpus[i], before[i]) == OutputType.CORRECT]
    return Rate.of([_length(corpus[i], after[i]["text"]) < _length(corpus[i]) / 2 for i in right]).to_dict()


def _type(item: Item, row: Mapping[str, Any]) -> OutputType | None:
    return output_type(row["text"], reference=item.text, language=item.language or row["language"])


def _length(item: Item, text: str | None = None) -> int:
    return len(units(item.text or "" if text is None else text, item.language))


def _speed(rows: Mapping[int, Any], chosen: Sequence[int]) -> float | None:
    seconds = sum(rows[i]["seconds"] for i in chosen)
    return sum(rows[i]["tokens"] for i in chosen) / seconds if seconds else None


def named(component: Mapping[str, Any]) -> str:
    """`decoder_blocks.2.cross_attn head 4` of a JSON-ready component."""
    head = "" if component["head"] is None else f" head {component['head']}"
    return f"{component['component']}{head}"


def price_rows(card: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """A price card for people: measure, before and after."""
    rows: list[tuple[str, str, str]] = []
    for language, found in card["speech"].items():
        measure = "wer" if language == "en" else "cer"
        told = found[measure]
        change = f" (change {number(told['ci_low'])} to {number(told['ci_high'])})"
        name = f"{measure.upper()} {language}, {found['n']} recordings"
        rows.append((name, number(told["before"]), number(told["after"]) + change))
    for key, title in (("repeats", "genuine repetitions kept"), ("loops", "loops where none was said")):
        if card[key]:
            rows.append((title, *_sides(card[key])))  # type: ignore[arg-type]
    for kind, name in _KINDS.items() if card["nonspeech"] else ():
        sides = {side: card["nonspeech"][side][kind] for side in ("before", "after")}
        rows.append((f"hallucination rate, {name}", *_sides(sides)))  # type: ignore[arg-type]
    speed = card["tokens_per_second"]
    return [*rows, ("tokens per second", number(speed["before"], 0), number(speed["after"], 0))]


def price_legend(card: Mapping[str, Any]) -> list[str]:
    """What the rates of a price card count, in a line each; nothing where there were no sounds without speech."""
    if not card["nonspeech"]:
        return []
    return [
        "Of sounds without speech, hallucination rates count, raw: any text;",
        f"filtered: text that Whisper's rule lets pass (no-speech probability up to {NO_SPEECH:g}, or a mean "
        f"log-probability above {SURE:g});",
        f"{_KINDS['gate']}: what that rule lets pass by its probabilities alone, so that a model that is sure of its "
        "empty text counts, too.",
    ]


def _sides(rates: Mapping[str, Any]) -> list[str]:
    return [
        "–"
        if rates[side]["rate"] is None
        else f"{rates[side]['rate']:.3f} ({rates[side]['count']} of {rates[side]['n']})"
        for side in ("before", "after")
    ]
