"""What reading and editing promise, for every family."""

from __future__ import annotations

import pytest
import torch
from tests.conftest import FAMILIES, example_inputs, tiny
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from otoscope.activations import Edit, head_output_weights
from otoscope.activations.seam import SEAM, _taps, implementation
from otoscope.errors import EditError, PointError


def everything(_name: str) -> bool:
    return True


pytestmark = pytest.mark.usefixtures("one_thread")


class Case:
    """A random model, inputs that reach its masks, its logits and all its activations."""

    def __init__(self, family: str, dtype: torch.dtype, **changes) -> None:
        self.model = tiny(family, dtype=dtype, **changes)
        self.inputs = padded(self.model, example_inputs(self.model, batch=2))
        self.logits = self.run()
        _, self.cache = self.model.run_with_cache(self.inputs, everything)

    def run(self, *edits: Edit) -> torch.Tensor:
        with torch.no_grad(), self.model.editing(*edits):
            return self.model.forward(self.inputs).logits

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.cache[name]

    @property
    def blocks(self) -> list[str]:
        """Prefix of every layer of every stack."""
        return sorted({n.rsplit(".hook_resid_pre")[0] for n in self.model.points if n.endswith("resid_pre")})

    @property
    def attentions(self) -> list[str]:
        """Prefix of every attention part."""
        return [n.removesuffix(".hook_z") for n in self.model.points if n.endswith(".hook_z")]

    @property
    def main(self) -> str:
        return next(iter(self.model.points.stacks.values()))

    @property
    def last(self) -> str:
        return max(b for b in self.blocks if b.startswith(f"{self.main}."))


def padded(model, inputs: dict) -> dict:
    """Mask something out wherever the family takes a mask, so that a lost mask shows."""
    if model.config.model_type == "whisper":
        return inputs
    mask = torch.ones_like(inputs["input_ids"])
    # On the left as in generation; but in float64 Transformers gives NaN for positions that see nothing but padding.
    mask[1, slice(2) if model.dtype != torch.float64 else slice(-2, None)] = 0
    more: dict = {"attention_mask": mask}
    if "input_features" in inputs:
        heard = inputs["feature_attention_mask"].clone()
        heard[1, 80:] = 0  # 20 slots of 25
        ids = inputs["input_ids"].clone()
        ids[1, 22:27] = 5
        more |= {"feature_attention_mask": heard, "input_ids": ids}
    return inputs | more


@pytest.fixture(scope="module", params=FAMILIES)
def case(request):
    return Case(request.param, torch.float32)


@pytest.fixture(scope="module", params=FAMILIES)
def exact(request):
    """The same in float64, for identities that rounding blurs."""
    return Case(request.param, torch.float64)


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


# Nothing changes -----------------------------------------------------------------------------------------------------


def test_reading_every_point_changes_no_bit(case):
    output, cache = case.model.run_with_cache(case.inputs, everything)
    assert torch.equal(output.logits, case.logits)
    assert set(cache) == set(case.model.points)


def test_reading_without_the_seam_keeps_the_implementation_and_changes_no_bit(case):
    output, cache = case.model.run_with_cache(case.inputs)
    assert torch.equal(output.logits, case.logits)
    assert cache.attention == "eager"
    assert case.cache.attention == SEAM


def no_ops(name: str, value: torch.Tensor) -> list[Edit]:
    """Edits that say nothing."""
    return [
        Edit.scale(name, 1),
        Edit.add(name, torch.zeros(1)),
        Edit.mix(name, torch.ones(1), 0),
        Edit.replace(name, value),
    ]


def test_a_no_op_edit_changes_no_bit_at_any_point_and_zeroing_changes_the_logits(case):
    for name, point in case.model.points.items():
        edits = no_ops(name, case[name])
        if point.axis("head") is not None:
            edits += [Edit.scale(name, 1, heads=0), Edit.replace(name, case[name], heads=point.heads - 1)]
        assert torch.equal(case.run(*edits), case.logits), name
        assert not torch.equal(case.run(Edit.zero(name)), case.logits), name


def test_no_op_edits_at_every_point_at_once_change_no_bit(case):
    assert torch.equal(case.run(*(e for n in case.model.points for e in no_ops(n, case[n]))), case.logits)


