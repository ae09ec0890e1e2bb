"""Interventions are spelled in one way, wherever they are spelled."""

import json
import shlex
from pathlib import Path

import pytest

import otoscope as oto
from otoscope.documents.changes import ComponentChange, FeatureChange
from otoscope.documents.intervention import Intervention, command_line, python_line
from otoscope.errors import OptionError

KNOWN = json.loads((Path(__file__).parents[2] / "web" / "tests" / "spellings.json").read_text("utf-8"))


@pytest.mark.parametrize("known", KNOWN, ids=range(len(KNOWN)))
def test_the_lines_to_copy_are_those_that_the_page_writes(known):
    """The page says the same of the same file, web/tests/experiment.test.ts."""
    wanted = Intervention.model_validate(known["intervention"])
    how = {k: float(v) if k == "offset" else v for k, v in known["how"].items()}
    of_prompt = "prompt" in known
    again = (known["model"], known["prompt" if of_prompt else "clip"], wanted, how)
    assert python_line(*again, of_prompt=of_prompt) == known["python"]
    assert command_line(*again, of_prompt=of_prompt) == known["command"]


@pytest.mark.parametrize("known", KNOWN, ids=range(len(KNOWN)))
def test_an_intervention_comes_back_from_its_expression_its_json_and_its_options(known):
    wanted = Intervention.model_validate(known["intervention"])
    assert eval(repr(wanted), {"Intervention": Intervention}) == wanted
    assert Intervention.model_validate_json(wanted.model_dump_json()) == wanted
    given: dict[str, list[str]] = {}
    words = shlex.split(shlex.join(wanted.options()))
    for name, value in zip(words[::2], words[1::2], strict=True):
        given.setdefault(name.removeprefix("--").replace("feature", "features"), []).append(value)
    again = {k: v[0] if k == "dictionary" else v for k, v in given.items()}
    assert Intervention.model_validate(again) == wanted


@pytest.mark.parametrize(
    ("text", "change"),
    [
        ("encoder:3:604=0", FeatureChange("encoder", 3, 604, "set", 0.0)),
        ("decoder:2:17x-0.5@5,6", FeatureChange("decoder", 2, 17, "scale", -0.5, positions=(5, 6))),
        (
            "encoder:0:1=1e-3@0-0.5,1-2",
            FeatureChange("encoder", 0, 1, "set", 1e-3, spans=((0.0, 0.5), (1.0, 2.0))),
        ),
    ],
)
def test_a_change_of_a_feature_is_read_and_spelled(text, change):
    assert FeatureChange.parse(text) == change
    assert FeatureChange.parse(str(change)) == change


def test_a_component_is_read_and_spelled():
    assert ComponentChange.parse("decoder_blocks.2.cross_attn.3") == ("decoder", 2, "cross_attn", 3, 0.0)
    assert str(ComponentChange("encoder", 0, "mlp")) == "encoder_blocks.0.mlp"
    scaled = ComponentChange.parse_scaled("blocks.9.attn.3x-0.5")
    assert scaled == ("text", 9, "attn", 3, -0.5)
    assert str(scaled) == "blocks.9.attn.3x-0.5"


def test_spans_keep_a_tenth_of_a_millisecond_so_that_every_spelling_means_the_same():
    assert oto.Intervention(silence=["1.23456789-2"]) == oto.Intervention(silence=[(1.2346, 2)])


@pytest.mark.parametrize(
    "given",
    [
        {"silence": ["2-1"]},
        {"silence": ["1"]},
        {"zero": ["decoder_blocks.2.mlp.3"]},
        {"zero": ["hook_embed"]},
        {"features": ["encoder:3:604"]},
        {"features": ["decoder:3:604=0@1.2-1.8"]},
        {"features": ["encoder:3:604=0@5"]},
        {"features": ["text:3:604=0@1.2-1.8"]},
        {"features": ["audio:3:604=0"]},
        {"scale": ["blocks.2.attn.3"]},
        {"scale": ["blocks.2.attn.3x"]},
    ],
)
def test_what_is_spelled_wrongly_is_refused_with_an_example(given):
    with pytest.raises(OptionError, match="such as"):
        Intervention(**given)
