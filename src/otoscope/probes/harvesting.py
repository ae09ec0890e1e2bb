"""Harvesting: one streaming pass over a corpus, every layer pooled, on disk shard by shard.

A speech recogniser transcribes in the same pass where its decoder is read, so a corpus is heard once. Shards and batches are
fixed by the settings, so that a job that was killed and goes on gives the numbers it would have given.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from otoscope.corpora import Item
from otoscope.errors import AudioError, EditError, ManifestError, ModelError, OptionError
from otoscope.models.base import Model
from otoscope.models.cache import cache_dir
from otoscope.models.causal_lm import LanguageModel
from otoscope.models.decoding import batches
from otoscope.models.qwen2_audio import AUDIO_PROMPT, AudioLanguageModel
from otoscope.models.transcribing import hear_all, transcribe_all
from otoscope.models.transcripts import DecodeOptions, Transcript
from otoscope.models.whisper import SpeechModel
from otoscope.probes.pooling import MEL, Pooler, Vectors, mel_statistics, pool_forward, stack_points
from otoscope.progress import notice, track
from otoscope.runs import DESCRIPTION, ActivationStore, Run, computed

if TYPE_CHECKING:
    import pandas as pd

    from otoscope.audio import Clip

SHARD, FRAMES_SHARD = 256, 8
"""Items a shard, which is what a kill loses and what is held in memory at most; fewer where every frame is kept."""

POOLING = 1
"""Version of how vectors are pooled: stores of another version are not mixed with this one's."""


@dataclass(frozen=True)
class Pools:
    """What to keep of each recording; see `otoscope.probes.pooling` for what the pools mean.

    Attributes:
        encoder: Pools of the stack that hears (`mean`, `speech`, `max`, `last`, `frames`; Qwen2-Audio has no `speech`).
        decoder: Pools of the stack that writes (`mean`, `max`, `last`, `end`).
    """

    encoder: tuple[str, ...] = ("mean",)
    decoder: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for stack, known in (
            ("encoder", ("mean", "speech", "max", "last", "frames")),
            ("decoder", ("mean", "max", "last", "end")),
        ):
            wrong = [pool for pool in getattr(self, stack) if pool not in known]
            if wrong:
                raise OptionError(
                    f"There is no {stack} pool {wrong[0]!r}.", f"Choose of: {', '.join(known)}."
                )
        if not self.encoder and not self.decoder:
            raise OptionError("Nothing is to be pooled.", "Name at least one pool.")


@dataclass(frozen=True, eq=False)
class _Heard:
    """What one item gave."""

    vectors: Vectors
    facts: dict[str, Any]