def test_hooks_that_return_none_change_no_bit_and_see_every_point_once(case):
    seen = []
    out = case.model.run_with_hooks(case.inputs, [(everything, lambda x, hook: seen.append(hook.name))])
    assert torch.equal(out.logits, case.logits)
    assert sorted(seen) == sorted(case.model.points)


def test_the_seam_under_another_implementation_gives_what_eager_gives():
    model = tiny("llama", attention="sdpa")
    inputs = padded(model, example_inputs(model))
    eager = Case("llama", torch.float32).logits
    output, cache = model.run_with_cache(inputs, "blocks.0.attn.hook_pattern")
    assert cache.attention == SEAM
    assert torch.equal(output.logits, eager)
    assert model.attention == "sdpa"


# What the numbers are ------------------------------------------------------------------------------------------------


def test_the_residual_stream_is_the_sum_of_its_parts(case):
    for block in case.blocks:
        stream = case[f"{block}.hook_resid_pre"] + case[f"{block}.hook_attn_out"]
        assert torch.equal(stream, case[f"{block}.hook_resid_mid"]), block
        if f"{block}.hook_cross_attn_out" in case.model.points:
            stream = stream + case[f"{block}.hook_cross_attn_out"]
            assert torch.equal(stream, case[f"{block}.hook_resid_mid_cross"]), block
        assert torch.equal(stream + case[f"{block}.hook_mlp_out"], case[f"{block}.hook_resid_post"]), block


def test_one_block_hands_its_stream_to_the_next(case):
    for block in case.blocks:
        prefix, layer = block.rsplit(".", 1)
        following = f"{prefix}.{int(layer) + 1}.hook_resid_pre"
        if following in case.model.points:
            assert torch.equal(case[f"{block}.hook_resid_post"], case[following])


def test_the_softmax_of_the_scores_is_the_pattern(exact):
    for attention in exact.attentions:
        scores = exact[f"{attention}.hook_attn_scores"]
        pattern = exact[f"{attention}.hook_pattern"]
        # Llama-like families compute their softmax in float32 whatever the precision.
        torch.testing.assert_close(scores.softmax(-1), pattern, rtol=1e-6, atol=1e-7)
        assert (pattern.sum(-1) - 1).abs().max() < 1e-6


