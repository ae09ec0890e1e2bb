"""Harvesting the vectors that dictionaries learn from: single frames and positions of a corpus, on disk shard by shard.

Of an encoder every frame of the sound is kept, none of the padding. A decoder of a recogniser reads its own transcripts at once
(the greedy one, and as many drawn ones as are asked for), and the positions of text are kept, not those of the prompt. Of a
language model the positions of a text are kept, special tokens left out; of Qwen2-Audio those of the sound and of what it writes.
Shards are fixed by the settings, so that a job that was killed and goes on gives the vectors it would have given.
"""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from otoscope.dictionaries.training.buffer import Vectors
from otoscope.errors import AudioError, EditError, ManifestError, ModelError, OptionError
from otoscope.models.causal_lm import LanguageModel
from otoscope.models.decoding import DecoderSession, batches, decode, detect_languages, prompts_for
from otoscope.models.qwen2_audio import AUDIO_PROMPT, AudioLanguageModel
from otoscope.models.transcribing import frames_of, transcribe_all
from otoscope.models.transcripts import DecodeOptions, Transcript
from otoscope.models.whisper import SpeechModel
from otoscope.progress import notice, track
from otoscope.runs import ActivationStore, Run, computed

if TYPE_CHECKING:
    from torch import Tensor

    from otoscope.activations import HookFunction
    from otoscope.audio import Clip
    from otoscope.corpora import Item
    from otoscope.dictionaries.places import Places
    from otoscope.models.base import Model

SHARD = 16
"""Recordings or texts a shard."""

CONTEXT = 256
"""Tokens of a text that a language model reads at once; longer texts are cut."""

WRITTEN = 128
"""Tokens that Qwen2-Audio writes of a recording at most."""

_WINDOW, _TOWER_FRAME = 30.0, 0.02
"""Seconds that its tower hears at once, and of one of its frames."""

_AROUND = 8
"""Tokens that are shown before one, and half as many after it."""

Where = tuple[float | None, float | None, str, str, str]
"""Begin and end in seconds, and the words before, at and after."""


@dataclass(frozen=True)
class Drawn:
    """Transcripts that are drawn beside the greedy one: a decoder reads many texts of one sound at little cost.

    Attributes:
        count: How many of each window.
        temperature: Of the distribution they are drawn from.
    """

    count: int = 0
    temperature: float = 0.8


@dataclass(frozen=True)
class _Reading:
    """What is read of a corpus, and how."""

    places: Places
    batch: int
    options: DecodeOptions
    drawn: Drawn = Drawn()
    dtype: Stored = "float32"


Stored = Literal["float32", "float16"]

Kept = dict[str, list[np.ndarray]]
"""By point, the vectors of the recordings of a batch, `(n, d)` each."""


