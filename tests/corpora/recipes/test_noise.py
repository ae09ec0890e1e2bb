from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from otoscope.audio import noises
from otoscope.corpora import read_manifest
from otoscope.corpora.recipes import Noise, NonSpeech, make_corpus
from otoscope.corpora.recipes.noise import KINDS, RT60S, SNRS, _dealt
from otoscope.errors import ManifestError, OptionError, OutputError


@pytest.fixture
def corpus(tmp_path) -> Path:
    """Six tones of different pitch and level with labels, one of them hostile."""
    folder = tmp_path / "tones"
    folder.mkdir()
    lines = []
    for n in range(6):
        clip = noises.tone(0.6, 300 + 100 * n, rms=0.02 * (n + 1))
        soundfile.write(folder / f"{n}.wav", clip.samples, 16_000, subtype="FLOAT")
        line = {
            "audio_filepath": f"{n}.wav",
            "text": f"tone {n}",
            "language": "en",
            "speaker": "../x" if n else "s",
        }
        lines.append(json.dumps(line | {"noise": "old label"}))
    (folder / "manifest.jsonl").write_text("\n".join(lines))
    return folder / "manifest.jsonl"


def by_source(items) -> dict[str, list]:
    grouped: dict[str, list] = {}
    for item in items:
        grouped.setdefault(item.labels["source"], []).append(item)
    return grouped


def test_every_recording_comes_clean_and_disturbed_with_its_labels(corpus, tmp_path):
    made = make_corpus(Noise(source=corpus, versions=2), tmp_path / "out")
    for name, versions in by_source(made.items).items():
        assert [item.labels["noisy"] for item in versions] == ["no", "yes", "yes"]
        assert versions[0].labels["noise"] == "clean"
        source = next(item for item in read_manifest(corpus) if item.audio_filepath == name)
        assert {item.text for item in versions} == {source.text}
        assert {item.labels["speaker"] for item in versions} == {source.labels["speaker"]}
        np.testing.assert_allclose(versions[0].clip().samples, source.clip().samples, atol=1 / 32768)
        level = noises.rms_of(source.clip())
        assert all(noises.rms_of(item.clip()) == pytest.approx(level, rel=2e-3) for item in versions)


def test_the_snr_is_the_one_that_is_told(corpus, tmp_path):
    """The tone is known, so what is left without it is the noise."""
    made = make_corpus(
        Noise(source=corpus, kinds=("white", "pink"), snrs=(20.0, 0.0, -10.0), versions=None), tmp_path / "o"
    )
    sources = {item.audio_filepath: item.clip().samples.astype(np.float64) for item in read_manifest(corpus)}
    for item in made.items:
        if item.labels["noisy"] == "yes":
            clean, heard = sources[item.labels["source"]], item.clip().samples.astype(np.float64)
            share = (heard @ clean) ** 2 / (clean @ clean) / (heard @ heard)
            assert 10 * math.log10(share / (1 - share)) == pytest.approx(item.labels["snr_db"], abs=1.0)


def test_each_combination_is_dealt_equally_often():
    grid = [(kind, snr) for kind in KINDS for snr in SNRS]
    assert set(Counter(_dealt(grid, 48, seed=0)).values()) == {2}
    assert _dealt(grid, 48, seed=0) != _dealt(grid, 48, seed=1)
    assert len(_dealt(grid, 60, seed=0)) == 60


def test_the_whole_grid_is_every_kind_at_every_strength(corpus, tmp_path):
    sounds = Noise(source=corpus, versions=None).sounds()
    each = (len(KINDS) - 1) * len(SNRS) + len(RT60S)
    assert len(sounds) == 6 * (1 + each)
    reverb = [s for s in sounds if s.labels["noise"] == "reverb"]
    assert {s.labels["rt60"] for s in reverb} == set(RT60S)
    assert {s.labels["snr_db"] for s in reverb} == {None}
    assert len({s.name for s in sounds}) == len(sounds)


