"""Whether a corpus is enough for a monitor, in words; and its parts, which an odd text does not keep from being made."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import pytest

from otoscope.corpora import Item, folds
from otoscope.errors import ManifestError
from otoscope.monitors.dividing import (
    LEAST,
    SHARES,
    classes,
    divided,
    ordinary_needed,
    origin,
    require_enough,
    require_possible,
)
from otoscope.monitors.thresholds import conformal_threshold
from otoscope.monitors.verdicts import Verdict

RATE = 0.1


def speech(count):
    return [Item(f"s{i}", f"s{i}.wav", text=f"this is sentence {i}") for i in range(count)]


def sounds(count):
    return [Item(f"n{i}", f"n{i}.wav", text="", labels={"speech": "no"}) for i in range(count)]


def loops(count):
    return [Item(f"l{i}", f"l{i}.wav") for i in range(count)]


def corpus(right=50, invented=16, looping=16, odd=1):
    """Items and what is true of their texts: one sound of the `odd` is answered by a full stop, which is no invention."""
    items = [*speech(right), *sounds(invented), *loops(looping), *sounds(odd)]
    items[len(items) - odd :] = [Item(f"odd{i}", f"odd{i}.wav", text="") for i in range(odd)]
    verdicts = [
        *[Verdict(False, False, True)] * right,
        *[Verdict(True, False, False)] * invented,
        *[Verdict(None, True, False)] * looping,
        *[Verdict(False, False, False)] * odd,
    ]
    return items, [SimpleNamespace(item=i, verdict=v) for i, v in enumerate(verdicts)]


def refused(check, *args):
    with pytest.raises(ManifestError) as error:
        check(*args)
    return error.value


def test_one_odd_text_keeps_nobody_from_dividing_a_corpus():
    items, texts = corpus()
    parts = divided(texts, items, RATE, 0)
    assert sum(map(len, parts.values())) == len(texts)
    for part, share in SHARES.items():
        told = Counter((t.verdict.invented, t.verdict.loop) for t in parts[part])
        assert told[False, False] == pytest.approx(50 * share, abs=2)
        assert told[True, False] == pytest.approx(16 * share, abs=1.5)
        assert told[None, True] == pytest.approx(16 * share, abs=1.5)


def test_what_is_asked_for_is_enough_to_be_divided_and_to_choose_the_threshold_by():
    for rate in (0.05, 0.1, 0.3):
        for seed in range(3):
            items, texts = corpus(ordinary_needed(rate), LEAST, LEAST, odd=2)
            require_possible(items, rate)
            require_enough(texts, items, rate)
            parts = divided(texts, items, rate, seed)
            risks = [0.1 for t in parts["calibrate"] if t.verdict.ordinary]
            assert conformal_threshold(risks, rate) > 0.1


def test_no_two_parts_share_an_origin():
    items, texts = corpus()
    items = [*items, *items]
    texts = [*texts, *(SimpleNamespace(item=t.item + len(texts), verdict=t.verdict) for t in texts)]
    parts = divided(texts, items, RATE, 0)
    origins = [{origin(items[t.item]) for t in kept} for kept in parts.values()]
    assert sum(map(len, origins)) == len(set.union(*origins))


def test_folds_are_made_of_classes_with_an_odd_text_in_them():
    items, texts = corpus(8, 8, 8)
    origins = [origin(items[t.item]) for t in texts]
    assert classes(texts, origins)[-1] is None
    assert len(set(folds(origins, classes(texts, origins), 4))) == 4


def test_odd_texts_that_loop_are_a_class_together():
    texts = [
        SimpleNamespace(item=i, verdict=v)
        for i, v in enumerate(
            [Verdict(None, True, False), Verdict(True, True, True), Verdict(False, False, True)]
        )
    ]
    assert classes(texts, ["a", "b", "c"]) == ["loop", "loop", None]


def test_recordings_that_cannot_be_enough_are_refused_in_words():
    told = refused(require_possible, loops(126), RATE)
    assert "16 invented texts are needed, there can be at most 0: 16 more" in told.reason
    assert (
        "50 recordings of ordinary speech are needed for a false-alarm rate of 0.1, there are 0"
        in told.reason
    )
    assert "loop" not in told.reason  # each of them may
    assert "corpus make nonspeech" in told.remedy
    assert "clear speech with its text" in told.remedy


def test_recordings_longer_than_a_window_count_for_nothing():
    items = [Item(i.audio_filepath, i.path, i.text, duration=31.0) for i in speech(60)]
    told = refused(require_possible, [*items, *sounds(20)], RATE)
    assert "there are 0" in told.reason


def test_a_rate_that_so_much_speech_can_promise_is_named_and_is_taken():
    items = [*speech(50), *sounds(16)]
    told = refused(require_possible, items, 0.05)
    assert (
        "100 recordings of ordinary speech are needed for a false-alarm rate of 0.05, there are 50: 50 more"
        in (told.reason)
    )
    assert "Or ask for a false-alarm rate of 0.1." in told.remedy
    require_possible(items, 0.1)


def test_texts_of_which_too_few_loop_are_refused_with_how_many_more():
    items, texts = corpus(looping=5)
    told = refused(require_enough, texts, items, RATE)
    assert told.reason == (
        "A monitor cannot be fitted to these 72 texts: 16 texts that loop are needed, there are 5: 11 more."
    )
    assert "corpus make loops" in told.remedy
    assert "is kept" in told.remedy


def test_many_texts_of_one_source_are_not_many():
    items, texts = corpus()
    one = [Item(i.audio_filepath, i.path, labels={"source": "one"}) if i.text is None else i for i in items]
    told = refused(require_enough, texts, one, RATE)
    assert "the texts that loop come from 1 different sentences or sources, and 6 are needed" in told.reason


def test_labels_take_the_place_of_references():
    items = [
        *speech(50),
        *[Item(f"a{i}", f"a{i}.wav", labels={"invented": "yes", "loop": "no"}) for i in range(16)],
        *[Item(f"b{i}", f"b{i}.wav", labels={"invented": "no", "loop": "yes"}) for i in range(16)],
    ]
    require_possible(items, RATE)
