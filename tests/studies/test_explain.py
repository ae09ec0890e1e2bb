"""`explain` on a real clip: its numbers are those of the parts it is made of."""

import json

import numpy as np
import pytest
from tests.conftest import tiny

import otoscope as oto
from otoscope.audio import Clip, silence
from otoscope.errors import AudioError, ModelError, OptionError
from otoscope.studies.explain import explain_clip

pytestmark = pytest.mark.weights


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


def test_the_json_is_plain_and_finite(doc, tmp_path):
    doc.to_json(tmp_path / "jfk.json")
    data = json.loads(
        (tmp_path / "jfk.json").read_text(), parse_constant=lambda c: pytest.fail(f"{c} in JSON")
    )
    assert data["transcript"]["text"].startswith("And so my fellow Americans")
    assert len(data["timings"]) >= 6


def test_silence_is_explained_too(tiny_en):
    doc = explain_clip(tiny_en, silence(2.0))
    assert "no speech" in doc.summary()
    assert doc.ablation.change.shape[1] == len(doc.transcript.tokens)


def test_a_window_of_a_long_recording_is_explained_and_the_notes_say_so(tiny_en, jfk):
    speech = oto.read(jfk).samples
    doc = explain_clip(tiny_en, Clip(np.concatenate([speech] * 4)), offset=11.0)
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
    ],
)
def test_what_cannot_be_done_is_refused_with_a_reason(tiny_en, jfk, arguments, error, words):
    with pytest.raises(error, match=words):
        explain_clip(tiny_en, jfk, **arguments)


def test_a_language_model_cannot_explain_a_clip(jfk):
    with pytest.raises(ModelError, match="does not transcribe"):
        explain_clip(tiny("llama"), jfk)
