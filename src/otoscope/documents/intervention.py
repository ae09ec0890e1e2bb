"""What is changed in a model or its sound, and what came of it: an `Intervention` and its `Outcome`.

Layers, heads, features and positions are 0-based. Times are seconds from the start of the window that is heard.
"""

from __future__ import annotations

import re
import shlex
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from otoscope.documents.base import Array, Document, Part, Probability, Seconds, Text
from otoscope.documents.explain import LogitLens, ModelInfo, TranscriptInfo
from otoscope.errors import OptionError

_INDEX = (
    "[0-9]{1,9}"  # more digits count nothing that a model has, and Python refuses to read thousands of them
)
_NUMBER = r"[-+]?(?:[0-9]{1,40}\.?[0-9]{0,40}|\.[0-9]{1,40})(?:[eE][-+]?[0-9]{1,2})?"
_TIME = r"[0-9]{1,9}(?:\.[0-9]{1,20})?"
_FEATURE = re.compile(rf"(encoder|decoder):({_INDEX}):({_INDEX})([=x])({_NUMBER})(?:@([0-9.,-]+))?")
_SPAN = re.compile(rf"({_TIME})-({_TIME})")
_COMPONENT = re.compile(
    rf"(encoder|decoder)_blocks\.({_INDEX})\.(self_attn|cross_attn|attn|mlp)(?:\.({_INDEX}))?"
)


class FeatureChange(NamedTuple):
    """One feature and what becomes of it; spelled `encoder:3:604=0`, `decoder:2:17x2`, `encoder:3:604=0@1.2-1.8`.

    Attributes:
        stack: `encoder` or `decoder`.
        layer: Layer that it reads at.
        feature: Its number.
        op: `set` to a value (`=`), or `scale` by a factor (`x`).
        value: The value or factor.
        spans: Of the encoder, where in the sound; empty: everywhere.
        positions: Of the decoder, positions with the prompt included; empty: all, and those still to be written.
    """

    stack: Literal["encoder", "decoder"]
    layer: int
    feature: int
    op: Literal["set", "scale"]
    value: float
    spans: tuple[tuple[float, float], ...] = ()
    positions: tuple[int, ...] = ()

    @classmethod
    def parse(cls, text: str) -> FeatureChange:
        """Read the spelling.

        Raises:
            OptionError: It is none.
        """
        found = _FEATURE.fullmatch(text)
        if not found:
            raise OptionError(
                f"{text!r} names no change of a feature.",
                "Write STACK:LAYER:FEATURE=VALUE, or xFACTOR, such as encoder:3:604=0 or decoder:2:17x2@5.",
            )
        stack, layer, feature, op, value, place = found.groups()
        where: dict[str, tuple] = {}
        if place and stack == "encoder":
            where["spans"] = tuple(parse_span(part) for part in place.split(","))
        elif place:
            where["positions"] = _positions(text, place)
        how = "set" if op == "=" else "scale"
        return cls(stack, int(layer), int(feature), how, float(value), **where)  # type: ignore[arg-type]

    def __str__(self) -> str:
        """The spelling."""
        place = ",".join([*map(spell_span, self.spans), *map(str, self.positions)])
        sign = "=" if self.op == "set" else "x"
        return f"{self.stack}:{self.layer}:{self.feature}{sign}{self.value:.10g}" + (
            f"@{place}" if place else ""
        )


class ZeroedComponent(NamedTuple):
    """An attention block, one of its heads, or an MLP; spelled `decoder_blocks.2.cross_attn.3`, the head last."""

    stack: Literal["encoder", "decoder"]
    layer: int
    part: str
    head: int | None = None

    @classmethod
    def parse(cls, text: str) -> ZeroedComponent:
        """Read the spelling.

        Raises:
            OptionError: It is none.
        """
        found = _COMPONENT.fullmatch(text)
        if not found or (found[4] is not None and found[3] == "mlp"):
            raise OptionError(
                f"{text!r} names no component.",
                "Name a block or a head of it, such as decoder_blocks.2.mlp or decoder_blocks.2.cross_attn.3.",
            )
        return cls(found[1], int(found[2]), found[3], None if found[4] is None else int(found[4]))  # type: ignore[arg-type]

    def __str__(self) -> str:
        """The spelling."""
        return f"{self.stack}_blocks.{self.layer}.{self.part}" + (
            "" if self.head is None else f".{self.head}"
        )


