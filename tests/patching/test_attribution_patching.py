"""Attribution is exact where the model is linear and where the change is small, and says so where it is not."""

from __future__ import annotations

import pytest
import torch
from tests.conftest import FAMILIES, tiny
from tests.patching.pairs import METRIC, Pair, filled, pair

from otoscope.activations import Edit
from otoscope.errors import OptionError, PointError
from otoscope.patching.activation_patching import patch_cells
from otoscope.patching.attribution_patching import agreement, attribution_patch, attribution_patches, screen
from otoscope.patching.cells import Cells
from otoscope.patching.metrics import Metric

pytestmark = pytest.mark.usefixtures("one_thread")

BLOCK, HEAD, EVERYWHERE = ("layer", "pos"), ("layer", "pos", "head_index"), ("layer", "head_index")
SWEEPS = [
    Cells("resid_pre", BLOCK), Cells("resid_mid", BLOCK), Cells("attn_out", BLOCK), Cells("mlp_out", BLOCK), Cells("z", HEAD),
    Cells("q", HEAD), Cells("k", HEAD), Cells("v", HEAD), Cells("k", EVERYWHERE),
    Cells("pattern", ("layer", "head_index", "dest_pos")),
]  # fmt: skip


def exact_changes(case: Pair, cache, cells: Cells) -> torch.Tensor:
    return patch_cells(case.scene, cache, METRIC, cells) - float(METRIC.score(case.scene))


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    assert a.shape == b.shape
    assert float(b.norm()) > 1e-7
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize(
    "family", [*FAMILIES, "whisper cross_attn", "whisper encoder", "qwen2_audio audio_encoder"]
)
def test_a_small_change_has_the_exact_effect(family):
    family, _, part = family.partition(" ")
    case = pair(family)
    spans = ((0, 20), (20, 25), (25, 50)) if "encoder" in part else None
    sweeps = [Cells(c.activation_name, c.axes, part or None, spans) for c in SWEEPS]
    corrupt, g = case.corrupt_cache, torch.Generator().manual_seed(0)
    # Llama-like families compute softmax and norms in float32, whose rounding a smaller change would not rise above.
    size, allowed = (1e-4, 2e-3) if family in ("whisper", "gpt2") else (3e-3, 0.05)
    # Patterns move within what is seen, so that nothing leaks from the future.
    moved = {
        n: size * torch.randn(x.shape, generator=g, dtype=x.dtype) * (x != 0) for n, x in corrupt.items()
    }
    near = filled(case.model.points, {n: corrupt[n] + moved[n] for n in corrupt})
    for cells, estimate in zip(
        sweeps, attribution_patches(case.model, near, case.scene, METRIC, sweeps), strict=True
    ):
        if "cross_attn" in part and cells.activation_name == "resid_pre":
            continue  # the same as of the decoder
        if "cross_attn" in part and cells.axes == HEAD and cells.activation_name in "kv":
            continue  # 50 frames by 6 heads; covered whole by the next sweep
        assert distance(estimate, exact_changes(case, near, cells)) < allowed, cells


def linear(family: str) -> Pair:
    """A model of one layer whose logits are linear in what its attention gathers: no MLP, no final norm."""
    count = {"gpt2": "n_layer", "whisper": "decoder_layers"}.get(family, "num_hidden_layers")
    model = tiny(family, dtype=torch.float64, **{count: 1})
    base = model.hf.model.decoder if family == "whisper" else model.hf.base_model
    layer = (base.h if family == "gpt2" else base.layers)[0]
    down = layer.mlp.c_proj if family == "gpt2" else layer.fc2 if family == "whisper" else layer.mlp.down_proj
    for parameter in down.parameters():
        parameter.data.zero_()
    name = {"gpt2": "ln_f", "whisper": "layer_norm"}.get(family, "norm")
    setattr(base, name, torch.nn.Identity())
    return Pair(family, model=model)


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3", "whisper"])
def test_what_follows_a_softmax_is_exact_in_a_linear_model_and_its_gradient_is_not(family):
    case = linear(family)
    part, spans = (
        ("cross_attn", ((0, 1), (3, 30), (40, 50))) if family == "whisper" else (None, ((0, 2), (1, 9)))
    )
    every = [Cells(name, HEAD, part, spans if name in "kv" else None) for name in "zvqk"]
    every += [Cells(name, EVERYWHERE, part) for name in "zvqk"]
    every += [Cells(name, ("layer",), part) for name in "qk"]
    every += [Cells("pattern", ("layer", "head_index", "dest_pos"), part)]
    if family != "whisper":
        every += [Cells("k", HEAD), Cells("q", HEAD, None, spans)]
    followed = attribution_patches(case.model, case.clean_cache, case.scene, METRIC, every)
    plain = attribution_patches(case.model, case.clean_cache, case.scene, METRIC, every, qk_fix=False)
    for cells, with_fix, without in zip(every, followed, plain, strict=True):
        exact = exact_changes(case, case.clean_cache, cells)
        assert distance(with_fix, exact) < 1e-5, cells
        if cells.activation_name in "qk":
            assert distance(without, exact) > 0.01, cells
        else:
            assert torch.equal(with_fix, without)


def test_a_saturated_head_is_seen_by_the_fix_alone():
    case = linear("gpt2")
    # Attention is all or nothing, and the clean queries are large enough to turn it.
    with case.model.editing(Edit.scale("blocks.0.attn.hook_q", 200)):
        cache = case.read(case.clean)
    with case.model.editing(Edit.scale("blocks.0.attn.hook_k", 60)):
        for cells in (Cells("q", EVERYWHERE), Cells("k", HEAD)):
            exact = exact_changes(case, cache, cells)
            args = case.model, cache, case.scene, METRIC, cells.activation_name, cells.axes
            assert distance(attribution_patch(*args), exact) < 1e-5
            assert distance(attribution_patch(*args, qk_fix=False), exact) > 0.5


