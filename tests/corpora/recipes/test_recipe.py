from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from otoscope.audio import Clip, noises, read, silence, white_noise
from otoscope.corpora import read_manifest
from otoscope.corpora.recipes import NonSpeech, Recipe, Sound, make_corpus
from otoscope.corpora.recipes.recipe import rng_of, seed_of
from otoscope.errors import AudioError, ManifestError, OptionError, OutputError
from otoscope.progress import Silence, reporting_to

SMALL = NonSpeech(kinds=("white", "hum", "chords"), count=3, shortest=0.1, longest=0.5)


@dataclass(frozen=True, kw_only=True)
class Given(Recipe):
    """A recipe of clips that a test hands over."""

    name: ClassVar[str] = "given"
    pace: ClassVar[float] = 0.01
    clips: ClassVar[dict] = {}

    def sounds(self):
        return [Sound(name, make, 1.0, "words", "en", {"speaker": name}) for name, make in self.clips.items()]


def given(monkeypatch, **clips) -> Given:
    monkeypatch.setattr(Given, "clips", clips)
    return Given()


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path):
    make_corpus(SMALL, tmp_path / "a")
    make_corpus(SMALL, tmp_path / "b")
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert len(files(tmp_path / "a")) == 9 + 2
    make_corpus(NonSpeech(**{**SMALL.__dict__, "seed": 1}), tmp_path / "c")
    assert not {b for n, b in files(tmp_path / "a").items()} & {b for n, b in files(tmp_path / "c").items()}


def test_a_corpus_explains_itself(tmp_path):
    made = make_corpus(SMALL, tmp_path / "new" / "corpus")
    items = read_manifest(made.manifest)
    assert [item.labels["kind"] for item in items] == ["white"] * 3 + ["hum"] * 3 + ["chords"] * 3
    assert all(
        (item.labels["recipe"], item.labels["seed"], item.text) == ("nonspeech", 0, "") for item in items
    )
    assert all(item.clip().duration == item.duration for item in items)
    told = json.loads((tmp_path / "new" / "corpus" / "recipe.json").read_text())
    assert told["recipe"] == "nonspeech"
    assert told["settings"]["kinds"] == ["white", "hum", "chords"]
    assert {"otoscope", "numpy"} <= told["versions"].keys()


def test_a_recording_that_is_there_is_not_made_again(tmp_path):
    whole = make_corpus(SMALL, tmp_path)
    before = files(tmp_path)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("audio/*.flac")}
    (tmp_path / "audio" / "hum-0001.flac").unlink()
    (tmp_path / "manifest.jsonl").unlink()
    (tmp_path / "audio" / ".hum-0001.flac.x.oto.part").write_bytes(b"half")
    again = make_corpus(SMALL, tmp_path)
    assert (whole.fresh, again.fresh) == (9, 1)
    assert files(tmp_path) == before
    same = [path for path, time_ in times.items() if path.stat().st_mtime_ns == time_]
    assert len(same) == 8


@pytest.mark.slow
def test_a_killed_run_is_completed_by_the_next_one(tmp_path):
    recipe = NonSpeech(kinds=("chords",), count=25, shortest=2, longest=3)
    program = (
        "import sys; from otoscope.corpora.recipes import *;"
        "make_corpus(NonSpeech(kinds=('chords',), count=25, shortest=2, longest=3), sys.argv[1])"
    )
    folder = tmp_path / "killed"
    running = subprocess.Popen([sys.executable, "-c", program, str(folder)])
    while len(list(folder.glob("audio/*.flac"))) < 5:
        time.sleep(0.01)
        assert running.poll() is None, "it was over before it could be killed"
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    assert not (folder / "manifest.jsonl").exists()
    done = make_corpus(recipe, folder)
    assert 0 < done.fresh < 25
    make_corpus(recipe, tmp_path / "whole")
    assert files(folder) == files(tmp_path / "whole")


def test_a_folder_of_other_settings_is_refused_with_what_differs(tmp_path):
    make_corpus(SMALL, tmp_path)
    with pytest.raises(OutputError, match=r"other settings \(count 3\)"):
        make_corpus(NonSpeech(**{**SMALL.__dict__, "count": 4}), tmp_path)


def test_a_folder_of_another_recipe_is_refused(tmp_path, monkeypatch):
    make_corpus(SMALL, tmp_path)
    with pytest.raises(OutputError, match="recipe nonspeech"):
        make_corpus(given(monkeypatch, a=lambda: silence(1)), tmp_path)


@pytest.mark.parametrize(
    "name, content",
    [("notes.txt", "mine"), ("recipe.json", "{}"), ("recipe.json", "[1]"), ("recipe.json", "no")],
)
def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(OutputError):
        make_corpus(SMALL, tmp_path)
    assert files(tmp_path) == {name: content.encode()}


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError):
        make_corpus(SMALL, tmp_path / "file")


def test_a_wrong_setting_leaves_no_folder(tmp_path):
    with pytest.raises(OptionError):
        make_corpus(NonSpeech(kinds=("noise",)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_recording_that_cannot_be_made_is_named_and_skipped(tmp_path, monkeypatch):
    def broken() -> Clip:
        raise AudioError("It is silent.", "Give sound.")

    made = make_corpus(given(monkeypatch, good=lambda: silence(1), bad=broken), tmp_path)
    assert [item.labels["speaker"] for item in made.items] == ["good"]
    assert made.skipped == {"bad": "It is silent. Give sound."}


def test_a_corpus_of_which_nothing_can_be_made_is_refused(tmp_path, monkeypatch):
    def broken() -> Clip:
        raise AudioError("It is silent.", "Give sound.")

    with pytest.raises(ManifestError):
        make_corpus(given(monkeypatch, bad=broken), tmp_path)


def test_what_exceeds_full_scale_is_scaled_down_as_a_whole(tmp_path, monkeypatch):
    loud = noises.tone(0.5, 440, rms=2.0)
    [item] = make_corpus(given(monkeypatch, loud=lambda: loud), tmp_path).items
    heard = item.clip().samples
    assert np.abs(heard).max() <= 1
    np.testing.assert_allclose(heard, loud.samples / np.abs(loud.samples).max(), atol=1e-4)


def test_sixteen_bits_pass_through_unchanged(tmp_path, monkeypatch, jfk):
    [item] = make_corpus(given(monkeypatch, jfk=lambda: read(jfk)), tmp_path).items
    np.testing.assert_array_equal(item.clip().samples, read(jfk).samples)


def test_long_work_is_announced_with_its_size(tmp_path, monkeypatch):
    told = []

    class Listener(Silence):
        def notice(self, text):
            told.append(text)

    recipe = given(monkeypatch, **{str(n): lambda: white_noise(0.1, seed=0) for n in range(5)})
    with reporting_to(Listener()):
        make_corpus(recipe, tmp_path / "short")
        monkeypatch.setattr(Given, "pace", 2.0)
        make_corpus(recipe, tmp_path / "long")
    [line] = told
    assert line.startswith("5 recordings: about 0 MB, and 10 s of work")


def test_a_seed_belongs_to_one_thing():
    seeds = {seed_of(s, *what) for s in (0, 1) for what in (("a", 1), ("a", 2), ("a1",), ("a", "1", ""))}
    assert len(seeds) == 8
    assert rng_of(3, "x").integers(1 << 40) == rng_of(3, "x").integers(1 << 40)
