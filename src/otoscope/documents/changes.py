"""How changes are spelled, the same in Python, on the command line and on a page: components, features and spans of time.

Layers, heads, features and positions are 0-based. Times are seconds from the start of the window that is heard.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, NamedTuple

from pydantic import AfterValidator, BeforeValidator

from otoscope.documents.base import Seconds
from otoscope.errors import OptionError

# More digits count nothing that a model has, and Python refuses to read thousands of them.
_INDEX = "[0-9]{1,9}"
_NUMBER = r"[-+]?(?:[0-9]{1,40}\.?[0-9]{0,40}|\.[0-9]{1,40})(?:[eE][-+]?[0-9]{1,2})?"
_TIME = r"[0-9]{1,9}(?:\.[0-9]{1,20})?"
_FEATURE = re.compile(rf"(encoder|decoder|text):({_INDEX}):({_INDEX})([=x])({_NUMBER})(?:@([0-9.,-]+))?")
_SPAN = re.compile(rf"({_TIME})-({_TIME})")
_COMPONENT = re.compile(
    rf"(encoder_|decoder_|)blocks\.({_INDEX})\.(self_attn|cross_attn|attn|mlp)(?:\.({_INDEX}))?"
)
_SCALED = re.compile(rf"(.+?)x({_NUMBER})")

Stack = Literal["encoder", "decoder", "text"]
"""The stacks of a recogniser, or that of a language model."""


class FeatureChange(NamedTuple):
    """One feature and what becomes of it; spelled `encoder:3:604=0`, `decoder:2:17x2`, `encoder:3:604=0@1.2-1.8`, `text:9:1=0@3`.

    Attributes:
        stack: Whose it is.
        layer: Layer that it reads at.
        feature: Its number.
        op: `set` to a value (`=`), or `scale` by a factor (`x`).
        value: The value or factor.
        spans: Of the encoder, where in the sound; empty: everywhere.
        positions: Of the decoder or a language model, with the prompt included; empty: all, and those still to be written.
    """

    stack: Stack
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
                "Write STACK:LAYER:FEATURE=VALUE, or xFACTOR, such as encoder:3:604=0, decoder:2:17x2@5 or text:9:1=0.",
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


class ComponentChange(NamedTuple):
    """An attention block, one of its heads, or an MLP, whose output is multiplied by a factor.

    Zeroed, it is spelled by its place, the head last: `decoder_blocks.2.cross_attn.3`, of a language model `blocks.9.attn.3`;
    scaled, with the factor behind it: `blocks.9.attn.3x0.5`.
    """

    stack: Stack
    layer: int
    part: str
    head: int | None = None
    factor: float = 0.0

    @classmethod
    def parse(cls, text: str) -> ComponentChange:
        """Read the spelling of a zeroed one.

        Raises:
            OptionError: It is none.
        """
        found = _COMPONENT.fullmatch(text)
        if not found or (found[4] is not None and found[3] == "mlp"):
            raise OptionError(
                f"{text!r} names no component.",
                "Name a block or a head of it, such as decoder_blocks.2.mlp or decoder_blocks.2.cross_attn.3, "
                "of a language model blocks.2.attn.3.",
            )
        stack = found[1].removesuffix("_") or "text"
        return cls(stack, int(found[2]), found[3], None if found[4] is None else int(found[4]))  # type: ignore[arg-type]

    @classmethod
    def parse_scaled(cls, text: str) -> ComponentChange:
        """Read the spelling of a scaled one.

        Raises:
            OptionError: It is none.
        """
        found = _SCALED.fullmatch(text)
        if not found:
            raise OptionError(
                f"{text!r} names no factor.", "Write COMPONENTxFACTOR, such as blocks.2.attn.3x0.5."
            )
        return cls.parse(found[1])._replace(factor=float(found[2]))

    @property
    def place(self) -> str:
        """The component alone."""
        prefix = "" if self.stack == "text" else f"{self.stack}_"
        return f"{prefix}blocks.{self.layer}.{self.part}" + ("" if self.head is None else f".{self.head}")

    def __str__(self) -> str:
        """The spelling; without a factor it is zeroed."""
        return self.place + (f"x{self.factor:.10g}" if self.factor else "")


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
            f"{text!r} names a place that a text does not have.",
            "Name positions of the text, the prompt included, such as @5 or @5,6.",
        )
    return tuple(map(int, parts))


def _span_of(given: object) -> object:
    return parse_span(given) if isinstance(given, str) else given


def _spelled_span(span: tuple[float, float]) -> tuple[float, float]:
    return parse_span(spell_span(span))  # what is run is what the command line says


Span = Annotated[tuple[Seconds, Seconds], BeforeValidator(_span_of), AfterValidator(_spelled_span)]
"""Begin and end in seconds, to a tenth of a millisecond."""
