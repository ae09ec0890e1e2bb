"""One face for all models that write what they hear, so that sweeps over a corpus need not know the family."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import torch

from otoscope.audio import Clip, info
from otoscope.corpora import Item
from otoscope.errors import ModelError
from otoscope.models.decoding import Decoded, DecoderSession, batches, detect_languages
from otoscope.models.hearing import Heard, listen
from otoscope.models.qwen2_audio import AUDIO_PROMPT, AudioLanguageModel
from otoscope.models.transcripts import DecodeOptions
from otoscope.models.whisper import SpeechModel
from otoscope.patching.changes import Change
from otoscope.patching.generative import Row, write_changes, write_rows
from otoscope.patching.judging import Text
from otoscope.patching.texts import write_texts

if TYPE_CHECKING:
    from otoscope.models.base import Model

MAX_TOKENS = 224
"""Tokens written at most: half of Whisper's positions, as OpenAI's own decoding allows."""

_ROUNDING = 0.01  # seconds by which a length in a manifest may be off


@dataclass(frozen=True)
class Written(Text):
    """A text with what Whisper's rules look at; None where the model has no such thing.

    Attributes:
        logprobs: Log-probability of each token, and of the end token if it was written.
        no_speech_prob: Of the window.
    """

    logprobs: Sequence[float] | None = None
    no_speech_prob: float | None = None

    @property
    def avg_logprob(self) -> float | None:
        """Sum of log-probabilities, the end token's included, over the number of tokens plus one (OpenAI's rule)."""
        return None if self.logprobs is None else sum(self.logprobs) / (len(self.ids) + 1)


class Writer(Protocol):
    """Writes clips, with and without changes."""

    def hear(self, clip: Clip, language: str | None = None) -> Any:
        """What is computed of a clip once, whatever is then changed."""
        ...

    def write(
        self, heard: Sequence[Any], change: Change | None, elsewhere: Sequence[Any] | None = None
    ) -> list[Written]:
        """Several clips, all under one change."""
        ...

    def vary(
        self,
        heard: Any,
        changes: Sequence[Change],
        elsewhere: Any = None,
        before: Text | None = None,
        batch: int | None = None,
    ) -> Iterator[tuple[int, Written]]:
        """One clip under each of many changes; yields the change's number and the text."""
        ...


def writer_of(model: Model, max_tokens: int = MAX_TOKENS, language: str | None = None) -> Writer:
    """The writer of a model that hears.

    Raises:
        ModelError: The model hears nothing.
        OptionError: The language does not fit the model.
    """
    if isinstance(model, SpeechModel):
        return WhisperWriter(model, max_tokens, model.check_language(language))
    if isinstance(model, AudioLanguageModel):
        return AudioLanguageWriter(model, max_tokens)
    raise ModelError(
        f"{model.origin.name} does not listen.",
        "Use a Whisper model or Qwen2-Audio; language models are patched in Python, see otoscope.patching.",
    )


@dataclass(frozen=True, eq=False)
class _WhisperHeard:
    """A clip, and the language it is written in."""

    heard: Heard
    language: str


