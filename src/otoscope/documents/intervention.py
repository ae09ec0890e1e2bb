"""What is changed in a model or its sound, and what came of it: an `Intervention` and its `Outcome`.

Layers, heads, features and positions are 0-based. Times are seconds from the start of the window that is heard.
"""

from __future__ import annotations

import shlex
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from otoscope.documents.base import Array, Document, Index, Part, Probability, Seconds, Text
from otoscope.documents.changes import ComponentChange, FeatureChange, Span, spell_span
from otoscope.documents.explain import LogitLens, ModelInfo, TranscriptInfo


class Intervention(Part):
    """What is changed; all of it together.

    Attributes:
        silence: Spans of the sound that are silenced, before the spectrogram is made.
        zero: Attention blocks, single heads and MLPs whose output is set to zero: `decoder_blocks.2.cross_attn.3`, of a language
            model `blocks.9.attn.3`.
        scale: The same, multiplied by a factor: `blocks.9.attn.3x0.5`.
        features: Features that are set or scaled: `encoder:3:604=0`; several of one concept are a supernode.
        dictionary: What features of the stack that writes are: a folder, or `neurons`, the model's own.
        encoder_dictionary: The same of the encoder.

    Raises:
        OptionError: A component, feature or span is not spelled as one.
    """

    model_config = ConfigDict(frozen=True)

    silence: tuple[Span, ...] = ()
    zero: tuple[Text, ...] = ()
    scale: tuple[Text, ...] = ()
    features: tuple[Text, ...] = ()
    dictionary: Text = "neurons"
    encoder_dictionary: Text = "neurons"

    @model_validator(mode="after")
    def _spelled(self) -> Intervention:
        self.components()
        self.changes()
        return self

    def __bool__(self) -> bool:
        """Whether anything is changed."""
        return bool(self.silence or self.zero or self.scale or self.features)

    def components(self) -> list[ComponentChange]:
        """What is zeroed and scaled."""
        return [*map(ComponentChange.parse, self.zero), *map(ComponentChange.parse_scaled, self.scale)]

    def changes(self) -> list[FeatureChange]:
        """Changes of features."""
        return [FeatureChange.parse(text) for text in self.features]

    def __repr__(self) -> str:
        """The expression that makes it."""
        given = [
            f"{name}={list(value) if isinstance(value, tuple) else value!r}"
            for name, value in self
            if value not in ((), "neurons")
        ]
        return f"Intervention({', '.join(given)})"

    __str__ = __repr__

    def options(self) -> list[str]:
        """The options of `otoscope intervene` that say the same."""
        words: list[str] = []
        for name, values in (
            ("--silence", map(spell_span, self.silence)),
            ("--zero", self.zero),
            ("--scale", self.scale),
            ("--feature", self.features),
        ):
            for value in values:
                words += [name, value]
        for name, value in (
            ("--dictionary", self.dictionary),
            ("--encoder-dictionary", self.encoder_dictionary),
        ):
            words += [] if value == "neurons" else [name, value]
        return words


class RiskInfo(Part):
    """What a monitor said of a text: the risk at each written token, and of the whole, its end included."""

    tokens: list[Probability]
    text: Probability
    threshold: float
    alarm: bool


class Written(Part):
    """What was written, what each layer knew, and how far it is to be trusted."""

    transcript: TranscriptInfo
    logit_lens: LogitLens
    risk: RiskInfo | None = None  # where a monitor is known for the model


class NextToken(Part):
    """A token that may follow a prompt: its probability as the model is, and changed."""

    id: Index
    text: Text
    before: Probability
    after: Probability


class WordChange(Part):
    """A run of words that stayed, or were replaced, added or taken away."""

    op: Literal["same", "replaced", "added", "removed"]
    before: Text
    after: Text


class ControlRun(Part):
    """The same change somewhere else, chosen at random."""

    intervention: Intervention
    text: Text
    changed: bool
    size: Annotated[
        float, Field(ge=0)
    ]  # mean size of the change in log-probability of the written tokens, nats


