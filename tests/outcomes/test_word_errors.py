from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otoscope.outcomes import alignment, error_rates, error_rates_by_language, normaliser

WORDS = st.lists(st.sampled_from(["alpha", "bravo", "charlie", "delta", "echo"]), max_size=8).map(" ".join)


@pytest.mark.parametrize(
    "language, text, expected",
    [
        ("en", "Mr. Smith's colour, um, isn't grey!", "mister smith is color is not gray"),
        ("en-GB", "Twenty-one apples", "21 apples"),
        ("fr", "Ça va, Mr. Smith ?", "ça va mr smith"),
        (None, "Mr. Smith", "mr smith"),
        ("zh", "你好。", "你 好"),
        ("yue", "你好", "你 好"),
        ("ja", "こんにちは", "こ ん に ち は"),
        ("en", "[Music]", ""),
    ],
)
def test_texts_are_normalised_as_whispers_evaluation_does(language, text, expected):
    assert normaliser(language)(text) == expected


def test_errors_are_counted_as_by_hand():
    # "re" is left out, "sol" became "so", "do" is put behind; the second utterance has no error
    rates = error_rates(["do re mi fa sol la ti", "red green"], ["do mi fa so la ti do", "Red, green."], "en")
    assert (rates.insertions, rates.deletions, rates.substitutions) == (1, 1, 1)
    assert (rates.reference_words, rates.n) == (9, 2)
    assert rates.wer == pytest.approx(3 / 9)


def test_character_errors_are_counted_as_by_hand():
    # "cat sat" has 7 characters, the space counts; one substitution, one insertion
    assert error_rates(["cat sat"], ["bat sats"], "fr").cer == pytest.approx(2 / 7)


def test_case_punctuation_and_english_spelling_are_no_errors():
    rates = error_rates(["It's the colour of Dr. Grey."], ["it is the color of doctor gray"], "en")
    assert (rates.wer, rates.cer) == (0, 0)


def test_spaces_put_between_characters_of_unspaced_languages_do_not_thin_their_errors_out():
    rates = error_rates(["你好世界"], ["你好世街"], "zh")
    assert (rates.wer, rates.cer, rates.reference_words) == (0.25, 0.25, 4)


def test_what_is_written_for_an_empty_reference_is_inserted():
    rates = error_rates(["", "one two"], ["thank you", "one two"], "fr")
    assert (rates.insertions, rates.reference_words, rates.wer) == (2, 2, 1.0)


def test_without_reference_words_there_is_no_rate():
    rates = error_rates(["", "[noise]"], ["you", ""], "en")
    assert (rates.wer, rates.cer, rates.wer_interval) == (None, None, None)
    assert (rates.insertions, rates.n) == (1, 2)


def test_without_utterances_there_is_no_rate():
    rates = error_rates([], [], "en")
    assert (rates.wer, rates.cer, rates.wer_interval, rates.n) == (None, None, None, 0)


def test_as_many_hypotheses_as_references_are_needed():
    with pytest.raises(ValueError):
        error_rates(["a", "b"], ["a"], "en")


@given(pairs=st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=12))
def test_the_counts_explain_the_rate_and_the_lengths(pairs):
    references, hypotheses = zip(*pairs, strict=True)
    rates = error_rates(references, hypotheses, "fr")
    written = sum(len(text.split()) for text in hypotheses)
    assert rates.reference_words == sum(len(text.split()) for text in references)
    assert written == rates.reference_words + rates.insertions - rates.deletions
    if rates.wer is not None:
        errors = rates.insertions + rates.deletions + rates.substitutions
        assert rates.wer == errors / rates.reference_words


def test_the_interval_is_about_as_wide_as_theory_says():
    # 400 one-word utterances, 100 of them wrong: the normal interval is 0.25 +- 1.96 sqrt(0.25 * 0.75 / 400)
    rates = error_rates(["yes"] * 400, ["no"] * 100 + ["yes"] * 300, "fr")
    assert rates.wer_interval == pytest.approx((0.2076, 0.2924), abs=0.008)


