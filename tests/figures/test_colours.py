"""Colours that colour-blind people can tell apart, and text that can be read, in figures and on the page."""

from __future__ import annotations

import re
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from otoscope.figures.style import DARK, LIGHT, luminance

CSS = Path(__file__).parents[2] / "web" / "src" / "css" / "colours.css"

# Machado, Oliveira and Fernandes 2009, severity 1, in linear RGB.
SIGHTS = {
    "ordinary": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def lab(colour, sight):
    """CIE Lab of a colour as it is seen."""
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = TO_XYZ @ np.clip(SIGHTS[sight] @ linear, 0, 1) / np.array([0.9505, 1, 1.089])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def apart(a, b, sight):
    return float(np.linalg.norm(lab(a, sight) - lab(b, sight)))


def contrast(a, b):
    high, low = sorted((luminance(*to_rgb(a)), luminance(*to_rgb(b))), reverse=True)
    return (high + 0.05) / (low + 0.05)


def of_the_page():
    """Custom properties of the style sheet, light and dark."""
    text = CSS.read_text("utf-8")
    light, dark = text.split("@media (prefers-color-scheme: dark)")[:2]
    found = [dict(re.findall(r"--([\w-]+): ([^;]+);", part.split("\n}")[0])) for part in (light, dark)]
    return {"light": found[0], "dark": found[0] | found[1]}


PAGE = of_the_page()
SERIES = {
    "figure, light": LIGHT.series,
    "figure, dark": DARK.series,
    "page, light": [PAGE["light"][f"series-{i}"] for i in range(5)],
    "page, dark": [PAGE["dark"][f"series-{i}"] for i in range(5)],
}


@pytest.mark.parametrize("sight", SIGHTS)
@pytest.mark.parametrize("name", SERIES)
def test_lines_keep_apart_in_every_sight(name, sight):
    worst = min(combinations(SERIES[name], 2), key=lambda pair: apart(*pair, sight))
    assert apart(*worst, sight) >= 12, worst


@pytest.mark.parametrize("sight", SIGHTS)
@pytest.mark.parametrize("palette", [LIGHT, DARK])
def test_types_beside_each_other_keep_apart(palette, sight):
    for a, b in pairwise(palette.types.values()):
        assert apart(a, b, sight) >= 12, (a, b)


@pytest.mark.parametrize("sight", SIGHTS)
@pytest.mark.parametrize("palette", [LIGHT, DARK])
def test_both_ends_of_a_change_keep_apart_and_amounts_run_one_way(palette, sight):
    assert apart(palette.change[0], palette.change[-1], sight) >= 25
    lightness = [lab(colour, sight)[0] for colour in palette.amount]
    assert min(np.abs(np.diff(lightness))) > 5
    assert len(set(np.sign(np.diff(lightness)))) == 1


@pytest.mark.parametrize("palette", [LIGHT, DARK])
def test_text_of_figures_can_be_read(palette):
    assert contrast(palette.ink, palette.paper) >= 7
    assert contrast(palette.muted, palette.paper) >= 4.5
    for colour in palette.series:
        assert contrast(colour, palette.paper) >= 3  # lines, not text
    for ends in (palette.amount, palette.change, tuple(palette.types.values())):
        for colour in ends:
            assert contrast(palette.on(colour), colour) >= 4.5


@pytest.mark.parametrize("theme", PAGE)
def test_text_of_the_page_can_be_read(theme):
    colours = PAGE[theme]
    for ground in ("paper", "panel"):
        for text in ("ink", "muted", "accent"):
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
        for i in range(5):
            assert contrast(colours[f"series-{i}"], colours[ground]) >= 3
