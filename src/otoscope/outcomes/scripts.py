"""Which script a text is written in, and whether it is the one to expect."""

from __future__ import annotations

import unicodedata
from collections import Counter

from otoscope.outcomes.word_errors import language_code

_SCRIPTS = {
    "Arabic": "ar fa ps sd ug ur",
    "Armenian": "hy",
    "Bengali": "as bn",
    "Cyrillic": "ba be bg kk mk mn ru sr tg tt uk uz",
    "Devanagari": "hi mr ne sa",
    "Ethiopic": "am",
    "Georgian": "ka",
    "Greek": "el",
    "Gujarati": "gu",
    "Gurmukhi": "pa",
    "Han": "ja yue zh",
    "Hangul": "ko",
    "Hebrew": "he yi",
    "Kana": "ja",
    "Kannada": "kn",
    "Khmer": "km",
    "Lao": "lo",
    "Latin": "af az br bs ca cs cy da de en es et eu fi fo fr gl ha haw hr ht hu id is it jw la lb ln lt lv mg mi ms mt nl nn "
    "no oc pl pt ro sk sl sn so sq sr su sv sw tk tl tr uz vi yo",
    "Malayalam": "ml",
    "Myanmar": "my",
    "Sinhala": "si",
    "Tamil": "ta",
    "Telugu": "te",
    "Thai": "th",
    "Tibetan": "bo",
}
"""Scripts and the languages of Whisper that are written in them."""

_FAMILIES = {"CJK": "Han", "HIRAGANA": "Kana", "KATAKANA": "Kana"}


def script_of(text: str) -> str | None:
    """The script of most letters of a text ("Latin", "Cyrillic", "Han", "Kana", ...); None without letters.

    The first word of a letter's Unicode name, after compatibility forms (full width, mathematical) are undone.
    """
    counts: Counter[str] = Counter()
    for character, count in Counter(unicodedata.normalize("NFKC", text)).items():
        if unicodedata.category(character)[0] == "L" and (name := unicodedata.name(character, "")):
            script = name.replace("-", " ").split()[0]
            counts[_FAMILIES.get(script, script.title())] += count
    return max(counts, key=lambda script: (counts[script], script)) if counts else None


def script_mismatch(
    reference: str, hypothesis: str = "", *, language: str | None = None
) -> tuple[str, str] | None:
    """Whether a reference is written in another script than its language, or than what was written for it.

    Error rates mean nothing then: a Latin transliteration of Russian is wrong in every word. Only the script of most
    letters counts, so foreign names pass; a reference of nothing but a foreign acronym does not. Chinese characters and
    kana go together, and languages with two scripts may use both.

    Args:
        reference: What was said.
        hypothesis: What was written; looked at only when the language is not known to decide.
        language: Language code, a region may follow. One that is not among Whisper's cannot be judged.

    Returns:
        The reference's script and the script to expect, or None when nothing is wrong or nothing can be said.
    """
    found = script_of(reference)
    code = language_code(language)
    expected = {script for script, codes in _SCRIPTS.items() if code in codes.split()}
    if not expected and (written := script_of(hypothesis)):
        expected = {"Han", "Kana"} if written in ("Han", "Kana") else {written}
    if found is None or not expected or found in expected:
        return None
    return found, " or ".join(sorted(expected))
