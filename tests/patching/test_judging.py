"""What counts as an outcome, as gone, as collapsed and as restored."""

from __future__ import annotations

from pathlib import Path

import pytest

from otoscope.corpora import Item
from otoscope.errors import OptionError
from otoscope.outcomes import compression_ratio
from otoscope.patching.judging import Text, collapsed, is_sound, judge_of

LOOP = " ".join(["I am going to the market"] * 12)
SAID = "The committee will meet again on Thursday to settle the matter of the bridge."


def item(text=None, language="en", **labels):
    return Item("a.wav", Path("a.wav"), text=text, language=language, labels=labels)


def written(text, tokens=None, language="en"):
    return Text(text, range(len(text.split()) if tokens is None else tokens), language)


@pytest.mark.parametrize("detector", ["combined", "compression", "ngram"])
def test_a_loop_is_resolved_when_the_detector_that_found_it_no_longer_does(detector):
    judge = judge_of("loop", detector)
    assert judge.has(written(LOOP), item())
    verdict = judge.verdict(written(LOOP), written(SAID), item(SAID))
    assert (verdict.resolved, verdict.collapsed, verdict.restored) == (True, False, True)
    still = judge.verdict(written(LOOP), written(LOOP[:200]), item())
    assert not still.resolved
    assert not still.restored


def test_compression_counts_above_and_up_to_whispers_own_threshold():
    judge = judge_of("loop", "compression")
    texts = [" ".join(["one two three four"] * n) for n in range(1, 12)]
    assert [judge.has(written(t), item()) for t in texts] == [compression_ratio(t) > 2.4 for t in texts]
    assert len({judge.has(written(t), item()) for t in texts}) == 2


def test_what_was_said_so_is_no_loop():
    assert not judge_of("loop").has(written(LOOP), item(LOOP))


@pytest.mark.parametrize("detector", ["compression", "ngram"])
def test_a_single_detector_is_taken_at_its_word_whatever_was_said(detector):
    assert judge_of("loop", detector).has(written(LOOP), item(LOOP))


def test_hardly_any_text_resolves_but_restores_nothing():
    judge = judge_of("loop")
    for after in (written(""), written("Oh well."), written("The bridge, to be sure.", tokens=4)):
        verdict = judge.verdict(written(LOOP), after, item())
        assert (verdict.resolved, verdict.collapsed, verdict.restored) == (True, True, False)
    short = written("The committee will meet.", tokens=6)
    assert collapsed(short, SAID)
    assert not collapsed(short, None)


def test_a_third_of_a_text_without_spaces_is_counted_in_characters():
    said = "我们明天早上九点钟在火车站门口见面然后一起去北京"
    assert collapsed(written("我们明天", tokens=8, language="zh"), said)
    assert not collapsed(written("我们明天早上九点钟在", tokens=20, language="zh"), said)


def test_where_it_is_known_what_was_said_the_new_text_has_to_be_nearer():
    judge = judge_of("loop")
    before = written(" ".join(["The committee will meet again"] * 5))
    far = written(
        "Zebras quietly juggle purple xylophones beyond forgotten volcanic islands, "
        "humming quixotic melodies while jumping over wooden fences and counting every single lighthouse."
    )
    assert not judge.verdict(before, far, item("The committee will meet again on Thursday.")).restored
    assert judge.verdict(before, far, item()).restored


def test_words_for_a_sound_are_invented_and_nothing_is_right():
    judge = judge_of("hallucination")
    noise = item("", speech="no")
    assert is_sound(noise)
    assert judge.has(written("Thank you."), noise)
    assert not judge.has(written("[Music]"), noise)
    verdict = judge.verdict(written("Thank you."), written(""), noise)
    assert (verdict.resolved, verdict.collapsed, verdict.restored) == (True, False, True)
    assert judge.has(written("A llama is born in the spring of the year."), item(SAID))
    assert not judge.has(written(SAID), item(SAID))


def test_the_spoken_word_has_to_come_in_the_place_of_the_competing_one():
    judge = judge_of("word")
    veal = item("The butcher sold us a pound of veal for dinner.", spoken="veal", competing="wheel")
    wrong = written("The butcher sold us a pound of wheel for dinner.")
    assert judge.has(wrong, veal)
    assert not judge.has(written("The butcher sold us a pound of meat."), veal)
    assert judge.verdict(wrong, written(veal.text), veal).restored
    assert not judge.verdict(wrong, written("The butcher sold us a pound of feel for dinner."), veal).resolved
    both = written("The butcher sold us a veal wheel for dinner.")
    assert not judge.has(both, veal)
    assert not judge.verdict(wrong, both, veal).resolved


@pytest.mark.parametrize("language", ["en", None])
def test_words_are_normalised_like_the_text_whatever_its_language(language):
    judge = judge_of("word")
    four = item("I have four coins in my pocket.", language, spoken="four", competing="Five hundred")
    assert judge.has(written("I have five hundred coins in my pocket.", language=language), four)
    assert judge.verdict(
        written("I have five hundred coins."),
        written("I have four coins in my pocket.", language=language),
        four,
    ).resolved


def test_what_cannot_be_judged_is_refused_with_a_remedy():
    with pytest.raises(OptionError, match="lacks the label"):
        judge_of("word").check([item(spoken="a", competing="b"), item(spoken="a")])
    with pytest.raises(OptionError, match="not decided by the text"):
        judge_of("token")
    for outcome in ("loop", "hallucination"):
        judge_of(outcome).check([item()])
