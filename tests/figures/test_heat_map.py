"""The heat map: whole files, hostile text as text, the same bytes twice."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from otoscope.errors import OptionError, OutputError
from otoscope.figures.heat_map import lens_figure

TEXTS = (" and", "$x_1$ \\frac{", "<b>&\x1b[31m\u202e", "\ufffd\n", "國家")


def tokens(count, layers=3):
    rng = np.random.default_rng(0)
    return [
        {
            "text": TEXTS[i % 5],
            "saturation_layer": None if i % 2 else i % layers,
            "layers": [
                {"layer": layer, "top": [{"text": TEXTS[rng.integers(5)]}], "p_final": rng.random()}
                for layer in range(layers)
            ],
        }
        for i in range(count)
    ]


def test_a_picture_is_written_and_nothing_else(tmp_path):
    lens_figure(tokens(20), "a title", path=tmp_path / "lens.png")
    assert [p.name for p in tmp_path.iterdir()] == ["lens.png"]
    assert (tmp_path / "lens.png").read_bytes().startswith(b"\x89PNG")


def test_cells_show_the_top_token_and_frames_the_saturation():
    figure = lens_figure(tokens(4))
    ax = figure.axes[0]
    assert ax.images[0].get_array().shape == (3, 4)
    assert len(ax.texts) == 12
    assert len(ax.lines) == 2


def test_hostile_text_is_drawn_as_text(tmp_path):
    lens_figure(tokens(5), "$\\frac{1}$ <script>\x1b \u202e", path=tmp_path / "lens.svg")
    text = (tmp_path / "lens.svg").read_text("utf-8")
    assert not [e for e in ElementTree.fromstring(text).iter() if e.tag.endswith("script")]
    assert "\u202e" not in text
    assert "$x_1$" in text  # no formula was made of it


def test_the_same_reading_gives_the_same_svg(tmp_path):
    for name in ("a.svg", "b.svg"):
        lens_figure(tokens(5), path=tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_of_a_very_long_text_the_beginning_is_drawn(tmp_path):
    figure = lens_figure(tokens(400, 2), "long", path=tmp_path / "lens.png")
    assert "the first 160 of 400 tokens" in figure.get_suptitle()


def test_what_cannot_be_drawn_is_refused(tmp_path):
    with pytest.raises(OutputError, match="no figure's name"):
        lens_figure(tokens(1), path=tmp_path / "lens.gif")
    with pytest.raises(OptionError, match="nothing to draw"):
        lens_figure([], path=tmp_path / "lens.png")
    with pytest.raises(OutputError):
        lens_figure(tokens(1), path=tmp_path / "no" / "lens.png")
    assert not list(tmp_path.iterdir())
