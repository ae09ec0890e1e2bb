"""Interventions on prompts: the change is the one made by hand, its place bounds it, and controls are of its kind."""

import numpy as np
import pytest
from tests.conftest import tiny
from tests.models.tokenizers import word_tokenizer

import otoscope as oto
from otoscope.errors import ModelError, OptionError
from otoscope.studies.intervening import intervene_prompt

PROMPT = "w5 w9 w11 w4 w7"


@pytest.fixture(scope="module")
def model():
    made = tiny("llama")
    made.processor = word_tokenizer(97)
    return made


@pytest.fixture
def run(model):
    def ran(controls=0, **changes):
        return intervene_prompt(model, PROMPT, oto.Intervention(**changes), tokens=4, controls=controls)

    return ran


def test_no_change_continues_as_generate_does(run, model):
    outcome = run()
    inputs = model.inputs(PROMPT)
    usual = model.generate(**inputs, do_sample=False, max_new_tokens=4, pad_token_id=0)[
        0, inputs["input_ids"].shape[1] :
    ]
    ids = [token.id for token in outcome.before.transcript.tokens]
    assert ids == [i for i in usual.tolist() if i != model.hf.generation_config.eos_token_id]
    assert outcome.after == outcome.before
    assert outcome.size == 0
    assert all(token.before == token.after for token in outcome.next_tokens)
    assert outcome.next_tokens[0].id == ids[0]
    lens = outcome.before.logit_lens.tokens[0].layers[-1]
    assert lens.top[0].p == pytest.approx(outcome.next_tokens[0].before, abs=1e-6)


@pytest.mark.parametrize("factor", [0.0, 0.5])
def test_a_head_zeroed_or_scaled_is_the_head_changed_by_hand(run, model, factor):
    changes = {"scale": [f"blocks.1.attn.2x{factor}"]} if factor else {"zero": ["blocks.1.attn.2"]}
    outcome = run(**changes)

    def by_hand(z, visit):
        z = z.clone()
        z[:, :, 2] *= factor
        return z

    with model.hooks([("blocks.1.attn.hook_z", by_hand)]):
        p = model.forward(model.inputs(PROMPT)).logits[0, -1].detach().softmax(-1)
    for token in outcome.next_tokens:
        assert token.after == pytest.approx(float(p[token.id]), abs=1e-6)
    assert outcome.size > 0
    first = outcome.before.transcript.tokens[0]
    assert outcome.change.unpack()[0] == pytest.approx(np.log(float(p[first.id])) - first.logprob, abs=1e-4)


def test_a_feature_changes_nothing_before_its_place(run):
    late = run(features=["text:1:3=9@6"]).change.unpack()  # position 6 is the second token that is written
    assert np.abs(late[:2]).max() < 1e-6
    assert np.abs(late[2:]).max() > 1e-4
    assert np.abs(run(features=["text:1:3x1"]).change.unpack()).max() < 1e-6


def test_controls_are_others_of_the_same_kind_with_the_same_factor(run):
    outcome = run(controls=3, zero=["blocks.0.mlp"], scale=["blocks.1.attn.2x0.5"], features=["text:1:3=0"])
    assert len(outcome.controls) == 3
    for control in outcome.controls:
        (zeroed,), (scaled,) = control.intervention.zero, control.intervention.scale
        assert zeroed != "blocks.0.mlp"
        assert scaled.endswith("x0.5")
        assert scaled != "blocks.1.attn.2x0.5"
        assert control.intervention.features[0].startswith("text:1:")


def test_the_line_to_copy_names_the_prompt_and_the_tokens(run):
    outcome = run(zero=["blocks.0.mlp"])
    assert f"oto.intervene_prompt(oto.load_model('tiny-llama'), '{PROMPT}'," in outcome.python.replace(
        outcome.model.name, "tiny-llama"
    )
    assert outcome.python.endswith("tokens=4, controls=0)")
    assert f"--prompt '{PROMPT}'" in outcome.command


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"silence": [(0, 1)]}, "no sound"),
        ({"zero": ["blocks.0.attn.9"]}, "no component"),
        ({"zero": ["decoder_blocks.0.mlp"]}, "no component"),
        ({"features": ["decoder:0:1=0"]}, "of a stack"),
        ({"features": ["text:0:48=0"]}, "names a feature"),
        ({"features": ["text:0:1=0@9"]}, "never reached"),
    ],
)
def test_what_a_prompt_or_its_model_does_not_have_is_refused(run, changes, words):
    with pytest.raises(OptionError, match=words):
        run(**changes)


def test_a_model_that_reads_no_prompt_is_refused():
    with pytest.raises(ModelError, match="reads no prompt"):
        intervene_prompt(tiny("whisper"), "w1", oto.Intervention())
    with pytest.raises(ModelError, match="no tokenizer"):
        intervene_prompt(tiny("llama"), "w1", oto.Intervention())