def test_the_interval_is_the_same_each_time_and_holds_the_rate():
    references, hypotheses = ["a b c", "d e", "f", ""], ["a x c", "d e", "g h", "i"]
    first, second = (error_rates(references, hypotheses, "fr") for _ in range(2))
    assert first == second
    assert first.wer is not None
    assert first.wer_interval is not None
    assert first.wer_interval[0] <= first.wer <= first.wer_interval[1]


def test_the_total_over_languages_pools_counts_and_normalises_each_by_its_own_rules():
    rates = error_rates_by_language(
        [
            ("The colour is grey now.", "the color is gray", "en"),  # 1 of 5
            ("你好", "你坏", "zh"),  # 1 of 2
            ("colour", "color", "fr"),  # 1 of 1: English spelling rules are for English
            ("one", "one", None),
        ]
    )
    assert list(rates) == ["total", "en", "fr", "unknown", "zh"]
    assert [rates[code].wer for code in ("en", "fr", "unknown", "zh")] == [0.2, 1.0, 0.0, 0.5]
    assert rates["total"].wer == pytest.approx(3 / 9)
    assert rates["total"].n == 4


def test_a_language_alone_has_the_rates_of_the_total():
    rates = error_rates_by_language([("a b", "a c", "fr"), ("d", "d", "fr")])
    assert rates["total"] == rates["fr"] == error_rates(["a b", "d"], ["a c", "d"], "fr")


def test_an_ellipsis_is_no_word():
    assert error_rates(["to listen to..."], ["To listen to"], "en").wer == 0


def test_each_kind_of_error_has_its_rate():
    rates = error_rates(["do re mi fa sol la ti", "red"], ["do mi fa so la ti do do", "red"], "en")
    assert (rates.insertion_rate, rates.deletion_rate, rates.substitution_rate) == (2 / 8, 1 / 8, 1 / 8)
    empty = error_rates([""], ["thank you"], "en")
    assert (empty.insertion_rate, empty.deletion_rate, empty.substitution_rate) == (None, None, None)


@given(pairs=st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=6))
def test_the_kinds_of_errors_add_up_to_the_rate(pairs):
    references, hypotheses = zip(*pairs, strict=True)
    rates = error_rates(references, hypotheses, "fr")
    if rates.wer is not None:
        kinds = rates.insertion_rate, rates.deletion_rate, rates.substitution_rate
        assert sum(kind for kind in kinds if kind is not None) == pytest.approx(rates.wer)


def test_an_alignment_can_be_read():
    lines = alignment("Do re mi fa sol la ti.", "do mi fa so la ti do", "fr").splitlines()
    assert [line.split() for line in lines] == [
        ["REF:", "do", "re", "mi", "fa", "sol", "la", "ti", "**"],
        ["HYP:", "do", "**", "mi", "fa", "so", "la", "ti", "do"],
        ["D", "S", "I"],
    ]
    assert [lines[0][i] for i in (8, 17)] == ["r", "s"]
    assert [lines[2][i] for i in range(len(lines[2])) if lines[2][i] != " "] == ["D", "S", "I"]


def test_alignments_of_equal_and_of_empty_texts_can_be_read():
    assert alignment("One two", "one, two", "fr").splitlines() == ["REF: one two", "HYP: one two"]
    assert alignment("", "you", "en").splitlines() == ["REF: ***", "HYP: you", "       I"]
    assert alignment("you", "", "en").splitlines() == ["REF: you", "HYP: ***", "       D"]
    assert alignment("", "...", "en") == ""
    assert alignment("你好世界", "你好街", "zh").splitlines()[0] == "REF: 你 好 世 界"


def test_one_utterance_has_no_interval():
    assert error_rates(["a b"], ["a c"], "en").wer_interval is None
