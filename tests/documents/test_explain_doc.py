"""The data contract: what it refuses, what it keeps, what it leaves out."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pydantic import ValidationError

from otoscope.documents.base import Array
from otoscope.documents.explain import ExplainDoc
from otoscope.documents.explain_words import in_words
from otoscope.errors import OutputError

FLOATS = st.floats(-1000, 1000, width=32)
NUMBERS = hnp.arrays(np.float32, hnp.array_shapes(max_dims=3, min_side=0, max_side=6), elements=FLOATS)


def fields(**changes):
    """A two-token document's fields."""
    token = {"id": 7, "p": 0.5, "logprob": math.log(0.5), "entropy": 1.0}
    lens = {
        "layer": 0,
        "top": [{"id": 7, "text": " a", "p": 0.5}],
        "p_final": 0.5,
        "rank_final": 0,
        "entropy": 1.0,
    }
    component = {
        "id": "decoder_blocks.0.mlp",
        "label": "DL0 MLP",
        "stack": "decoder",
        "layer": 0,
        "part": "mlp",
    }
    return {
        "title": "a clip",
        "model": {
            "name": "m",
            "family": "whisper",
            "source": "folder",
            "dtype": "float32",
            "attention": "eager",
            "encoder_layers": 1,
            "decoder_layers": 1,
            "heads": 2,
        },
        "settings": {"strategy": "greedy"},
        "versions": {"torch": "2.13.0"},
        "audio": {"file": "a.wav", "duration": 1.0, "recording_duration": 1.0},
        "waveform": Array.pack(np.zeros((2, 3)), "f16"),
        "mel": Array.pack(np.zeros((4, 5)), "u8"),
        "transcript": {
            "text": " a b",
            "tokens": [token | {"index": 0, "text": " a"}, token | {"index": 1, "text": " b"}],
            "words": [
                {"text": " a", "p": 0.9, "first_token": 0, "last_token": 0},
                {"text": " b", "p": 0.5, "first_token": 1, "last_token": 1},
            ],
        },
        "alignment": {"heads": [(0, 1)], "matrix": Array.pack(np.zeros((2, 6)), "u8")},
        "logit_lens": {"layers": 1, "tokens": [{"index": i, "layers": [lens]} for i in range(2)]},
        "encoder_lens": [{"layer": 0, "text": " a b", "is_final_text": True}],
        "ablation": {"components": [component], "change": Array.pack([[-1 / 3, 0.0]])},
        "timings": [],
        "notes": [],
        "resources": {"audio": {"media_type": "audio/wav", "data": "UklGRg=="}},
    } | changes


@given(NUMBERS)
def test_floats_come_back_bit_for_bit(values):
    assert np.array_equal(Array.pack(values, "f32").unpack(), values)


@given(NUMBERS)
def test_quantised_values_are_off_by_at_most_half_a_step(values):
    packed = Array.pack(values, "u8")
    back = packed.unpack()
    assert back.shape == values.shape
    assert np.all(np.abs(back - values.astype(np.float64)) <= packed.scale * 0.5001 + 1e-3)