def parse_span(text: str) -> tuple[float, float]:
    """`1.2-1.8`, in seconds, to a tenth of a millisecond.

    Raises:
        OptionError: It is no span, or an empty one.
    """
    found = _SPAN.fullmatch(text)
    begin, end = (round(float(t), 4) for t in found.groups()) if found else (0.0, 0.0)
    if begin >= end:
        raise OptionError(f"{text!r} is no span of time.", "Write begin and end in seconds, such as 1.2-1.8.")
    return begin, end


def spell_span(span: tuple[float, float]) -> str:
    """`1.2-1.8`, to a tenth of a millisecond."""
    return "-".join(f"{round(t, 4):.4f}".rstrip("0").rstrip(".") for t in span)


def _positions(text: str, place: str) -> tuple[int, ...]:
    parts = place.split(",")
    if not all(re.fullmatch(_INDEX, part) for part in parts):
        raise OptionError(
            f"{text!r} names a place that the decoder does not have.",
            "Name positions of its text, the prompt included, such as @5 or @5,6.",
        )
    return tuple(map(int, parts))


def _span_of(given: object) -> object:
    return parse_span(given) if isinstance(given, str) else given


def _spelled_span(span: tuple[float, float]) -> tuple[float, float]:
    return parse_span(spell_span(span))  # what is run is what the command line says


Span = Annotated[tuple[Seconds, Seconds], BeforeValidator(_span_of), AfterValidator(_spelled_span)]
"""Begin and end in seconds, to a tenth of a millisecond."""


class Intervention(Part):
    """What is changed; all of it together.

    Attributes:
        silence: Spans of the sound that are silenced, before the spectrogram is made.
        zero: Attention blocks, single heads and MLPs whose output is set to zero: `decoder_blocks.2.cross_attn.3`.
        features: Features that are set or scaled: `encoder:3:604=0`; several of one concept are a supernode.
        dictionary: What features of the decoder are: a folder, or `neurons`, the model's own.
        encoder_dictionary: The same of the encoder.

    Raises:
        OptionError: A component, feature or span is not spelled as one.
    """

    model_config = ConfigDict(frozen=True)

    silence: tuple[Span, ...] = ()
    zero: tuple[Text, ...] = ()
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
        return bool(self.silence or self.zero or self.features)

    def components(self) -> list[ZeroedComponent]:
        """What is zeroed."""
        return [ZeroedComponent.parse(text) for text in self.zero]

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
    decoder. `python` and `command` do the same again.
    """

    kind: Literal["intervention"] = "intervention"
    version: Literal[1] = 1
    title: Text
    file: Text
    offset: Seconds = 0.0
    duration: Seconds
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
        lines = [
            f"{self.model.name} wrote: {before.transcript.text.strip() or '(nothing)'}",
            f"changed: {after.transcript.text.strip() or '(nothing)'}"
            if self.changed
            else "changed: the same text",
            f"The written tokens change by {self.size:.2f} nats on average.",
        ]
        if before.risk and after.risk:
            lines.append(
                f"Risk {before.risk.text:.2f} before, {after.risk.text:.2f} after (alarm from {before.risk.threshold:.2f})."
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


def python_line(model: str, clip: str, intervention: Intervention, how: dict[str, object]) -> str:
    """Python that does it again.

    Args:
        model: Name that `load_model` takes.
        clip: The recording's path.
        intervention: What is changed.
        how: Further arguments of `intervene` that are not their default.
    """
    more = "".join(f", {name}={value!r}" for name, value in how.items())
    return f"import otoscope as oto; outcome = oto.intervene(oto.load_model({model!r}), {clip!r}, oto.{intervention!r}{more})"


def command_line(model: str, clip: str, intervention: Intervention, how: dict[str, object]) -> str:
    """The command that does it again; see `python_line`."""
    words = ["otoscope", "intervene", clip, "--model", model, *intervention.options()]
    for name, value in how.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join(words)