def test_the_sign_and_the_gradient_are_those_of_the_corrupted_run():
    case = pair("gpt2")
    name = "blocks.2.hook_resid_post"
    _, cache = case.model.run_with_cache(
        case.corrupt, name, incl_bwd=lambda out: out.logits[0, -1, 5] - out.logits[0, -1, 9]
    )
    expected = ((case.clean_cache[name] - cache[name]) * cache[name + "_grad"]).sum(-1)[0]
    result = attribution_patch(case.model, case.clean, case.corrupt, METRIC, "resid_post", BLOCK)
    torch.testing.assert_close(result[2], expected)


def test_patterns_are_attributed_alike_whatever_attention_the_model_runs():
    axes = ("layer", "head_index", "src_pos")
    results = [
        attribution_patch(c.model, c.clean_cache, c.scene, METRIC, name, axes if name == "pattern" else HEAD)
        for c in (pair("llama"), pair("llama", "sdpa"))
        for name in ("pattern", "k")
    ]
    torch.testing.assert_close(results[2], results[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(results[3], results[1], rtol=1e-5, atol=1e-6)


# What is left behind -------------------------------------------------------------------------------------------------


def test_weights_are_left_as_they_were_even_after_an_exception():
    case = Pair("gpt2")
    first, *others = case.model.hf.parameters()
    first.requires_grad_(False)

    def fail(logits):
        raise RuntimeError("metric")

    for metric in (METRIC, Metric(fail)):
        try:
            attribution_patch(case.model, case.clean_cache, case.scene, metric, "z", HEAD)
        except RuntimeError:
            assert metric is not METRIC
        assert not first.requires_grad
        assert all(p.requires_grad and p.grad is None for p in others)
        assert case.model.open_hooks == 0


def test_a_gradient_that_is_not_there_is_an_error():
    case = pair("gpt2")
    args = case.model, case.clean_cache, case.scene
    with pytest.raises(OptionError, match="no gradient"):
        attribution_patch(*args, lambda logits: logits.detach()[0, -1, 5], "z", HEAD)
    post = case.clean_cache["blocks.1.mlp.hook_post"]
    with (
        case.model.editing(Edit.replace("blocks.1.mlp.hook_post", post)),
        pytest.raises(PointError, match=r"blocks\.1\.mlp\.hook_pre"),
    ):
        attribution_patch(*args, METRIC, "pre", BLOCK)
    with pytest.raises(OptionError, match="Align"):
        attribution_patch(case.model, case.clean["input_ids"][:, :-1], case.scene, METRIC, "z", HEAD)
    with pytest.raises(OptionError, match="does not lie within"):
        attribution_patch(*args, METRIC, "k", HEAD, spans=[(0, 99)])
    with pytest.raises(PointError, match="was not read"):
        attribution_patch(case.model, filled(case.model.points, {}), case.scene, METRIC, "z", HEAD)


# Against the exact sweep ---------------------------------------------------------------------------------------------


def test_agreement_tells_correlations_and_the_share_of_the_top_that_was_found():
    g = torch.Generator().manual_seed(0)
    exact = torch.randn(6, 10, generator=g, dtype=torch.float64)
    same = agreement(exact, exact + 3, unpatched=3, top=5)
    assert (same.n, same.pearson, same.spearman, same.found) == (60, pytest.approx(1), pytest.approx(1), 1)
    cubed = agreement(exact**3, exact, top=5)
    assert cubed.spearman == pytest.approx(1)
    assert cubed.pearson < 0.9
    low, high = cubed.pearson_interval
    assert low < cubed.pearson < high
    hidden = exact.clone()
    hidden.view(-1)[exact.abs().flatten().argmax()] = 0
    assert agreement(hidden, exact, top=5).found == pytest.approx(0.8)
    exact[2:] = torch.nan
    assert agreement(cubed_like(exact), exact).n == 20
    for other in (exact[:, :2], torch.zeros(6, 10)):
        with pytest.raises(OptionError):
            agreement(other, exact)
    assert same.to_dict()["n"] == 60


def cubed_like(exact: torch.Tensor) -> torch.Tensor:
    return exact.nan_to_num() ** 3


def test_a_screen_runs_the_top_and_a_sample_exactly_and_nothing_else():
    case = pair("gpt2")
    found = screen(case.model, case.clean, case.scene, METRIC, "z", HEAD, top=12, others=8)
    whole = exact_changes(case, case.clean_cache, Cells("z", HEAD))
    run = ~found.exact.isnan()
    assert int(run.sum()) == found.agreement.n == 20
    torch.testing.assert_close(found.exact[run], whole[run])
    ranked = found.attribution.flatten().abs().argsort(descending=True)[:12]
    assert {tuple(i) for i in torch.stack(torch.unravel_index(ranked, whole.shape), 1).tolist()} == set(
        found.top
    )
    sizes = [float(whole[cell].abs()) for cell in found.top]
    assert sizes == sorted(sizes, reverse=True)
    assert not set(found.top) & set(found.others)
    median = float(torch.tensor(sizes).median())
    assert found.overlooked == sum(float(whole[cell].abs()) > median for cell in found.others)
    everything = screen(case.model, case.clean, case.scene, METRIC, "z", EVERYWHERE, top=99)
    assert (everything.others, everything.overlooked) == ([], 0)
