"""Each named sweep is what a loop of patched forward passes would give, cell by cell."""

from __future__ import annotations

import itertools
import random

import pytest
import torch
from tests.conftest import FAMILIES
from tests.patching.pairs import METRIC, Pair, filled, pair, score

from otoscope.activations import Edit
from otoscope.errors import OptionError, PointError
from otoscope.patching import activation_patching as ap
from otoscope.patching.cells import Cells, equal_spans, point_of
from otoscope.patching.metrics import Metric, logit_difference, recovery, token_logprob
from otoscope.patching.scene import Scene

pytestmark = pytest.mark.usefixtures("one_thread")

S = slice(None)
WORDS = {"out": "z", "q": "q", "k": "k", "v": "v"}
HEADS = {
    **{
        f"get_act_patch_attn_head_{w}_by_pos": (short, lambda i: (0, i[1], i[2]))
        for w, short in WORDS.items()
    },
    **{f"get_act_patch_attn_head_{w}_all_pos": (short, lambda i: (0, S, i[1])) for w, short in WORDS.items()},
}
# For each sweep: the activation, and where in it the cell with an index (layer first) is.
SWEEPS = {
    "get_act_patch_resid_pre": ("resid_pre", lambda i: (0, i[1])),
    "get_act_patch_resid_mid": ("resid_mid", lambda i: (0, i[1])),
    "get_act_patch_attn_out": ("attn_out", lambda i: (0, i[1])),
    "get_act_patch_mlp_out": ("mlp_out", lambda i: (0, i[1])),
    **HEADS,
    "get_act_patch_attn_head_pattern_by_pos": ("pattern", lambda i: (0, i[1], i[2])),
    "get_act_patch_attn_head_pattern_all_pos": ("pattern", lambda i: (0, i[1])),
}
CASES = [
    *((family, None) for family in FAMILIES),
    ("whisper", "cross_attn"), ("whisper", "encoder"), ("qwen2_audio", "audio_encoder"),
]  # fmt: skip


def by_hand(case: Pair, name: str, where: tuple) -> float:
    def change(x, clean):
        x[where] = clean[where]

    return case.hooked(name, change)


def some_cells(shape, count: int, seed: int = 0) -> list[tuple[int, ...]]:
    """Some cells, the last among them."""
    cells = list(itertools.product(*map(range, shape)))
    return [*random.Random(seed).sample(cells, min(count, len(cells))), cells[-1]]


@pytest.mark.parametrize(("family", "part"), CASES)
def test_each_sweep_equals_patched_forward_passes_one_by_one(family, part):
    case = pair(family)
    for number, (name, (short, where)) in enumerate(SWEEPS.items()):
        points = Cells(short, ("layer",), part).points(case.model)
        spans = equal_spans(3, 50) if points[0].axis("frame") == 1 else None  # frames are many
        result = getattr(ap, name)(
            case.model, case.scene, case.clean_cache, METRIC, part=part, spans=spans, batch=7
        )
        assert len(result) == len(points), name
        for cell in some_cells(result.shape, 2, number):
            place = list(where(cell))
            if spans and place[1] is not S and short != "pattern":
                place[1] = slice(*spans[cell[1]])
            elif spans and "by_pos" in name:
                place[2] = slice(*spans[cell[2]])
            expected = by_hand(case, points[cell[0]].name, tuple(place))
            assert abs(float(result[cell]) - expected) < 1e-6, (name, cell)


@pytest.mark.parametrize(("family", "part"), [("gpt2", None), ("whisper", None), ("whisper", "cross_attn")])
def test_single_entries_of_a_pattern_are_patched_where_they_are_named(family, part):
    case = pair(family)
    spans = [(0, 10), (10, 50)] if part else None
    result = ap.get_act_patch_attn_head_pattern_dest_src_pos(
        case.model, case.scene, case.clean_cache, METRIC, part=part, spans=spans
    )
    length = case.scene.text.residuals[0].shape[1]
    assert result.shape[2:] == (length, 2 if spans else length)
    for layer, head, dest, src in some_cells(result.shape, 6):
        where = (0, head, dest, slice(*spans[src]) if spans else src)
        expected = by_hand(case, point_of(case.model, "pattern", layer, part).name, where)
        assert abs(float(result[layer, head, dest, src]) - expected) < 1e-6


def test_a_sweep_equals_a_plain_pytorch_hook():
    case = pair("gpt2")
    result = ap.get_act_patch_attn_head_out_by_pos(
        case.model, case.corrupt["input_ids"], case.clean_cache, METRIC
    )
    clean = case.clean_cache["blocks.1.attn.hook_z"]

    def hook(_module, args):
        z = args[0].clone()
        z[0, 4, 16:24] = clean[0, 4, 2]  # position 4, head 2 of width 8
        return (z,)

    handle = case.model.hf.transformer.h[1].attn.c_proj.register_forward_pre_hook(hook)
    with torch.no_grad():
        expected = score(case.model.hf(case.corrupt["input_ids"]).logits)
    handle.remove()
    assert abs(float(result[1, 4, 2]) - expected) < 1e-9