def test_scores_are_scaled_capped_and_masked(exact):
    for attention in exact.attentions:
        kind = exact.model.config.model_type
        rotated = f"{attention}.hook_rot_q" in exact.model.points
        q, k = (exact[f"{attention}.hook_{'rot_' if rotated else ''}{x}"] for x in "qk")
        k = k.repeat_interleave(q.shape[2] // k.shape[2], dim=2)
        raw = torch.einsum("bqhd,bkhd->bhqk", q, k) * q.shape[-1] ** -0.5
        if kind == "gemma2":
            raw = torch.tanh(raw / 50.0) * 50.0
        scores = exact[f"{attention}.hook_attn_scores"]
        seen = scores > -1e30
        close(scores[seen], raw.expand_as(scores)[seen])
        causal = attention.startswith(exact.main) and "cross" not in attention
        assert seen.all() == (not causal and kind != "qwen2_audio")
        if causal:
            assert not seen.triu(1).any()


def mixed(exact: Case, attention: str, tiled: bool = False) -> torch.Tensor:
    """`pattern @ v`, each value head serving a run of consecutive heads (or, wrongly, every n-th one)."""
    pattern, v = exact[f"{attention}.hook_pattern"], exact[f"{attention}.hook_v"]
    groups = pattern.shape[1] // v.shape[2]
    v = v.repeat(1, 1, groups, 1) if tiled else v.repeat_interleave(groups, dim=2)
    return torch.einsum("bhqk,bkhd->bqhd", pattern, v)


def test_the_pattern_times_the_values_is_z(exact):
    for attention in exact.attentions:
        close(mixed(exact, attention), exact[f"{attention}.hook_z"])


@pytest.mark.parametrize(
    "family", ["llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "qwen2_audio"]
)
def test_tiled_value_heads_would_be_noticed(family):
    grouped = Case(family, torch.float64)
    z = grouped["blocks.0.attn.hook_z"]
    assert (mixed(grouped, "blocks.0.attn", tiled=True) - z).abs().max() > 1e-2


def test_the_activation_of_pre_is_post(exact):
    for block in exact.blocks:
        layer = exact.model.hf.get_submodule(exact.model.points[f"{block}.hook_resid_post"].module)
        act = getattr(layer, "activation_fn", None) or getattr(layer.mlp, "act_fn", None) or layer.mlp.act
        post = act(exact[f"{block}.mlp.hook_pre"])
        if f"{block}.mlp.hook_pre_linear" in exact.model.points:
            post = post * exact[f"{block}.mlp.hook_pre_linear"]
        close(post, exact[f"{block}.mlp.hook_post"])


def attention_output(exact: Case, attention: str) -> torch.Tensor:
    """What the attention's output projection gave, before any post-norm."""
    captured = {}
    module = exact.model.hf.get_submodule(exact.model.points[f"{attention}.hook_result"].module)
    handle = module.register_forward_hook(lambda m, a, out: captured.update(out=out))
    exact.run()
    handle.remove()
    return captured["out"]


def test_the_results_of_the_heads_and_the_bias_add_up_to_the_output(exact):
    for attention in exact.attentions:
        module = exact.model.hf.get_submodule(exact.model.points[f"{attention}.hook_result"].module)
        total = exact[f"{attention}.hook_result"].sum(dim=2)
        if module.bias is not None:
            total = total + module.bias
        close(total, attention_output(exact, attention))


def test_unembedding_the_last_residual_gives_the_logits(case):
    assert torch.equal(case.model.unembed(case[f"{case.last}.hook_resid_post"]), case.logits)


def test_queries_keys_and_normed_ones_are_what_the_projections_gave(exact):
    for attention in exact.attentions:
        for letter in "qk":
            if f"{attention}.hook_{letter}_normed" not in exact.model.points:
                continue
            point = exact.model.points[f"{attention}.hook_{letter}_normed"]
            norm = exact.model.hf.get_submodule(point.module)
            close(norm(exact[f"{attention}.hook_{letter}"]), exact[point.name])


def test_rotation_keeps_the_length_of_queries_and_keys(exact):
    for attention in exact.attentions:
        for letter in "qk":
            if f"{attention}.hook_rot_{letter}" in exact.model.points:
                normed = f"{attention}.hook_{letter}_normed"
                plain = exact[normed if normed in exact.model.points else f"{attention}.hook_{letter}"]
                rotated = exact[f"{attention}.hook_rot_{letter}"]
                torch.testing.assert_close(rotated.norm(dim=-1), plain.norm(dim=-1), rtol=1e-5, atol=1e-6)
                assert not torch.allclose(rotated, plain)


# Edits do what they say ----------------------------------------------------------------------------------------------


def test_without_the_registered_mask_the_logits_change(case):
    """Guards the silent failure: a name the mask registry does not know gets no mask at all."""
    mapping = ALL_MASK_ATTENTION_FUNCTIONS._global_mapping
    kept = mapping.pop(SEAM, None)
    assert kept is not None
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("otoscope.activations.seam._register", lambda: None)
            broken, _ = case.model.run_with_cache(case.inputs, f"{case.last}.*hook_pattern")
    finally:
        mapping[SEAM] = kept
    assert (broken.logits - case.logits).abs().max() > 0.1
    assert torch.equal(
        case.model.run_with_cache(case.inputs, f"{case.last}.*hook_pattern")[0].logits, case.logits
    )


def test_zeroing_a_head_equals_zeroing_its_columns_of_the_output_projection(exact):
    for attention in exact.attentions:
        point = exact.model.points[f"{attention}.hook_z"]
        head = point.heads - 1
        module = exact.model.hf.get_submodule(point.module)
        kept = module.weight.detach().clone()
        conv1d = type(module).__name__ == "Conv1D"
        with torch.no_grad():
            columns = module.weight if conv1d else module.weight.T
            columns.unflatten(0, (point.heads, -1))[head] = 0
            expected = exact.run()
            module.weight.copy_(kept)
        close(exact.run(Edit.zero(point.name, heads=head)), expected)
        close(exact.run(Edit.zero(f"{attention}.hook_result", heads=head)), expected)
        assert (expected - exact.logits).abs().max() > 1e-6


def test_head_output_weights_take_z_to_the_result(exact):
    for attention in exact.attentions:
        point = exact.model.points[f"{attention}.hook_result"]
        weights = head_output_weights(exact.model.hf.get_submodule(point.module), point.heads)
        close(torch.einsum("bphd,hdm->bphm", exact[f"{attention}.hook_z"], weights), exact[point.name])


def test_writing_the_middle_of_the_stream_edits_the_stream_and_not_the_norm_alone(exact):
    delta = torch.linspace(-1, 1, 3).to(torch.float64)
    for block in exact.blocks:
        for mid, part in (("resid_mid", "attn_out"), ("resid_mid_cross", "cross_attn_out")):
            name = f"{block}.hook_{mid}"
            if name not in exact.model.points:
                continue
            v = delta.repeat(exact[name].shape[-1])[: exact[name].shape[-1]]
            parts = [f"{block}.hook_mlp_out"]
            if mid == "resid_mid" and f"{block}.hook_cross_attn_out" in exact.model.points:
                parts.append(f"{block}.hook_cross_attn_out")
            with exact.model.editing(Edit.add(name, v)):
                _, cache = exact.model.run_with_cache(exact.inputs, [*parts, f"{block}.hook_resid_post"])
            moved = exact[name] + v + sum(cache[part] for part in parts)
            close(cache[f"{block}.hook_resid_post"], moved)
            # The same edit by hand, as an addition to the sublayer's output.
            close(exact.run(Edit.add(name, v)), exact.run(Edit.add(f"{block}.hook_{part}", v)))


def test_patching_the_last_residual_gives_the_donors_logits(case):
    donor = example_inputs(case.model, seed=5)
    donor = case.inputs | {k: v for k, v in donor.items() if k in ("input_features", "decoder_input_ids")} if (
        "input_features" in donor
    ) else padded(case.model, donor)  # fmt: skip
    name = f"{case.last}.hook_resid_post"
    out, cache = case.model.run_with_cache(donor, name)
    assert not torch.equal(out.logits, case.logits)
    assert torch.equal(case.run(Edit.replace(name, cache[name])), out.logits)


def test_cutting_attention_to_a_key_leaves_no_weight_there(case):
    name = f"{case.last}.{'self_attn' if case.model.config.model_type == 'whisper' else 'attn'}"
    cut = Edit.replace(
        f"{name}.hook_attn_scores", torch.tensor(-torch.inf), keys=3, positions=(5, 6), heads=0
    )
    with case.model.editing(cut):
        _, cache = case.model.run_with_cache(case.inputs, f"{name}.hook_pattern")
    before, after = case[f"{name}.hook_pattern"], cache[f"{name}.hook_pattern"]
    assert (after[:, 0, [5, 6], 3] == 0).all()
    assert torch.equal(after[:, 1:], before[:, 1:])
    assert torch.equal(after[:, 0, 4], before[:, 0, 4])


def sublayers(case: Case) -> list[str]:
    kinds = (
        "resid_pre",
        "resid_mid",
        "mlp_out",
        "hook_z",
        "hook_q",
        "hook_v",
        "pattern",
        "result",
        "mlp.hook_post",
    )
    return [n for n in case.model.points if n.endswith(kinds)]


def test_an_edit_of_one_row_never_touches_another(case):
    for name, point in case.model.points.items():
        if "batch" not in point.axes:
            continue
        logits = case.run(Edit.scale(name, -1, rows=1))
        assert torch.equal(logits[0], case.logits[0]), name
        assert not torch.equal(logits[1], case.logits[1]), name


def test_rows_cannot_be_chosen_where_all_share_one(case):
    for name, point in case.model.points.items():
        if "batch" not in point.axes:
            with pytest.raises(EditError, match="no batch axis"):
                case.run(Edit.zero(name, rows=0))


def test_a_batched_sweep_equals_the_same_edits_one_by_one(exact):
    if exact.model.config.model_type == "qwen2_audio":
        names = [n for n in sublayers(exact) if n.startswith("blocks")]
    else:
        names = sublayers(exact)
    one = {k: v[:1] for k, v in exact.inputs.items()}
    wide = {k: v.expand(len(names), *v.shape[1:]) for k, v in one.items()}
    with torch.no_grad(), exact.model.editing(Edit.scale(n, -0.5, rows=i) for i, n in enumerate(names)):
        together = exact.model.forward(wide).logits
    for i, name in enumerate(names):
        with torch.no_grad(), exact.model.editing(Edit.scale(name, -0.5)):
            alone = exact.model.forward(one).logits[0]
        torch.testing.assert_close(together[i], alone, rtol=1e-6, atol=1e-6)
        assert torch.equal(together[i].argmax(-1), alone.argmax(-1)), name
        assert (alone - exact.logits[0]).abs().max() > 1e-5, name


# Nothing is left behind ----------------------------------------------------------------------------------------------


def state(model) -> tuple:
    hooks = [
        (name, len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks or ()))
        for name, m in model.hf.named_modules()
    ]
    return hooks, model.attention, model.open_hooks, dict(_taps), model._clock_users, model._clock.rows


@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt])
def test_after_an_exception_in_a_hook_or_in_the_body_everything_is_as_before(case, kind):
    before = state(case.model)

    def explode(x, hook):
        raise kind("hook")

    for name in (f"{case.last}.hook_resid_mid", f"{case.last}.hook_mlp_out"):
        with pytest.raises(kind):
            case.model.run_with_hooks(case.inputs, [(everything, lambda x, h: None), (name, explode)])
        assert state(case.model) == before
    pattern = next(n for n in case.model.points if n.endswith("hook_pattern"))
    with pytest.raises(kind):
        case.model.run_with_hooks(case.inputs, [(pattern, explode)])
    with pytest.raises(kind), case.model.capturing(everything), case.model.editing(Edit.zero(pattern)):
        raise kind("body")
    with pytest.raises(kind), case.model.rows([4, 2]):
        raise kind("body")
    assert state(case.model) == before
    assert torch.equal(case.run(), case.logits)