class WhisperWriter:
    """Writes with Whisper: greedily, without timestamps, the checkpoint's suppress lists on."""

    def __init__(self, model: SpeechModel, max_tokens: int, language: str | None) -> None:
        self.model, self.max_tokens, self.language = model, max_tokens, language

    def hear(self, clip: Clip, language: str | None = None) -> _WhisperHeard:
        """Run the encoder; the language is the given one, else the item's where the model knows it, else detected."""
        heard = listen(self.model, clip)
        known = self.language or (language if language in self.model.languages else None)
        if known is None and self.model.is_multilingual:
            known = detect_languages(self.model, DecoderSession(self.model, heard.encoded))[0]
        return _WhisperHeard(heard, known or "en")

    def write(
        self,
        heard: Sequence[_WhisperHeard],
        change: Change | None,
        elsewhere: Sequence[_WhisperHeard] | None = None,
    ) -> list[Written]:
        """See `Writer.write`."""
        if not heard:
            return []
        prompts = torch.tensor([self.model.prompt(h.language) for h in heard], device=self.model.device)
        rows = [Row(i, change) for i in range(len(heard))]
        other = None if elsewhere is None else [h.heard for h in elsewhere]
        decoded = write_rows(
            self.model, [h.heard for h in heard], rows, prompts, self._options(prompts.shape[1]), other
        )
        return [self._text(d, h.language) for d, h in zip(decoded, heard, strict=True)]

    def vary(
        self,
        heard: _WhisperHeard,
        changes: Sequence[Change],
        elsewhere: _WhisperHeard | None = None,
        before: Text | None = None,
        batch: int | None = None,
    ) -> Iterator[tuple[int, Written]]:
        """See `Writer.vary`."""
        prompt = self.model.prompt(heard.language)
        found = write_changes(
            self.model,
            heard.heard,
            changes,
            prompt,
            self._options(len(prompt)),
            elsewhere and elsewhere.heard,
            before.ids if before else (),
            batch or self.model.batch,
        )
        for i, decoded in found:
            yield i, self._text(decoded, heard.language)

    def _options(self, prompt: int) -> DecodeOptions:
        return DecodeOptions(max_positions=min(self.model.max_positions, prompt + self.max_tokens))

    def _text(self, decoded: Decoded, language: str) -> Written:
        text = self.model.tokenizer.decode(decoded.ids, skip_special_tokens=True).strip()
        return Written(text, tuple(decoded.ids), language, tuple(decoded.logprobs), decoded.no_speech_prob)


class AudioLanguageWriter:
    """Writes with Qwen2-Audio under one prompt, greedily."""

    def __init__(self, model: AudioLanguageModel, max_tokens: int, prompt: str = AUDIO_PROMPT) -> None:
        self.model, self.max_tokens, self.prompt = model, max_tokens, prompt

    def hear(self, clip: Clip, language: str | None = None) -> dict[str, Any]:
        """The model's inputs for a clip."""
        return self.model.inputs([clip], self.prompt)

    def write(
        self,
        heard: Sequence[dict[str, Any]],
        change: Change | None,
        elsewhere: Sequence[dict[str, Any]] | None = None,
    ) -> list[Written]:
        """See `Writer.write`; clips are written one by one, since their prompts differ in length."""
        other = elsewhere or [None] * len(heard)
        return [
            self._text(write_texts(self.model, inputs, [change], self.max_tokens, reference)[0])
            for inputs, reference in zip(heard, other, strict=True)
        ]

    def vary(
        self,
        heard: dict[str, Any],
        changes: Sequence[Change],
        elsewhere: dict[str, Any] | None = None,
        before: Text | None = None,
        batch: int | None = None,
    ) -> Iterator[tuple[int, Written]]:
        """See `Writer.vary`."""
        for chunk in batches(range(len(changes)), batch or self.model.batch):
            rows = write_texts(self.model, heard, [changes[i] for i in chunk], self.max_tokens, elsewhere)
            yield from zip(chunk, map(self._text, rows), strict=True)

    def _text(self, ids: list[int]) -> Written:
        return Written(self.model.tokenizer.decode(ids, skip_special_tokens=True).strip(), tuple(ids), None)


def window_of(model: Model) -> float:
    """Seconds that the model hears at once."""
    return model.window_seconds if isinstance(model, SpeechModel) else 30.0


def first_window(item: Item, seconds: float = 30.0) -> Clip:
    """The first window of a recording.

    Raises:
        AudioError: The recording cannot be read.
    """
    return next(item.windows(seconds))


def heard_of(item: Item, seconds: float = 30.0) -> Item:
    """The item as its first window can be judged: what was said in a longer recording is not what was said in its window."""
    if not item.text:
        return item
    whole = info(item.path).duration if item.audio_filepath else None
    left = None if whole is None else whole - item.offset
    length = min((x for x in (item.duration, left) if x is not None), default=seconds)
    return item if length <= seconds + _ROUNDING else replace(item, text=None)
