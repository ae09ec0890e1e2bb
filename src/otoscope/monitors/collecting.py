"""What a monitor learns from: every step of what a model writes for a corpus, on disk shard by shard."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from otoscope.corpora import Item
from otoscope.errors import AudioError, EditError, ManifestError
from otoscope.models.decoding import batches
from otoscope.models.transcribing import Window, frames_of, transcribe_all
from otoscope.models.transcripts import DecodeOptions, Transcript
from otoscope.monitors.reading import Block, Reader
from otoscope.monitors.signals import LONGEST
from otoscope.monitors.verdicts import Verdict, verdict
from otoscope.progress import Silence, Task, notice, track, untracked
from otoscope.runs import ActivationStore, Run

if TYPE_CHECKING:
    from otoscope.models.decoding import LogitFilter
    from otoscope.models.whisper import SpeechModel

SHARD = 16
"""Recordings a shard."""

_READ = "read.{}"


@dataclass(frozen=True, eq=False)
class Text:
    """One text and how it was written.

    Attributes:
        item: Number of its recording in the corpus.
        verdict: What is true of it.
        facts: Its line of the store's index.
        tokens: Its tokens, without the end token.
        residual: `(step, layer, d_model)`, float16; the step that wrote the end token is the last, if it did.
        heard: Mean of the encoder's frames by the attention of each step, `(step, d_model)`, float16.
        window: Mean of the encoder's frames that hold sound, `(d_model,)`.
        signals: `(step, signal)`.
        read: What a dictionary reads, by layer: `(step, d_in)`, float16; empty without one.
    """

    item: int
    verdict: Verdict
    facts: dict[str, Any]
    tokens: list[int]
    residual: np.ndarray
    heard: np.ndarray
    window: np.ndarray
    signals: np.ndarray
    read: Mapping[int, np.ndarray] = field(default_factory=dict)


class _Collector:
    """A watcher that keeps every step of one window a recording."""

    def __init__(
        self, model: SpeechModel, reads: Mapping[int, str], task: Task | None = None, recordings: int = 0
    ) -> None:
        self.model, self.reads, self.task = model, reads, task or Silence()
        self.remaining = recordings
        self.layers = tuple(range(model.config.decoder_layers))
        self.rows: dict[int, list[Block]] = {}
        self.done: dict[tuple[int, int], dict[str, np.ndarray]] = {}

    @contextmanager
    def watching(self, features: torch.Tensor, windows: Sequence[Window]) -> Iterator[Sequence[LogitFilter]]:
        """Keep one batch; see `Watcher`."""
        self.rows = {}
        reader = Reader(self.model, self.layers, self._take, reads=self.reads)
        with reader.following([frames_of(self.model, w.clip) for w in windows]) as follow:
            yield [self._counting(len(windows)), follow]
        for row, window in enumerate(windows):
            self.done[window.recording, window.number] = _stored(self.rows.pop(row))

    def _counting(self, rows: int) -> LogitFilter:
        """Says of every text that it has ended as soon as it has: of a batch, one that loops takes far longer than the others."""
        told = steps = 0

        def count(tokens: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
            nonlocal told, steps
            if steps:  # before the first step the last token is the prompt's
                ended = rows - len(tokens) + int((tokens[:, -1] == self.model.end_token).sum())
                self._advance(ended - told)
                told = max(told, ended)
            steps += 1
            return logits

        return count

    def _advance(self, texts: int) -> None:
        texts = max(min(texts, self.remaining), 0)  # a long recording has several
        if texts:
            self.remaining -= texts
            self.task.advance(texts)

    def finish(self) -> None:
        """Say of the rest that it is done, too: what could not be read, and the last texts of batches."""
        self._advance(self.remaining)

    def _take(self, block: Block) -> None:
        if block.first < LONGEST:
            self.rows.setdefault(block.row, []).append(block)


def _stored(blocks: Sequence[Block]) -> dict[str, np.ndarray]:
    encoded = blocks[0].encoded.float()
    heard = torch.cat([block.attention @ encoded for block in blocks])
    residual = torch.cat([block.residual for block in blocks]).flatten(1)
    read = {
        _READ.format(layer): torch.cat([block.read[layer] for block in blocks]).half().cpu().numpy()
        for layer in blocks[0].read
    }
    return read | {
        "residual": residual.half().cpu().numpy(),
        "heard": heard.half().cpu().numpy(),
        "signals": np.concatenate([block.signals for block in blocks]).astype(np.float32),
        "window": encoded[: blocks[0].track.frames].mean(dim=0, keepdim=True).cpu().numpy(),
    }


def collect(
    model: SpeechModel,
    items: Sequence[Item],
    out: Path | str,
    options: DecodeOptions | None = None,
    batch: int | None = None,
    reads: Mapping[int, str] | None = None,
) -> list[Text]:
    """Transcribe a corpus, or go on with it, and keep every step.

    What is there of a recording is not computed again, be the corpus now a larger one, a smaller one or in another order.

    Args:
        model: The recogniser.
        items: Recordings; of one that is longer than a window nothing is kept, for its text cannot be judged window by window.
        out: A directory, begun or finished.
        options: How to decode.
        batch: Windows at once.
        reads: Points that a dictionary reads, by layer.

    Returns:
        The texts, in the order of the recordings that could be read.

    Raises:
        EditError: A hook or an edit is in place.
        ManifestError: None of the recordings can be used.
        OptionError: The directory belongs to other settings.
        OutputError: It cannot be written.
    """
    if model.open_hooks:
        raise EditError("A hook or an edit is in place.", "Fit a monitor outside of the block.")
    options = options or DecodeOptions()
    settings = {
        "model": {k: v for k, v in model.describe().items() if k not in ("device", "source")},
        "weights": model.weights_digest(),
        "decoding": options.to_dict(),
        "longest": LONGEST,
        **({"reads": list(reads.values())} if reads else {}),
    }
    with Run.opened(out, "activations", settings) as run:
        store = ActivationStore(run)
        done = {*store.index["key"], *store.skipped["key"]} if store.shards else set()
        missing = list({key: item for item in items if (key := _key(item)) not in done}.items())
        if missing:
            notice(f"What the model does while it writes goes into {out}, about 60 kB a second of speech.")
        with track("Transcribing", len(items), "recordings") as task:
            task.advance(len(items) - len(missing))
            first = max(store.shards, default=-1) + 1
            for number, part in enumerate(batches(missing, SHARD), first):
                store.append(number, *_shard(model, dict(part), options, batch, reads or {}, task))
    return _texts(ActivationStore.read_from(out), items, len(_layers(model)), sorted(reads or {}))


def _key(item: Item) -> str:
    """What tells a recording from others; its texts are judged by its language."""
    return json.dumps([item.key(), item.language])


def _layers(model: SpeechModel) -> range:
    return range(model.config.decoder_layers)


def _shard(
    model: SpeechModel,
    items: Mapping[str, Item],
    options: DecodeOptions,
    batch: int | None,
    reads: Mapping[int, str],
    task: Task,
) -> tuple[dict[str, np.ndarray], Any]:
    """Tensors and index of some recordings, by key."""
    import pandas as pd

    collector = _Collector(model, reads, task, len(items))
    lines: list[dict[str, Any]] = []
    kept: list[dict[str, np.ndarray]] = []
    with untracked():
        written = list(
            transcribe_all(
                model, list(items.values()), options, batch=batch, keep_going=True, watcher=collector
            )
        )
    for i, ((key, item), transcript) in enumerate(zip(items.items(), written, strict=True)):
        steps = None
        if not isinstance(transcript, AudioError) and (i, 1) not in collector.done:
            steps = collector.done[i, 0]
            kept.append(steps)
        lines.append(_line(item, key, transcript, steps))
    collector.finish()
    tensors = {name: np.concatenate([steps[name] for steps in kept]) for name in (kept[0] if kept else ())}
    table = pd.DataFrame(lines).astype({"reason": "str", "remedy": "str"})
    return tensors, table.where(pd.DataFrame(lines).notna(), None)


def _line(
    item: Item, key: str, transcript: Transcript | AudioError, steps: dict[str, np.ndarray] | None
) -> dict[str, Any]:
    told: dict[str, Any] = {
        "key": key,
        "audio_filepath": item.audio_filepath.encode("utf-8", "backslashreplace").decode(),
        "steps": 0 if steps is None else len(steps["signals"]),
        "reason": None,
        "remedy": None,
    }
    if isinstance(transcript, AudioError):
        return told | {"reason": transcript.reason, "remedy": transcript.remedy}
    if steps is None:
        return told | {"reason": "It is longer than a window.", "remedy": "Cut it into windows."}
    return told | {
        "seconds": transcript.duration,
        "written": transcript.text,
        "language_written": transcript.language,
        "tokens": transcript.ids,
        "avg_logprob": transcript.avg_logprob,
        "no_speech_prob": transcript.no_speech_prob,
        "compression_ratio": transcript.compression_ratio,
        "mean_entropy": float(np.mean([token.entropy for token in transcript.tokens] or [0.0])),
    }


def _texts(store: ActivationStore, items: Sequence[Item], layers: int, reads: Sequence[int]) -> list[Text]:
    index = store.index
    keys = [_key(item) for item in items]
    for row in store.skipped.drop_duplicates("key").to_dict("records"):  # type: ignore[call-overload]
        if row["key"] in keys:
            notice(f"{row['audio_filepath']} is left out: {row['reason']}")
    ends = np.cumsum(index["steps"]) if len(index) else []
    found = {row["key"]: (n, row) for n, row in enumerate(index.to_dict("records"))}  # type: ignore[call-overload]
    if found.keys().isdisjoint(keys):
        raise ManifestError("None of the recordings can be used.", "Name recordings of at most 30 s.")
    arrays = {name: store.read(name) for name in ("residual", "heard", "signals", "window")}
    read = {layer: store.read(_READ.format(layer)) for layer in reads}
    texts = []
    for number, (item, key) in enumerate(zip(items, keys, strict=True)):
        if key not in found:
            continue
        n, row = found[key]
        span = slice(int(ends[n] - row["steps"]), int(ends[n]))
        residual = arrays["residual"][span]
        texts.append(
            Text(
                number,
                verdict(item, row["written"], row["language_written"]),
                row,
                [int(token) for token in row["tokens"]],
                residual.reshape(len(residual), layers, -1),
                arrays["heard"][span],
                arrays["window"][n],
                arrays["signals"][span],
                {layer: x[span] for layer, x in read.items()},
            )
        )
    return texts
