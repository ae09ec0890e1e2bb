"""What is explained of a recogniser: a recording as it was heard and written, and the written token that a person means."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from otoscope.errors import ModelError, OptionError
from otoscope.lenses.listening import first_window, write
from otoscope.models.transcripts import DecodeOptions, Transcript
from otoscope.models.whisper import SpeechModel

if TYPE_CHECKING:
    from torch import Tensor

    from otoscope.audio import Clip
    from otoscope.corpora import Item

END = "end"
"""What stands for the end of the text, as a token to explain or to compare with."""


@dataclass(frozen=True, eq=False)
class Heard:
    """A recording's first window as the model heard and wrote it.

    Attributes:
        clip: The sound.
        transcript: What was written.
        features: Log-mel spectrogram `(1, mel, column)`.
        prompt: Decoder prompt, token ids.
        duration: Seconds of the whole recording.
        encoded: The encoder's output `(1, frame, d)`, of the untouched model; None: it runs again.
    """

    clip: Clip
    transcript: Transcript
    features: Tensor
    prompt: tuple[int, ...]
    duration: float
    encoded: Tensor | None = None

    @property
    def ids(self) -> list[int]:
        """Prompt and text."""
        return [*self.prompt, *self.transcript.ids]


def listen(
    model: SpeechModel,
    source: Clip | Path | str | Item,
    options: DecodeOptions | None = None,
    offset: float = 0.0,
) -> Heard:
    """Hear the window that begins at `offset` seconds, and write it.

    Raises:
        AudioError: The recording cannot be read.
        ModelError: Nothing was written, so that there is nothing to explain.
    """
    if not isinstance(model, SpeechModel):
        raise ModelError("This model writes no transcripts.", "Trace a Whisper model.")
    clip, duration = first_window(source, model.window_seconds, offset)
    features = model.features(clip)
    with torch.no_grad():
        encoded = model.encode(features)
        transcript, _ = write(model, clip, encoded, options or DecodeOptions())
    kept = encoded if is_untouched(model) else None
    return Heard(clip, transcript, features, transcript.prompt, duration, kept)


def is_untouched(model: SpeechModel) -> bool:
    """Whether nothing is hooked and no repair is in force, so that what was heard before would be heard again."""
    return not (model.open_hooks or model.mended)


def written_target(
    model: SpeechModel, heard: Heard, token: int | str | None = None, against: str | int | None = None
) -> tuple[int, int | None]:
    """The written token that a person means, and the one it is compared with.

    Args:
        model: The recogniser.
        heard: What it wrote.
        token: Index of a written token, from 0 (as many as there are: the end of the text); a word, which stands for its
            first token; `end`; None: the token of a word that the model was least sure of.
        against: Another text for the same place, which is compared where the two first differ; `end`; or a token id.

    Returns:
        Index of the token, from 0, and the id of the other token or None.

    Raises:
        OptionError: There is no such token or word, or both texts are the same.
    """
    written, end = heard.transcript.ids, model.end_token
    index = _index_of(heard, token)
    if against is None:
        return index, None
    if isinstance(against, int):
        return index, against
    if against == END:
        return index, end
    other = model.tokenizer(f" {against.strip()}", add_special_tokens=False)["input_ids"]
    ours = [*written[index:], end]
    for step, (a, b) in enumerate(zip(ours, [*other, end], strict=False)):
        if a != b:
            return index + step, b
    raise OptionError(f"{against!r} is what was written.", "Compare with another text.")


def _index_of(heard: Heard, token: int | str | None) -> int:
    text = heard.transcript
    if isinstance(token, int):
        if not 0 <= token <= len(text.tokens):
            raise OptionError(
                f"There is no token {token}: {len(text.tokens)} were written.",
                f"Choose 0 to {len(text.tokens)}, the last for the end of the text.",
            )
        return token
    if token == END or (token is None and not text.words):
        return len(text.tokens)
    if token is None:
        spoken = [i for w in text.words for i in range(w.first_token, w.last_token + 1)]
        return min(spoken, key=lambda i: text.tokens[i].logprob)
    wanted = _plain(token)
    for word in text.words:
        if _plain(word.text) == wanted:
            return word.first_token
    raise OptionError(
        f"The word {token!r} was not written; the text is {text.text.strip()!r}.",
        "Choose one of its words, or a token by its number.",
    )


def _plain(word: str) -> str:
    return word.strip().strip(".,;:!?\"'()[]…-").casefold() or word.strip()


@dataclass(frozen=True)
class Spoken:
    """A word and its time in the window, in seconds."""

    text: str
    start: float
    end: float


def spoken_words(transcript: Transcript, clip: Clip) -> list[Spoken]:
    """The words of a transcript of a window; its own times count from the recording's begin."""
    return [Spoken(w.text, w.start - clip.start, w.end - clip.start) for w in transcript.words]
