"""A word's sound is drawn on the spectrogram, whatever its labels say."""

from __future__ import annotations

import numpy as np
import pytest

from otoscope.errors import OptionError
from otoscope.figures.style import save_figure
from otoscope.figures.trace import trace_figure


def drawn(title="'country'", labels=("And", "between words", "country", "padding"), seconds=1.5):
    rng = np.random.default_rng(0)
    mel, parts = rng.normal(size=(80, 300)), rng.normal(size=(80, 300)) / 100
    spans = ((0.0, 0.4), (0.4, 0.6), (0.6, 1.5), (1.5, 3.0))
    return trace_figure(mel, parts, (0.2, -0.1, 3.0, 0.5), spans, labels, seconds, title)


def test_segments_are_bars_of_their_length_and_what_lies_behind_the_recording_is_left_out():
    bars, sound = drawn().axes[:2]
    boxes = [(round(p.get_x(), 2), round(p.get_width(), 2), p.get_height()) for p in bars.patches]
    assert boxes == [(0.0, 0.4, 0.2), (0.4, 0.2, -0.1), (0.6, 0.9, 3.0)]
    assert (
        bars.patches[0].get_facecolor() == bars.patches[2].get_facecolor() != bars.patches[1].get_facecolor()
    )
    assert [text.get_text() for text in bars.texts] == ["And", "country"]
    assert sound.get_xlim() == (0.0, 1.5)
    assert sound.images[1].get_array().shape == (80, 150)


def test_hostile_labels_and_titles_are_text(tmp_path):
    save_figure(drawn("$\\frac{1}{0}$ <script>\n‮" * 40, ("$x^", "\x00", "<b>" * 200, "")), tmp_path / "a.svg")
    svg = (tmp_path / "a.svg").read_text()
    assert "<script" not in svg


def test_no_sound_is_refused():
    with pytest.raises(OptionError, match="no sound"):
        drawn(seconds=0.0)