def harvest(
    model: Model,
    items: Sequence[Item],
    out: Path | str | None = None,
    pools: Pools | None = None,
    options: DecodeOptions | None = None,
    *,
    batch: int | None = None,
    written: ActivationStore | None = None,
) -> ActivationStore:
    """Pool every layer over a corpus.

    Whisper's decoder is read while it writes; with `written` it is given those texts instead (for a control that has to see the
    same texts). Language models read the items' `text`, Qwen2-Audio a recording's first window. Items that cannot be read are
    kept in the store's `skipped`. A finished store that holds more pools than are asked for will do.

    Args:
        model: A Whisper model, Qwen2-Audio or a language model.
        items: The corpus.
        out: The store's directory, begun or finished; None: one in otoscope's cache, named after all that it depends on.
        pools: What to keep.
        options: How to decode, without timestamps.
        batch: Windows (or texts) at once; None: `model.batch`. It changes the last digits at most.
        written: A store of the same items whose texts the decoder is given.

    Returns:
        The store, complete.

    Raises:
        OptionError: The directory belongs to other settings, or the model cannot give what is asked.
        EditError: A hook or edit is in place: its activations could not be told from the model's own.
        ManifestError: There are no items.
        AudioError: None of the recordings can be read.
        OutputError: The store cannot be written.
    """
    pools, options = pools or Pools(), options or DecodeOptions()
    _refuse(model, items, options)
    if isinstance(model, SpeechModel):
        options = replace(options, language=model.check_language(options.language))
    settings = _settings(model, items, pools, options, written)
    path = Path(out).resolve() if out is not None else _default(settings)
    there = _finished_with_more(path, settings, len(items))
    if there is not None:
        return there
    size = settings["shard"]
    with Run.opened(path, "activations", settings) as run:
        store = ActivationStore(run)
        missing = [i for i in range(0, len(items), size) if not store.has(i // size)]
        _say_size(model, path, pools, items, bool(missing), default=out is None)
        with track("Harvesting activations", len(items), "recordings") as task:
            task.advance(len(items) - sum(len(items[i : i + size]) for i in missing))
            job = partial(_computed, model, items, size, pools, options, batch or model.batch, written)
            for number, shard in computed(job, [first // size for first in missing]):
                store.append(number, *shard)
                task.advance(len(items[number * size : (number + 1) * size]))
                del shard  # one shard in memory, not two
    return _readable(ActivationStore.read_from(path), len(items))


def _computed(
    model: Model,
    items: Sequence[Item],
    size: int,
    pools: Pools,
    options: DecodeOptions,
    batch: int,
    written: ActivationStore | None,
    number: int,
) -> tuple[dict[str, np.ndarray], pd.DataFrame]:
    first = number * size
    part = items[first : first + size]
    heard = _harvest(model, part, pools, options, batch, _texts(written, first, size))
    return _shard(part, first, list(heard))


def _refuse(model: Model, items: Sequence[Item], options: DecodeOptions) -> None:
    if model.open_hooks:
        raise EditError(
            "A hook or an edit is in place, and a store keeps the model's own activations.",
            "Harvest outside of the block, or pool with pool_forward.",
        )
    if not items:
        raise ManifestError("There are no recordings.", "Name at least one.")
    if options.timestamps:
        raise OptionError("Timestamps are no text to pool over.", "Decode without timestamps.")


def _readable(store: ActivationStore, items: int) -> ActivationStore:
    if not len(store.index):
        first = store.skipped.iloc[0]
        raise AudioError(
            f"None of the {items} recordings can be read; the first: {first.reason}", first.remedy
        )
    return store


def _texts(written: ActivationStore | None, first: int, size: int) -> dict[int, dict[str, Any]] | None:
    """What was written for the items of one shard, by their place in it."""
    if written is None:
        return None
    keep = [
        "item",
        "seconds",
        "written",
        "language_written",
        "tokens",
        "avg_logprob",
        "no_speech_prob",
        "finished",
    ]
    index = written.index
    part = index[(index["item"] >= first) & (index["item"] < first + size)][keep]
    return {row.pop("item") - first: row for row in part.to_dict("records")}  # type: ignore[call-overload]


# What a store depends on ------------------------------------------------------------------------------------------------


def _settings(
    model: Model,
    items: Sequence[Item],
    pools: Pools,
    options: DecodeOptions,
    written: ActivationStore | None,
) -> dict[str, Any]:
    facts = {key: value for key, value in model.describe().items() if key not in ("device", "source")}
    decodes = isinstance(model, SpeechModel) and bool(pools.decoder) and written is None
    told = options.to_dict() if decodes else {}
    if options.temperature == 0:
        told.pop("seed", None)  # nothing is drawn
    reads = isinstance(model, LanguageModel)
    settings = {
        "model": facts,
        "weights": model.weights_digest(),
        "number_of_items": len(items),
        "items_digest": _digest([_stamp(item, reads) for item in items]),
        "pools": {"encoder": list(pools.encoder), "decoder": list(pools.decoder)},
        "decoding": told,
        "shard": FRAMES_SHARD if "frames" in pools.encoder else SHARD,
        "pooling": POOLING,
    }
    if written is not None and pools.decoder:
        settings["texts"] = str(written.run.settings["weights"])
    return settings


def _default(settings: Mapping[str, Any]) -> Path:
    """A directory in the cache: one for all that the activations depend on, in it one for the pools."""
    pools = settings["pools"]
    without = {key: value for key, value in settings.items() if key not in ("pools", "shard")}
    name = "-".join(["encoder", *pools["encoder"], "decoder", *pools["decoder"]])
    return cache_dir() / "activations" / _digest(without)[:24] / name


def _finished_with_more(path: Path, settings: Mapping[str, Any], items: int) -> ActivationStore | None:
    """A finished store, at the path or beside it in the cache, that holds all pools that are asked for."""
    beside = sorted(path.parent.iterdir()) if path.parent.is_dir() else []
    for place in [path, *(p for p in beside if p != path and p.parent.parent.name == "activations")]:
        if not (place / DESCRIPTION).is_file():
            continue
        try:
            store = ActivationStore.read_from(place)
        except OptionError:
            if place == path:
                raise
            continue
        if _covers(store.run.settings, settings) and len(store.index) + len(store.skipped) == items:
            notice(f"The activations are there already: {place}.")
            return _readable(store, items)
    return None


def _covers(there: Mapping[str, Any], asked: Mapping[str, Any]) -> bool:
    apart = ("pools", "shard", "decoding")
    same = all(there.get(key) == asked.get(key) for key in {*there, *asked} if key not in apart)
    more = all(set(asked["pools"][s]) <= set(there.get("pools", {}).get(s, ())) for s in asked["pools"])
    return same and more and (not asked["pools"]["decoder"] or there.get("decoding") == asked["decoding"])


def _stamp(item: Item, reads: bool) -> list[Any]:
    """What tells that an item is the same, file and all; its text where that is what the model reads."""
    text = item.text if reads else None
    return [item.audio_filepath, item.offset, item.duration, text, item.file_stamp()]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode("utf-8", "backslashreplace")).hexdigest()


def _say_size(
    model: Model, path: Path, pools: Pools, items: Sequence[Item], missing: bool, default: bool
) -> None:
    if not missing:
        notice(f"The activations are there already: {path}.")
        return
    size = len(items) * _bytes(model, sum(pool != "frames" for pool in pools.encoder), len(pools.decoder))
    if "frames" in pools.encoder:
        seconds = sum(item.duration or 30.0 for item in items)
        size += 50 * seconds * _bytes(model, 1, 0)
    where = "; name a place with --store to choose another" if default else ""
    notice(f"Activations take about {max(1, round(size / 2**20))} MiB in {path}{where}.")


def _bytes(model: Model, encoder: int, decoder: int) -> int:
    """Bytes of so many vectors in every layer of the stacks that hear and of those that write."""
    counts = {"encoder": encoder, "audio_encoder": encoder}
    names = ((stack, name) for stack in model.points.stacks for name in stack_points(model, stack))
    return 4 * sum(counts.get(stack, decoder) * (model.points[name].width or 0) for stack, name in names)


# The pass ---------------------------------------------------------------------------------------------------------------


def _harvest(
    model: Model,
    items: Sequence[Item],
    pools: Pools,
    options: DecodeOptions,
    batch: int,
    texts: Mapping[int, Mapping[str, Any]] | None,
) -> Iterator[_Heard | AudioError]:
    """One result an item, in order."""
    if isinstance(model, SpeechModel):
        if not pools.decoder:
            return _hear(model, items, pools, batch)
        return _transcribe(model, items, pools, options, batch, texts)
    if isinstance(model, AudioLanguageModel):
        return _ask(model, items, pools, batch)
    if isinstance(model, LanguageModel):
        return _read_texts(model, items, pools, batch)
    raise ModelError(
        f"{model.origin.name} cannot be probed.", "Use Whisper, Qwen2-Audio or a language model."
    )


def _hear(
    model: SpeechModel, items: Sequence[Item], pools: Pools, batch: int
) -> Iterator[_Heard | AudioError]:
    pooler = Pooler(model, pools.encoder)
    for i, outcome in enumerate(hear_all(model, items, pooler, batch=batch, keep_going=True)):
        yield outcome if isinstance(outcome, AudioError) else _Heard(pooler.take(i), {"seconds": outcome})


def _transcribe(
    model: SpeechModel,
    items: Sequence[Item],
    pools: Pools,
    options: DecodeOptions,
    batch: int,
    texts: Mapping[int, Mapping[str, Any]] | None,
) -> Iterator[_Heard | AudioError]:
    languages, given = None, None
    if texts is not None:
        languages = [texts[i]["language_written"] if i in texts else "en" for i in range(len(items))]
        given = {(i, n): list(ids) for i, row in texts.items() for n, ids in enumerate(row["tokens"])}
    pooler = Pooler(model, pools.encoder, pools.decoder, given)
    outcomes = transcribe_all(
        model, items, options, batch=batch, keep_going=True, watcher=pooler, languages=languages
    )
    for i, outcome in enumerate(outcomes):
        if isinstance(outcome, AudioError):
            yield outcome
        else:
            ended = [segment.finished for segment in outcome.segments]
            yield _Heard(pooler.take(i, ended), _facts(outcome) if texts is None else dict(texts[i]))


def _facts(transcript: Transcript) -> dict[str, Any]:
    segments = transcript.segments
    return {
        "seconds": transcript.duration,
        "written": transcript.text,
        "language_written": transcript.language,
        "tokens": [transcript.ids[s.first_token : s.end_token] for s in segments],
        "avg_logprob": transcript.avg_logprob,
        "no_speech_prob": transcript.no_speech_prob,
        "finished": all(s.finished for s in segments),
    }


def _ask(
    model: AudioLanguageModel, items: Sequence[Item], pools: Pools, batch: int
) -> Iterator[_Heard | AudioError]:
    """Recordings under one prompt (of longer ones the first window); the text stack is pooled over the positions of the audio."""
    for chunk in batches(items, batch):
        clips = [_first_window(item) for item in chunk]
        there = [clip for clip in clips if not isinstance(clip, AudioError)]
        rows = iter(_asked(model, there, pools) if there else ())
        for clip in clips:
            yield clip if isinstance(clip, AudioError) else _Heard(next(rows), {"seconds": clip.duration})


def _asked(model: AudioLanguageModel, clips: Sequence[Clip], pools: Pools) -> list[Vectors]:
    inputs = model.inputs(clips, AUDIO_PROMPT)
    features = inputs["input_features"]
    frames = [min(math.ceil(clip.duration / 0.02 - 1e-6), features.shape[-1] // 2) for clip in clips]
    heard = inputs["input_ids"] == model.config.audio_token_index
    spans = {
        "audio_encoder": [slice(0, n) for n in frames],
        "text": [slice(int(row.nonzero()[0]), int(row.nonzero()[-1]) + 1) for row in heard],
    }
    rows = _pooled_stacks(model, inputs, spans, pools)
    mels = mel_statistics(features, frames)
    return [row | {MEL: mel} for row, mel in zip(rows, mels, strict=True)]


def _read_texts(
    model: LanguageModel, items: Sequence[Item], pools: Pools, batch: int
) -> Iterator[_Heard | AudioError]:
    """Texts of a language model; an item whose text it cannot read is skipped."""
    for chunk in batches(items, batch):
        unread = [_unreadable_text(model, item) for item in chunk]
        there = [item for item, error in zip(chunk, unread, strict=True) if error is None]
        rows = iter(())
        if there:
            inputs = model.inputs([str(item.text) for item in there])
            first = (inputs["attention_mask"] == 0).sum(dim=1).tolist()
            rows = iter(_pooled_stacks(model, inputs, {"text": [slice(i, None) for i in first]}, pools))
        for item, error in zip(chunk, unread, strict=True):
            yield error or _Heard(next(rows), {"written": item.text})


def _unreadable_text(model: LanguageModel, item: Item) -> AudioError | None:
    name = item.audio_filepath or "The item"
    if not item.text:
        return AudioError(f"{name} has no text.", "Give it a text.")
    try:
        model.inputs(item.text)
    except OptionError as error:
        return AudioError(f"{name} cannot be read: {error.reason}", error.remedy)
    return None


def _pooled_stacks(
    model: Model, inputs: Any, spans: Mapping[str, Sequence[slice]], pools: Pools
) -> list[Vectors]:
    wanted = {"audio_encoder": pools.encoder, "text": pools.decoder}
    every = tuple(dict.fromkeys(pool for stack in spans for pool in wanted[stack]))
    rows = pool_forward(model, inputs, {s: span for s, span in spans.items() if wanted[s]}, every)
    return [{n: v for n, v in row.items() if n.split(".")[1] in wanted[n.split(".")[0]]} for row in rows]


def _first_window(item: Item) -> Clip | AudioError:
    try:
        return next(item.windows(30.0))
    except AudioError as error:
        return error


# One shard --------------------------------------------------------------------------------------------------------------


def _shard(
    items: Sequence[Item], first: int, heard: Sequence[_Heard | AudioError]
) -> tuple[dict[str, np.ndarray], pd.DataFrame]:
    """Vectors of the readable items, and one index line an item."""
    import pandas as pd

    rows = [h.vectors for h in heard if isinstance(h, _Heard)]
    vectors = {name: _stacked([row[name] for row in rows], name) for name in (rows[0] if rows else ())}
    lines = [_line(first + i, item, h) for i, (item, h) in enumerate(zip(items, heard, strict=True))]
    table = pd.DataFrame(lines)
    return vectors, table.astype({"reason": "str", "remedy": "str"}).where(table.notna(), None)


def _stacked(vectors: Sequence[np.ndarray], name: str) -> np.ndarray:
    return np.concatenate(vectors) if ".frames." in name else np.stack(vectors)


def _line(number: int, item: Item, heard: _Heard | AudioError) -> dict[str, Any]:
    known = {
        "item": number,
        "audio_filepath": item.audio_filepath,
        "offset": item.offset,
        "text": item.text,
        "language": item.language,
        "reason": None,
        "remedy": None,
    }
    if isinstance(heard, AudioError):
        known |= {"reason": heard.reason, "remedy": heard.remedy}
    else:
        frames = next((len(v) for name, v in heard.vectors.items() if ".frames." in name), None)
        known |= heard.facts | ({} if frames is None else {"frames": frames})
    return {key: storable(value) if isinstance(value, str) else value for key, value in known.items()}


def storable(text: str) -> str:
    """Text that Parquet can hold: unpaired surrogates (of file names that are not Unicode) are escaped."""
    return text.encode("utf-8", "backslashreplace").decode()
