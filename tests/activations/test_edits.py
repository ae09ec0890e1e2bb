from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from tests.conftest import example_inputs, tiny

from otoscope.activations import Edit, EditNotApplied, HookPoint, Visit, load_edits, save_edits
from otoscope.errors import EditError, OutputError, PointError

POINT = HookPoint("z", "", "input", ("batch", "pos", "head", "d_head"), heads=4, width=5)
STREAM = HookPoint("resid", "", "input", ("batch", "pos", "d_model"), width=6)
SCORES = HookPoint("scores", "", "scores", ("batch", "head", "pos", "key"), heads=2)
CROSS = HookPoint("cross", "", "scores", ("batch", "head", "pos", "source"), heads=2)


def at(offset: int = 0, step: int = 0, rows: tuple[int, ...] | None = None) -> Visit:
    return Visit("z", 0, step, offset, "decode" if step else "forward", rows)


def z(batch: int = 3, pos: int = 4) -> torch.Tensor:
    return torch.randn(batch, pos, 4, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.fixture(scope="module")
def llama():
    return tiny("llama")


@pytest.fixture(scope="module")
def whisper():
    return tiny("whisper")


# Operations ----------------------------------------------------------------------------------------------------------


def test_zero_mean_and_replace_set_the_activation():
    x, value = z(), torch.arange(5.0)
    assert torch.equal(Edit.zero("z")(x, POINT, at()), x * 0)
    for edit in (Edit.mean("z", value), Edit.replace("z", value)):
        assert torch.equal(edit(x, POINT, at()), value.double().expand(3, 4, 4, 5))


def test_scale_multiplies_and_add_adds():
    x, v = z(), torch.arange(5.0)
    assert torch.equal(Edit.scale("z", -2.5)(x, POINT, at()), x * -2.5)
    assert torch.equal(Edit.add("z", v)(x, POINT, at()), x + v)


@pytest.mark.parametrize("alpha", [0.0, 0.25, 1.0, 1.5])
def test_mix_moves_the_share_alpha_of_the_way_to_the_reference(alpha):
    x, reference = z(), z().flip(0)
    new = Edit.mix("z", reference, alpha)(x, POINT, at())
    torch.testing.assert_close(new, x + alpha * (reference - x), rtol=1e-12, atol=1e-12)


def test_project_out_leaves_nothing_along_the_basis_and_everything_across_it():
    x = z()
    basis = torch.randn(2, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    dependent = torch.cat([basis, basis[:1] * 3])  # a third direction that spans nothing new
    new = Edit.project_out("z", dependent)(x, POINT, at())
    orthonormal = torch.linalg.qr(basis.T).Q.T
    torch.testing.assert_close(new, x - (x @ orthonormal.T) @ orthonormal, rtol=0, atol=1e-12)
    assert (new @ basis.T).abs().max() < 1e-12
    one = Edit.project_out("z", basis[0])(x, POINT, at())
    torch.testing.assert_close(
        one, x - (x @ basis[0])[..., None] * basis[0] / basis[0].dot(basis[0]), rtol=0, atol=1e-12
    )


def test_an_edit_leaves_its_input_alone():
    x = z()
    before = x.clone()
    for edit in (Edit.zero("z"), Edit.zero("z", rows=1), Edit.add("z", torch.ones(5), heads=(0, 2))):
        edit(x, POINT, at())
    assert torch.equal(x, before)


# Places --------------------------------------------------------------------------------------------------------------


@given(
    rows=st.none() | st.sets(st.integers(0, 2), min_size=1),
    positions=st.none() | st.sets(st.integers(0, 6), min_size=1),
    heads=st.none() | st.sets(st.integers(0, 3), min_size=1),
    offset=st.integers(0, 3),
)
@settings(deadline=None, max_examples=60)
def test_rows_positions_and_heads_address_exactly_their_block(rows, positions, heads, offset):
    x = z()
    expected = x.clone()
    for b, p, h in np.ndindex(3, 4, 4):
        if (
            (rows is None or b in rows)
            and (positions is None or p + offset in positions)
            and (heads is None or h in heads)
        ):
            expected[b, p, h] *= 3
    new = Edit.scale("z", 3, rows=rows, positions=positions, heads=heads)(x, POINT, at(offset))
    assert torch.equal(x if new is None else new, expected)


def test_one_index_may_be_given_bare_also_from_numpy():
    assert Edit.zero("z", heads=2).heads == (2,)
    assert Edit.zero("z", heads=np.int64(2), rows=range(2)).rows == (0, 1)


def test_keys_address_source_positions():
    x = torch.randn(1, 2, 3, 7)
    new = Edit.replace("scores", torch.tensor(-torch.inf), heads=1, positions=2, keys=(0, 5))(x, SCORES, at())
    assert torch.equal((new != x).nonzero(), torch.tensor([[0, 1, 2, 0], [0, 1, 2, 5]]))


def test_keys_stay_absolute_when_a_sliding_window_has_dropped_the_oldest():
    x = torch.randn(1, 2, 1, 4)  # position 9 sees keys 6 to 9
    new = Edit.zero("scores", keys=8)(x, SCORES, at(offset=9, step=3))
    assert torch.equal((new != x).any(dim=1).nonzero(), torch.tensor([[0, 0, 2]]))
    assert Edit.zero("scores", keys=5)(x, SCORES, at(offset=9, step=3)) is None
    cross = Edit.zero("cross", keys=2)(x, CROSS, at(offset=9, step=3))
    assert torch.equal((cross != x).any(dim=1).nonzero(), torch.tensor([[0, 0, 2]]))


def test_steps_choose_decoding_steps():
    edit = Edit.zero("z", steps=(0, 2))
    assert [edit(z(), POINT, at(step=s)) is not None for s in range(4)] == [True, False, True, False]


def test_rows_keep_their_number_after_others_have_left_or_were_repeated():
    x = z()
    left = Edit.zero("z", rows=(5, 9))(x, POINT, at(rows=(2, 5, 7)))
    assert (left == 0).all(dim=(1, 2, 3)).tolist() == [False, True, False]
    repeated = Edit.zero("z", rows=5)(x, POINT, at(rows=(5, 2, 5)))
    assert (repeated == 0).all(dim=(1, 2, 3)).tolist() == [True, False, True]
    assert Edit.zero("z", rows=1)(x, POINT, at(rows=(2, 5, 7))) is None


# Values --------------------------------------------------------------------------------------------------------------


def test_a_value_is_read_at_absolute_positions_and_original_rows():
    reference = z(batch=8, pos=10)
    x = z(batch=3, pos=2)
    new = Edit.replace("z", reference)(x, POINT, at(offset=6, step=2, rows=(1, 4, 7)))
    assert torch.equal(new, reference[[1, 4, 7], 6:8])
    new = Edit.replace("z", reference, rows=4, positions=7, heads=(1, 3))(
        x, POINT, at(offset=6, step=2, rows=(1, 4, 7))
    )
    expected = x.clone()
    expected[1, 1, [1, 3]] = reference[4, 7, [1, 3]]
    assert torch.equal(new, expected)


def test_an_axis_of_size_one_is_repeated_and_a_low_rank_value_is_aligned_from_the_right():
    x, per_head = z(), torch.randn(4, 1, dtype=torch.float64)
    assert torch.equal(Edit.add("z", per_head)(x, POINT, at()), x + per_head)
    per_position = torch.randn(1, 4, 1, 5, dtype=torch.float64)
    new = Edit.add("z", per_position, heads=1)(x, POINT, at())
    assert torch.equal(new[:, :, 1], x[:, :, 1] + per_position[:, :, 0])


@pytest.mark.parametrize("shape", [(3, 2, 4, 5), (2, 4, 4, 5), (3, 5), (3, 4, 4, 4), (1, 3, 4, 4, 5)])
def test_a_value_that_does_not_reach_or_fit_is_refused_in_words(shape):
    edit = Edit.replace("z", torch.zeros(shape))
    with pytest.raises(EditError, match="fit"):
        edit.check(POINT) or edit(z(), POINT, at())


def test_a_value_takes_the_dtype_of_the_activation():
    new = Edit.replace("z", torch.ones(5, dtype=torch.float64))(z().float(), POINT, at())
    assert new.dtype == torch.float32


# Refusals ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["rows", "heads", "positions", "keys", "steps"])
def test_a_negative_index_is_refused(place):
    with pytest.raises(EditError, match="negative"):
        Edit.zero("z", **{place: (0, -1)})


def test_a_head_out_of_range_is_refused_with_the_range():
    with pytest.raises(EditError, match="Choose 0 to 3"):
        Edit.zero("z", heads=4).check(POINT)


@pytest.mark.parametrize(
    ("point", "place"),
    [(STREAM, "heads"), (STREAM, "keys"), (POINT, "keys"), (HookPoint("p", "", "output", ("frame", "d")), "rows")],
)  # fmt: skip
def test_a_place_on_an_axis_that_the_point_lacks_is_refused_with_its_axes(point, place):
    with pytest.raises(EditError, match=", ".join(point.axes)):
        Edit.zero(point.name, **{place: 0}).check(point)


def test_a_row_beyond_the_batch_is_refused():
    with pytest.raises(EditError, match="batch of 3"):
        Edit.zero("z", rows=3)(z(), POINT, at())


def test_operands_that_make_no_sense_are_refused():
    with pytest.raises(EditError, match="needs a value"):
        Edit("z", "replace")
    with pytest.raises(EditError, match="no operation"):
        Edit("z", "explode")  # type: ignore[arg-type]
    for make in (Edit.add, Edit.mean, Edit.project_out):
        with pytest.raises(EditError, match="finite"):
            make("z", torch.tensor([1.0, torch.nan]))
    with pytest.raises(EditError, match="finite"):
        Edit.scale("z", float("nan"))


@pytest.mark.parametrize("letter", ["k", "v"])
def test_cross_attention_keys_and_values_cannot_be_edited_after_step_0(whisper, letter):
    point = whisper.points[f"decoder_blocks.0.cross_attn.hook_{letter}"]
    with (
        pytest.raises(EditError, match="computed once"),
        whisper.editing(Edit.zero(point.name, steps=(1, 2))),
    ):
        pass
    Edit.zero(point.name, steps=(0, 1)).check(point)
    Edit.zero(whisper.points["decoder_blocks.0.self_attn.hook_v"].name, steps=1).check(
        whisper.points["decoder_blocks.0.self_attn.hook_v"]
    )


def test_a_point_that_cannot_be_written_says_why():
    point = HookPoint("p", "", "output", ("batch", "pos", "d"), why_not_writable="it is a copy.")
    with pytest.raises(EditError, match="it is a copy"):
        Edit.zero("p").check(point)


def test_everything_is_checked_before_anything_runs(llama):
    good = Edit.zero("blocks.0.hook_mlp_out")
    for bad, kind in (
        (Edit.zero("blocks.0.attn.hook_z", heads=99), EditError),
        (Edit.add("blocks.0.hook_mlp_out", torch.ones(31)), EditError),
        (Edit.zero("blocks.7.hook_mlp_out"), PointError),
    ):
        with pytest.raises(kind), llama.editing(good, bad):
            pytest.fail("the block was entered")
        assert llama.open_hooks == 0


def test_a_head_of_grouped_keys_is_counted_among_the_keys_own_heads(llama):
    Edit.zero("k", heads=1).check(llama.points["blocks.0.attn.hook_k"])
    with pytest.raises(EditError, match="has 2 heads"):
        Edit.zero("k", heads=2).check(llama.points["blocks.0.attn.hook_k"])
    Edit.zero("q", heads=3).check(llama.points["blocks.0.attn.hook_q"])


# Edits that never take place -----------------------------------------------------------------------------------------


def test_an_edit_whose_part_of_the_model_never_ran_raises(whisper):
    inputs = example_inputs(whisper)
    encoded = whisper.encode(inputs["input_features"])
    with (
        pytest.raises(EditError, match="never took place"),
        whisper.editing(Edit.zero("encoder_blocks.0.hook_mlp_out")),
    ):
        whisper.forward({"encoder_outputs": (encoded,), "decoder_input_ids": inputs["decoder_input_ids"]})
    assert whisper.open_hooks == 0


@pytest.mark.parametrize("where", [{"positions": 40}, {"steps": 3}, {"keys": 99}, {"heads": ()}])
def test_an_edit_that_never_meets_its_place_warns(llama, where):
    with pytest.warns(EditNotApplied), llama.editing(Edit.zero("blocks.1.attn.hook_pattern", **where)):
        llama.forward(example_inputs(llama))


def test_an_edit_that_takes_place_or_a_block_that_runs_nothing_does_not_warn(llama):
    edit = Edit.zero("blocks.1.attn.hook_z", positions=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error", EditNotApplied)
        with llama.editing(edit):
            llama.forward(example_inputs(llama))
        with llama.editing(edit):
            pass


def test_edits_of_one_point_are_applied_in_order(llama):
    name, one = "blocks.2.hook_resid_post", torch.ones(1)
    _, cache = llama.run_with_cache(example_inputs(llama), name)
    with llama.editing(Edit.scale(name, 3), [Edit.add(name, one), Edit.scale(name, 2, rows=1)]):
        _, edited = llama.run_with_cache(example_inputs(llama), name)
    expected = cache[name] * 3 + 1
    expected[1] *= 2
    assert torch.equal(edited[name], expected)


# Files ---------------------------------------------------------------------------------------------------------------


def test_edits_come_back_from_their_file_as_they_were(tmp_path):
    shared = torch.randn(3, 5)
    edits = [
        Edit.zero("a", rows=(1, 2), heads=0, steps=(0, 3)),
        Edit.mix("b", shared, 0.3, positions=(2,)),
        Edit.add("b", shared).at_rows(4),  # the same tensor again
        Edit.replace("c", shared.T, keys=1),
        Edit.replace("c", torch.tensor(-torch.inf)),
        Edit.scale("ü 猫", 2.5),
    ]
    save_edits(edits, tmp_path / "e.safetensors")
    back = load_edits(tmp_path / "e.safetensors")
    assert [e.to_dict() for e in back] == [e.to_dict() for e in edits]
    for a, b in zip(edits, back, strict=True):
        assert (a.value is None) == (b.value is None)
        assert a.value is None or torch.equal(a.value, b.value)
        assert (a.rows, a.heads, a.positions, a.keys, a.steps) == (b.rows, b.heads, b.positions, b.keys, b.steps)  # fmt: skip


def test_a_pickle_is_never_opened(tmp_path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    path = tmp_path / "e.safetensors"
    path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(EditError, match="holds no edits"):
        load_edits(path)


@pytest.mark.parametrize(
    "listed",
    [
        None,
        "no json",
        "7",
        "[1]",
        '[{"point": "a"}]',
        '[{"point": "a", "op": "add", "value_shape": [5]}]',
        '[{"point": "a", "op": "os.system"}]',
        '[{"point": "a", "op": "zero", "rows": ["x"]}]',
    ],
)
def test_a_file_without_whole_edits_is_refused(tmp_path, listed):
    metadata = None if listed is None else {"otoscope_edits": listed}
    save_file({"other": torch.zeros(1)}, tmp_path / "e", metadata=metadata)
    with pytest.raises(EditError):
        load_edits(tmp_path / "e")


def test_a_missing_file_or_folder_is_refused(tmp_path):
    with pytest.raises(EditError):
        load_edits(tmp_path / "none")
    with pytest.raises(OutputError):
        save_edits([Edit.zero("a")], tmp_path / "none" / "e")
