"""Interventions on a real recording: nothing changes nothing, and each change is the one that others measure."""

import numpy as np
import pytest
from tests.conftest import tiny

import otoscope as oto
from otoscope.audio import silence
from otoscope.errors import ModelError, OptionError
from otoscope.studies.intervening import intervene, word_changes
from otoscope.studies.speech_lab import silenced

pytestmark = [pytest.mark.weights, pytest.mark.slow]


@pytest.fixture(scope="module")
def clip(jfk):
    return oto.read(jfk.with_name("austen-0880.flac"))


@pytest.fixture(scope="module")
def run(tiny_en, clip):
    def ran(controls=0, **changes):
        return intervene(tiny_en, clip, oto.Intervention(**changes), controls=controls)

    return ran


def test_no_change_gives_the_ordinary_transcript_bit_for_bit(run, tiny_en, clip):
    outcome, ordinary = run(), oto.transcribe(tiny_en, clip)
    for side in (outcome.before, outcome.after):
        assert [t.id for t in side.transcript.tokens] == ordinary.ids
        assert [t.logprob for t in side.transcript.tokens] == [t.logprob for t in ordinary.tokens]
    assert not outcome.changed
    assert outcome.size == 0
    assert outcome.controls == []


def test_silencing_everything_is_the_silent_clip(run, tiny_en, clip):
    outcome = run(silence=[(0, clip.duration)])
    silent = oto.transcribe(tiny_en, silence(clip.duration))
    assert [t.id for t in outcome.after.transcript.tokens] == silent.ids
    assert outcome.before.risk is not None
    assert outcome.after.risk is not None
    assert outcome.after.risk.text > outcome.before.risk.text


@pytest.mark.parametrize("label", ["DL2H3 cross-attn", "DL1 cross-attn", "EL3H1 attn", "EL1 MLP", "DL3 MLP"])
def test_zeroing_a_component_moves_the_written_tokens_as_the_ablation_grid_says(explained, run, label):
    row = [c.label for c in explained.ablation.components].index(label)
    component = explained.ablation.components[row]
    name = component.id if component.head is None else f"{component.id}.{component.head}"
    change = run(zero=[name]).change.unpack()
    np.testing.assert_allclose(change, explained.ablation.change.unpack()[row], atol=2e-3)


def test_a_neuron_taken_away_is_the_neuron_zeroed_by_hand(run, tiny_en):
    outcome = run(features=["decoder:2:5=0", "encoder:3:604=0"])

    def without(neuron):
        def edit(x, visit):
            x = x.clone()
            x[..., neuron] = 0
            return x

        return edit

    by_hand = [
        ("decoder_blocks.2.mlp.hook_post", without(5)),
        ("encoder_blocks.3.mlp.hook_post", without(604)),
    ]
    with tiny_en.hooks(by_hand):
        hooked = run().before.transcript
    assert [t.id for t in outcome.after.transcript.tokens] == [t.id for t in hooked.tokens]
    logprobs = [[t.logprob for t in tokens] for tokens in (outcome.after.transcript.tokens, hooked.tokens)]
    np.testing.assert_allclose(*logprobs, atol=1e-4)
    assert outcome.size > 1e-4


def test_a_feature_scaled_by_one_changes_nothing_and_a_place_bounds_a_change(run):
    assert np.abs(run(features=["encoder:3:604x1", "decoder:1:5x1"]).change.unpack()).max() < 1e-5
    late = run(features=["decoder:3:100=40@6"]).change.unpack()
    assert np.abs(late[:4]).max() < 1e-4  # a position can change nothing before it
    assert np.abs(late[4:]).max() > 1e-3


def test_controls_are_others_of_the_same_size_and_the_same_seed_draws_the_same(run, clip):
    changes = {
        "silence": [(0.5, 0.9)],
        "zero": ["decoder_blocks.2.cross_attn.3"],
        "features": ["encoder:3:604=0"],
    }
    outcome = run(controls=2, **changes)
    assert len(outcome.controls) == 2
    for control in outcome.controls:
        ((t0, t1),) = control.intervention.silence
        assert t1 - t0 == pytest.approx(0.4, abs=2e-3)
        assert t1 <= 0.5 or t0 >= 0.9
        assert t1 <= clip.duration + 1e-3
        (head,), (feature,) = control.intervention.zero, control.intervention.features
        assert head.startswith("decoder_blocks.")
        assert ".cross_attn." in head
        assert head != "decoder_blocks.2.cross_attn.3"
        assert feature.startswith("encoder:3:")
        assert feature != "encoder:3:604=0"
    assert "2 random other places" in outcome.summary()
    again = run(controls=2, **changes)
    assert [c.model_dump() for c in again.controls] == [c.model_dump() for c in outcome.controls]


def test_where_there_is_no_other_place_there_is_no_control(run, clip):
    outcome = run(controls=3, silence=[(0, clip.duration)])
    assert outcome.controls == []
    assert "nothing of the same size elsewhere" in outcome.summary()


def test_hooks_and_sound_are_as_before(run, tiny_en, clip):
    before = clip.samples.copy()
    run(zero=["decoder_blocks.1.mlp"], features=["encoder:0:1=3"], silence=["0.2-0.4"])
    assert not tiny_en.open_hooks
    np.testing.assert_array_equal(clip.samples, before)
    assert (silenced(clip, ((0.2, 0.4),)).samples[3200:6400] == 0).all()


def test_the_line_shown_runs_and_gives_the_same(jfk, tiny_en, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "it's.flac").write_bytes(jfk.with_name("austen-0880.flac").read_bytes())
    wanted = oto.Intervention(
        silence=["0.31-0.77"], zero=["encoder_blocks.3.attn.1"], features=["decoder:1:7x3"]
    )
    outcome = intervene(tiny_en, "it's.flac", wanted, controls=1, seed=3)
    scope: dict = {}
    exec(outcome.python, scope)
    assert scope["outcome"].dumps().split('"seconds"')[0] == outcome.dumps().split('"seconds"')[0]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"zero": ["decoder_blocks.7.mlp"]}, "no component 'decoder_blocks.7.mlp'"),
        ({"zero": ["decoder_blocks.2.cross_attn.6"]}, "no component 'decoder_blocks.2.cross_attn.6'"),
        ({"features": ["encoder:3:99999=0"]}, "1536 features"),
        ({"silence": ["500-501"]}, "behind the clip's end"),
    ],
)
def test_what_the_model_or_the_clip_does_not_have_is_refused(run, given, words):
    with pytest.raises(OptionError, match=words):
        run(**given)


def test_a_language_model_hears_nothing(clip):
    with pytest.raises(ModelError, match="does not transcribe"):
        intervene(tiny("llama"), clip, oto.Intervention())


def test_words_are_told_apart():
    told = [(c.op, c.before, c.after) for c in word_changes("a b c d", "a x c d e")]
    assert told == [("same", "a", "a"), ("replaced", "b", "x"), ("same", "c d", "c d"), ("added", "", "e")]
