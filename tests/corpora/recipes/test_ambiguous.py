from __future__ import annotations

from collections import Counter

import pytest

from otoscope.audio import espeak
from otoscope.corpora.recipes import Ambiguous, make_corpus
from otoscope.corpora.recipes.ambiguous import PAIRS
from otoscope.errors import OptionError

pytestmark = pytest.mark.skipif(not espeak.available(), reason="espeak-ng is not installed")


def distance(a: list[str], b: list[str]) -> int:
    """Levenshtein's distance between two lists of phonemes."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, start=1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]


def test_the_distance_is_levenshteins():
    assert distance(list("kitten"), list("sitting")) == 3
    assert distance([], list("ab")) == 2


@pytest.mark.parametrize("one, other", [(pair[0], pair[2]) for pair in PAIRS])
def test_the_words_of_a_pair_sound_nearly_alike(one, other):
    spelled = [
        espeak.phonemes(word, "en-us", stress=False, separator="_").split("_") for word in (one, other)
    ]
    assert 1 <= distance(*spelled) <= 2


def test_the_pairs_are_many_and_different():
    assert len(PAIRS) == 50
    assert len({frozenset((one, other)) for one, _, other, _ in PAIRS}) == 50
    contexts = [context for _, a, _, b in PAIRS for context in (a, b)]
    assert len(set(contexts)) == 100
    assert all(context.count("{}") == 1 for context in contexts)
    assert not any(
        word in a.lower().split() + b.lower().split() for one, a, other, b in PAIRS for word in (one, other)
    )


def test_each_word_is_said_in_all_three_contexts(tmp_path):
    made = make_corpus(Ambiguous(pairs=1, voices=("f2",)), tmp_path)
    said = {(item.labels["spoken"], item.labels["bias"]): item.text for item in made.items}
    _, for_wheel, _, for_veal = PAIRS[0]
    assert said == {
        ("wheel", "misleading"): for_veal.format("wheel"),
        ("wheel", "supporting"): for_wheel.format("wheel"),
        ("wheel", "neutral"): "The next word is wheel.",
        ("veal", "misleading"): for_wheel.format("veal"),
        ("veal", "supporting"): for_veal.format("veal"),
        ("veal", "neutral"): "The next word is veal.",
    }
    first = made.items[0]
    assert first.labels["competing_text"] == first.text.replace("wheel", "veal")
    assert {item.labels["pair"] for item in made.items} == {"veal-wheel"}


def test_the_default_is_balanced():
    sounds = Ambiguous().sounds()
    assert Counter(sound.labels["bias"] for sound in sounds) == dict.fromkeys(
        ("misleading", "supporting", "neutral"), 200
    )
    assert len({sound.name for sound in sounds}) == 600


@pytest.mark.parametrize("more", [{"pairs": 0}, {"pairs": 51}, {"voices": ()}, {"accent": "xx"}], ids=str)
def test_settings_out_of_range_are_refused(more):
    with pytest.raises(OptionError):
        Ambiguous(**more).sounds()
