from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otoscope.models.transcripts import DecodeOptions, Token, Transcript, Word
from otoscope.studies.subtitles import LINE, LINES, LONGEST, cues, file_names, to_srt, to_vtt


def transcript(*words: tuple[str, float, float]) -> Transcript:
    """Words as (text with the space before it, start, end), one token each."""
    tokens = tuple(Token(i, text, -0.1, 0.1, start, end) for i, (text, start, end) in enumerate(words))
    grouped = tuple(Word(t.text.strip(), t.start, t.end, t.p, i, i) for i, t in enumerate(tokens))
    text = "".join(t.text for t in tokens).strip()
    return Transcript(
        text, "en", tokens, grouped, (), 1.0, 0.0, -0.1, 1.0, None, (), DecodeOptions(), {"name": "x"}
    )  # fmt: skip


def spoken(text: str, seconds: float = 0.3, start: float = 0.0) -> list[tuple[str, float, float]]:
    return [
        (f" {word}", start + i * seconds, start + (i + 1) * seconds) for i, word in enumerate(text.split())
    ]


def lines(*words: tuple[str, float, float]) -> list[tuple[str, ...]]:
    return [cue.lines for cue in cues(transcript(*words))]


def test_a_cue_ends_with_a_sentence():
    assert lines(*spoken("He came. “Did she?” Yes")) == [("He came.",), ("“Did she?”",), ("Yes",)]


def test_a_cue_ends_before_a_pause_between_words():
    first, second = spoken("and then"), spoken("it rained", start=1.5)
    assert lines(*first, *second) == [("and then",), ("it rained",)]
    assert lines(*first, *spoken("it rained", start=1.3)) == [("and then it rained",)]


def test_a_word_that_lasts_too_long_is_taken_for_a_pause_before_it():
    assert lines((" fellow", 0, 0.5), (" Americans", 0.5, 1.0), (" ask", 1.0, 2.6)) == [
        ("fellow Americans",),
        ("ask",),
    ]


def test_a_cue_that_overflows_ends_with_its_last_clause():
    text = "ask not what your country can do for you, ask what you can do for your country tomorrow and today"
    assert lines(*spoken(text, 0.1))[0] == ("ask not what your country can do for you,",)


def test_languages_without_spaces_stay_without_spaces():
    assert lines(("你", 0, 0.2), ("好", 0.2, 0.4), ("。", 0.4, 0.5)) == [("你好。",)]


def test_a_word_longer_than_a_line_is_cut():
    shown = lines((" " + "a" * 200, 0.0, 4.0))
    assert "".join("".join(cue) for cue in shown) == "a" * 200


WORDS = st.lists(
    st.tuples(st.text("abc,.é", min_size=1, max_size=60), st.floats(0, 12, allow_nan=False), st.floats(0, 3)),
    max_size=40,
)


@given(WORDS)
def test_cues_stay_in_bounds_lose_no_text_and_follow_each_other(words):
    at, timed = 0.0, []
    for text, length, gap in words:
        timed.append((f" {text}", at, at + length))
        at += length + gap
    made = cues(transcript(*timed))
    for cue in made:
        assert 1 <= len(cue.lines) <= LINES
        assert all(0 < len(line) <= LINE for line in cue.lines)
        assert 0 < cue.end - cue.start <= LONGEST + 1e-9
    for one, next_one in pairwise(made):
        assert one.end <= next_one.start + 0.0011
    shown = "".join("".join(cue.lines) for cue in made).replace(" ", "")
    assert shown == "".join(text for text, _, _ in words)


def test_srt_numbers_its_cues_and_writes_a_comma_before_milliseconds():
    text = to_srt(transcript(*spoken("One. Two.", 1.5, 3599.25)))
    assert text == ("1\n00:59:59,250 --> 01:00:00,750\nOne.\n\n2\n01:00:00,750 --> 01:00:02,250\nTwo.\n")


def test_vtt_begins_with_its_name_and_escapes_markup():
    text = to_vtt(transcript((" <b>&--></b>", 0.0, 1.0)))
    assert text == "WEBVTT\n\n00:00:00.000 --> 00:00:01.000\n&lt;b&gt;&amp;--&gt;&lt;/b&gt;\n"


def test_line_breaks_in_a_word_do_not_end_its_cue():
    assert "\n\n" not in to_srt(transcript((" a\n\n5\n00:00", 0.0, 1.0))).rstrip("\n")


def test_nothing_written_gives_no_cues():
    assert to_srt(transcript()) == ""
    assert to_vtt(transcript()) == "WEBVTT\n"


@pytest.mark.parametrize(
    "path, name",
    [
        ("talk.flac", "talk.srt"),
        ("a/b/talk.v2.flac", "a_b_talk.v2.srt"),
        ("/data/talk.flac", "data_talk.srt"),
        ("../../etc/passwd", "etc_passwd.srt"),
        ("..", "recording.srt"),
        ("", "recording.srt"),
        (r"..\..\windows\x.wav", "windows_x.srt"),
        (".hidden.wav", "hidden.srt"),
        ("a\x1b[31m\nb.wav", "a__31m_b.srt"),
    ],
)
def test_a_file_name_tells_the_recording_and_leads_nowhere_else(path, name):
    assert file_names([path], "srt") == [name]


@given(st.lists(st.text(max_size=300), max_size=8))
def test_file_names_differ_and_are_plain_whatever_the_recordings_are_called(paths):
    names = file_names(paths, "vtt")
    assert len({name.casefold() for name in names}) == len(paths)
    assert all(re.fullmatch(r"[\w\-(). ]+\.vtt", name) and not name.startswith(".") for name in names)
    assert all(len(name.encode()) <= 255 for name in names)


def test_recordings_of_the_same_name_get_files_of_their_own():
    assert file_names(["a.wav", "A.flac", "a.wav"], "srt") == ["a.srt", "A.2.srt", "a.3.srt"]
