from __future__ import annotations

import pytest
import torch
from tests.conftest import FAMILIES, example_inputs, tiny

from otoscope.activations import HookPoint, Layout
from otoscope.errors import OtoscopeError, PointError


@pytest.fixture(scope="module", params=FAMILIES)
def model(request):
    return tiny(request.param)


@pytest.fixture(scope="module")
def whisper():
    return tiny("whisper").points


@pytest.mark.parametrize(
    ("spelling", "canonical"),
    [
        ("encoder_blocks.2.self_attn.hook_z", "encoder_blocks.2.attn.hook_z"),
        ("decoder_blocks.1.hook_resid_mid2", "decoder_blocks.1.hook_resid_mid_cross"),
        ("decoder_blocks.1.self_attn.hook_z", "decoder_blocks.1.self_attn.hook_z"),
    ],
)
def test_another_spelling_names_the_same_point(whisper, spelling, canonical):
    assert whisper.canonical(spelling) == canonical
    assert whisper[spelling] is whisper[canonical]
    assert spelling in whisper
    assert [p.name for p in whisper.select(spelling)] == [canonical]


@pytest.mark.parametrize(
    ("glob", "count"),
    [
        ("encoder_blocks.*.self_attn.hook_z", 3),
        ("encoder_blocks.*.attn.hook_z", 3),
        ("*.hook_resid_mid2", 2),
        ("*.hook_resid_post", 5),
        ("decoder_blocks.[01].cross_attn.hook_?", 8),
    ],
)
def test_a_glob_matches_every_spelling(whisper, glob, count):
    assert len(whisper.select(glob)) == count


def test_an_unknown_point_is_refused_with_the_nearest_names(model):
    with pytest.raises(PointError) as caught:
        model.points["blocks.0.hook_resid_pots"]
    assert isinstance(caught.value, OtoscopeError)
    assert "counted from 0" in caught.value.reason
    assert "hook_resid_post" in caught.value.remedy


def test_a_layer_beyond_the_last_is_refused_with_a_layer_that_exists(whisper):
    with pytest.raises(PointError, match=r"decoder_blocks\.1\.hook_resid_post"):
        whisper["decoder_blocks.2.hook_resid_post"]


def test_a_name_like_no_other_is_refused_with_the_page_of_names(whisper):
    with pytest.raises(PointError, match=r"hook-points\.md"):
        whisper["zzz"]


@pytest.mark.parametrize(
    ("short", "name"),
    [
        (("resid_post", 1), "decoder_blocks.1.hook_resid_post"),
        (("resid_mid2", 1), "decoder_blocks.1.hook_resid_mid_cross"),
        (("z", 0), "decoder_blocks.0.self_attn.hook_z"),
        (("z", 0, "cross_attn"), "decoder_blocks.0.cross_attn.hook_z"),
        (("z", 0, "decoder.cross_attn"), "decoder_blocks.0.cross_attn.hook_z"),
        (("q", 2, "encoder"), "encoder_blocks.2.attn.hook_q"),
        (("q", 2, "encoder.self_attn"), "encoder_blocks.2.attn.hook_q"),
        (("post", 1), "decoder_blocks.1.mlp.hook_post"),
        (("out", 1, "ln3"), "decoder_blocks.1.ln3.hook_out"),
        (("encoder_ln_final.hook_out",), "encoder_ln_final.hook_out"),
    ],
)
def test_a_short_name_finds_the_full_one(whisper, short, name):
    assert whisper.short(*short) == name


@pytest.mark.parametrize("short", [("resid_post", 9), ("nothing", 0), ("z", 0, "no_such_part")])
def test_a_short_name_of_no_point_is_refused(whisper, short):
    with pytest.raises(PointError):
        whisper.short(*short)


def test_without_a_filter_every_plain_point_is_chosen_and_no_large_one(model):
    chosen = {p.name for p in model.points.select(None)}
    left_out = {name.rsplit("hook_")[-1] for name in model.points if name not in chosen}
    assert left_out <= {"attn_scores", "pattern", "result", "rot_q", "rot_k"}
    assert {"attn_scores", "pattern", "result"} <= left_out


def test_a_list_mixes_names_and_globs_and_names_each_point_once(whisper):
    names = ["decoder_blocks.*.hook_resid_post", "decoder_blocks.1.hook_resid_post", "unembed.hook_out"]
    assert [p.name for p in whisper.select(names)] == [
        "decoder_blocks.0.hook_resid_post", "decoder_blocks.1.hook_resid_post", "unembed.hook_out",
    ]  # fmt: skip


def test_a_predicate_chooses_by_name_and_may_choose_large_points(model):
    chosen = model.points.select(lambda name: name.endswith("hook_pattern"))
    assert chosen
    assert all(p.at == "pattern" for p in chosen)


@pytest.mark.parametrize("nothing", [[], "blocks.*.hook_nothing", ["*.no"], lambda name: False, "", [""]])
def test_a_filter_that_matches_nothing_is_refused(model, nothing):
    with pytest.raises(PointError):
        model.points.select(nothing)


def test_every_point_lies_on_a_module_of_the_model_and_belongs_to_a_stack(model):
    for name, point in model.points.items():
        model.hf.get_submodule(point.module)
        assert point.name == name
        assert point.stack in model.points.stacks
        assert (point.layer is None) or f".{point.layer}." in name


def test_the_stated_axes_heads_and_widths_are_those_of_the_tensors(model):
    _, cache = model.run_with_cache(example_inputs(model), lambda _: True)
    for name, point in model.points.items():
        shape = cache[name].shape
        assert len(shape) == len(point.axes), name
        assert not point.width or shape[-1] == point.width, name
        head = point.axis("head")
        assert (None if head is None else shape[head]) == point.heads, name


def test_the_parts_of_a_fused_projection_are_read_and_put_back_apart():
    raw = torch.arange(2 * 3 * 24.0).reshape(2, 3, 24)
    for i in range(3):
        layout = Layout(heads=4, part=(i, 3))
        read = layout.read(raw)
        assert read.shape == (2, 3, 4, 2)
        assert torch.equal(layout.put(raw, read), raw)
        changed = layout.put(raw, torch.zeros_like(read))
        assert torch.equal((changed == 0).all(dim=(0, 1)).nonzero()[:, 0], torch.arange(8 * i, 8 * i + 8))


def test_a_swapped_layout_is_read_with_positions_first():
    raw = torch.randn(2, 4, 3, 5)
    point = HookPoint("p", "", "output", ("batch", "pos", "head", "d_head"), Layout(swap=True))
    assert torch.equal(point.layout.read(raw)[1, 2, 3], raw[1, 3, 2])
    assert torch.equal(point.layout.put(raw, point.layout.read(raw)), raw)
