from __future__ import annotations

import sys
import textwrap

import pytest
import torch
from tests.conftest import FAMILIES, example_inputs

from otoscope.errors import ModelError
from otoscope.models.base import Family
from otoscope.models.families import families, family_of, random_model

PLUGIN = """
from dataclasses import replace

from otoscope.models.causal_lm import FAMILIES


def small(model_type):
    from transformers import MistralConfig

    return MistralConfig(
        vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, sliding_window=None, bos_token_id=1, eos_token_id=2,
    )

# A language model of the Llama kind under a type of its own, and a type that is taken already.
FAMILY = replace(FAMILIES[0], name="stranger", model_types=("mistral", "llama"), tiny_config=small)
"""


@pytest.fixture
def outside_package(tmp_path, monkeypatch):
    """An installed distribution that offers a family: a module and its metadata on the path."""

    def install(value: str, source: str) -> None:
        (tmp_path / "stranger.py").write_text(textwrap.dedent(source), "utf-8")
        info = tmp_path / "stranger-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n", "utf-8")
        (info / "entry_points.txt").write_text(f"[otoscope.families]\nstranger = stranger:{value}\n", "utf-8")
        monkeypatch.syspath_prepend(tmp_path)
        families.cache_clear()

    yield install
    monkeypatch.undo()
    sys.modules.pop("stranger", None)
    families.cache_clear()


def test_every_family_covers_its_types_once():
    table = families()
    assert set(FAMILIES) <= set(table)
    for model_type, family in table.items():
        assert isinstance(family, Family)
        assert model_type in family.model_types
        assert family_of(model_type) is family


@pytest.mark.parametrize("value", ["FAMILY", "BOTH"])
def test_a_family_of_another_package_is_found_and_displaces_none_of_ours(outside_package, value):
    ours = family_of("llama")
    with pytest.raises(ModelError):
        family_of("mistral")
    outside_package(value, PLUGIN + "\nBOTH = (FAMILY,)\n")
    assert family_of("mistral").name == "stranger"
    assert family_of("llama") is ours
    model = random_model("mistral")
    inputs = {"input_ids": torch.tensor([[3, 4, 5]])}
    out, cache = model.run_with_cache(inputs, lambda _: True)
    assert type(model.hf).__name__ == "MistralForCausalLM"
    assert set(cache) == set(model.points)
    assert torch.equal(model.unembed(cache["blocks.1.hook_resid_post"]), out.logits)


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("import a_package_that_is_not_there", "ModuleNotFoundError"),
        ("raise ValueError('first\\nsecond')", "ValueError: first."),
        ("FAMILY = 3", "TypeError"),
        ("FAMILY = ('llama',)", "TypeError"),
    ],
)
def test_a_broken_package_is_named_to_whoever_needs_its_family_and_to_nobody_else(
    outside_package, source, why
):
    outside_package("FAMILY", source)
    assert random_model("llama").family is family_of("llama")
    assert set(FAMILIES) <= set(families())
    with pytest.raises(ModelError, match="package stranger fails") as caught:
        family_of("mistral")
    assert why in caught.value.reason
    assert "'stranger' (stranger:FAMILY)" in caught.value.reason
    assert "second" not in caught.value.reason


def test_an_unknown_type_is_refused_with_the_known_ones():
    with pytest.raises(ModelError) as caught:
        family_of("t5")
    assert "'t5'" in caught.value.reason
    assert all(known in caught.value.remedy for known in FAMILIES)
    with pytest.raises(ModelError):
        random_model("t5")


def test_a_random_model_is_the_same_every_time_and_leaves_the_generator_alone(model):
    kind = model.config.model_type
    torch.manual_seed(0)
    first = torch.rand(1)
    torch.manual_seed(0)
    again = random_model(kind)
    assert torch.equal(torch.rand(1), first)
    for (name, a), (_, b) in zip(model.hf.named_parameters(), again.hf.named_parameters(), strict=True):
        assert torch.equal(a, b), name
    other = random_model(kind, seed=1)
    assert not torch.equal(next(model.hf.parameters()), next(other.hf.parameters()))


def test_a_random_model_has_no_bias_at_zero_and_no_gain_at_one(model):
    for name, parameter in model.hf.named_parameters():
        assert parameter.float().std() > 1e-3, name


def test_a_random_model_can_be_had_in_other_precisions_sizes_and_implementations():
    model = random_model("llama", dtype=torch.float64, attention="sdpa", num_hidden_layers=1)
    assert (model.dtype, model.attention) == (torch.float64, "sdpa")
    assert [n for n in model.points if n.endswith("resid_post")] == ["blocks.0.hook_resid_post"]


def test_a_model_says_what_it_is(model):
    facts = model.describe()
    assert facts["name"] == f"random {model.config.model_type} (seed 0)"
    assert (facts["dtype"], facts["attention"], facts["device"]) == ("float32", "eager", "cpu")
    assert f"{len(model.points)} hook points" in repr(model)
    shown = model._repr_html_()
    assert facts["name"] in shown
    assert "hook points" in shown


def test_a_model_is_ready_to_be_read(model):
    assert not model.hf.training
    assert model.forward(example_inputs(model)).logits.shape[-1] in (97, 99)
