"""The heat map: whole files, hostile text as text, the same bytes twice."""

import xml.etree.ElementTree as ElementTree

import pytest
import torch

from otoscope.errors import OptionError, OutputError
from otoscope.lenses.logit_lens import LensReading
from otoscope.views.figures import save_figure
from otoscope.views.lens_figure import lens_heat_map


def save_heat_map(reading, ids, texts, path, title=""):
    save_figure(lens_heat_map(reading, ids, texts, title), path)


def reading(layers, tokens):
    g = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 5, (layers, tokens, 2), generator=g)
    p, rank = torch.rand(layers, tokens, generator=g), torch.zeros(layers, tokens, dtype=torch.long)
    return LensReading(
        ids, torch.rand(layers, tokens, 2, generator=g), p, rank, p, (None, *range(layers)) * tokens
    )


TEXTS = dict(enumerate((" and", "$x_1$ \\frac{", "<b>&\x1b[31m\u202e", "\ufffd\n", "國家")))


def test_a_picture_is_written_and_nothing_else(tmp_path):
    save_heat_map(reading(4, 20), [0, 1, 2, 3, 4] * 4, TEXTS, tmp_path / "lens.png", "a title")
    assert [p.name for p in tmp_path.iterdir()] == ["lens.png"]
    assert (tmp_path / "lens.png").read_bytes().startswith(b"\x89PNG")


def test_hostile_text_is_drawn_as_text(tmp_path):
    save_heat_map(
        reading(3, 5), [0, 1, 2, 3, 4], TEXTS, tmp_path / "lens.svg", "$\\frac{1}$ <script>\x1b \u202e"
    )
    root = ElementTree.fromstring((tmp_path / "lens.svg").read_text("utf-8"))
    assert not [e for e in root.iter() if e.tag.endswith("script")]
    assert "\u202e" not in (tmp_path / "lens.svg").read_text("utf-8")


def test_the_same_reading_gives_the_same_svg(tmp_path):
    for name in ("a.svg", "b.svg"):
        save_heat_map(reading(3, 5), [0, 1, 2, 3, 4], TEXTS, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_of_a_very_long_text_the_beginning_is_drawn(tmp_path):
    save_heat_map(reading(2, 400), [0] * 400, TEXTS, tmp_path / "lens.png")
    assert (tmp_path / "lens.png").stat().st_size < 5e6


def test_what_cannot_be_drawn_is_refused(tmp_path):
    with pytest.raises(OutputError, match="no figure's name"):
        save_heat_map(reading(2, 1), [0], TEXTS, tmp_path / "lens.gif")
    with pytest.raises(OptionError, match="nothing to draw"):
        save_heat_map(reading(2, 1), [], TEXTS, tmp_path / "lens.png")
    with pytest.raises(OutputError):
        save_heat_map(reading(2, 1), [0], TEXTS, tmp_path / "no" / "lens.png")
    assert not list(tmp_path.iterdir())
