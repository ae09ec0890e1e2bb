"""What a monitor learns from: every step of what a model writes for a corpus, on disk shard by shard."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from otoscope.corpora import Item
from otoscope.errors import AudioError, EditError, ManifestError
from otoscope.models.transcribing import Window, frames_of, transcribe_all
from otoscope.models.transcripts import DecodeOptions, Transcript
from otoscope.monitors.reading import Block, Reader
from otoscope.monitors.verdicts import Verdict, verdict
from otoscope.progress import notice, track
from otoscope.runs import ActivationStore, Run

if TYPE_CHECKING:
    from otoscope.models.decoding import LogitFilter
    from otoscope.models.whisper import SpeechModel

SHARD = 16
"""Recordings a shard."""

_READ = "read.{}"

LONGEST = 160
"""Steps of a text that are kept: loops go on as they are."""


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

    def __init__(self, model: SpeechModel, reads: Mapping[int, str]) -> None:
        self.model, self.reads = model, reads
        self.layers = tuple(range(model.config.decoder_layers))
        self.rows: dict[int, list[Block]] = {}
        self.done: dict[tuple[int, int], dict[str, np.ndarray]] = {}

    @contextmanager
    def watching(self, features: torch.Tensor, windows: Sequence[Window]) -> Iterator[Sequence[LogitFilter]]:
        """Keep one batch; see `Watcher`."""
        self.rows = {}
        reader = Reader(self.model, self.layers, self._take, reads=self.reads)
        with reader.following([frames_of(self.model, w.clip) for w in windows]) as follow:
            yield [follow]
        for row, window in enumerate(windows):
            self.done[window.recording, window.number] = _stored(self.rows.pop(row))

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
        "items": [[i.audio_filepath, i.offset, i.duration, i.file_stamp()] for i in items],
        "decoding": options.to_dict(),
        "longest": LONGEST,
        **({"reads": list(reads.values())} if reads else {}),
    }
    with Run.opened(out, "activations", settings) as run:
        store = ActivationStore(run)
        missing = [n for n in range(-(-len(items) // SHARD)) if not store.has(n)]
        if missing:
            notice(f"What the model does while it writes goes into {out}, about 60 kB a second of speech.")
        with track("Listening", len(items), "recordings") as task:
            task.advance(len(items) - sum(len(items[n * SHARD : (n + 1) * SHARD]) for n in missing))
            for number in missing:
                part = items[number * SHARD : (number + 1) * SHARD]
                store.append(number, *_shard(model, part, number * SHARD, options, batch, reads or {}))
                task.advance(len(part))
    return _texts(ActivationStore.read_from(out), items, len(_layers(model)), sorted(reads or {}))


def _layers(model: SpeechModel) -> range:
    return range(model.config.decoder_layers)


def _shard(
    model: SpeechModel,
    items: Sequence[Item],
    first: int,
    options: DecodeOptions,
    batch: int | None,
    reads: Mapping[int, str],
) -> tuple[dict[str, np.ndarray], Any]:
    import pandas as pd

    collector = _Collector(model, reads)
    lines: list[dict[str, Any]] = []
    kept: list[dict[str, np.ndarray]] = []
    written = transcribe_all(model, items, options, batch=batch, keep_going=True, watcher=collector)
    for i, (item, transcript) in enumerate(zip(items, written, strict=True)):
        steps = None
        if not isinstance(transcript, AudioError) and (i, 1) not in collector.done:
            steps = collector.done[i, 0]
            kept.append(steps)
        lines.append(_line(item, first + i, transcript, steps))
    tensors = {name: np.concatenate([steps[name] for steps in kept]) for name in (kept[0] if kept else ())}
    table = pd.DataFrame(lines).astype({"reason": "str", "remedy": "str"})
    return tensors, table.where(pd.DataFrame(lines).notna(), None)


def _line(
    item: Item, number: int, transcript: Transcript | AudioError, steps: dict[str, np.ndarray] | None
) -> dict[str, Any]:
    told: dict[str, Any] = {
        "item": number,
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
    for row in store.skipped.to_dict("records"):  # type: ignore[call-overload]
        notice(f"{row['audio_filepath']} is left out: {row['reason']}")
    if not len(index):
        raise ManifestError("None of the recordings can be used.", "Name recordings of at most 30 s.")
    arrays = {name: store.read(name) for name in ("residual", "heard", "signals", "window")}
    read = {layer: store.read(_READ.format(layer)) for layer in reads}
    ends = np.cumsum(index["steps"])
    texts = []
    for n, row in enumerate(index.to_dict("records")):  # type: ignore[call-overload]
        span = slice(int(ends[n] - row["steps"]), int(ends[n]))
        item = items[row["item"]]
        residual = arrays["residual"][span]
        texts.append(
            Text(
                row["item"],
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
