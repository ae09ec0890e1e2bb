from __future__ import annotations

import json

import pytest
from transformers.models.whisper.tokenization_whisper import LANGUAGES

from otoscope.outcomes import script_mismatch, script_of


@pytest.mark.parametrize(
    "text, script",
    [
        ("Hello", "Latin"),
        ("ＡＢＣ", "Latin"),
        ("Здравствуйте, John", "Cyrillic"),
        ("你好", "Han"),
        ("こんにちは", "Kana"),
        ("ｺﾝﾆﾁﾊ", "Kana"),
        ("안녕하세요", "Hangul"),
        ("שלום", "Hebrew"),
        ("धन्यवाद", "Devanagari"),
        ("123 ... ♪ \ud800", None),
        ("", None),
    ],
)
def test_the_script_is_that_of_most_letters(text, script):
    assert script_of(text) == script


@pytest.mark.parametrize(
    "reference, language, expected",
    [
        ("Zdravstvuyte, kak dela", "ru", ("Latin", "Cyrillic")),
        ("Здравствуйте", "ru-RU", None),
        ("Здравствуйте", "en", ("Cyrillic", "Latin")),
        ("konnichiwa", "ja", ("Latin", "Han or Kana")),
        ("東京", "ja", None),
        ("ありがとう", "zh", ("Kana", "Han")),
        ("Dobar dan", "sr", None),
        ("Добар дан", "sr", None),
        ("123", "ru", None),
        ("hello", "xx", None),
        ("hello", None, None),
    ],
)
def test_a_reference_in_a_script_of_another_language_is_told(reference, language, expected):
    assert script_mismatch(reference, language=language) == expected


def test_without_a_language_what_was_written_tells():
    assert script_mismatch("Zdravstvuyte", "Здравствуйте") == ("Latin", "Cyrillic")
    assert script_mismatch("東京です", "とうきょうです") is None
    assert script_mismatch("hello", "[...]") is None


def test_the_language_has_the_word_before_what_was_written():
    assert script_mismatch("Здравствуйте", "Hello", language="ru") is None


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_of_whisper_has_a_script(language):
    assert script_mismatch("ᚠᚢᚦᚨᚱᚲ", language=language) is not None


def test_the_prepared_references_are_in_their_scripts(shared_audio):
    for line in (shared_audio / "manifest.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        assert script_mismatch(row["text"], language=row["language"]) is None