def test_after_an_exception_inside_the_forward_pass_everything_is_as_before(case):
    before = state(case.model)
    unknown = [k for k in case.inputs if k.endswith("input_ids")]
    with pytest.raises((TypeError, ValueError, IndexError, RuntimeError)):
        case.model.run_with_cache(case.inputs | dict.fromkeys(unknown, torch.tensor([[10**6]])), everything)
    assert state(case.model) == before


def test_after_success_everything_is_as_before(case):
    before = state(case.model)
    case.run(*(Edit.scale(n, 1) for n in case.model.points))
    case.model.run_with_cache(case.inputs, everything, stop_at_layer=1)
    assert state(case.model) == before


def test_blocks_may_end_in_another_order_than_they_began():
    model = tiny("llama", attention="sdpa")
    before, inputs, seen = state(model), example_inputs(model), []
    first = model.hooks([("blocks.0.attn.hook_pattern", lambda x, h: None)])
    first.__enter__()
    model.add_hook("blocks.1.attn.hook_pattern", lambda x, h: seen.append(h.phase))
    first.__exit__(None, None, None)
    model.forward(inputs)
    assert seen == ["forward"]
    assert implementation(model.hf) == SEAM
    model.reset_hooks()
    assert state(model) == before


def test_the_clock_goes_on_for_a_block_that_outlives_the_one_that_started_it():
    model, steps = tiny("llama"), []
    first = model.hooks([("ln_final.hook_out", lambda x, h: None)])
    first.__enter__()
    model.add_hook("ln_final.hook_out", lambda x, h: steps.append(h.step))
    first.__exit__(None, None, None)
    model.generate(torch.tensor([[3, 4, 5]]), max_new_tokens=3, min_new_tokens=3, do_sample=False)
    model.reset_hooks()
    assert steps == [0, 1, 2]