def test_babble_is_made_of_the_other_recordings(corpus, tmp_path):
    made = make_corpus(Noise(source=corpus, kinds=("babble",), snrs=(-20.0,)), tmp_path / "out")
    for item in made.items:
        if item.labels["noise"] == "babble":
            own = 300 + 100 * int(item.labels["source"][0])
            power = np.abs(np.fft.rfft(item.clip().samples)) ** 2
            others = [power[round(f * 0.6)] for f in range(300, 900, 100) if f != own]
            assert power[round(own * 0.6)] < 0.5 * np.median(sorted(others)[-4:])


def test_music_is_cut_from_what_is_given(corpus, tmp_path):
    make_corpus(NonSpeech(kinds=("tone",), count=1, shortest=2, longest=2), tmp_path / "music")
    [piece] = read_manifest(tmp_path / "music" / "manifest.jsonl")
    recipe = Noise(source=corpus, kinds=("music",), snrs=(-40.0,), music=(tmp_path / "music",))
    noisy = [item for item in make_corpus(recipe, tmp_path / "out").items if item.labels["noisy"] == "yes"]
    pitch = np.abs(np.fft.rfft(piece.clip().samples)).argmax() / 2
    for item in noisy:
        assert np.abs(np.fft.rfft(item.clip().samples)).argmax() / 0.6 == pytest.approx(pitch, abs=5)


def test_a_folder_that_a_recipe_made_keeps_its_labels(tmp_path):
    make_corpus(NonSpeech(kinds=("white",), count=2, shortest=0.2, longest=0.3), tmp_path / "a")
    made = make_corpus(Noise(source=tmp_path / "a", kinds=("hum",)), tmp_path / "b")
    assert {item.labels["kind"] for item in made.items} == {"white"}
    assert {item.labels["recipe"] for item in made.items} == {"noise"}


def test_a_silent_recording_is_skipped_where_no_snr_is_defined(tmp_path):
    make_corpus(NonSpeech(kinds=("silence", "white"), count=1, shortest=0.2, longest=0.3), tmp_path / "a")
    made = make_corpus(Noise(source=tmp_path / "a", kinds=("pink",)), tmp_path / "b")
    assert len(made.items) == 3
    assert "silent" in next(iter(made.skipped.values()))


def test_a_changed_source_is_noticed(corpus, tmp_path):
    make_corpus(Noise(source=corpus, kinds=("white",)), tmp_path / "out")
    corpus.write_text(corpus.read_text().replace("tone 3", "something else"))
    with pytest.raises(OutputError, match=r"settings \(source"):
        make_corpus(Noise(source=corpus, kinds=("white",)), tmp_path / "out")


@pytest.mark.parametrize(
    "more",
    [
        {"kinds": ("rain",)},
        {"kinds": ()},
        {"snrs": (math.nan,)},
        {"snrs": ()},
        {"snrs": (99.0,)},
        {"versions": 0},
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused(corpus, more):
    with pytest.raises(OptionError):
        Noise(source=corpus, **more).sounds()


def test_babble_needs_others(corpus):
    with pytest.raises(OptionError, match="other recordings"):
        Noise(source=corpus.parent / "0.wav", kinds=("babble",)).sounds()


def test_a_missing_corpus_is_refused(tmp_path):
    with pytest.raises(ManifestError):
        make_corpus(Noise(source=tmp_path / "none.jsonl"), tmp_path / "out")


def test_a_corpus_that_is_noisy_already_is_not_called_clean(corpus, tmp_path):
    once = make_corpus(Noise(source=corpus, kinds=("white",)), tmp_path / "once")
    with pytest.raises(OptionError, match="6 of 12 recordings are noisy already"):
        make_corpus(Noise(source=once.manifest, kinds=("white",)), tmp_path / "twice")


def test_a_corpus_whose_source_was_moved_is_still_the_same(corpus, tmp_path):
    source = corpus if corpus.is_dir() else corpus.parent
    made = make_corpus(Noise(source=corpus, kinds=("white",)), tmp_path / "noisy")
    moved = tmp_path / "elsewhere"
    shutil.copytree(source, moved)
    again = make_corpus(
        Noise(source=moved / corpus.name if corpus.is_file() else moved, kinds=("white",)), tmp_path / "noisy"
    )
    assert (again.fresh, len(again.items)) == (0, len(made.items))