def harvest_places(
    model: Model,
    items: Sequence[Item],
    places: Places,
    out: Path | str,
    *,
    batch: int | None = None,
    dtype: Stored = "float32",
    options: DecodeOptions | None = None,
    drawn: Drawn | None = None,
) -> ActivationStore:
    """Keep what is read and written at some places, over a corpus.

    Args:
        model: A Whisper model, Qwen2-Audio, or a language model.
        items: Recordings, or texts for a language model.
        places: Which points of which stack.
        out: The store's directory, begun or finished.
        batch: Windows or texts at once; None: `model.batch`.
        dtype: Precision on disk; float16 takes half the room, and its rounding (3 digits) is far below what is left unexplained.
        options: How recordings are transcribed where the decoder is read.
        drawn: Further transcripts of each window, where the decoder is read; None: the greedy one alone.

    Returns:
        The store: tensors `input.LAYER` and `target.LAYER`, `(row, d)`.

    Raises:
        EditError: A hook or edit is in place: its activations could not be told from the model's own.
        ManifestError: There is nothing to read.
        ModelError: This kind of model cannot be harvested.
        OptionError: The directory belongs to other settings.
        OutputError: The store cannot be written.
    """
    if model.open_hooks:
        raise EditError(
            "A hook or an edit is in place, and a store keeps the model's own activations.",
            "Harvest outside of the block.",
        )
    if not items:
        raise ManifestError("There is nothing to read.", "Name a manifest or a text.")
    options, drawn = options or DecodeOptions(), drawn or Drawn()
    if isinstance(model, SpeechModel):
        model.check_language(options.language)
    settings = {
        "model": {k: v for k, v in model.describe().items() if k not in ("device", "source")},
        "weights": model.weights_digest(),
        "places": places.to_dict(),
        "items": len(items),
        "items_digest": digest_of_items(items),
        "decoding": options.to_dict() | asdict(drawn) if places.stack == "decoder" else {},
        "dtype": dtype,
        "shard": SHARD,
    }
    with Run.opened(out, "activations", settings) as run:
        store = ActivationStore(run)
        missing = [n for n in range(-(-len(items) // SHARD)) if not store.has(n)]
        _say_size(model, items, places, Path(out), dtype, bool(missing), drawn)
        with track("Harvesting", len(items), "recordings" if items[0].audio_filepath else "texts") as task:
            task.advance(len(items) - sum(len(items[n * SHARD : (n + 1) * SHARD]) for n in missing))
            reading = _Reading(places, batch or model.batch, options, drawn, dtype)
            job = partial(_shard, model, items, reading)
            with store.written_behind() as append:
                for number, shard in computed(job, missing):
                    append(number, *shard)
                    task.advance(len(items[number * SHARD : (number + 1) * SHARD]))
    return ActivationStore.read_from(out)


def heard_vectors(
    model: Model,
    items: Sequence[Item],
    places: Places,
    *,
    batch: int | None = None,
    options: DecodeOptions | None = None,
    drawn: Drawn | None = None,
) -> Iterator[Vectors]:
    """What `harvest_places` would keep, recording by recording and on no disk; those that cannot be read are passed over.

    Yields:
        Inputs `(layer, n, d_in)` and targets `(layer, n, d_out)` of one recording or text.
    """
    options, drawn = options or DecodeOptions(), drawn or Drawn()
    reading = _Reading(places, batch or model.batch, options, drawn)
    parts = batches(items, SHARD)  # a shard's worth in memory, however long the corpus
    for found in (found for part in parts for found in _read(model, part, reading)):
        if not isinstance(found, AudioError):
            inputs, targets = (
                None if names is None else torch.stack([torch.from_numpy(found[name]) for name in names])
                for names in (places.inputs, places.targets)
            )
            assert inputs is not None
            yield Vectors(inputs, targets)


def digest_of_items(items: Sequence[Item]) -> str:
    """What tells that a corpus is the same, files and all."""
    told = [[i.audio_filepath, i.offset, i.duration, i.text, i.file_stamp()] for i in items]
    return hashlib.sha256(json.dumps(told).encode("utf-8", "backslashreplace")).hexdigest()


def _say_size(
    model: Model, items: Sequence[Item], places: Places, out: Path, dtype: str, missing: bool, drawn: Drawn
) -> None:
    if not missing:
        notice(f"The vectors are there already: {out}.")
        return
    width = sum(model.points[name].width or 0 for name in (*places.inputs, *(places.targets or ())))
    if places.stack == "text":
        vectors = sum(len(item.text or "") / 4 for item in items)  # about four characters a token
    else:
        seconds = sum(item.duration or 30.0 for item in items)
        vectors = seconds * (4 * (1 + drawn.count) if places.stack == "decoder" else 50)
    size = vectors * width * (2 if dtype == "float16" else 4)
    notice(f"About {vectors:,.0f} vectors a point, {max(1, round(size / 2**20)):,} MiB, go into {out}.")


def _shard(
    model: Model, items: Sequence[Item], reading: _Reading, number: int
) -> tuple[dict[str, np.ndarray], Any]:
    import pandas as pd

    places = reading.places
    items = items[number * SHARD : (number + 1) * SHARD]
    found: list[dict[str, np.ndarray] | AudioError] = []
    lines = []
    for item, vectors in zip(items, _read(model, items, reading), strict=True):
        found.append(vectors)
        failed = isinstance(vectors, AudioError)
        lines.append(
            {
                "item": number * SHARD + len(lines),
                "audio_filepath": item.audio_filepath.encode("utf-8", "backslashreplace").decode(),
                "vectors": 0 if failed else len(vectors[places.inputs[0]]),
                "reason": vectors.reason if failed else None,
                "remedy": vectors.remedy if failed else None,
            }
        )
    rows = [vectors for vectors in found if not isinstance(vectors, AudioError)]
    named = {"input": places.inputs} | ({} if places.targets is None else {"target": places.targets})
    tensors = {  # rows go as they are joined: the shard before may be in memory, too, until it is written
        f"{what}.{layer}": np.concatenate([row.pop(name) for row in rows])
        for what, names in named.items()
        for layer, name in zip(places.layers, names, strict=True)
        if rows
    }
    table = pd.DataFrame(lines).astype({"reason": "str", "remedy": "str"})
    return tensors, table.where(pd.DataFrame(lines).notna(), None)


def _read(
    model: Model, items: Sequence[Item], reading: _Reading
) -> Iterator[dict[str, np.ndarray] | AudioError]:
    if isinstance(model, SpeechModel):
        return _hear(model, items, reading)
    if isinstance(model, LanguageModel):
        return _read_texts(model, items, reading)
    if isinstance(model, AudioLanguageModel):
        return (_answered(model, item, reading) for item in items)
    raise ModelError(
        f"{model.origin.name} cannot be harvested for dictionaries.",
        "Use Whisper, Qwen2-Audio or a language model.",
    )


@contextmanager
def _keeping(model: Model, reading: _Reading, rows: Sequence[slice | Tensor]) -> Iterator[Kept]:
    """Keep some positions of each row of one forward pass inside the block.

    They are rounded at once, while they are still in the processor's caches.
    """
    kept: Kept = {}
    dtype = getattr(torch, reading.dtype)

    def keeper(name: str) -> HookFunction:
        def keep(x: Tensor, _hook: object) -> None:
            kept[name] = [x[i, where].to(dtype).cpu().numpy() for i, where in enumerate(rows)]

        return keep

    with torch.no_grad(), model.hooks(fwd_hooks=[(name, keeper(name)) for name in reading.places.points]):
        yield kept


def positions_of(
    model: Model, items: Sequence[Item], places: Places, batch: int, options: DecodeOptions
) -> Iterator[tuple[Item, dict[str, np.ndarray] | None, list[Where]]]:
    """Vectors of each item with where each of them stands, for what is shown of them.

    Yields:
        The item, its vectors by point (None where it cannot be read), and for each vector its begin and end in seconds (None in
        a text), and the words before, at and after it.
    """
    for part in batches(items, SHARD):
        vectors = list(_read(model, part, _Reading(places, batch, options)))
        places_in = _words_of(model, part, places, batch, options)
        for item, found, where in zip(part, vectors, places_in, strict=True):
            if isinstance(found, AudioError):
                yield item, None, []
            else:
                yield item, found, _agreeing(where, len(found[places.inputs[0]]), places.stack)


def _agreeing(where: list[Where], count: int, stack: str) -> list[Where]:
    """As many places as there are vectors.

    The windows of a long recording each end with a frame of their own, so that there are some more frames than the whole has.
    Where another text was written than the one that was read, nothing is known of any place.
    """
    unknown: Where = (None, None, "", "", "")
    if stack != "encoder" and len(where) != count:
        return [unknown] * count
    return (where + [unknown] * count)[:count]


def _words_of(
    model: Model, items: Sequence[Item], places: Places, batch: int, options: DecodeOptions
) -> list[list[Where]]:
    if isinstance(model, LanguageModel):
        return [tokens_around(model, item) for item in items]
    assert isinstance(model, SpeechModel)
    transcripts = transcribe_all(model, items, options, batch=batch, keep_going=True)
    return [words_around(model, t, places.stack) for t in transcripts]


def words_around(model: SpeechModel, transcript: Transcript | AudioError, stack: str) -> list[Where]:
    """What stands at every place of a recording: at each frame for an encoder, at each written token for a decoder."""
    if isinstance(transcript, AudioError):
        return []
    return (
        _frames_around(transcript, model.frame_seconds) if stack == "encoder" else _written_around(transcript)
    )


def tokens_around(model: LanguageModel, item: Item) -> list[Where]:
    """Each token of a text with those around it, in the order in which texts are read."""
    ids = model.tokenizer(item.text or "", add_special_tokens=False)["input_ids"]
    special = set(model.tokenizer.all_special_ids)
    pieces = sorted((ids[at : at + CONTEXT] for at in range(0, len(ids), CONTEXT)), key=len, reverse=True)
    return [
        (
            None, None, model.tokenizer.decode(piece[max(i - _AROUND, 0) : i]), model.tokenizer.decode([token]),
            model.tokenizer.decode(piece[i + 1 : i + 1 + _AROUND // 2]),
        )
        for piece in pieces
        for i, token in enumerate(piece)
        if token not in special
    ]  # fmt: skip


def _written_around(transcript: Transcript) -> list[Where]:
    """Each written token, at which the next one is chosen."""
    texts = [token.text for token in transcript.tokens]
    return [
        (
            token.start, token.end, "".join(texts[max(i - _AROUND, 0) : i]), token.text,
            "".join(texts[i + 1 : i + 1 + _AROUND // 2]),
        )
        for i, token in enumerate(transcript.tokens)
    ]  # fmt: skip


def _frames_around(transcript: Transcript, frame_seconds: float) -> list[Where]:
    """Each frame with the word that is heard there."""
    words, found = list(transcript.words), []
    for frame in range(round(transcript.duration / frame_seconds) + 2):
        start = frame * frame_seconds
        middle = start + frame_seconds / 2
        at = next((i for i, w in enumerate(words) if w.start <= middle < w.end), None)
        before = "".join(f"{w.text.strip()} " for w in [w for w in words if w.end <= middle][-4:])
        after = "".join(f" {w.text.strip()}" for w in [w for w in words if w.start > middle][:3])
        word = "" if at is None else words[at].text
        found.append((round(start, 3), round(start + frame_seconds, 3), before, word.strip(), after))
    return found


# Recordings --------------------------------------------------------------------------------------------------------------


def _hear(
    model: SpeechModel, items: Sequence[Item], reading: _Reading
) -> Iterator[dict[str, np.ndarray] | AudioError]:
    read = _frames if reading.places.stack == "encoder" else _positions
    clips: list[tuple[int, Clip]] = []
    failed: dict[int, AudioError] = {}
    for i, item in enumerate(items):
        try:
            clips += [(i, clip) for clip in item.windows(model.window_seconds)]
        except AudioError as error:
            failed[i] = error
    parts: dict[int, list[dict[str, np.ndarray]]] = {i: [] for i in range(len(items))}
    for chunk in batches(clips, reading.batch):
        kept = read(model, [clip for _, clip in chunk], reading)
        for row, (i, _) in enumerate(chunk):
            parts[i].append({name: vectors[row] for name, vectors in kept.items()})
    for i in range(len(items)):
        if i in failed:
            yield failed[i]
        else:
            yield {name: _joined([part[name] for part in parts[i]]) for name in reading.places.points}


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    """The windows of a recording one after another; a single one is not copied."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _frames(model: SpeechModel, clips: Sequence[Clip], reading: _Reading) -> Kept:
    """Frames of the sound."""
    with _keeping(model, reading, [slice(0, frames_of(model, clip)) for clip in clips]) as kept:
        model.encode(model.features(clips))
    return kept


def _positions(model: SpeechModel, clips: Sequence[Clip], reading: _Reading) -> Kept:
    """Positions of the texts that the model writes, of which each writes the next token."""
    options, drawn = reading.options, reading.drawn
    with torch.no_grad():
        encoded = model.encode(model.features(clips))
        session = DecoderSession(model, encoded)
        several = model.is_multilingual and options.language is None
        languages = detect_languages(model, session) if several else [options.language or "en"] * len(clips)
        prompts = prompts_for(model, languages, options)
        texts = [[row.ids] for row in decode(model, session, prompts, options)]
        if drawn.count:
            warm = replace(options, temperature=drawn.temperature)
            clip_of_row = [i for i in range(len(clips)) for _ in range(drawn.count)]
            seeds = [_seed_of(clips[i], options.seed, n % drawn.count) for n, i in enumerate(clip_of_row)]
            for i, row in zip(
                clip_of_row, decode(model, encoded, prompts[clip_of_row], warm, seeds=seeds, clip_of_row=clip_of_row), strict=True
            ):  # fmt: skip
                texts[i].append(row.ids)
    return _read_back(model, encoded, prompts, texts, reading)


def _seed_of(clip: Clip, seed: int, number: int) -> int:
    """Of a drawn transcript: by the sound and the number alone, whatever else is in the batch."""
    return zlib.crc32(f"{seed} {number} {clip.source} {clip.start}".encode("utf-8", "backslashreplace"))


def _read_back(
    model: SpeechModel, encoded: Tensor, prompts: Tensor, texts: Sequence[Sequence[list[int]]], reading: _Reading
) -> Kept:  # fmt: skip
    """Every text of every clip, read at once; the positions of a clip's texts one after another."""
    first = prompts.shape[1]
    clip_of_row = [i for i, mine in enumerate(texts) for _ in mine]
    rows = [ids for mine in texts for ids in mine]
    tokens = torch.full(
        (len(rows), first + max(map(len, rows))), model.end_token, device=model.device, dtype=torch.int64
    )
    tokens[:, :first] = prompts[clip_of_row]
    for row, ids in zip(tokens, rows, strict=True):
        row[first : first + len(ids)] = torch.tensor(ids, dtype=torch.int64, device=model.device)
    with _keeping(model, reading, [slice(first, first + len(ids)) for ids in rows]) as kept:
        DecoderSession(model, encoded, clip_of_row).read(tokens)
    starts = [clip_of_row.index(i) for i in range(len(texts))] + [len(rows)]
    return {
        name: [np.concatenate(vectors[a:b]) for a, b in pairwise(starts)] for name, vectors in kept.items()
    }


def _answered(model: AudioLanguageModel, item: Item, reading: _Reading) -> dict[str, np.ndarray] | AudioError:
    """A recording's first window under the prompt to transcribe: frames of the tower, or in the text stack the positions of the
    sound and of what is written of it.
    """
    try:
        clip = next(item.windows(_WINDOW))
    except AudioError as error:
        return error
    inputs = model.inputs([clip], AUDIO_PROMPT)
    heard = (inputs["input_ids"][0] == model.config.audio_token_index).nonzero().flatten().tolist()
    keep: slice | Tensor = slice(0, math.ceil(clip.duration / _TOWER_FRAME - 1e-6))
    if reading.places.stack == "text":
        prompt = inputs["input_ids"].shape[1]
        written = model.generate(**inputs, max_new_tokens=WRITTEN, do_sample=False)[:, prompt:]
        ended = [i for i, token in enumerate(written[0].tolist()) if token in _special(model)]
        written = written[:, : ended[0] if ended else None]
        inputs["input_ids"] = torch.cat([inputs["input_ids"], written], dim=1)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        keep = torch.tensor([*heard, *range(prompt, prompt + written.shape[1])])
    with _keeping(model, reading, [keep]) as kept:
        model.forward(inputs)
    return {name: vectors[0] for name, vectors in kept.items()}


def _special(model: AudioLanguageModel) -> set[int]:
    return set(getattr(model.tokenizer, "all_special_ids", ()))


# Texts -------------------------------------------------------------------------------------------------------------------


def _read_texts(
    model: LanguageModel, items: Sequence[Item], reading: _Reading
) -> Iterator[dict[str, np.ndarray] | AudioError]:
    if model.tokenizer is None:
        raise OptionError(f"{model.origin.name} has no tokenizer.", "Load one with it.")
    pieces: list[tuple[int, list[int]]] = []
    for i, item in enumerate(items):
        ids = model.tokenizer(item.text or "", add_special_tokens=False)["input_ids"]
        pieces += [(i, ids[at : at + CONTEXT]) for at in range(0, len(ids), CONTEXT)]
    parts: dict[int, list[dict[str, np.ndarray]]] = {i: [] for i in range(len(items))}
    special = set(model.tokenizer.all_special_ids)
    first = [model.tokenizer.bos_token_id] if model.tokenizer.bos_token_id is not None else []
    # Pieces of about one length share a batch. What is filled up behind a piece is not seen from its positions.
    for chunk in batches(sorted(pieces, key=lambda piece: len(piece[1]), reverse=True), reading.batch):
        rows = [[*first, *ids] for _, ids in chunk]
        longest = len(rows[0])
        tokens = torch.tensor([row + [row[-1] if row else 0] * (longest - len(row)) for row in rows])
        keep = [torch.tensor([t not in special for t in row]).nonzero().flatten() for row in rows]
        with _keeping(model, reading, keep) as kept:
            model.forward(tokens.to(model.device))
        for row, (i, _) in enumerate(chunk):
            parts[i].append({name: vectors[row] for name, vectors in kept.items()})
    for i, item in enumerate(items):
        if not parts[i]:
            yield AudioError(f"{item.audio_filepath or 'A text'} is empty.", "Give it a text.")
            continue
        yield {name: np.concatenate([part[name] for part in parts[i]]) for name in reading.places.points}
