from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from otoscope.audio import noises
from otoscope.corpora.recipes import NonSpeech, make_corpus
from otoscope.corpora.recipes.nonspeech import KINDS, LEVELS
from otoscope.errors import OptionError


def test_every_kind_has_its_count_lengths_in_range_and_the_level_that_is_told(tmp_path):
    made = make_corpus(NonSpeech(count=4, shortest=0.2, longest=0.6), tmp_path)
    assert Counter(item.labels["kind"] for item in made.items) == dict.fromkeys(KINDS[:-1], 4)
    for item in made.items:
        assert item.text == ""
        assert 0.199 <= item.duration <= 0.601
        assert noises.rms_of(item.clip()) == pytest.approx(item.labels["rms"], rel=0.02, abs=2e-5)
    silent = [item for item in made.items if item.labels["kind"] == "silence"]
    assert not any(item.clip().samples.any() for item in silent)


def test_length_and_level_do_not_tell_the_kind():
    sounds = [s for s in NonSpeech(count=60).sounds() if s.labels["kind"] not in ("silence", "clicks")]
    rms = {kind: [s.labels["rms"] for s in sounds if s.labels["kind"] == kind] for kind in KINDS[1:7]}
    assert all(LEVELS[0] <= level <= LEVELS[1] for levels in rms.values() for level in levels)
    medians = [np.median(np.log(levels)) for levels in rms.values()]
    assert np.ptp(medians) < 0.25 * np.ptp(np.log(LEVELS))


def test_music_is_cut_at_random_places(tmp_path):
    make_corpus(NonSpeech(kinds=("chords",), count=1, shortest=6, longest=6), tmp_path / "music")
    recipe = NonSpeech(kinds=("music",), count=3, shortest=1, longest=1, music=(tmp_path / "music",))
    pieces = [item.clip().samples for item in make_corpus(recipe, tmp_path / "out").items]
    assert len({piece.tobytes() for piece in pieces}) == 3


@pytest.mark.parametrize(
    "more",
    [
        {"kinds": ("music",)},
        {"kinds": ("x",)},
        {"count": 0},
        {"shortest": 5, "longest": 2},
        {"shortest": 0.001},
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused(more):
    with pytest.raises(OptionError):
        NonSpeech(**more).sounds()
