"""What `explain` found out about one clip: the document behind its page and its JSON file.

All indices (tokens, layers, heads, ranks, positions) are 0-based. Times are seconds from the start of the
explained window, log-probabilities and entropies are in nats.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from otoscope.documents.base import (
    Array,
    Document,
    Entropy,
    Index,
    JsonScalar,
    LogProbability,
    Part,
    Probability,
    Resource,
    Seconds,
    Text,
)
from otoscope.files import atomic_write

Count = Annotated[int, Field(ge=1)]


class ModelInfo(Part):
    """Which model was opened, and how it ran."""

    name: Text
    family: Text
    source: Text  # where the weights came from: hub id, wheel, folder or file
    sha256: Text | None = None  # of the weights file
    dtype: Text
    attention: Text  # the attention implementation that ran
    encoder_layers: Index
    decoder_layers: Count
    heads: Count
    mended: Text | None = None  # the repair that was in force


class AudioInfo(Part):
    """The explained window and where it lies in the recording."""

    file: Text
    duration: Seconds  # of the explained window, without padding
    sampling_rate: Count = 16_000
    window_seconds: Seconds = 30.0  # what the model was given, padding included
    mel_hop_seconds: Seconds = 0.01
    frame_seconds: Seconds = 0.02  # one encoder position
    start: Seconds = 0.0  # of the window in the recording
    recording_duration: Seconds  # longer than `duration` when only a window is explained


class TokenInfo(Part):
    """One generated token; `p`, `logprob` and `entropy` are those of the step that wrote it."""

    index: Index
    id: Index
    text: Text
    p: Probability
    logprob: LogProbability
    entropy: Entropy
    start: Seconds | None = None
    end: Seconds | None = None


class WordInfo(Part):
    """One word and its tokens, `first_token` to `last_token` inclusive."""

    text: Text
    start: Seconds | None = None
    end: Seconds | None = None
    p: Probability
    first_token: Index
    last_token: Index


class TranscriptInfo(Part):
    """What the model wrote."""

    text: Text
    language: Text | None = None
    tokens: list[TokenInfo]
    words: list[WordInfo]
    no_speech_prob: Probability | None = None
    avg_logprob: float | None = None
    compression_ratio: float | None = None
    reference: Text | None = None
    wer: Annotated[float, Field(ge=0)] | None = None  # against `reference`; 0.1 is one error in ten words


class Alignment(Part):
    """Cross-attention of the alignment heads, averaged.

    `matrix` is (tokens, encoder positions).
    """

    heads: list[tuple[Index, Index]]  # (decoder layer, head)
    matrix: Array


class Candidate(Part):
    """A token and its probability in one lens reading."""

    id: Index
    text: Text
    p: Probability


class LensLayer(Part):
    """The logit lens of one token after one decoder layer. "Final" is the token that was written."""

    layer: Index
    top: list[Candidate]
    p_final: Probability
    rank_final: Index  # 0 is the most probable token
    entropy: Entropy


class LensToken(Part):
    """The logit lens of one token.

    `saturation_layer` is the first layer from which on the written token stays on top; omitted when the last
    layer itself ranks another token first (one that decoding suppressed).
    """

    index: Index
    saturation_layer: Index | None = None
    layers: list[LensLayer]


class LogitLens(Part):
    """Every decoder layer read through the final layer norm and the unembedding."""

    layers: Count
    tokens: list[LensToken]


class EncoderLensLayer(Part):
    """What the decoder writes when it listens to one encoder layer through the final layer norm."""

    layer: Index
    text: Text
    is_final_text: bool  # the same text as the ordinary transcript
    type: Text | None = None  # see `otoscope.outcomes.OutputType`; correct is near the ordinary transcript


class Component(Part):
    """Something that was zeroed: a whole attention or MLP block, or one attention head of it."""

    id: Text  # a hook point's path, "decoder_blocks.2.cross_attn"
    label: Text  # short name, "DL2 cross-attn" or "DL2H4 cross-attn"
    stack: Literal["encoder", "decoder"]
    layer: Index
    part: Literal["self_attn", "cross_attn", "mlp", "attn"]
    head: Index | None = None


class Ablation(Part):
    """How much each token depends on each component.

    `change` is (components, tokens) in nats: log p(token | component zeroed) - log p(token), with the written
    tokens given to the decoder. Negative: the component helped.
    """

    components: list[Component]
    change: Array


class Timing(Part):
    """Wall-clock time of one stage."""

    stage: Text
    seconds: Seconds


class ExplainDoc(Document):
    """One clip explained.

    `waveform` is (2, bins): the minimum and the maximum of each bin over the window's `audio.duration`. `mel`
    is (mel bins, frames) as the model saw it, lowest bin first; frames past the clip's end may be left out.
    `resources["audio"]` is the window as a WAV file.
    """

    kind: Literal["explain"] = "explain"
    version: Literal[1] = 1
    title: Text
    model: ModelInfo
    settings: dict[Text, JsonScalar]
    versions: dict[Text, Text]  # package -> version
    seed: int | None = None
    audio: AudioInfo
    waveform: Array
    mel: Array
    transcript: TranscriptInfo
    alignment: Alignment
    logit_lens: LogitLens
    encoder_lens: list[EncoderLensLayer]
    ablation: Ablation
    timings: list[Timing]
    notes: list[Text]  # what the page does not show, and what to beware of
    cautions: list[Text] = Field(default_factory=list)  # what is odd about this very clip, said first
    resources: dict[Text, Resource]
    selected_token: Index | None = None  # shown first; without it the least certain one

    @model_validator(mode="after")
    def _parts_agree(self) -> ExplainDoc:
        count = len(self.transcript.tokens)
        _require(len(self.waveform.shape) == 2 and self.waveform.shape[0] == 2, "waveform is not (2, bins)")
        _require(len(self.mel.shape) == 2, "mel is not (mel bins, frames)")
        _require(
            len(self.alignment.matrix.shape) == 2 and self.alignment.matrix.shape[0] == count,
            "alignment.matrix is not (tokens, encoder positions)",
        )
        _require(
            self.ablation.change.shape == (len(self.ablation.components), count),
            "ablation.change is not (components, tokens)",
        )
        for tokens, name in ((self.transcript.tokens, "transcript"), (self.logit_lens.tokens, "logit_lens")):
            _require(
                [token.index for token in tokens] == list(range(count)), f"{name}.tokens are misnumbered"
            )
        _require(
            self.selected_token is None or self.selected_token < count,
            "selected_token is not the index of a token",
        )
        _require(
            all(word.first_token <= word.last_token < count for word in self.transcript.words),
            "a word names a token that does not exist",
        )
        return self

    def to_data(self) -> dict[str, Any]:
        """The results for programs: plain JSON values with six significant digits.

        Pictures and sound (waveform, mel, alignment matrix, resources) are left out; `ablation.change` is a
        list of lists, (components, tokens).
        """
        drawn = {
            "waveform": True,
            "mel": True,
            "resources": True,
            "selected_token": True,
            "alignment": {"matrix"},
        }
        data = self.model_dump(mode="json", exclude_none=True, exclude=drawn)
        data["ablation"]["change"] = self.ablation.change.unpack().tolist()
        return _rounded(data)

    def to_json(self, path: Path | str) -> None:
        """Write `to_data()` to a file, indented.

        Raises:
            OutputError: The file cannot be written.
        """
        with atomic_write(path) as file:
            json.dump(self.to_data(), file, ensure_ascii=False, allow_nan=False, indent=1)
            file.write("\n")

    def summary(self) -> str:
        """A few lines of plain text: what was written, the least certain word and its head, what is odd."""
        transcript = self.transcript
        mended = f", mended by {self.model.mended}," if self.model.mended else ""
        lines = [self.title, f"{self.model.name}{mended} wrote: {transcript.text.strip() or '(nothing)'}"]
        if transcript.words:
            word = min(transcript.words, key=lambda word: word.p)
            lines.append(f"Least certain word: {word.text.strip()} (p = {word.p:.2f})")
            lines += self._hangs_on(word)
        if transcript.wer is not None:
            lines.append(f"Word error rate: {transcript.wer:.1%}")
        return "\n".join([*lines, *self.cautions])

    def _hangs_on(self, word: WordInfo) -> list[str]:
        """The head without which a word is least probable."""
        heads = [i for i, component in enumerate(self.ablation.components) if component.head is not None]
        if not heads:
            return []
        change = self.ablation.change.unpack()[:, word.first_token : word.last_token + 1].sum(axis=1)
        most = min(heads, key=lambda i: change[i])
        label = self.ablation.components[most].label
        return [f"It hangs most on {label} ({change[most]:+.2f} nats with that head zeroed)"]


def _require(condition: bool, complaint: str) -> None:
    if not condition:
        raise ValueError(complaint)


def _rounded(value: Any) -> Any:
    """The same JSON value with floats cut to six significant digits."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return value
