"""Documents of results say what the results say."""

import numpy as np
import pytest
from tests.patching.test_results import RESTORED, a_result

from otoscope.documents.base import Array
from otoscope.errors import OptionError
from otoscope.studies.curve_page import study_docs
from otoscope.studies.pair_page import pair_doc
from otoscope.studies.patch_page import ablation_doc, sweep_doc


class Named:
    """As much of a model as a document names."""

    class origin:  # noqa: N801
        name = "m"


def test_cells_of_a_sweep_hold_its_effects_and_every_items_fate():
    result = a_result()
    doc, told = sweep_doc(result), result.to_dict()
    assert [m.name for m in doc.measures] == ["restored", "resolved"]
    for cell, effect in zip(doc.cells, told["effects"], strict=True):
        assert cell.values[0].value == effect["restored_rate"]
        assert cell.values[0].random == effect["restored_random_rate"]
        assert cell.values[1].count == effect["resolved"]
        assert len(cell.outcomes) == told["n_outcome"]
        assert sum(o.verdict == "restored" for o in cell.outcomes) == effect["restored"]
    assert [item.name for item in doc.items] == [f"{i}<b>" for i in range(7)]
    assert {item.half for item in doc.items} == {"discovery", "test"}
    winners = {(w["component"], w["head"]) for w in told["winners"]}
    assert {(c.component, c.column) for c in doc.cells if c.winner} == winners


def test_the_json_of_a_sweep_makes_the_same_document_without_items():
    whole, bare = sweep_doc(a_result(RESTORED)), sweep_doc(a_result(RESTORED).to_dict())
    assert bare.items == []
    assert [c.values for c in bare.cells] == [c.values for c in whole.cells]


def test_a_large_sweep_keeps_its_first_items_and_says_so(monkeypatch):
    monkeypatch.setattr("otoscope.studies.patch_page._OUTCOMES", 12)
    doc = sweep_doc(a_result())
    assert len(doc.items) == 3
    assert "Details are kept of the first 3 of 7 items." in doc.notes
    assert doc.cells[0].values[0].n == 7


def test_a_pair_has_both_sweeps_beside_each_other():
    exact = np.arange(24.0).reshape(4, 6) / 24
    doc = pair_doc(
        Named(), {"exact": exact + 0.5, "attribution": exact * 2}, ("layer", "head_index"), title="pair", unpatched=0.5
    )  # fmt: skip
    cell = next(c for c in doc.cells if (c.row, c.column) == (3, 5))
    assert [round(v.value, 6) for v in cell.values] == [round(23 / 24, 6), round(46 / 24, 6)]
    assert cell.values[0].stands_out
    assert cell.values[0].random == pytest.approx(exact.ravel()[:-1].mean())
    assert sum(c.values[0].stands_out for c in doc.cells) == 2  # of 24


def test_a_pair_by_position_and_head_has_a_grid_a_head_and_leaves_out_what_was_not_patched():
    values = np.full((2, 3, 4), np.nan)
    values[1, 2, 3] = 1.0
    doc = pair_doc(
        Named(), {"exact": values}, ("layer", "pos", "head_index"), title="t", places=["a", "b", "c"]
    )
    assert [grid.title for grid in doc.grids] == [f"head {i}" for i in range(4)]
    (cell,) = doc.cells
    assert (cell.grid, cell.row, cell.column) == (3, 1, 2)
    assert doc.grids[3].columns == ["0 a", "1 b", "2 c"]
    assert not cell.values[0].stands_out  # of one cell nothing stands out


def test_a_cell_that_one_sweep_left_out_has_no_value_there_and_none_is_drawn(tmp_path):
    whole, part = np.ones((2, 3)), np.full((2, 3), np.nan)
    part[1, 2] = 2.0
    doc = pair_doc(Named(), {"exact": part, "attribution": whole}, ("layer", "head_index"), title="t")
    values = {(c.row, c.column): c.values for c in doc.cells}
    assert (values[0, 0][0].value, values[0, 0][0].n, values[0, 0][1].value) == (None, 0, 1.0)
    assert doc.headline == "The strongest cell (exact) is layer 1, head 2: +2.00."
    assert doc.summary().count("layer ") == 2  # the headline's, and the only one with a value
    image = doc.plot(measure=0).axes[0]
    assert [t.get_text() for t in image.texts] == ["+2.0"]
    assert image.images[0].get_array().mask.sum() == 5


def test_controls_are_called_what_they_are():
    pair = pair_doc(Named(), {"exact": np.arange(4.0).reshape(2, 2)}, ("layer", "head_index"), title="t")
    assert {m.control for m in pair.measures} == {"other cells"}
    assert "other cells" in pair.summary()
    assert "random components" not in pair.summary()
    assert pair.plot().axes[-1].get_ylabel().endswith("less the other cells' mean")
    assert {m.control for m in sweep_doc(a_result()).measures} == {"random components"}


@pytest.mark.parametrize("axes", [("pos", "layer"), ("layer",), ("layer", "pos", "head_index", "src_pos")])
def test_results_that_make_no_grid_are_refused(axes):
    with pytest.raises(OptionError, match="one grid"):
        pair_doc(Named(), {"exact": np.zeros([2] * len(axes))}, axes, title="t")
    with pytest.raises(OptionError, match="No cell"):
        pair_doc(Named(), {"exact": np.full((2, 2), np.nan)}, ("layer", "pos"), title="t")


def test_the_ablation_of_a_clip_has_its_tokens_as_items(explained):
    doc = ablation_doc(explained)
    change = explained.ablation.change.unpack()
    assert len(doc.items) == change.shape[1]
    assert doc.cells[0].values[0].value == pytest.approx(change[0].mean(), abs=1e-6)
    assert doc.cells[0].outcomes[3].change == pytest.approx(change[0, 3])


@pytest.fixture
def explained():
    from types import SimpleNamespace

    from otoscope.documents.explain import Ablation, Component

    parts = [
        Component(
            id=f"decoder_blocks.{layer}.mlp", label=f"DL{layer} MLP", stack="decoder", layer=layer, part="mlp"
        )
        for layer in range(3)
    ]
    change = np.random.default_rng(0).normal(size=(3, 5))
    tokens = [SimpleNamespace(index=i, text=f" t{i}") for i in range(5)]
    return SimpleNamespace(
        title="clip", model=SimpleNamespace(name="m"), settings={}, versions={},
        ablation=Ablation(components=parts, change=Array.pack(change)), transcript=SimpleNamespace(tokens=tokens),
    )  # fmt: skip


def test_a_study_without_curves_or_sweeps_has_no_page():
    assert study_docs({"study": "why"}) == {}
