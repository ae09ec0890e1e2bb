from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest

from otoscope.audio import espeak
from otoscope.corpora.recipes import Voices, make_corpus
from otoscope.corpora.recipes.sentences import CATEGORIES, LANGUAGES, SENTENCES
from otoscope.corpora.recipes.voices import ACCENTS, VOICES
from otoscope.errors import OptionError

pytestmark = pytest.mark.skipif(not espeak.available(), reason="espeak-ng is not installed")


def test_every_voice_says_the_same_in_every_accent(tmp_path):
    made = make_corpus(Voices(voices=("f1", "m1"), accents=("en-us", "en-gb"), sentences=2), tmp_path)
    labels = [item.labels for item in made.items]
    factors = Counter((x["speaker"], x["accent"], x["sentence"]) for x in labels)
    assert len(factors) == 8
    assert set(factors.values()) == {1}
    assert {(x["speaker"], x["gender"]) for x in labels} == {("f1", "female"), ("m1", "male")}
    assert {x["voice"] for x in labels} == {
        f"{a}+{v}" for a, v in itertools.product(("en-us", "en-gb"), ("f1", "m1"))
    }
    assert all(
        item.text == SENTENCES[item.labels["sentence"]] and item.language == "en" for item in made.items
    )
    first = made.items[0]
    spoken = espeak.speak(first.text, accent="en-us", variant="f1")
    np.testing.assert_allclose(first.clip().samples, spoken.samples, atol=1 / 32768)


def test_the_default_is_half_women_and_half_men_in_eight_accents():
    sounds = Voices().sounds()
    assert len(sounds) == len(ACCENTS) * len(VOICES) * 6 == 576
    assert Counter(sound.labels["gender"] for sound in sounds) == {"female": 288, "male": 288}
    assert len({sound.name.lower() for sound in sounds}) == 576


def test_the_default_voices_differ_clearly():
    """The long-term spectra of two voices that say the same differ by 1 dB or more on average over third octaves."""
    spectra = []
    for voice in VOICES:
        power = np.abs(np.fft.rfft(espeak.speak(SENTENCES[0], variant=voice).samples, 1 << 17)) ** 2
        edges = np.geomspace(80, 7000, 21) * (1 << 17) / 16_000
        bands = np.add.reduceat(power, edges.astype(int))[:-1]
        spectra.append(10 * np.log10(bands / bands.sum()))
    apart = [np.abs(a - b).mean() for a, b in itertools.combinations(spectra, 2)]
    assert min(apart) > 1


def test_other_sentences_come_with_another_seed():
    drawn = [{sound.labels["sentence"] for sound in Voices(seed=seed).sounds()} for seed in range(3)]
    assert all(len(numbers) == 6 for numbers in drawn)
    assert len(set(map(frozenset, drawn))) == 3


def test_words_of_a_category_have_the_same_carrier():
    sounds = Voices(what="categories", voices=("f1",)).sounds()
    assert len(sounds) == sum(map(len, CATEGORIES.values())) == 120
    assert {sound.text.replace(sound.labels["word"], "") for sound in sounds} == {"The next word is ."}
    assert all(sound.labels["word"] in CATEGORIES[sound.labels["category"]] for sound in sounds)


def test_languages_say_the_same_in_voices_of_their_own_accent():
    sounds = Voices(what="languages", voices=("f1", "m1"), sentences=3).sounds()
    assert Counter(sound.language for sound in sounds) == dict.fromkeys(LANGUAGES, 6)
    assert len({sound.labels["sentence"] for sound in sounds}) == 3
    assert {s.labels["accent"] for s in sounds if s.language == "fr"} == {"fr-fr"}


def test_the_lists_hold_what_they_promise():
    assert len(set(SENTENCES)) == len(SENTENCES) == 60
    words = [word for category in CATEGORIES.values() for word in category]
    assert len(set(words)) == len(words)
    assert all(len(set(category)) == 12 for category in CATEGORIES.values())
    assert all(
        len(set(sentences)) == 12 and accent in espeak.accents() for accent, sentences in LANGUAGES.values()
    )


@pytest.mark.parametrize(
    "more",
    [
        {"voices": ("zz",)},
        {"voices": ()},
        {"accents": ("en-mars",)},
        {"accents": ()},
        {"what": "languages", "accents": ("fr",)},
        {"sentences": 0},
    ],
    ids=str,
)
def test_what_espeak_does_not_have_is_refused(more):
    with pytest.raises(OptionError):
        Voices(**more).sounds()
