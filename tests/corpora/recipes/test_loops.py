from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from otoscope.audio import Clip, espeak, noises
from otoscope.corpora.recipes import Loops, NonSpeech, make_corpus
from otoscope.corpora.recipes.loops import KINDS, SNRS, _shuffled
from otoscope.errors import OptionError
from otoscope.outcomes.loops import is_loop

pytestmark = pytest.mark.skipif(not espeak.available(), reason="espeak-ng is not installed")


def test_every_kind_has_its_count_and_the_same_level(tmp_path):
    made = make_corpus(Loops(count=2), tmp_path)
    assert Counter(item.labels["kind"] for item in made.items) == dict.fromkeys(KINDS, 2)
    for item in made.items:
        assert 14.5 <= item.duration <= 28
        assert noises.rms_of(item.clip()) == pytest.approx(0.1, rel=0.05)
    snrs = [item.labels["snr_db"] for item in made.items if item.labels["kind"] == "long"]
    assert all(SNRS[0] <= snr <= SNRS[1] for snr in snrs)
    assert len(set(snrs)) == 2


def test_shuffled_speech_is_the_same_quarters_of_a_second_in_another_order():
    clip = Clip(np.arange(16_000 * 3 + 100, dtype=np.float32))
    shuffled = _shuffled(clip, np.random.default_rng(0)).samples.reshape(-1, 4000)
    assert not np.array_equal(shuffled.ravel(), clip.samples[:48_000])
    assert sorted(map(tuple, shuffled)) == sorted(map(tuple, clip.samples[:48_000].reshape(-1, 4000)))


def test_reversed_speech_is_clipped_hard(tmp_path):
    for item in make_corpus(Loops(count=3, kinds=("reversed",)), tmp_path).items:
        samples = np.abs(item.clip().samples)
        assert np.mean(samples > 0.99 * samples.max()) > 0.29


def test_speech_comes_from_the_corpus_that_is_given(tmp_path):
    tones = make_corpus(NonSpeech(kinds=("tone",), count=1, shortest=2, longest=2), tmp_path / "tone")
    made = make_corpus(Loops(count=1, kinds=("babble",), speech=tmp_path / "tone"), tmp_path / "out")
    heard = [
        np.abs(np.fft.rfft(m.items[0].clip().samples)).argmax() / m.items[0].duration for m in (tones, made)
    ]
    assert heard[0] == pytest.approx(heard[1], abs=5)


@pytest.mark.parametrize("more", [{"kinds": ("x",)}, {"count": 0}], ids=str)
def test_settings_out_of_range_are_refused(more):
    with pytest.raises(OptionError):
        Loops(**more).sounds()


@pytest.mark.weights
@pytest.mark.slow
def test_reversed_speech_sets_off_loops_in_whisper_tiny_en(tiny_en, tmp_path):
    from otoscope.models.transcribing import transcribe_all

    made = make_corpus(Loops(count=8, kinds=("reversed",)), tmp_path)
    texts = list(transcribe_all(tiny_en, made.items))
    assert sum(is_loop(transcript.text) for transcript in texts) >= 2
