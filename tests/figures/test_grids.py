"""A sweep as grids."""

from __future__ import annotations

import pytest
from tests.patching.test_results import RESTORED, a_result

from otoscope.figures.grids import patch_figure
from otoscope.figures.style import save_figure


def drawn(result):
    figure = patch_figure(result)
    grids = [ax for ax in figure.axes if ax.images and ax.get_title()]
    return figure, {ax.get_title(): ax for ax in grids}


def test_colours_are_shares_above_random_components_and_numbers_are_counts():
    data = a_result().to_dict()
    _, grids = drawn(data)
    assert set(grids) == {"decoder cross_attn", "decoder mlp, whole"}
    ax = grids["decoder cross_attn"]
    assert [t.get_text() for t in ax.texts] == ["6", "1", "0"]
    values = ax.images[0].get_array()
    assert values[0, 0] == pytest.approx(6 / 7 - 1 / 14)
    assert values[0, 2] == pytest.approx(0 - 3.5 / 7)
    assert len(grids["decoder mlp, whole"].get_xticks()) == 0


def test_a_frame_marks_what_stands_out_and_nothing_else():
    data = a_result().to_dict()
    data["effects"][0]["p_adjusted"], data["effects"][1]["p_adjusted"] = 0.01, 0.2
    _, grids = drawn(data)
    assert len(grids["decoder cross_attn"].lines) == 1
    assert len(grids["decoder mlp, whole"].lines) == 0


def test_hostile_names_are_drawn_as_text_and_the_same_bytes_come_twice(tmp_path):
    data = a_result(RESTORED).to_dict()
    data["model"]["name"] = "$x_1$ \\frac{<b>\x1b[31m\u202e"
    for name in ("a.svg", "b.svg"):
        save_figure(patch_figure(data), tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


@pytest.mark.parametrize("change", [0.0, -3.0])
def test_tokens_are_drawn_by_their_change(change, tmp_path):
    effect = {
        "component": "encoder_blocks.2.attn", "head": None, "label": "EL2 attn", "change": change, "direction_change": 0.1,
        "p_value": 0.04, "p_adjusted": 0.3, "ci_low": None, "ci_high": None, "random_change": None, "n": 3,
        "test": {"change": None, "n": 0},
    }  # fmt: skip
    data = {
        "effects": [effect], "options": {"outcome": "token", "reference": {"kind": "zero"}}, "measure": "logprob",
        "model": {"name": "m"}, "n_outcome": 3,
    }  # fmt: skip
    figure, grids = drawn(data)
    ax = grids["encoder attn, whole"]
    assert ax.images[0].get_array()[2, 0] == change
    assert len(ax.lines) == (1 if change else 0)
    save_figure(figure, tmp_path / "t.pdf")