def test_hooks_added_to_stay_stay_until_they_are_reset():
    model = tiny("gpt2")
    inputs = example_inputs(model)
    plain = model.forward(inputs).logits
    model.add_hook("blocks.0.hook_mlp_out", lambda x, h: x * 0)
    assert not torch.equal(model.forward(inputs).logits, plain)
    model.reset_hooks()
    assert torch.equal(model.forward(inputs).logits, plain)


@pytest.mark.parametrize(
    "point", ["blocks.0.hook_mlp_out", "blocks.0.attn.hook_pattern", "blocks.0.attn.hook_result"]
)
def test_a_hook_that_returns_another_shape_is_refused(point):
    model = tiny("llama")
    with pytest.raises(PointError, match="instead of"):
        model.run_with_hooks(example_inputs(model), [(point, lambda x, h: x[:1])])


# Reading -------------------------------------------------------------------------------------------------------------


def test_what_was_read_survives_later_edits_in_place(case):
    edits = [Edit.zero(n) for n in case.model.points if n.startswith(case.last) and "resid_mid" in n]
    edited = {e.point for e in edits}
    # Read first, then overwritten: the reading must be a copy. Read second: it must be the edited stream.
    model = case.model
    with (
        torch.no_grad(),
        model.capturing(edited) as before,
        model.editing(*edits),
        model.capturing(edited) as after,
    ):
        model.forward(case.inputs)
    first = f"{case.last}.hook_resid_mid"
    assert torch.equal(before[first], case[first])
    for name in edited:
        assert before[name].any()
        assert not after[name].any()


