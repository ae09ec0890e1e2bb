from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otoscope.outcomes import OutputType, output_type

JFK = "And so my fellow Americans ask not what your country can do for you, ask what you can do for your country."


@pytest.mark.parametrize("text", ["", " ", "\n\t "])
@pytest.mark.parametrize("reference", [None, "", JFK])
def test_nothing_written_is_empty_whatever_was_said(text, reference):
    assert output_type(text, reference=reference) == OutputType.EMPTY


@pytest.mark.parametrize(
    "text", [".", "...", "!" * 400, " - ", "¿?", "。", "()", "\u200b", "\ufffd\ufffd", "😀"]
)
def test_signs_without_a_letter_are_punctuation_even_in_a_loop(text):
    assert output_type(text, reference=JFK) == OutputType.PUNCTUATION


@pytest.mark.parametrize(
    "text",
    [
        "(water running)", " [Music]", "[Music] [Applause]", "♪", "♪♪♪", "🎵 🎵", "*sighs*", "(speaking in foreign language)",
        "（笑い）", "【音楽】", "(door [slams] shut)", "(water runn", "[BLANK_AUDIO]", "(music).",
    ],
)  # fmt: skip
@pytest.mark.parametrize("reference", [None, "", JFK])
def test_bracketed_sounds_and_notes_are_events(text, reference):
    assert output_type(text, reference=reference) == OutputType.EVENT


def test_words_beside_a_bracket_or_between_notes_are_words():
    assert output_type("[Music] you", reference="") == OutputType.UNGROUNDED
    assert output_type("♪ la la la ♪", reference="") == OutputType.UNGROUNDED
    assert output_type("2 * 3 is 6", reference="2 * 3 is 6") == OutputType.CORRECT


@pytest.mark.parametrize("reference", [None, "", JFK])
@pytest.mark.parametrize("text", ["thank you " * 30, "[Music] " * 30])
def test_loops_are_loops_whatever_was_said(text, reference):
    assert output_type(text, reference=reference, language="en") == OutputType.LOOP


def test_a_spoken_loop_that_is_written_as_spoken_is_correct():
    said = "The conference is now muted. " * 12
    assert output_type(said, reference=said, language="en") == OutputType.CORRECT
    assert output_type(said * 3, reference=said, language="en") == OutputType.LOOP
    assert output_type("thank you " * 30, reference=said, language="en") == OutputType.LOOP


def test_a_right_sentence_with_a_loop_behind_it_is_a_loop():
    text = JFK + " you" * 10  # the word error rate alone would be 10 / 22
    assert output_type(text, reference=JFK, language="en") == OutputType.LOOP


@pytest.mark.parametrize(
    "text, expected",
    [
        (JFK.upper(), OutputType.CORRECT),
        (
            "ask not what your country can do for you, ask what you can do for your country",
            OutputType.CORRECT,
        ),
        ("And so my fellow Merrick and ask not what you're a country can do for your", OutputType.CORRECT),
        ("you", OutputType.UNGROUNDED),
        ("And so my fellow Americans", OutputType.UNGROUNDED),
        ("I'm going to go to the store and I'm going to go to the store.", OutputType.UNGROUNDED),
    ],
)
def test_correct_is_what_was_said_but_for_half_of_the_words(text, expected):
    assert output_type(text, reference=JFK, language="en") == expected


def test_a_word_that_is_only_spelt_or_split_otherwise_is_correct():
    assert output_type("mail box", reference="Mailbox", language="en") == OutputType.CORRECT
    assert output_type("нажмите решётки", reference="нажмите решетку", language="ru") == OutputType.CORRECT


def test_where_nothing_was_said_all_words_are_ungrounded():
    assert output_type("you", reference="") == OutputType.UNGROUNDED
    assert output_type("you", is_speech=False) == OutputType.UNGROUNDED
    assert output_type("you", reference="you", is_speech=False) == OutputType.UNGROUNDED
    assert output_type("you", reference="[Music]") == OutputType.UNGROUNDED


def test_without_a_reference_fluent_text_cannot_be_judged():
    assert output_type("Ask not what your country can do for you") is None


def test_a_reference_that_normalisation_empties_was_said_all_the_same():
    assert output_type("Um.", reference="um", language="en") == OutputType.CORRECT
    assert output_type("thank you", reference="um", language="en") == OutputType.UNGROUNDED


def test_characters_are_compared_where_there_are_no_spaces():
    assert output_type("你好世街", reference="你好世界", language="zh") == OutputType.CORRECT
    assert output_type("谢谢观看", reference="你好世界", language="zh") == OutputType.UNGROUNDED


def test_every_prepared_reference_is_correct_for_itself_and_ungrounded_for_another(shared_audio):
    rows = [
        json.loads(line)
        for line in (shared_audio / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    rows = [row for row in rows if row["text"]]
    for row in rows:
        assert output_type(row["text"], reference=row["text"], language=row["language"]) == OutputType.CORRECT
    strangers = [row for row in rows if row["audio_filepath"].startswith("austen")]
    prompts = [row for row in rows if row["language"] == "en" and row not in strangers]
    for row in strangers:
        for prompt in prompts:
            assert output_type(row["text"], reference=prompt["text"], language="en") == OutputType.UNGROUNDED


@given(text=st.text(max_size=40), reference=st.none() | st.text(max_size=40), is_speech=st.booleans())
def test_every_text_has_one_type_and_only_words_without_a_reference_have_none(text, reference, is_speech):
    kind = output_type(text, reference=reference, is_speech=is_speech)
    if kind is None:
        assert reference is None
        assert is_speech
        assert any(map(str.isalnum, text))
    else:
        assert kind in OutputType
        assert (kind == OutputType.EMPTY) == (not text.strip())


@pytest.mark.parametrize(
    "text",
    ["word " * 20_000, "(" * 100_000, "(a" * 50_000, "[*" * 50_000, "\ud800a" * 1000, '"' * 100_000 + "1"],
)
def test_hostile_texts_are_typed_without_trying_each_place_with_each(text):
    started = time.process_time()
    output_type(text, reference="hello there", language="en")
    assert time.process_time() - started < 8  # comparing in pairs takes longer


def test_the_type_is_its_name_in_json():
    assert json.dumps(output_type("")) == '"empty"'
    assert [str(kind) for kind in OutputType] == [
        "empty",
        "punctuation",
        "event",
        "loop",
        "ungrounded",
        "correct",
    ]
