"""What a model is taught by: recordings that the encoder has heard once, and the text that ought to be written.

After Calm-Whisper (arXiv 2505.12969): nothing for sounds without speech. Beyond it: for speech what the model writes itself where
that is about right, so that nothing new is learnt there, the small mistakes included: a repair that corrects them in one language
pays in another. And for what makes it loop its own text up to the loop.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from otoscope.audio import Clip
from otoscope.corpora import Item
from otoscope.errors import AudioError, ManifestError, OptionError
from otoscope.mending.breaker import Breaker
from otoscope.models.decoding import Decoded, DecoderSession, batches, decode, detect_languages, prompts_for
from otoscope.models.transcripts import DecodeOptions
from otoscope.outcomes import error_rates, is_loop
from otoscope.patching.judging import is_sound
from otoscope.patching.price import is_repeat
from otoscope.progress import notice, track

if TYPE_CHECKING:
    from torch import Tensor

    from otoscope.models.whisper import SpeechModel

Kind = Literal["sound", "speech", "repeat", "untold"]

ABOUT_RIGHT = 0.34
"""Word error rate up to which speech teaches the model to go on as it does."""

MEMORY = 4.0
"""Gigabytes that encoder outputs may take in memory."""


@dataclass(frozen=True, eq=False)
class HeardItem:
    """A recording as the untouched encoder heard it.

    Attributes:
        item: The recording.
        encoded: Encoder output `(frame, d_model)`, frames of 20 ms, in the precision it is kept in.
        language: Language to write it in: the item's, else the detected one.
    """

    item: Item
    encoded: Tensor
    language: str


@dataclass(frozen=True, eq=False)
class Lesson:
    """A recording and what ought to be written for it.

    Attributes:
        heard: The recording.
        prompt: Prompt ids.
        target: Ids to write, the end token included.
        kind: `sound`, `speech`, `repeat` or `untold`.
    """

    heard: HeardItem
    prompt: list[int]
    target: list[int]
    kind: Kind


def kind_of(item: Item) -> Kind:
    """What a recording is for a repair: a sound without speech, a genuine repetition, speech, or of unknown text."""
    if is_sound(item):
        return "sound"
    if is_repeat(item):
        return "repeat"
    return "speech" if item.text else "untold"


def hear_items(
    model: SpeechModel, corpus: Sequence[Item], batch: int | None = None, memory: float = MEMORY
) -> list[HeardItem]:
    """Run the encoder once over the first window of every recording and keep what it gives, in memory.

    What does not fit in float32 is kept in float16; what is not read or is longer than a window is left out and said.

    Args:
        model: The recogniser, without a repair of its encoder.
        corpus: The recordings.
        batch: Recordings at once.
        memory: Gigabytes at most.

    Raises:
        OptionError: Even in float16 there are too many.
        ManifestError: None can be used.
    """
    kind = _precision(model, len(corpus), memory)
    found: list[HeardItem] = []
    with track("Listening", len(corpus), "recordings") as task, torch.no_grad():
        for chunk in batches(corpus, batch or model.batch):
            readable = list(_readable(chunk, model.window_seconds))
            if readable:
                encoded = model.encode(model.features([clip for _, clip in readable]))
                languages = _languages(model, [item for item, _ in readable], encoded)
                found += [
                    HeardItem(item, row.to(kind, copy=True), language)
                    for (item, _), row, language in zip(readable, encoded, languages, strict=True)
                ]
            task.advance(len(chunk))
    if not found:
        raise ManifestError(
            "None of the recordings can be used.", f"Give recordings of at most {model.window_seconds:g} s."
        )
    return found


def _precision(model: SpeechModel, count: int, memory: float) -> torch.dtype:
    numbers = count * model.config.max_source_positions * model.config.d_model
    for kind, size in ((model.dtype, model.dtype.itemsize), (torch.float16, 2)):
        if numbers * size <= memory * 1e9:
            return kind
    raise OptionError(
        f"What the encoder gives for {count} recordings takes {numbers * 2 / 1e9:.1f} GB, and {memory:g} GB are allowed.",
        "Give fewer recordings, or allow more memory.",
    )


def _readable(chunk: Sequence[Item], window: float) -> Iterator[tuple[Item, Clip]]:
    for item in chunk:
        try:
            clips = item.windows(window)
            first = next(clips)
        except AudioError as error:
            notice(f"{item.audio_filepath} is left out: {error.reason}")
            continue
        if next(clips, None) is None:
            yield item, first
        else:
            notice(f"{item.audio_filepath} is left out: it is longer than {window:g} s.")


def _languages(model: SpeechModel, chunk: Sequence[Item], encoded: Tensor) -> list[str]:
    if not model.is_multilingual:
        return ["en"] * len(chunk)
    known = [item.language if item.language in model.languages else None for item in chunk]
    detected = [] if all(known) else detect_languages(model, DecoderSession(model, encoded))
    return [language or detected[i] for i, language in enumerate(known)]


def write_heard(
    model: SpeechModel,
    heard: Sequence[HeardItem],
    max_tokens: int,
    batch: int | None = None,
    label: str = "Writing",
) -> list[Decoded]:
    """What the decoder, as it is now, writes for each recording: greedily, without timestamps.

    Recordings of one kind are written together: texts of about the same length, no row waits for a loop of another.
    """
    out: dict[int, Decoded] = {}
    with track(label, len(heard), "recordings") as task:
        for chunk in batches(alike_first(heard), batch or model.batch):
            rows = [heard[i] for i in chunk]
            prompts = prompts_for(model, [h.language for h in rows], DecodeOptions())
            most = min(model.max_positions, prompts.shape[1] + max_tokens)
            encoded = torch.stack([h.encoded for h in rows]).to(model.device, model.dtype)
            out |= dict(
                zip(chunk, decode(model, encoded, prompts, DecodeOptions(max_positions=most)), strict=True)
            )
            task.advance(len(chunk))
    return [out[i] for i in range(len(heard))]


def alike_first(heard: Sequence[HeardItem]) -> list[int]:
    """Numbers of the recordings, those of one kind and of about the same length beside each other."""
    return sorted(range(len(heard)), key=lambda i: (kind_of(heard[i].item), heard[i].item.duration or 0.0))


def lessons_of(
    model: SpeechModel,
    heard: Sequence[HeardItem],
    *,
    max_tokens: int = 224,
    breaker: Breaker | None = None,
    batch: int | None = None,
) -> list[Lesson]:
    """What ought to be written for each recording; speech that the untouched model gets wrong teaches nothing
    and is left out.

    Args:
        model: The untouched recogniser.
        heard: The recordings.
        max_tokens: Tokens written at most.
        breaker: Where a loop is cut off.
        batch: Recordings at once.
    """
    breaker = breaker or Breaker()
    out = []
    written = write_heard(model, heard, max_tokens, batch, "Writing what is right")
    for recording, decoded in zip(heard, written, strict=True):
        kind = kind_of(recording.item)
        target = _target(model, recording, decoded, kind, breaker)
        if target is not None:
            out.append(Lesson(recording, decoded.prompt, [*target, model.end_token], kind))
    return out


def _target(
    model: SpeechModel, heard: HeardItem, decoded: Decoded, kind: Kind, breaker: Breaker
) -> list[int] | None:
    if kind == "sound":
        return []
    text = model.tokenizer.decode(decoded.ids, skip_special_tokens=True).strip()
    if kind == "untold":
        if is_loop(text, language=heard.language):
            return until_loop(decoded.ids, breaker)
        return decoded.ids if decoded.finished else None  # a cut text would teach to stop mid-sentence
    rates = error_rates([heard.item.text or ""], [text], heard.language)
    right = rates.wer is not None and rates.wer <= ABOUT_RIGHT and not is_loop(text, language=heard.language)
    return decoded.ids if right and decoded.finished else None


def until_loop(ids: Sequence[int], breaker: Breaker) -> list[int]:
    """The text up to where the breaker would end it, the loop's copies but one left out."""
    for end in range(2, len(ids) + 1):
        loop = breaker.going_on(ids[:end])
        if loop:
            n = next(
                n
                for n in range(1, end)
                if ids[end - n] in loop and ids[end - 2 * n : end - n] == ids[end - n : end]
            )
            start = end
            while start - 2 * n >= 0 and ids[start - 2 * n : start - n] == ids[start - n : start]:
                start -= n
            return list(ids[:start])
    return list(
        ids[: len(ids) // 2]
    )  # a loop of words that change a little: half of it is as good a cut as any
