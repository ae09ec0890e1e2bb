"""Recordings joined into windows: everyone as often as asked, nobody beside its own copy, nothing but silence between."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import soundfile

from otoscope.corpora import Item, joined


@pytest.fixture
def corpus(tmp_path):
    """Thirty short recordings of a constant level each; every third is a copy of the one before."""
    rng, found = np.random.default_rng(0), []
    for i in range(30):
        seconds, path = round(float(rng.uniform(0.5, 6)), 2), tmp_path / f"{i}.wav"
        soundfile.write(
            path, np.full(round(seconds * 16000), (i + 1) / 100, np.float32), 16000, subtype="FLOAT"
        )
        labels = {"source": f"s{i - (i % 3 == 2)}"}
        found.append(
            Item(
                path.name,
                path,
                text=f"t{i}",
                duration=seconds,
                language="en" if i % 2 else "fr",
                labels=labels,
            )
        )
    return found


def test_every_recording_comes_as_often_as_asked_within_the_window_and_with_its_language(corpus):
    windows = joined(corpus, 30.0, times=3, seed=1)
    assert Counter(p.audio_filepath for w in windows for p in w.parts) == {
        i.audio_filepath: 3 for i in corpus
    }
    for window in windows:
        assert window.duration <= 30.9  # the last pause may hang over
        assert {part.language for part in window.parts} == {window.language}
        sources = [part.labels["source"] for part in window.parts]
        assert len(set(sources)) == len(sources)
    assert joined(corpus, 30.0, times=3, seed=1) == windows
    assert joined(corpus, 30.0, times=3, seed=2) != windows


def test_a_window_is_its_recordings_with_silence_between(corpus):
    window = max(joined(corpus), key=lambda w: len(w.parts))
    (clip,) = window.windows(30.0)
    assert len(clip.samples) == min(round(window.duration * 16000), 480_000)
    at = 0
    for part, pause in zip(window.parts, window.pauses, strict=True):
        own = part.clip().samples
        np.testing.assert_array_equal(clip.samples[at : at + len(own)], own)
        at += len(own)
        assert not clip.samples[at : at + round(pause * 16000)].any()
        at += round(pause * 16000)
    assert window.text == " ".join(part.text for part in window.parts)
    assert len(window.file_stamp()) == 2 * len(window.parts)


def test_recordings_of_unknown_or_too_great_length_are_left_out(corpus):
    more = [Item("x", corpus[0].path, text="x"), Item("y", corpus[0].path, text="y", duration=31.0)]
    assert {p.audio_filepath for w in joined([*corpus, *more]) for p in w.parts} == {
        i.audio_filepath for i in corpus
    }
