"""`explain` on a real clip: its numbers are those of the parts it is made of."""

import json

import numpy as np
import pytest
from tests.conftest import tiny

import otoscope as oto
from otoscope.audio import Clip, silence
from otoscope.circuits.heard import listen
from otoscope.circuits.speech import trace_speech
from otoscope.circuits.speech_tracing import SpeechSettings
from otoscope.errors import AudioError, ModelError, OptionError
from otoscope.monitors.running import watch_all
from otoscope.studies.explain import Stages, explain_clip
from otoscope.studies.explain_circuits import why_no_circuit
from otoscope.views.page import render_page

pytestmark = [pytest.mark.weights, pytest.mark.slow]


@pytest.fixture(scope="module")
def doc(tiny_en, jfk):
    return explain_clip(
        tiny_en, jfk, reference="And so, my fellow Americans, ask not what your country can do for you."
    )


def test_the_transcript_is_the_ordinary_one(doc, tiny_en, jfk):
    ordinary = oto.transcribe(tiny_en, jfk)
    assert doc.transcript.text == ordinary.text
    assert [t.id for t in doc.transcript.tokens] == ordinary.ids
    assert doc.transcript.wer is not None
    assert doc.transcript.wer > 0.5  # the reference given here lacks the second half


def test_the_last_lens_layer_agrees_with_the_probability_of_each_token(doc):
    """The first token differs: decoding suppresses some first tokens, the lens shows the model's own distribution."""
    for token, lens in list(zip(doc.transcript.tokens, doc.logit_lens.tokens, strict=True))[1:]:
        assert lens.layers[-1].p_final == pytest.approx(token.p, abs=0.02)
        assert lens.saturation_layer is None or lens.layers[lens.saturation_layer].rank_final == 0


def test_the_last_encoder_layer_writes_the_transcript_and_the_first_does_not(doc):
    assert doc.encoder_lens[-1].is_final_text
    assert not doc.encoder_lens[0].is_final_text


def test_every_component_has_a_change_for_every_token_and_hearing_matters(doc):
    change = doc.ablation.change.unpack()
    assert change.shape == (4 * (3 + 12) + 4 * (2 + 6), len(doc.transcript.tokens))
    labels = [c.label for c in doc.ablation.components]
    assert change[labels.index("DL0 cross-attn")].mean() < -5


def test_alignment_rows_are_distributions_over_the_clips_frames(doc):
    matrix = doc.alignment.matrix.unpack()
    assert matrix.shape == (len(doc.transcript.tokens), 550)  # 11 s at 20 ms
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=0.3)  # stored in 8 bits


def test_the_account_of_every_token_sums_to_its_logit_and_words_are_carried_by_their_own_sound(doc):
    sound = doc.accounts.sound.unpack()
    for i, one in enumerate(doc.accounts.tokens):
        parts = one.sound + one.text + one.prompt + one.positions + one.biases + one.errors
        assert one.value == pytest.approx(parts, abs=1e-3)
        assert one.sound == pytest.approx(sound[i].sum(), abs=0.05)  # stored in half precision
    token = next(t for t in doc.transcript.tokens if t.text == " Americans")
    carried = doc.accounts.tokens[token.index].carried
    assert carried.share >= 0.5
    assert token.start - 0.1 <= carried.start < carried.end <= token.end + 0.1


def test_the_account_is_that_of_a_pass_up_to_the_token(doc, tiny_en, jfk):
    index = 4
    graph = trace_speech(
        tiny_en, listen(tiny_en, jfk), index, settings=SpeechSettings(nodes=1, segments="80ms")
    )
    alone = graph.record["totals"][0]
    one = doc.accounts.tokens[index]
    assert one.value == pytest.approx(alone["value"], rel=1e-4)
    assert one.sound == pytest.approx(sum(alone["sound"]), rel=1e-3)


def test_the_monitor_watched_the_one_decoding_there_is(doc, tiny_en, jfk):
    watched = next(iter(watch_all(tiny_en, [jfk])))
    assert doc.risk.steps == pytest.approx(watched.progress[0].risks, abs=1e-6)
    assert len(doc.risk.steps) == len(doc.transcript.tokens) + 1  # the end of the text has one, too
    assert doc.risk.alarm_token is None
    assert doc.risk.alarm is False


def test_the_mean_of_the_alignment_heads_is_made_of_their_rows(doc):
    every, heads = doc.head_attention, [tuple(head) for head in doc.head_attention.heads]
    rows = every.matrix.unpack() * every.peak.unpack()[..., None]
    chosen = rows[[heads.index(tuple(head)) for head in doc.alignment.heads]]
    shares = chosen / chosen.sum(axis=-1, keepdims=True)  # the alignment looks at the clip's frames alone
    np.testing.assert_allclose(shares.mean(axis=0), doc.alignment.matrix.unpack(), atol=0.02)