def test_what_was_read_is_detached_and_holds_no_more_memory_than_it_shows(case):
    named: dict[int, list[str]] = {}
    for name in case.cache:
        assert not case[name].requires_grad
        assert case[name].untyped_storage().nbytes() == case[name].nbytes, name
        named.setdefault(case[name].untyped_storage().data_ptr(), []).append(name)
    # Only two names of the very same tensor may share a copy: what leaves one module and what enters or leaves the next.
    for names in named.values():
        if len(names) > 1:
            left, entered = names
            assert left.endswith(("hook_resid_post", "embed.hook_out", "audio_encoder.ln_final.hook_out")), (
                names
            )
            assert entered.endswith(("hook_resid_pre", "audio_encoder.hook_out")), names


def test_a_shared_copy_does_not_hide_what_an_edit_between_two_names_does(case):
    left, entered = f"{case.main}.0.hook_resid_post", f"{case.main}.1.hook_resid_pre"
    with case.model.editing(Edit.scale(entered, 2)):
        _, cache = case.model.run_with_cache(case.inputs, [left, entered])
    assert torch.equal(cache[left], case[left])
    assert torch.equal(cache[entered], 2 * case[left])
    # In place as well: a hook may write into the tensor it is given.
    with case.model.hooks([(entered, lambda x, hook: _triple(x))]):
        _, cache = case.model.run_with_cache(case.inputs, [left, entered])
    assert torch.equal(cache[left], case[left])
    assert torch.equal(cache[entered], 3 * case[left])


def _triple(x: torch.Tensor) -> None:
    x.mul_(3)


@pytest.mark.parametrize(
    ("pos_slice", "kept"), [(-1, slice(-1, None)), (2, slice(2, 3)), (slice(1, 4), slice(1, 4))]
)
def test_pos_slice_keeps_these_positions_and_no_more_memory(case, pos_slice, kept):
    _, cut = case.model.run_with_cache(case.inputs, everything, pos_slice=pos_slice)
    for name, point in case.model.points.items():
        axis = point.axis("pos", "frame")
        whole = case[name]
        expected = whole if axis is None else whole[(slice(None),) * axis + (kept,)]
        assert torch.equal(cut[name], expected), name
        assert cut[name].untyped_storage().nbytes() == cut[name].nbytes


def test_storage_may_have_another_dtype(case):
    _, cache = case.model.run_with_cache(case.inputs, everything, dtype=torch.float16)
    for name in case.model.points:
        assert torch.equal(cache[name], case[name].to(torch.float16))


def test_stopping_at_a_layer_gives_its_incoming_stream_and_runs_nothing_after(case):
    for layer in range(2):
        residual, cache = case.model.run_with_cache(case.inputs, stop_at_layer=layer)
        assert torch.equal(residual, case[f"{case.main}.{layer}.hook_resid_pre"])
        assert f"{case.main}.{layer}.hook_resid_pre" in cache
        assert f"{case.main}.{layer}.ln1.hook_out" not in cache
        assert "unembed.hook_out" not in cache
    for layer in (-1, 99):
        with pytest.raises(PointError, match="Choose 0 to"):
            case.model.run_with_cache(case.inputs, stop_at_layer=layer)


def test_asking_for_what_was_not_read_says_so(case):
    _, cache = case.model.run_with_cache(case.inputs, f"{case.last}.hook_resid_post")
    with pytest.raises(PointError, match="was not read"):
        cache[f"{case.last}.hook_resid_pre"]
    assert ("resid_post", int(case.last[-1])) in cache
    assert torch.equal(cache["resid_post", int(case.last[-1])], cache[f"{case.last}.hook_resid_post"])


# Gradients -----------------------------------------------------------------------------------------------------------


def with_gradient(case: Case) -> list[str]:
    frozen = ("pos_embed.hook_out",) if case.model.config.model_type == "whisper" else ()
    return [n for n, p in case.model.points.items() if p.at != "result" and n not in frozen]