@pytest.mark.parametrize("attention", ["sdpa"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3_text", "qwen2_audio", "whisper"])
def test_patterns_are_patched_alike_whatever_attention_the_model_runs(family, attention):
    # Under other implementations the layers are called without a mask, or with one that the seam does not take.
    case = pair(family, attention)
    result = ap.get_act_patch_attn_head_pattern_all_pos(case.model, case.scene, case.clean_cache, METRIC)
    eager = pair(family)
    expected = ap.get_act_patch_attn_head_pattern_all_pos(eager.model, eager.scene, eager.clean_cache, METRIC)
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)


def test_a_pass_is_not_continued_while_a_pattern_is_read_under_masks_of_another_implementation():
    case = pair("llama", "sdpa")
    with (
        case.model.capturing("blocks.1.attn.hook_pattern"),
        pytest.raises(OptionError, match="kept under sdpa"),
    ):
        case.scene.logits([[]])


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("family", ["whisper", "gemma3_text", "qwen2_audio", "gpt2"])
def test_a_scene_reads_what_a_forward_pass_reads(family, attention):
    case = pair(family, attention)
    names = [n for n, p in case.model.points.items() if p.layer is not None and p.at != "result"]
    read = case.scene.read(names)
    assert set(read) == set(names)
    for name in names:
        torch.testing.assert_close(read[name], case.corrupt_cache[name], rtol=1e-6, atol=1e-6)
    text = case.scene.read("*.1.hook_mlp_out")
    assert text.attention == attention


# Direction -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_the_whole_last_stream_of_the_clean_run_gives_its_score(family):
    case = pair(family)
    layers = case.scene.text.layers
    cells = Cells("resid_post", ("layer", "pos"), spans=((0, case.scene.text.residuals[0].shape[1]),))
    result = ap.patch_cells(case.scene, case.clean_cache, METRIC, cells)
    assert result.shape == (layers, 1)
    assert abs(float(result[-1, 0]) - case.score(case.clean)) < 1e-6


@pytest.mark.parametrize("family", FAMILIES)
def test_patching_a_run_with_itself_changes_nothing(family):
    case = pair(family)
    own = case.corrupt_cache
    base = float(METRIC.score(case.scene))
    for sweep in (
        ap.get_act_patch_resid_mid,
        ap.get_act_patch_attn_head_q_all_pos,
        ap.get_act_patch_attn_head_pattern_all_pos,
    ):
        assert float((sweep(case.model, case.scene, own, METRIC) - base).abs().max()) < 1e-9


def test_the_number_of_cells_at_once_does_not_matter():
    case = pair("whisper")
    for sweep, part in (
        (ap.get_act_patch_attn_head_v_by_pos, "cross_attn"),
        (ap.get_act_patch_resid_mid, "encoder"),
    ):
        where = {"part": part, "spans": [(0, 20), (5, 9)]}
        every = [
            sweep(case.model, case.scene, case.clean_cache, METRIC, batch=b, **where) for b in (1, 5, 64)
        ]
        for other in every[1:]:
            torch.testing.assert_close(other, every[0], rtol=1e-9, atol=1e-9)


def test_a_planted_effect_is_found_at_its_layer_position_and_head_alone():
    case = pair("llama")
    values = {name: value.clone() for name, value in case.corrupt_cache.items() if name.endswith("hook_z")}
    values["blocks.2.attn.hook_z"][0, 8, 3] += (
        5.0  # the last layer, so that only this position reaches the last logits
    )
    result = ap.get_act_patch_attn_head_out_by_pos(
        case.model, case.scene, filled(case.model.points, values), METRIC
    )
    moved = (result - METRIC.score(case.scene).cpu()).abs() > 1e-6
    assert moved.nonzero().tolist() == [[2, 8, 3]]


def test_a_setter_may_do_something_else_than_replace():
    case = pair("gpt2")

    def half(point, index, clean):
        return Edit.mix(point.name, clean, 0.5, positions=index["pos"])

    result = ap.generic_activation_patch(
        case.model, case.scene, case.clean_cache, METRIC, half, "mlp_out", ("pos", "layer")
    )
    expected = case.hooked(
        "blocks.1.hook_mlp_out", lambda x, clean: x[0, 8].copy_((x[0, 8] + clean[0, 8]) / 2)
    )
    assert abs(float(result[8, 1]) - expected) < 1e-9


# Bundles -------------------------------------------------------------------------------------------------------------


def test_the_bundles_stack_their_sweeps_and_mark_heads_that_are_not_there():
    case = pair("llama")
    args = case.model, case.scene, case.clean_cache, METRIC
    every = ap.get_act_patch_attn_head_all_pos_every(*args)
    assert every.shape == (5, 3, 4)
    assert every[1:4].isnan().any(dim=(1, 2)).tolist() == [False, True, True]
    torch.testing.assert_close(every[2, :, :2], ap.get_act_patch_attn_head_k_all_pos(*args))
    by_pos = ap.get_act_patch_attn_head_by_pos_every(*args)
    assert by_pos.shape == (5, 3, 9, 4)
    torch.testing.assert_close(by_pos[4], ap.get_act_patch_attn_head_pattern_by_pos(*args).transpose(1, 2))
    blocks = ap.get_act_patch_block_every(*args)
    torch.testing.assert_close(blocks[1], ap.get_act_patch_attn_out(*args))
    with pytest.raises(OptionError, match="do not stack"):
        ap.get_act_patch_attn_head_by_pos_every(*args, part="cross_attn")


def test_every_sweep_says_what_it_is():
    for name in SWEEPS:
        sweep = getattr(ap, name)
        assert sweep.__name__ == name
        assert "layer" in sweep.__doc__


# Metrics -------------------------------------------------------------------------------------------------------------


def test_a_function_as_in_transformer_lens_sees_one_row_at_a_time():
    case = pair("qwen2")
    scalar = ap.get_act_patch_mlp_out(
        case.model, case.scene, case.clean_cache, lambda x: (x[:, -1, 5] - x[:, -1, 9]).mean()
    )
    torch.testing.assert_close(
        scalar, ap.get_act_patch_mlp_out(case.model, case.scene, case.clean_cache, METRIC)
    )


def test_the_log_probability_is_that_of_the_token_at_its_position():
    case = pair("whisper")
    with torch.no_grad():
        logits = case.model.forward(case.corrupt).logits
    value = float(token_logprob(11, position=3).score(case.scene))
    assert abs(value - float(logits[0, 3].log_softmax(-1)[11])) < 1e-6


def test_recovery_is_0_for_the_corrupted_run_and_1_for_the_clean_run():
    case = pair("gpt2")
    clean = Scene.of(case.model, case.clean)
    scaled = recovery(METRIC, case.scene, clean)
    assert abs(float(scaled.score(case.scene))) < 1e-9
    assert abs(float(scaled.score(clean)) - 1) < 1e-9
    assert abs(float(recovery(METRIC, 0.0, 4.0).score(clean)) - case.score(case.clean) / 4) < 1e-9
    with pytest.raises(OptionError, match="nothing to recover"):
        recovery(METRIC, case.scene, case.scene)
    with pytest.raises(OptionError, match="nothing to recover"):
        recovery(METRIC, 1.0, float("nan"))


# Refusals ------------------------------------------------------------------------------------------------------------


def test_what_does_not_fit_is_refused_before_anything_runs():
    case = pair("whisper")
    args = case.model, case.scene, case.clean_cache, METRIC
    shorter = {**case.clean, "decoder_input_ids": case.clean["decoder_input_ids"][:, :-1]}
    with pytest.raises(OptionError, match="Align the clean cache"):
        ap.get_act_patch_resid_pre(case.model, case.scene, case.read(shorter), METRIC)
    two = {k: v.repeat(2, *[1] * (v.dim() - 1)) for k, v in case.clean.items()}
    with pytest.raises(OptionError, match="2 rows"):
        ap.get_act_patch_resid_pre(case.model, case.scene, case.read(two), METRIC)
    with pytest.raises(OptionError, match="no part"):
        ap.get_act_patch_resid_pre(*args, part="cross_atn")
    with pytest.raises(OptionError, match="does not lie within 7"):
        ap.get_act_patch_resid_pre(*args, spans=[(3, 9)])
    with pytest.raises(OptionError, match="no spans"):
        ap.get_act_patch_resid_pre(*args, spans=[])
    with pytest.raises(OptionError, match="no head_index"):
        ap.generic_activation_patch(*args, ap.clean_patch_setter, "resid_pre", ("layer", "head_index"))
    with pytest.raises(OptionError, match="axes"):
        Cells("z", ("pos",))
    with pytest.raises(OptionError, match="one number for each row"):
        ap.get_act_patch_resid_pre(case.model, case.scene, case.clean_cache, Metric(lambda x: x.sum()))
    with pytest.raises(OptionError, match="another model"):
        ap.get_act_patch_resid_pre(pair("gpt2").model, case.scene, case.clean_cache, METRIC)
    with pytest.raises(PointError):
        ap.get_act_patch_attn_out(
            pair("gpt2").model, pair("gpt2").scene, pair("gpt2").clean_cache, METRIC, part="cross_attn"
        )
    with pytest.raises(OptionError, match="cannot be cut"):
        equal_spans(9, 5)
    assert case.model.open_hooks == 0


def test_metrics_read_only_their_positions():
    case = pair("gpt2")
    seen = []

    def watch(logits):
        seen.append(logits.shape)
        return logits[:, 1, 3]

    ap.get_act_patch_mlp_out(case.model, case.scene, case.clean_cache, Metric(watch, (2, 7)))
    assert {shape[1:] for shape in seen} == {(2, 97)}
    assert logit_difference(1, 2).positions == (-1,)