def test_half_precision_keeps_three_digits():
    values = np.linspace(-1, 1, 101)
    assert np.allclose(Array.pack(values, "f16").unpack(), values, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(("value", "dtype"), [(np.nan, "u8"), (np.inf, "f32"), (1e6, "f16"), (1e300, "f32")])
def test_values_that_cannot_be_shown_are_refused_with_a_remedy(value, dtype):
    with pytest.raises(OutputError, match="float32"):
        Array.pack([0.0, value], dtype)


@pytest.mark.parametrize(
    "change", [{"shape": (3,)}, {"data": "not base64!"}, {"data": "AADAfwAAAAA="}, {"shape": (2**40, 2**40)}]
)
def test_an_array_that_contradicts_itself_is_refused(change):
    array = Array.pack([1.0, 2.0]).model_dump() | change
    with pytest.raises(ValidationError):
        Array.model_validate(array)


def test_a_document_survives_its_own_json():
    doc = ExplainDoc.model_validate(fields())
    assert ExplainDoc.model_validate_json(doc.dumps()) == doc


def test_unknown_values_are_omitted_not_null():
    assert "null" not in ExplainDoc.model_validate(fields()).dumps()


def test_nan_is_refused():
    transcript = fields()["transcript"] | {"avg_logprob": math.nan}
    with pytest.raises(ValidationError, match="finite"):
        ExplainDoc.model_validate(fields(transcript=transcript))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"ablation": {"components": [], "change": Array.pack(np.zeros((1, 2)))}}, "components, tokens"),
        ({"alignment": {"heads": [], "matrix": Array.pack(np.zeros((3, 6)))}}, "tokens, encoder positions"),
        ({"waveform": Array.pack(np.zeros(6))}, "waveform"),
        ({"mel": Array.pack(np.zeros(6))}, "mel"),
        ({"logit_lens": {"layers": 1, "tokens": []}}, "misnumbered"),
        ({"selected_token": 2}, "selected_token"),
        ({"selected_token": -1}, "selected_token"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_parts_that_disagree_are_refused(change, complaint):
    with pytest.raises(ValidationError, match=complaint):
        ExplainDoc.model_validate(fields(**change))


def test_a_word_may_only_name_tokens_that_exist():
    transcript = fields()["transcript"]
    transcript["words"][0]["last_token"] = 2
    with pytest.raises(ValidationError, match="a word names"):
        ExplainDoc.model_validate(fields(transcript=transcript))


def test_a_probability_that_rounding_pushed_past_one_is_one():
    transcript = fields()["transcript"]
    transcript["tokens"][0] |= {"p": 1.0000002, "logprob": 1e-7, "entropy": -1e-7}
    token = ExplainDoc.model_validate(fields(transcript=transcript)).transcript.tokens[0]
    assert (token.p, token.logprob, token.entropy) == (1, 0, 0)
    transcript["tokens"][0]["p"] = 1.1
    with pytest.raises(ValidationError, match="less than or equal to 1"):
        ExplainDoc.model_validate(fields(transcript=transcript))


def test_a_file_name_that_is_not_text_can_still_be_written(tmp_path):
    audio = fields()["audio"] | {"file": "caf\udce9.wav"}
    doc = ExplainDoc.model_validate(fields(audio=audio))
    doc.to_json(tmp_path / "out.json")
    assert doc.audio.file == r"caf\udce9.wav"


def test_the_json_for_programs_is_plain_and_without_pictures(tmp_path):
    doc = ExplainDoc.model_validate(fields(selected_token=1))
    doc.to_json(tmp_path / "out.json")
    data = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert data == doc.to_data()
    assert data["ablation"]["change"] == [[-0.333333, 0.0]]
    assert data["alignment"] == {"heads": [[0, 1]]}
    assert not {"waveform", "mel", "resources", "selected_token"} & data.keys()
    assert data["transcript"]["tokens"][0]["logprob"] == -0.693147


def test_the_summary_says_what_was_written_and_what_mattered():
    summary = ExplainDoc.model_validate(fields()).summary()
    assert "m wrote: a b" in summary
    assert "Least certain word: b (p = 0.50)" in summary
    assert "hangs most" not in summary  # no head was zeroed here


def test_the_summary_names_the_head_that_the_least_certain_word_hangs_on_and_what_is_odd():
    component = {"stack": "decoder", "layer": 0, "part": "self_attn"}
    heads = [
        {**component, "id": "decoder_blocks.0.self_attn", "label": f"DL0H{i} self-attn", "head": i}
        for i in range(2)
    ]
    change = Array.pack(np.array([[-3.0, -0.5], [0.0, -1.25]], np.float32))
    doc = ExplainDoc.model_validate(
        fields(
            ablation={"components": heads, "change": change}, cautions=["Probably there is no speech here."]
        )
    )
    told = "Of single heads it hangs most on head 1 of the self-attention in decoder layer 0 (DL0H1 self-attn): −1.25 nats"
    assert told in doc.summary()
    assert doc.summary().endswith("Probably there is no speech here.")


def account(**changes):
    return {
        "value": 9.0, "sound": 6.0, "text": 1.0, "prompt": 0.0, "positions": 0.0, "biases": 2.0, "errors": 0.0,
        "carried": {"start": 0.4, "end": 0.6, "share": 0.7, "heads": [{"layer": 0, "head": 1, "share": 0.9}]},
    } | changes  # fmt: skip


def under_the_sound(**changes):
    """The parts that lie under the sound, of two tokens and three spans."""
    return {
        "accounts": {
            "spans": [(0.0, 0.4), (0.4, 1.0), (1.0, 30.0)],
            "sound": Array.pack(np.ones((2, 3))),
            "text": Array.pack(np.zeros((2, 2))),
            "tokens": [account(), account()],
        },
        "risk": {
            "monitor": "monitor of m", "steps": [0.1, 0.8, 0.2], "parts": {}, "threshold": 0.6,
            "false_alarm_rate": 0.05, "alarm_token": 1,
        },
    } | changes  # fmt: skip


def test_the_summary_says_which_sound_carried_the_word_in_alarm():
    doc = ExplainDoc.model_validate(fields(**under_the_sound()))
    words = in_words(doc)
    assert words[1].startswith("Least certain word: b")
    assert words[2].startswith("The sound at 0.40–0.60 s, holds 70 % of what the sound said for it")
    assert "head 1 of decoder layer 0 (90 %)" in words[2]
    assert words[3] == (
        "Its logit, 9.0, has 6.0 from the sound, 1.0 from the words before, 0.0 from the prompt, "
        "2.0 from what is said in any case (biases and positions)."
    )
    assert words[-1] == "Alarm at “b”: risk 0.80, an alarm from 0.60 on."


@pytest.mark.parametrize(
    ("share", "said"),
    [(0.5, "most of it came by head 1"), (0.31, "the largest part by one head came by head 1")],
)
def test_most_is_said_of_half_and_more(share, said):
    carried = account()["carried"] | {"heads": [{"layer": 0, "head": 1, "share": share}]}
    under = under_the_sound()
    under["accounts"]["tokens"] = [account(carried=carried)] * 2
    line = in_words(ExplainDoc.model_validate(fields(**under)))[2]
    assert said in line
    assert ("most of it" in line) == (share >= 0.5)


def test_the_word_to_look_at_is_the_one_in_alarm_before_the_least_certain():
    risk = under_the_sound()["risk"] | {"steps": [0.8, 0.1, 0.1], "alarm_token": 0}
    doc = ExplainDoc.model_validate(fields(risk=risk))
    assert in_words(doc)[1].startswith("Word to look at: a")


def test_a_document_that_an_earlier_release_wrote_still_loads():
    old = json.loads(ExplainDoc.model_validate(fields()).dumps())
    for new in ("in_words", "left_out", "feature_rows", "circuits"):
        old.pop(new)
    old["ablation"].pop("controls")
    assert ExplainDoc.model_validate(old).accounts is None
    risk = under_the_sound()["risk"]
    risk["alarm"] = risk.pop("alarm_token")
    doc = ExplainDoc.model_validate(fields(risk=risk))
    assert (doc.risk.alarm, doc.risk.alarm_token) == (True, 1)


@pytest.mark.parametrize(
    ("part", "change", "complaint"),
    [
        ("accounts", {"sound": Array.pack(np.ones((2, 2)))}, "accounts are not"),
        ("accounts", {"tokens": [account()]}, "one a token"),
        ("risk", {"steps": [0.1]}, "risk.steps"),
    ],
)
def test_rows_under_the_sound_have_a_place_for_every_token(part, change, complaint):
    under = under_the_sound()
    with pytest.raises(ValidationError, match=complaint):
        ExplainDoc.model_validate(fields(**{part: under[part] | change}))


def test_a_clip_without_a_word_is_a_document_too():
    empty = fields(
        transcript={"text": "", "tokens": [], "words": []},
        alignment={"heads": [], "matrix": Array.pack(np.zeros((0, 6)))},
        logit_lens={"layers": 1, "tokens": []},
    )
    empty["ablation"]["change"] = Array.pack(np.zeros((1, 0)))
    doc = ExplainDoc.model_validate(empty)
    assert "(nothing)" in doc.summary()
    assert doc.to_data()["ablation"]["change"] == [[]]


def test_the_logit_lens_is_drawn_for_a_paper(tmp_path):
    figure = ExplainDoc.model_validate(fields()).plot(tmp_path / "lens.svg")
    assert figure.axes
    assert (tmp_path / "lens.svg").read_text().startswith("<?xml")
