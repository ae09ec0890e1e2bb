from __future__ import annotations

import re

import numpy as np
import pytest

from otoscope.audio import espeak
from otoscope.corpora.recipes import Repeats, Voices, make_corpus
from otoscope.corpora.recipes.repeats import KINDS, TIMES
from otoscope.errors import OptionError

pytestmark = pytest.mark.skipif(not espeak.available(), reason="espeak-ng is not installed")


@pytest.fixture
def corpus(tmp_path):
    return make_corpus(Voices(voices=("f1",), accents=("en-us",), sentences=2), tmp_path / "speech").manifest


def test_the_text_holds_the_unit_as_often_as_is_told(corpus, tmp_path):
    made = make_corpus(Repeats(count=6, speech=corpus), tmp_path / "out")
    assert [item.labels["kind"] for item in made.items] == [kind for kind in KINDS for _ in range(6)]
    for item in made.items:
        assert TIMES[0] <= item.labels["times"] <= TIMES[1]
        assert item.duration <= 28
        if item.labels["kind"] == "second":
            assert item.text is None
        else:
            unit = re.escape(item.labels["unit"].lower())
            assert len(re.findall(rf"{unit}(?=\W|$)", item.text.lower())) == item.labels["times"]


@pytest.mark.parametrize("kind", ["clip", "second"])
def test_copies_are_exactly_alike(corpus, tmp_path, kind):
    for item in make_corpus(Repeats(kinds=(kind,), count=4, speech=corpus), tmp_path / "out").items:
        copies = item.clip().samples.reshape(item.labels["times"], -1)
        assert np.array_equal(copies, np.broadcast_to(copies[0], copies.shape))
        assert copies.any()
        assert kind == "clip" or copies.shape[1] == 16_000


def test_without_a_corpus_there_are_no_clips_to_repeat():
    assert {sound.labels["kind"] for sound in Repeats(count=1).sounds()} == {"word", "phrase", "second"}
    with pytest.raises(OptionError, match="--speech"):
        Repeats(kinds=("clip",)).sounds()


@pytest.mark.parametrize("more", [{"kinds": ("x",)}, {"count": 0}], ids=str)
def test_settings_out_of_range_are_refused(more):
    with pytest.raises(OptionError):
        Repeats(**more).sounds()
