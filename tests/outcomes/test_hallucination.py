from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otoscope.outcomes import Rate, Written, hallucination_rates

CLIPS = st.builds(
    Written,
    text=st.sampled_from(["", " ", ".", "you", "Thank you. " * 40]),
    no_speech_prob=st.sampled_from([0.0, 0.59, 0.6, 0.61, 1.0]),
    avg_logprob=st.sampled_from([-2.0, -1.0, -0.99, 0.0]),
)


def test_the_three_rates_are_those_worked_out_by_hand():
    rates = hallucination_rates(
        [
            Written("you", 0.9, -0.4),  # sure of its text: passes everywhere
            Written("you", 0.9, -1.4),  # silence, and unsure: raw only
            Written("", 0.1, -1.4),  # nothing written, but the gate is open
            Written(" .", 0.1, -0.2),  # a lone point is text, but no word
            Written("", 0.9, -1.4),  # nothing anywhere
            Written("thank you " * 30, 0.31, -0.08),  # a confident loop
        ]
    )
    assert rates.raw == Rate(4, 6)
    assert rates.words == Rate(3, 6)
    assert rates.filtered == Rate(3, 6)
    assert rates.gate == Rate(4, 6)
    assert rates.loops == Rate(1, 6)


@pytest.mark.parametrize(
    "no_speech_prob, avg_logprob, filtered, gate",
    [(0.6, -1.0, 1, 0), (0.6, -0.999, 1, 1), (0.601, -1.0, 0, 0), (0.599, -1.0, 1, 1)],
)
def test_the_published_thresholds_are_exclusive_as_published(no_speech_prob, avg_logprob, filtered, gate):
    rates = hallucination_rates([Written("you", no_speech_prob, avg_logprob)])
    assert (rates.filtered.count, rates.gate.count) == (filtered, gate)


def test_models_without_a_no_speech_token_have_only_the_rates_of_the_text():
    rates = hallucination_rates(
        [Written("Kids are talking by the door", None, -0.3), Written("", None, None)]
    )
    assert (rates.raw, rates.filtered, rates.gate) == (Rate(1, 2), Rate(0, 0), Rate(0, 0))
    assert rates.filtered.rate is None


@given(clips=st.lists(CLIPS, max_size=12))
def test_the_rates_fit_together(clips):
    rates = hallucination_rates(clips)
    assert rates.words.count <= rates.raw.count
    assert rates.filtered.count <= rates.raw.count
    # What passes the filter has text, and its gate is open but for a no-speech probability of exactly 0.6.
    # So A + C - 1 <= B, the relation by which published figures can be seen not to come from one decode.
    assert rates.filtered.count >= rates.raw.count + rates.gate.count - len(clips)
    assert {rate.n for rate in vars(rates).values()} == {len(clips)}


def test_loops_are_counted_in_their_language():
    letters = "N B S " * 5  # 15 words of English; as characters of Japanese one too few
    clips = [Written(letters, 0.1, -0.1, language) for language in ("en", "ja")]
    assert hallucination_rates(clips).loops == Rate(1, 2)


def test_a_clip_hands_what_it_knows_to_the_detectors():
    clip = Written("you you", 0.1, -0.1, "en", token_ids=[5] * 40, vocab_size=51865, seconds=0.1)
    assert {"token_ratio", "token_entropy", "words_per_second"} <= set(clip.loop_signs().fired)
    assert clip.loop_signs().language == "en"


def test_rates_are_json_with_their_intervals():
    found = json.loads(json.dumps(hallucination_rates([Written("you", 0.1, -0.1)]).to_dict()))
    assert list(found) == ["raw", "words", "filtered", "gate", "loops"]
    assert found["raw"]["rate"] == 1
    assert found["raw"]["ci_low"] == pytest.approx(0.2065, abs=1e-4)


def test_without_clips_there_are_no_rates():
    assert hallucination_rates([]).raw == Rate(0, 0)
