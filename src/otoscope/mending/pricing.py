"""What repairs cost and what they bring, on recordings that they were not made with."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from otoscope.corpora import Item
from otoscope.errors import ManifestError, OptionError
from otoscope.mending.applying import mended
from otoscope.mending.repair import Repair
from otoscope.models.cache import cache_dir
from otoscope.models.whisper import SpeechModel
from otoscope.monitors.monitor import Monitor
from otoscope.outcomes import bootstrap, is_loop
from otoscope.patching.judging import is_sound
from otoscope.patching.price import card, is_repeat, price_rows, rows_of, timed, written_in_ways
from otoscope.patching.writing import MAX_TOKENS, WhisperWriter, Written
from otoscope.progress import notice
from otoscope.runs import Run
from otoscope.versions import versions

if TYPE_CHECKING:
    import pandas as pd

    from otoscope.audio import Clip

KIND = "repairs' prices"


def fingerprint(item: Item) -> str:
    """What tells a recording from others wherever its file lies: a digest of the file, and where the span begins.

    Raises:
        ManifestError: It cannot be read.
    """
    try:
        digest = hashlib.sha256(item.path.read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise ManifestError(f"{item.audio_filepath} cannot be read.", "Check the path.") from error
    return f"{digest}@{item.offset:g}"


def used(corpus: Sequence[Item], group_by: str = "speaker") -> dict[str, list[str]]:
    """What a repair remembers of the recordings that it was made with."""
    groups = {str(item.labels[group_by]) for item in corpus if group_by in item.labels}
    return {"recordings": sorted({fingerprint(item) for item in corpus}), "groups": sorted(groups)}


def require_unseen(repair: Repair, corpus: Sequence[Item], group_by: str = "speaker") -> None:
    """Refuse to price a repair on recordings that it was made with; say so where only the speakers are the same.

    Raises:
        OptionError: A recording was used.
    """
    known = _all_used(repair.made)
    same = known["recordings"] & {fingerprint(item) for item in corpus}
    if same:
        raise OptionError(
            f"{repair.name} was made with {len(same)} of these {len(corpus)} recordings, so its price on them is no price.",
            "Give a test split of its own: `otoscope corpus split` makes one.",
        )
    groups = known["groups"] & {str(item.labels[group_by]) for item in corpus if group_by in item.labels}
    if groups:
        notice(
            f"warning: {repair.name} was made with other recordings of {len(groups)} of the same {group_by}s "
            f"({', '.join(sorted(groups)[:3])}{', ...' if len(groups) > 3 else ''}): the price flatters."
        )


def _all_used(made: Mapping[str, Any]) -> dict[str, set[str]]:
    """What a repair was made with, and what the repairs were made with that it was made from."""
    own = made.get("used") or {}
    found = {key: set(own.get(key, ())) for key in ("recordings", "groups")}
    earlier = [*made.get("joined", ()), *([made["start"]] if made.get("start") else [])]
    for part in earlier:
        for key, values in _all_used(part).items():
            found[key] |= values
    return found


def price_repairs(
    model: SpeechModel,
    repairs: Sequence[Repair],
    corpus: Sequence[Item],
    *,
    out: Path | str | None = None,
    language: str | None = None,
    max_tokens: int = MAX_TOKENS,
    batch: int | None = None,
    monitor: Monitor | None = None,
) -> dict[str, Any]:
    """The price card of each repair on the same recordings, before and after.

    Every recording is heard once, and again only where a repair changes the encoder. Decoding is greedy, without timestamps and
    fallback, the checkpoint's suppress lists on; the language is the item's, else the one that the untouched model detects.

    Args:
        model: The recogniser.
        repairs: The repairs.
        corpus: Speech with its text, sounds without speech, genuine repetitions, and recordings without a text that may loop.
        out: Directory of the run, where a begun one goes on; None: in otoscope's cache.
        language: To write in.
        max_tokens: Tokens written at most.
        batch: Recordings at once.
        monitor: What raises alarms, for repairs that wait for them; None: the one that comes with otoscope.

    Returns:
        JSON-ready: `repairs`, each with `name`, `card` (see `otoscope.patching.price.card`) and `cuts`.

    Raises:
        OptionError: A repair is for another model, or was made with these recordings; or the directory
            belongs to another job.
    """
    for repair in repairs:
        repair.require_fit(model)
        require_unseen(repair, corpus)
    writer = WhisperWriter(model, max_tokens, model.check_language(language))
    facts = {key: value for key, value in model.describe().items() if key not in ("device", "source")}
    settings = {
        "model": facts,
        "repairs": [repair.to_dict() | {"digest": _digest(repair)} for repair in repairs],
        "corpus": [[item.audio_filepath, item.offset, *item.file_stamp()] for item in corpus],
        "language": language,
        "max_tokens": max_tokens,
        "monitor": _alarms_of(model, repairs, monitor),
    }
    place = Path(out) if out else _default_place(settings)

    def write(
        clips: Mapping[int, Clip], languages: Mapping[int, str | None]
    ) -> Iterator[tuple[list[Written], float]]:
        return _under_repairs(writer, repairs, clips, languages, monitor)

    with Run.opened(place, KIND, settings) as run:
        ways, batch = 1 + len(repairs), batch or model.batch
        table = written_in_ways(corpus, write, ways, run, batch, model.window_seconds)
    return {
        "model": model.describe(),
        "n_items": len(corpus),
        "settings": {"language": language, "max_tokens": max_tokens, "decoding": "greedy"},
        "repairs": [
            {"name": repair.name, "card": card(corpus, table, i), "cuts": cuts(corpus, table, i)}
            for i, repair in enumerate(repairs)
        ],
        "versions": versions(),
    }


def _alarms_of(model: SpeechModel, repairs: Sequence[Repair], monitor: Monitor | None) -> str | None:
    """What tells the monitor in force from others, where a repair waits for it."""
    if all(repair.when == "always" for repair in repairs):
        return None
    return (monitor or Monitor.shipped(model)).digest


def _digest(repair: Repair) -> str:
    """Of its tensors."""
    digest = hashlib.sha256()
    for value in (*repair.weights.values(), *(e.value for e in repair.edits if e.value is not None)):
        digest.update(value.detach().double().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _default_place(settings: Mapping[str, Any]) -> Path:
    import json

    name = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
    return cache_dir() / "mending" / name


def _under_repairs(
    writer: WhisperWriter,
    repairs: Sequence[Repair],
    clips: Mapping[int, Clip],
    languages: Mapping[int, str | None],
    monitor: Monitor | None,
) -> Iterator[tuple[list[Written], float]]:
    """The untouched model, then each repair."""

    def hear() -> list[Any]:
        return [writer.hear(clip, languages[i]) for i, clip in clips.items()]

    heard = hear()
    yield timed(lambda: writer.write(heard, None))
    for repair in repairs:
        with mended(writer.model, repair, monitor) as watch:
            other = hear() if "encoder" in repair.stacks else heard
            with nullcontext() if watch is None else watch.over(list(clips.values())):
                yield timed(lambda other=other: writer.write(other, None))


def cuts(corpus: Sequence[Item], table: pd.DataFrame, way: int) -> dict[str, Any]:
    """By which share a repair cuts what it is for, over the same recordings, with the interval over recordings.

    Returns:
        `loops`: loops in recordings that hold none; `nonspeech`: sounds for which anything is written. Each has `before` and
        `after` (counts), `cut` (1 - after / before), `ci_low` and `ci_high`; None where there was nothing to cut.
    """
    before, after = ({int(row["item"]): row for row in rows_of(table, edit)} for edit in (-1, way))
    common = [i for i in before if i in after]
    may_loop = [i for i in common if not is_sound(corpus[i]) and not is_repeat(corpus[i])]
    sounds = [i for i in common if is_sound(corpus[i])]
    return {
        "loops": _cut(
            [[is_loop(s[i]["text"], language=s[i]["language"]) for i in may_loop] for s in (before, after)]
        ),
        "nonspeech": _cut([[bool(s[i]["text"].strip()) for i in sounds] for s in (before, after)]),
    }


def _cut(sides: Sequence[Sequence[bool]]) -> dict[str, Any] | None:
    old, new = (np.array(side, dtype=float) for side in sides)
    if not old.sum():
        return None
    low, high = bootstrap(lambda a, b: 1 - b.sum() / a.sum(), old, new)
    counts = {"before": int(old.sum()), "after": int(new.sum()), "n": len(old)}
    return counts | {"cut": float(1 - new.sum() / old.sum()), "ci_low": low, "ci_high": high}


def repair_rows(priced: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """One repair's card and cuts for people: measure, before and after."""
    rows = price_rows(priced["card"])
    for key, title in (("loops", "loops cut by"), ("nonspeech", "raw text for sounds cut by")):
        found = priced["cuts"][key]
        if found:
            told = f"{100 * found['cut']:.0f} % ({100 * found['ci_low']:.0f} to {100 * found['ci_high']:.0f})"
            rows.append((title, "", told))
    stops = priced["card"]["false_stops"]
    if stops and stops["n"]:
        told = f"{stops['rate']:.3f} ({stops['count']} of {stops['n']}; at most {stops['ci_high']:.3f})"
        rows.append(("right speech cut short", "", told))
    return rows
