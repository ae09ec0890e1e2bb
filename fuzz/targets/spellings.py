"""What people and pages write as text: changes of features, components, spans of time, and interventions as JSON."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from otoscope.documents.changes import ComponentChange, FeatureChange, parse_span, spell_span
from otoscope.documents.intervention import Intervention
from otoscope.errors import OptionError

FILES = ("spelling", "intervention.json")


def seeds() -> list[tuple[bytes, bytes]]:
    """One of every spelling."""
    told = b'{"silence": ["1.2-1.8", [2, 3]], "zero": ["decoder_blocks.2.cross_attn.3"], "features": ["encoder:3:604=0"]}'
    spelled = (
        b"encoder:3:604=0@1.2-1.8,2-3", b"decoder:2:17x-1.5e3@5,6", b"decoder_blocks.2.cross_attn.3", b"encoder_blocks.0.mlp",
        b"3.3-4.3", b"text:9:1=0@3", b"blocks.9.attn.3x0.5",
    )  # fmt: skip
    return [(spelling, told) for spelling in spelled]


def parse(folder: Path) -> None:
    """Every reader; what one takes is spelled and read again as the same."""
    text = (folder / FILES[0]).read_bytes().decode("utf-8", "surrogateescape")
    taken = False
    for parse_change in (FeatureChange.parse, ComponentChange.parse, ComponentChange.parse_scaled):
        try:
            found = parse_change(text)
        except OptionError:
            continue
        taken = True
        again = ComponentChange.parse if str(found) == getattr(found, "place", None) else parse_change
        assert again(str(found)) == found._replace(**_rounded(found))
    try:
        span = parse_span(text)
    except OptionError as error:
        refusal = error
    else:
        taken, refusal = True, None
        assert parse_span(spell_span(span)) == tuple(float(f"{t:.4f}") for t in span)
    if (folder / FILES[1]).exists():
        _check_intervention((folder / FILES[1]).read_bytes())
    if not taken and refusal:
        raise refusal


def _rounded(found: FeatureChange | ComponentChange) -> dict[str, object]:
    """To the digits that a spelling keeps."""
    if isinstance(found, ComponentChange):
        return {"factor": float(f"{found.factor:.10g}")}
    return {
        "value": float(f"{found.value:.10g}"),
        "spans": tuple((round(a, 4), round(b, 4)) for a, b in found.spans),
    }


def _check_intervention(text: bytes) -> None:
    try:
        found = Intervention.model_validate_json(text)
    except (ValidationError, OptionError):
        return
    assert Intervention.model_validate_json(found.model_dump_json()) == found