def test_the_circuit_of_the_least_certain_word_is_traced_and_what_is_left_out_is_said(doc):
    (circuit,) = doc.circuits
    word = min(doc.transcript.words, key=lambda word: word.p)
    assert (circuit.token, circuit.why) == (word.first_token, "least certain")
    target = circuit.graph.targets[0]
    assert target.account.value == pytest.approx(doc.accounts.tokens[circuit.token].value, rel=1e-4)
    assert any("Circuits of 1 of 24" in line for line in doc.left_out)
    assert any("not opened" in line for line in doc.left_out)


def test_features_under_the_sound_are_the_encoders_own_activations(doc, tiny_en, jfk):
    row = doc.feature_rows[0]
    with tiny_en.capturing([f"encoder_blocks.{row.layer}.mlp.hook_post"]) as cache:
        tiny_en.encode(tiny_en.features(oto.read(jfk)))
    own = cache[f"encoder_blocks.{row.layer}.mlp.hook_post"][0, :550, row.feature].numpy()
    np.testing.assert_allclose(row.values.unpack(), own, atol=row.values.scale)
    assert row.token == doc.circuits[0].token


def test_heads_have_random_subspaces_beside_them(doc):
    change = doc.ablation.control_change.unpack()
    assert change.shape == (2 * (4 * 2 + 4), len(doc.transcript.tokens))
    assert (change != 0).any(axis=1).all()


def test_the_page_stays_under_three_megabytes(doc):
    assert len(render_page(doc).encode()) < 3_000_000


def test_what_is_left_out_costs_nothing_and_is_said(tiny_en, jfk):
    none = Stages(encoder_lens=False, ablation=False, controls=False, accounts=False, circuits=0)
    doc = explain_clip(tiny_en, jfk, monitor=None, features=[(0, 3), (2, 5)], stages=none)
    assert (doc.encoder_lens, doc.ablation.components, doc.accounts, doc.risk, doc.circuits) == (
        [],
        [],
        None,
        None,
        [],
    )
    assert [(row.layer, row.feature, row.share) for row in doc.feature_rows] == [(0, 3, None), (2, 5, None)]
    for words in ("risk", "Which sound", "No circuit"):
        assert any(words in line for line in doc.left_out)


def test_the_json_is_plain_and_finite(doc, tmp_path):
    doc.to_json(tmp_path / "jfk.json")
    data = json.loads(
        (tmp_path / "jfk.json").read_text(), parse_constant=lambda c: pytest.fail(f"{c} in JSON")
    )
    assert data["transcript"]["text"].startswith("And so my fellow Americans")
    assert len(data["timings"]) >= 6
    assert np.shape(data["accounts"]["sound"]) == (24, len(data["accounts"]["spans"]))
    assert data["in_words"][1].startswith("Least certain word: my")


def test_silence_is_explained_too(tiny_en):
    doc = explain_clip(tiny_en, silence(2.0))
    assert "no speech" in doc.summary()
    assert doc.ablation.change.shape[1] == len(doc.transcript.tokens)


@pytest.mark.parametrize(
    ("written", "asked", "accounted", "said"),
    [
        (True, True, True, None),
        (True, False, True, "No circuit was asked for (--circuits)."),
        (False, True, False, "There is no circuit, since nothing was written."),
        (True, True, False, "No circuit was traced, for the same reason."),
    ],
)
def test_why_there_is_no_circuit_is_said(written, asked, accounted, said):
    assert why_no_circuit(written, asked, accounted) == said


def test_a_window_of_a_long_recording_is_explained_and_the_notes_say_so(tiny_en, jfk):
    speech = oto.read(jfk).samples
    quick = Stages(encoder_lens=False, ablation=False, circuits=0)
    doc = explain_clip(tiny_en, Clip(np.concatenate([speech] * 4)), offset=11.0, stages=quick)
    assert doc.audio.start == pytest.approx(11.0)
    assert doc.audio.duration <= 30
    assert doc.audio.recording_duration == pytest.approx(44.0)
    assert any("--offset" in line for line in doc.cautions)
    words = doc.transcript.words
    assert words[0].start < 2  # times count from the start of the window, as its sound and its picture do
    assert all(0 <= word.start <= word.end <= doc.audio.duration for word in words)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"token": 999}, OptionError, "Token 999 does not exist"),
        ({"language": "fr"}, OptionError, "English-only"),
        ({"offset": 60.0}, AudioError, "60"),
        ({"features": [(9, 0)]}, OptionError, "no feature 9.0"),
    ],
)
def test_what_cannot_be_done_is_refused_with_a_reason(tiny_en, jfk, arguments, error, words):
    with pytest.raises(error, match=words):
        explain_clip(tiny_en, jfk, **arguments)


def test_a_language_model_cannot_explain_a_clip(jfk):
    with pytest.raises(ModelError, match="does not transcribe"):
        explain_clip(tiny("llama"), jfk)
