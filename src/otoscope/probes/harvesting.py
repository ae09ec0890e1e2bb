"""Harvesting: one streaming pass over a corpus, every layer pooled, on disk shard by shard.

A speech recogniser transcribes in the same pass where its decoder is read, so a corpus is heard once. Shards and batches are
fixed by the settings, so that a job that was killed and goes on gives the numbers it would have given.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from otoscope.corpora import Item
from otoscope.errors import AudioError, ModelError, OptionError
from otoscope.models.base import Model
from otoscope.models.cache import cache_dir
from otoscope.models.causal_lm import LanguageModel
from otoscope.models.decoding import batches
from otoscope.models.qwen2_audio import AudioLanguageModel
from otoscope.models.transcribing import hear_all, transcribe_all
from otoscope.models.transcripts import DecodeOptions, Transcript
from otoscope.models.whisper import SpeechModel
from otoscope.probes.pooling import Pooler, Vectors, pool_forward, stack_points
from otoscope.progress import notice, track
from otoscope.runs import ActivationStore, Run

if TYPE_CHECKING:
    import pandas as pd

    from otoscope.audio import Clip

SHARD = 256
"""Items a shard: what a kill loses at most."""

AUDIO_PROMPT = "<|audio_bos|><|AUDIO|><|audio_eos|>Transcribe the speech."
"""What an audio-language model is asked while it is read."""


@dataclass(frozen=True)
class Pools:
    """What to keep of each recording; see `otoscope.probes.pooling` for what the pools mean.

    Attributes:
        encoder: Pools of the stack that hears (`mean`, `max`, `last`, `frames`).
        decoder: Pools of the stack that writes (`mean`, `max`, `last`, `end`).
    """

    encoder: tuple[str, ...] = ("mean",)
    decoder: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for stack, known in (
            ("encoder", ("mean", "max", "last", "frames")),
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
    same texts). Language models read the items' `text`. Items that cannot be read are kept in the store's `skipped`.

    Args:
        model: A Whisper model, Qwen2-Audio or a language model.
        items: The corpus.
        out: The store's directory, begun or finished; None: one in otoscope's cache, named after all that it depends on.
        pools: What to keep.
        options: How to decode.
        batch: Windows (or texts) at once; None: `model.batch`.
        written: A store of the same items whose texts the decoder is given.

    Returns:
        The store, complete.

    Raises:
        OptionError: The directory belongs to other settings, or the model cannot give what is asked.
        AudioError: None of the recordings can be read.
        OutputError: The store cannot be written.
    """
    pools = pools or Pools()
    batch = batch or model.batch
    options = options or DecodeOptions()
    if isinstance(model, SpeechModel):
        options = replace(options, language=model.check_language(options.language))
    settings = _settings(model, items, pools, options, batch, written)
    path = Path(out) if out is not None else cache_dir() / "activations" / _digest(settings)[:24]
    with Run.opened(path, "activations", settings) as run:
        store = ActivationStore(run)
        missing = [i for i in range(0, len(items), SHARD) if not store.has(i // SHARD)]
        _say_size(model, path, pools, len(items), len(missing), default=out is None)
        with track("Harvesting activations", len(items), "recordings") as task:
            task.advance(len(items) - sum(len(items[i : i + SHARD]) for i in missing))
            for first in missing:
                part = items[first : first + SHARD]
                heard = list(_harvest(model, part, pools, options, batch, _texts(written, first)))
                store.append(first // SHARD, *_shard(part, first, heard))
                task.advance(len(part))
    finished = ActivationStore.read_from(path)
    if not len(finished.index):
        first = finished.skipped.iloc[0]
        raise AudioError(
            f"None of the {len(items)} recordings can be read; the first: {first.reason}", first.remedy
        )
    return finished


def _texts(written: ActivationStore | None, first: int) -> dict[int, dict[str, Any]] | None:
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
    part = index[(index["item"] >= first) & (index["item"] < first + SHARD)][keep]
    return {row.pop("item") - first: row for row in part.to_dict("records")}  # type: ignore[call-overload]


# What a store depends on ------------------------------------------------------------------------------------------------


def _settings(
    model: Model,
    items: Sequence[Item],
    pools: Pools,
    options: DecodeOptions,
    batch: int,
    written: ActivationStore | None,
) -> dict[str, Any]:
    facts = {key: value for key, value in model.describe().items() if key not in ("device", "source")}
    settings = {
        "model": facts,
        "weights": facts["sha256"] or _fingerprint(model),
        "items": len(items),
        "corpus": _digest([_stamp(item) for item in items]),
        "pools": asdict(pools),
        "decoding": options.to_dict() if isinstance(model, SpeechModel) else {},
        "batch": batch,
        "shard": SHARD,
    }
    if written is not None:
        settings["texts"] = str(written.run.settings["weights"])
    return settings


def _fingerprint(model: Model) -> str:
    """Of weights that were made in memory: a digest of every parameter."""
    digest = hashlib.sha256()
    for name, parameter in sorted(model.hf.named_parameters()):
        digest.update(name.encode())
        digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _stamp(item: Item) -> list[Any]:
    """What tells that an item is the same, file and all."""
    try:
        stat = item.path.stat()
        file = [stat.st_size, stat.st_mtime_ns]
    except OSError:
        file = []
    return [item.audio_filepath, item.offset, item.duration, item.text, file]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode("utf-8", "backslashreplace")).hexdigest()


def _say_size(model: Model, path: Path, pools: Pools, items: int, missing: int, default: bool) -> None:
    if not missing:
        notice(f"The activations are there already: {path}.")
        return
    size = items * _bytes_per_item(model, pools)
    where = "; name a place with --store to choose another" if default else ""
    frames = " and more for every frame" if "frames" in pools.encoder else ""
    notice(f"Activations take about {max(1, round(size / 2**20))} MiB{frames} in {path}{where}.")


def _bytes_per_item(model: Model, pools: Pools) -> int:
    per_stack = {
        "encoder": len(pools.encoder),
        "audio_encoder": len(pools.encoder),
        "decoder": len(pools.decoder),
        "text": len(pools.decoder),
    }
    names = ((stack, name) for stack in model.points.stacks for name in stack_points(model, stack))
    return 4 * sum(per_stack[stack] * (model.points[name].width or 0) for stack, name in names)


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
    frames = [
        min(math.ceil(clip.duration / 0.02 - 1e-6), inputs["input_features"].shape[-1] // 2) for clip in clips
    ]
    heard = inputs["input_ids"] == model.config.audio_token_index
    spans = {
        "audio_encoder": [slice(0, n) for n in frames],
        "text": [slice(int(row.nonzero()[0]), int(row.nonzero()[-1]) + 1) for row in heard],
    }
    return _pooled_stacks(model, inputs, spans, pools)


def _read_texts(
    model: LanguageModel, items: Sequence[Item], pools: Pools, batch: int
) -> Iterator[_Heard | AudioError]:
    """Texts of a language model; an item without one is skipped."""
    for chunk in batches(items, batch):
        there = [item for item in chunk if item.text]
        rows = iter(())
        if there:
            inputs = model.inputs([str(item.text) for item in there])
            first = (inputs["attention_mask"] == 0).sum(dim=1).tolist()
            rows = iter(_pooled_stacks(model, inputs, {"text": [slice(i, None) for i in first]}, pools))
        for item in chunk:
            missing = AudioError(f"{item.audio_filepath or 'The item'} has no text.", "Give it a text.")
            yield _Heard(next(rows), {"written": item.text}) if item.text else missing


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
        "labels": json.dumps(item.labels, ensure_ascii=False),
        "reason": None,
        "remedy": None,
    }
    if isinstance(heard, AudioError):
        return known | {"reason": heard.reason, "remedy": heard.remedy}
    frames = next((len(v) for name, v in heard.vectors.items() if ".frames." in name), None)
    return known | heard.facts | ({} if frames is None else {"frames": frames})
