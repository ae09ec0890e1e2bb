"""What `explain` found out about one clip: the document behind its page and its JSON file.

All indices (tokens, layers, heads, ranks, positions) are 0-based. Times are seconds from the start of the
explained window, log-probabilities and entropies are in nats.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from otoscope.documents.audio import AudioInfo
from otoscope.documents.base import (
    Array,
    Count,
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
    require_numbered,
)
from otoscope.documents.bench import Accounts, FeatureRow, HeadAttention, Risk
from otoscope.documents.explain_words import in_words
from otoscope.documents.graph import GraphData
from otoscope.figures.heat_map import lens_figure
from otoscope.figures.style import Saved
from otoscope.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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

    def plot(self, texts: Sequence[str], title: str, path: Saved = None, *, dark: bool = False) -> Figure:
        """Draw it for a paper; `texts` are those of the tokens. See `otoscope.figures`."""
        tokens = [one.model_dump() | {"text": text} for one, text in zip(self.tokens, texts, strict=True)]
        return lens_figure(tokens, title, path=path, dark=dark)


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


class Control(Part):
    """What heads of an attention part are compared with: a random subspace of a head's width, taken out of what it writes."""

    stack: Literal["encoder", "decoder"]
    layer: Index
    part: Literal["self_attn", "cross_attn", "attn"]


class Ablation(Part):
    """How much each token depends on each component.

    `change` is (components, tokens) in nats: log p(token | component zeroed) - log p(token), with the written
    tokens given to the decoder. Negative: the component helped. `control_change` is (controls, tokens).
    """

    components: list[Component]
    change: Array
    controls: list[Control] = Field(default_factory=list)
    control_change: Array | None = None


class Circuit(Part):
    """What made the model write one token, and why it was traced."""

    token: Index
    why: Literal["alarm", "asked for", "least certain"]
    graph: GraphData


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
    in_words: list[Text] = Field(default_factory=list)  # the explanation in short, a sentence or two each
    left_out: list[Text] = Field(default_factory=list)  # what was not computed or is not shown, and why
    head_attention: HeadAttention | None = None
    accounts: Accounts | None = None
    risk: Risk | None = None
    feature_rows: list[FeatureRow] = Field(default_factory=list)
    circuits: list[Circuit] = Field(default_factory=list)
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
        controls = self.ablation.control_change
        _require(
            (controls.shape if controls else (0, count)) == (len(self.ablation.controls), count),
            "ablation.control_change is not (controls, tokens)",
        )
        self._rows_agree(count)
        require_numbered(self.transcript.tokens, count, "transcript.tokens")
        require_numbered(self.logit_lens.tokens, count, "logit_lens.tokens")
        _require(
            self.selected_token is None or self.selected_token < count,
            "selected_token is not the index of a token",
        )
        _require(
            all(word.first_token <= word.last_token < count for word in self.transcript.words),
            "a word names a token that does not exist",
        )
        return self

    def _rows_agree(self, count: int) -> None:
        """What is drawn under the sound has a place for every token."""
        if self.head_attention is not None:
            heads = (len(self.head_attention.heads), count)
            shapes = [self.head_attention.matrix.shape[:2], self.head_attention.peak.shape]
            _require(all(shape == heads for shape in shapes), "head_attention is not (heads, tokens, ...)")
        if self.accounts is not None:
            spans = len(self.accounts.spans)
            _require(
                self.accounts.sound.shape == (count, spans) and self.accounts.text.shape == (count, count),
                "accounts are not (tokens, spans) and (tokens, tokens)",
            )
            _require(len(self.accounts.tokens) == count, "accounts.tokens are not one a token")
        if self.risk is not None:
            _require(
                len(self.risk.steps) in (count, count + 1),
                "risk.steps are not one a token and one for the end",
            )
        _require(all(one.token <= count for one in self.circuits), "a circuit is of no token")

    def to_data(self) -> dict[str, Any]:
        """The results for programs: plain JSON values with six significant digits.

        Pictures and sound (waveform, mel, attention, rows of features, edges of circuits, resources) are left out; other
        arrays, such as `ablation.change` (components, tokens), are nested lists.
        """
        drawn = {
            "waveform": True,
            "mel": True,
            "resources": True,
            "selected_token": True,
            "alignment": {"matrix"},
            "head_attention": {"matrix"},
            "feature_rows": {"__all__": {"values"}},
            "circuits": {"__all__": {"graph": {"edges", "annotations"}}},
        }
        data = self.model_dump(mode="json", exclude_none=True, exclude=drawn)
        return _rounded(_listed(data))

    def to_json(self, path: Path | str) -> None:
        """Write `to_data()` to a file, indented.

        Raises:
            OutputError: The file cannot be written.
        """
        with atomic_write(path) as file:
            json.dump(self.to_data(), file, ensure_ascii=False, allow_nan=False, indent=1)
            file.write("\n")

    def plot(self, path: Saved = None, *, dark: bool = False) -> Figure:
        """Draw the logit lens for a paper; the page saves every other figure.

        Args:
            path: Also write it there, as .png, .svg or .pdf.
            dark: On a dark ground.

        Raises:
            OutputError: The file cannot be written.
            OptionError: No token was written.
        """
        texts = [token.text for token in self.transcript.tokens]
        return self.logit_lens.plot(texts, self.title, path, dark=dark)

    def summary(self) -> str:
        """A few lines of plain text: what was written, which word to doubt and why, what is odd."""
        return "\n".join([self.title, *(self.in_words or in_words(self)), *self.cautions])


def _require(condition: bool, complaint: str) -> None:
    if not condition:
        raise ValueError(complaint)


def _listed(value: Any) -> Any:
    """The same JSON value with packed arrays as nested lists."""
    if isinstance(value, dict) and value.keys() == Array.model_fields.keys():
        return Array.model_validate(value).unpack().tolist()
    if isinstance(value, dict):
        return {key: _listed(item) for key, item in value.items()}
    return [_listed(item) for item in value] if isinstance(value, list) else value


def _rounded(value: Any) -> Any:
    """The same JSON value with floats cut to six significant digits."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return value
