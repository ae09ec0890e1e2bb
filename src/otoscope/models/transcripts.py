"""What a recogniser wrote, with everything needed to trace and judge it."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from otoscope.showing import Shows

if TYPE_CHECKING:
    from otoscope.documents.card import Card


@dataclass(frozen=True)
class DecodeOptions:
    """How to decode. The defaults are stated because every rate depends on them.

    Attributes:
        language: Code to force, or None to detect (multilingual models) on the first window.
        task: `transcribe`, or `translate` into English.
        timestamps: Let the model write timestamp tokens (its own rules apply); default none.
        previous: Earlier text to condition the first tokens on.
        temperature: 0 is greedy; above, tokens are sampled from the tempered distribution. There is no fallback.
        seed: Of sampling. A row's draws depend on the seed and its recording and window alone, not on the batch.
        max_positions: Decoder positions at most, prompt included; None: as many as the model has (448).
        suppress: Apply the checkpoint's suppress lists, as Hugging Face does.
    """

    language: str | None = None
    task: str = "transcribe"
    timestamps: bool = False
    previous: str | None = None
    temperature: float = 0.0
    seed: int = 0
    max_positions: int | None = None
    suppress: bool = True

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready settings; unset ones are left out."""
        return {key: value for key, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class Token:
    """One written token.

    Attributes:
        id: Vocabulary id.
        text: What it decodes to by itself (part of a character may show as U+FFFD).
        logprob: Natural log-probability under the distribution it was chosen from (suppressed tokens excluded).
        entropy: Entropy of that distribution in nats.
        start: Seconds into the recording, from cross-attention alignment.
        end: Seconds into the recording.
    """

    id: int
    text: str
    logprob: float
    entropy: float
    start: float
    end: float

    @property
    def p(self) -> float:
        """Probability."""
        return math.exp(self.logprob)


@dataclass(frozen=True)
class Word:
    """Tokens `first_token` to `last_token` (0-based, inclusive, within the transcript) that make a word.

    Attributes:
        text: The word with the punctuation that touches it.
        start: Seconds into the recording.
        end: Seconds into the recording.
        probability: Mean of its tokens' probabilities; tokens of punctuation alone are left out where there are others.
        first_token: Index of its first token.
        last_token: Index of its last token.
    """

    text: str
    start: float
    end: float
    probability: float
    first_token: int
    last_token: int


@dataclass(frozen=True)
class Segment:
    """One decoding window, or a timestamped part of one.

    Attributes:
        start: Seconds into the recording.
        end: Seconds into the recording.
        text: What was written for it.
        first_token: Index of its first token in the transcript.
        end_token: Index after its last token.
        no_speech_prob: Probability of `<|nospeech|>` right after `<|startoftranscript|>`.
        avg_logprob: Sum of log-probabilities, end token included, over the number of tokens plus one (OpenAI's rule); of a
            timestamped part, the mean over its tokens.
        compression_ratio: UTF-8 bytes over zlib bytes of the text; above 2.4 suggests a loop.
        finished: Whether the model ended by itself; False when it ran out of positions.
    """

    start: float
    end: float
    text: str
    first_token: int
    end_token: int
    no_speech_prob: float
    avg_logprob: float
    compression_ratio: float
    finished: bool


@dataclass(frozen=True)
class Transcript(Shows):
    """A recording's transcript.

    Attributes:
        text: The whole text.
        language: Language decoded in.
        tokens: Generated tokens, without prompt and end tokens.
        words: Words with times.
        segments: Decoding windows in order, or their timestamped parts.
        duration: Seconds of audio heard.
        no_speech_prob: Of the first window.
        avg_logprob: Mean over windows, weighted by tokens plus one.
        compression_ratio: Of the whole text.
        source: Path as given, or None.
        prompt: Decoder prompt ids of the first window.
        settings: How it was decoded.
        model: Facts about the model, see `Model.describe`.
    """

    text: str
    language: str
    tokens: tuple[Token, ...]
    words: tuple[Word, ...]
    segments: tuple[Segment, ...]
    duration: float
    no_speech_prob: float
    avg_logprob: float
    compression_ratio: float
    source: str | None
    prompt: tuple[int, ...]
    settings: DecodeOptions
    model: dict[str, Any]

    def __repr__(self) -> str:
        text = self.text if len(self.text) <= 80 else f"{self.text[:77]}..."
        return f"Transcript({text!r}, {self.language}, {self.duration:.2f} s, {len(self.tokens)} tokens)"

    @property
    def ids(self) -> list[int]:
        """Generated token ids without prompt and end tokens."""
        return [token.id for token in self.tokens]

    def to_dict(self) -> dict[str, Any]:
        """One item of `otoscope transcribe --json` (numbers rounded to what they are worth)."""
        return {
            "text": self.text,
            "language": self.language,
            "duration": round(self.duration, 3),
            "tokens": self.ids,
            "token_logprobs": [round(t.logprob, 5) for t in self.tokens],
            "token_entropies": [round(t.entropy, 5) for t in self.tokens],
            "avg_logprob": round(self.avg_logprob, 5),
            "no_speech_prob": round(self.no_speech_prob, 6),
            "compression_ratio": round(self.compression_ratio, 4),
            "words": [
                {"word": w.text, "start": round(w.start, 2), "end": round(w.end, 2), "probability": round(w.probability, 4)}
                for w in self.words
            ],
            "segments": [
                {
                    "start": round(s.start, 2), "end": round(s.end, 2), "text": s.text, "avg_logprob": round(s.avg_logprob, 5),
                    "no_speech_prob": round(s.no_speech_prob, 6), "compression_ratio": round(s.compression_ratio, 4),
                    "finished": s.finished,
                }
                for s in self.segments
            ],
        }  # fmt: skip

    def dumps(self) -> str:
        """Everything but the facts about the model as JSON, every number exact; see `Transcript.loads`."""
        return json.dumps(asdict(replace(self, model={})))

    @classmethod
    def loads(cls, text: str, model: dict[str, Any]) -> Transcript:
        """The transcript that `dumps` told, equal in every number.

        Args:
            text: What `dumps` gave.
            model: Facts about the model, see `Model.describe`.

        Raises:
            ValueError: It is none.
        """
        try:
            told = json.loads(text)
            if not isinstance(told["text"], str):
                raise TypeError
            parts = {"tokens": Token, "words": Word, "segments": Segment}
            made = {name: tuple(kind(**one) for one in told[name]) for name, kind in parts.items()}
            settings = DecodeOptions(**told["settings"])
            return cls(
                **{**told, **made, "prompt": tuple(told["prompt"]), "settings": settings, "model": model}
            )
        except (KeyError, TypeError) as error:
            raise ValueError("This is no transcript.") from error

    def card(self) -> Card:
        """The words, doubtful ones marked."""
        from otoscope.documents.card import Card, Mark

        marks = [
            Mark(
                text=f"{word.text} ",
                amount=1 - word.probability,
                told=f"{word.start:.2f}–{word.end:.2f} s, p = {word.probability:.2f}",
            )
            for word in self.words
        ]
        note = f"{self.language}, {self.duration:.2f} s, mean log-probability {self.avg_logprob:.3f}; doubtful words are marked"
        return Card(title="Transcript", texts=[marks], note=note)