class Outcome(Document):
    """A text before and after an intervention, beside the same done elsewhere at random.

    `change` is (tokens): log p(token | changed) - log p(token) in nats, of the tokens that were written before, given to the
    stack that writes. `python` and `command` do the same again. What a language model continues is a `prompt`; then there is no
    recording, and `next_tokens` are the most probable ones after it on either side, the likeliest before first.
    """

    kind: Literal["intervention"] = "intervention"
    version: Literal[1] = 1
    title: Text
    file: Text = ""
    offset: Seconds = 0.0
    duration: Seconds = 0.0
    prompt: Text | None = None
    next_tokens: list[NextToken] = Field(default_factory=list)
    model: ModelInfo
    intervention: Intervention
    before: Written
    after: Written
    words: list[WordChange]
    change: Array
    size: Annotated[float, Field(ge=0)]  # mean size of `change`, nats
    controls: list[ControlRun]
    seed: int = 0
    python: Text
    command: Text
    notes: list[Text] = Field(default_factory=list)
    seconds: Seconds = 0.0

    @property
    def changed(self) -> bool:
        """Whether another text was written."""
        return self.before.transcript.text != self.after.transcript.text

    def to_data(self) -> dict[str, Any]:
        """The results for programs: plain JSON values; `change` is a list."""
        data = self.model_dump(mode="json", exclude_none=True)
        return data | {"change": self.change.unpack().tolist(), "changed": self.changed}

    def summary(self) -> str:
        """A few lines of plain text: before, after, risk and control."""
        before, after = self.before, self.after
        wrote = "wrote" if self.prompt is None else "continued"
        lines = [
            f"{self.model.name} {wrote}: {before.transcript.text.strip() or '(nothing)'}",
            f"changed: {after.transcript.text.strip() or '(nothing)'}"
            if self.changed
            else "changed: the same text",
            f"The written tokens change by {self.size:.2f} nats on average.",
        ]
        if before.risk and after.risk:
            lines.append(
                f"Risk {before.risk.text:.2f} before, {after.risk.text:.2f} after (alarm from {before.risk.threshold:.2f})."
            )
        if self.next_tokens:
            first = self.next_tokens[0]
            lines.append(
                f"After the prompt p({first.text!r}) goes from {first.before:.3f} to {first.after:.3f}."
            )
        return "\n".join([*lines, self.control_line()])

    def control_line(self) -> str:
        """How often the same change elsewhere altered the text as well, in one sentence."""
        if not self.controls:
            return "There is nothing of the same size elsewhere to compare with."
        changed = sum(run.changed for run in self.controls)
        mean = sum(run.size for run in self.controls) / len(self.controls)
        return (
            f"The same change at {len(self.controls)} random other places altered the text {changed} times, "
            f"and the written tokens by {mean:.2f} nats on average."
        )


def python_line(
    model: str, source: str, intervention: Intervention, how: dict[str, object], *, of_prompt: bool = False
) -> str:
    """Python that does it again.

    Args:
        model: Name that `load_model` takes.
        source: The recording's path, or the prompt.
        intervention: What is changed.
        how: Further arguments that are not their default.
        of_prompt: Whether `source` is a prompt.
    """
    door = "intervene_prompt" if of_prompt else "intervene"
    more = "".join(f", {name}={value!r}" for name, value in how.items())
    return f"import otoscope as oto; outcome = oto.{door}(oto.load_model({model!r}), {source!r}, oto.{intervention!r}{more})"


def command_line(
    model: str, source: str, intervention: Intervention, how: dict[str, object], *, of_prompt: bool = False
) -> str:
    """The command that does it again; see `python_line`."""
    what = ["--prompt", source] if of_prompt else [source]
    words = ["otoscope", "intervene", *what, "--model", model, *intervention.options()]
    for name, value in how.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join(words)