def metric(out) -> torch.Tensor:
    return (out.logits * torch.linspace(0, 1, out.logits.shape[-1]).to(out.logits)).sum()


def test_gradients_are_those_of_autograd(exact):
    names = with_gradient(exact)
    output, cache = exact.model.run_with_cache(exact.inputs, names, incl_bwd=metric)
    close(output.logits.detach(), exact.logits)
    # By hand: a zero added at the point is differentiated instead of the point itself.
    for name in names:
        zero = torch.zeros_like(exact[name], requires_grad=True)
        with torch.enable_grad(), exact.model.hooks([(name, lambda x, h, zero=zero: x + zero)]):
            (by_hand,) = torch.autograd.grad(metric(exact.model.forward(exact.inputs)), zero)
        close(cache[name + "_grad"], by_hand)
        assert torch.equal(cache[name], exact[name]), name


def test_gradients_are_read_by_default_wherever_there_are_any(case):
    _, cache = case.model.run_with_cache(case.inputs, incl_bwd=metric)
    plain = {p.name for p in case.model.points.select(None)}
    assert {n for n in cache if not n.endswith("_grad")} == plain
    assert {n.removesuffix("_grad") for n in cache if n.endswith("_grad")} == plain & set(with_gradient(case))


def test_gradients_are_cut_and_stored_as_asked_and_leave_the_parameters_own_alone(case):
    name, parameter = f"{case.last}.hook_resid_mid", next(case.model.hf.parameters())
    parameter.grad = torch.ones_like(parameter)
    _, whole = case.model.run_with_cache(case.inputs, name, incl_bwd=metric)
    _, cut = case.model.run_with_cache(case.inputs, name, incl_bwd=metric, pos_slice=-1, dtype=torch.float64)
    assert torch.equal(cut[name + "_grad"], whole[name + "_grad"][:, -1:].double())
    assert torch.equal(parameter.grad, torch.ones_like(parameter))
    parameter.grad = None
    assert all(p.grad is None for p in case.model.hf.parameters())


def test_gradients_that_cannot_be_had_are_refused(case):
    name = f"{case.last}.hook_resid_mid"
    with pytest.raises(PointError, match="no loss"):
        case.model.run_with_cache(case.inputs, name, incl_bwd=True)
    with pytest.raises(PointError, match="stops at a layer"):
        case.model.run_with_cache(case.inputs, name, incl_bwd=metric, stop_at_layer=0)
    with pytest.raises(PointError, match="no gradient of its own"):
        case.model.run_with_cache(case.inputs, lambda n: n.endswith("hook_result"), incl_bwd=metric)
    with torch.no_grad(), pytest.raises(PointError, match="carries no gradient"), case.model.hooks(
        bwd_hooks=[(name, lambda g, h: None)]
    ):  # fmt: skip
        case.model.forward(case.inputs)
    assert case.model.open_hooks == 0


def test_a_backward_hook_may_change_the_gradient(case):
    first, last = f"{case.main}.0.hook_resid_post", f"{case.last}.hook_resid_post"
    seen = []
    with case.model.hooks(
        bwd_hooks=[(last, lambda g, h: g * 0), (first, lambda g, h: seen.append(g.abs().max()))]
    ):
        metric(case.model.forward(case.inputs)).backward()
    case.model.hf.zero_grad(set_to_none=True)
    assert seen == [0]


# Other configurations ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"scale_attn_by_inverse_layer_idx": True},
        {"scale_attn_weights": False},
        {"reorder_and_upcast_attn": True},
    ],
)
def test_the_variants_of_gpt2_are_kept_or_refused(changes):
    model = tiny("gpt2", **changes)
    inputs = example_inputs(model)
    plain = model.forward(inputs).logits
    name = "blocks.1.attn.hook_attn_scores"
    if "reorder_and_upcast_attn" in changes:
        with pytest.raises(PointError, match="upcast"):
            model.run_with_cache(inputs, name)
    else:
        with torch.no_grad(), model.editing(Edit.scale(name, 1)):
            assert torch.equal(model.forward(inputs).logits, plain)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_seam_changes_no_bit_in_half_precision(family, dtype):
    half = Case(family, dtype)
    seams = [n for n, p in half.model.points.items() if p.needs_seam]
    assert torch.equal(half.run(*(Edit.scale(n, 1) for n in seams)), half.logits)
