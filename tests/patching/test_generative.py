"""Changes that ride in a batch write what hand-written hooks write one at a time through Hugging Face `generate`."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from functools import partial

import pytest
import torch
from tests.models.talking import talking_whisper

from otoscope.activations import Visit
from otoscope.errors import OptionError
from otoscope.models.hearing import Heard
from otoscope.models.replay import Replay
from otoscope.models.transcripts import DecodeOptions
from otoscope.patching.changes import Change, Patcher
from otoscope.patching.components import Component, components
from otoscope.patching.generative import Row, write_changes, write_rows
from otoscope.patching.references import Reference

pytestmark = pytest.mark.usefixtures("one_thread")

OPTIONS = DecodeOptions(max_positions=32)
ZERO = Reference()
NOISE = Reference("noise")


@pytest.fixture(scope="module")
def model():
    return talking_whisper(dtype=torch.float64)


@pytest.fixture(scope="module")
def sounds():
    return torch.randn(6, 16, 100, generator=torch.Generator().manual_seed(0)).double()


@pytest.fixture(scope="module")
def clips(model, sounds):
    return [heard(model, row[None]) for row in sounds]


def heard(model, features):
    audio = Replay.of(model, "encoder", lambda: model.encode(features))
    with torch.no_grad():
        return Heard(features, model.normed(audio.residuals[-1]), audio)


def varied(model, clip, changes, elsewhere=None, written=(), batch=5):
    found = dict(
        write_changes(model, clip, changes, model.prompt("en"), OPTIONS, elsewhere, written, batch=batch)
    )
    return [found[i] for i in range(len(changes))]


# By hand ------------------------------------------------------------------------------------------------------------------

MODULES = {
    ("decoder", "self_attn"): "model.decoder.layers.{}.self_attn",
    ("decoder", "cross_attn"): "model.decoder.layers.{}.encoder_attn",
    ("decoder", "mlp"): "model.decoder.layers.{}.fc2",
    ("decoder", "resid"): "model.decoder.layers.{}",
    ("encoder", "attn"): "model.encoder.layers.{}.self_attn",
    ("encoder", "mlp"): "model.encoder.layers.{}.fc2",
    ("encoder", "resid"): "model.encoder.layers.{}",
}


def put(model, component: Component, new):
    """Register a hook on the Transformers module: `new(a)` replaces the component's output `(row, pos, width)`."""
    module = model.hf.get_submodule(MODULES[component.stack, component.part].format(component.layer))
    if component.head is None:

        def after(_module, _args, out):
            changed = new(out[0] if isinstance(out, tuple) else out)
            return (changed, *out[1:]) if isinstance(out, tuple) else changed

        return module.register_forward_hook(after)
    width = module.head_dim
    part = slice(component.head * width, (component.head + 1) * width)

    def before(_module, args):
        z = args[0].clone()
        z[..., part] = new(z[..., part])
        return (z, *args[1:])

    return module.out_proj.register_forward_pre_hook(before)


def generated(model, features, hooks):
    with ExitStack() as stack:
        for component, new in hooks:
            stack.callback(put(model, component, new).remove)
        with torch.no_grad():
            ids = model.hf.generate(features, language="en", task="transcribe", do_sample=False)[0].tolist()
    return ids[: ids.index(model.end_token)] if model.end_token in ids else ids


def scaled(alpha):
    return lambda a: (1 - alpha) * a


@pytest.mark.parametrize("alpha", [1.0, 0.5, 2.5, -1.0])
def test_every_component_zeroed_in_one_batch_writes_what_generate_writes_with_a_hook(
    model, sounds, clips, alpha
):
    every = [
        *components(model, "decoder", ("self_attn", "cross_attn", "mlp", "resid")),
        *components(model, "encoder", ("attn", "mlp", "resid")),
    ]
    every = every if alpha == 1.0 else every[::3]
    found = varied(model, clips[0], [Change((c,), ZERO, alpha) for c in every])
    written = set()
    for component, row in zip(every, found, strict=True):
        assert row.ids == generated(model, sounds[:1], [(component, scaled(alpha))]), component.label
        written.add(tuple(row.ids))
    assert len(written) > 3
    assert model.open_hooks == 0


def test_encoder_and_decoder_are_patched_together_and_sets_at_once(model, sounds, clips):
    sets = [
        (Component("encoder", 1, "attn", 2), Component("decoder", 0, "cross_attn", 1)),
        (Component("decoder", 0, "mlp"), Component("decoder", 1, "cross_attn", 4)),
        (Component("decoder", 1, "cross_attn", 0), Component("decoder", 1, "cross_attn", 3)),
        (Component("encoder", 0, "mlp"), Component("encoder", 2, "attn"), Component("decoder", 1, "mlp")),
    ]
    found = varied(model, clips[1], [Change(members, ZERO, 1.5) for members in sets])
    for members, row in zip(sets, found, strict=True):
        assert row.ids == generated(model, sounds[1:2], [(c, scaled(1.5)) for c in members])


def test_clips_share_a_batch_each_with_its_own_change_and_none(model, sounds, clips):
    head, block = Component("decoder", 0, "cross_attn", 2), Component("encoder", 1, "attn")
    changes = [None, Change((head,)), Change((block,)), Change((block, head)), None, Change((head,))]
    rows = [Row(i, change) for i, change in zip((3, 0, 4, 0, 0, 5), changes, strict=True)]
    prompts = torch.tensor([model.prompt("en")] * len(rows))
    found = write_rows(model, clips, rows, prompts, OPTIONS)
    for row, written in zip(rows, found, strict=True):
        hooks = [(c, torch.zeros_like) for c in (row.change.components if row.change else ())]
        assert written.ids == generated(model, sounds[row.clip : row.clip + 1], hooks)
    assert len({len(written.ids) for written in found}) > 1, "rows should leave at different steps"


def test_the_size_of_the_batch_and_the_neighbours_change_nothing(model, clips):
    patches = [Change((c,), NOISE, 0.8) for c in components(model, "decoder")[::4]]
    changes = [*patches, *(p.control(i) for i, p in enumerate(patches))]
    whole, alone = (varied(model, clips[2], changes, clips[3], batch=batch) for batch in (64, 1))
    assert [row.ids for row in whole] == [row.ids for row in alone]
    assert len({tuple(row.ids) for row in whole}) > 3


# A reference that is heard -----------------------------------------------------------------------------------------------


def two_models(model, features, other, change, start=0):
    """Greedy without a cache: the second model hears something else and is given the first one's tokens; its activations are
    mixed in: from 0 on everywhere, else at every position that writes token `start` or a later one.
    """
    config, ids = model.hf.generation_config, model.prompt("en")
    begin, alpha = len(ids), change.alpha

    def kept(there, c, a):
        there[c] = a.clone()
        return a

    def mixed(there, c, a):
        new = (1 - alpha) * a + alpha * there[c]
        if c.stack == "decoder" and start:
            new[:, : begin - 1 + start] = a[:, : begin - 1 + start]
        return new

    while len(ids) < 32:
        tokens, there = torch.tensor([ids]), {}
        with torch.no_grad():
            with ExitStack() as stack:
                for c in change.components:
                    stack.callback(put(model, c, partial(kept, there, c)).remove)
                model.hf(input_features=other, decoder_input_ids=tokens, use_cache=False)

            with ExitStack() as stack:
                for c in change.components:
                    stack.callback(put(model, c, partial(mixed, there, c)).remove)
                logits = model.hf(input_features=features, decoder_input_ids=tokens, use_cache=False).logits[
                    0, -1
                ]
        logits[config.suppress_tokens] = -torch.inf
        if len(ids) == begin:
            logits[config.begin_suppress_tokens] = -torch.inf
        token = int(logits.argmax())
        if token == model.end_token:
            break
        ids.append(token)
    return ids[begin:]


PATCHED = [
    (Component("decoder", 0, "cross_attn", 3),),
    (Component("decoder", 1, "cross_attn"),),
    (Component("decoder", 0, "self_attn", 1),),
    (Component("decoder", 1, "mlp"),),
    (Component("decoder", 0, "resid"),),
    (Component("encoder", 1, "attn", 0),),
    (Component("encoder", 2, "mlp"),),
    (
        Component("encoder", 0, "attn"),
        Component("decoder", 1, "cross_attn", 5),
        Component("decoder", 0, "mlp"),
    ),
]


@pytest.mark.parametrize("alpha", [1.0, 0.4, 1.7])
def test_a_reference_that_is_heard_equals_two_models_given_the_same_tokens(model, sounds, clips, alpha):
    changes = [Change(members, NOISE, alpha) for members in PATCHED]
    found = varied(model, clips[0], changes, clips[4])
    by_hand = [two_models(model, sounds[:1], sounds[4:5], change) for change in changes]
    assert [row.ids for row in found] == by_hand
    assert len(set(map(tuple, by_hand))) > 2


def test_each_clip_of_a_batch_has_its_own_reference(model, sounds, clips):
    change = Change(PATCHED[-1], NOISE, 0.7)
    prompts = torch.tensor([model.prompt("en")] * 3)
    rows = [Row(2, change), Row(0, change), Row(1, None)]
    found = write_rows(model, clips[:3], rows, prompts, OPTIONS, clips[3:])
    for row, written in zip(rows[:2], found, strict=False):
        assert written.ids == two_models(model, sounds[row.clip][None], sounds[row.clip + 3][None], change)
    assert found[2].ids == generated(model, sounds[1:2], [])


@pytest.mark.parametrize("start", [0, 1, 3, 7])
def test_a_change_that_starts_later_leaves_the_earlier_positions_alone(model, sounds, clips, start):
    written = varied(model, clips[3], [Change(PATCHED[1], ZERO, 0.0)])[0].ids
    assert len(written) > 7
    changes = [Change(members, NOISE, 1.0, start=start) for members in PATCHED[:5]]
    by_hand = [two_models(model, sounds[3:4], sounds[4:5], change, start) for change in changes]
    for prefix in (written, ()):  # whether the prefix is shared or written anew
        found = varied(model, clips[3], changes, clips[4], prefix)
        assert [row.ids for row in found] == by_hand
    assert all(ids[:start] == written[:start] for ids in by_hand)
    assert any(ids != written for ids in by_hand)


def test_rows_that_start_at_different_tokens_ride_together(model, sounds, clips):
    starts = (5, 0, 2)
    changes = [Change(PATCHED[4], NOISE, 1.0, start=start) for start in starts]
    prompts = torch.tensor([model.prompt("en")] * 3)
    rows = [Row(3, change) for change in changes]
    found = write_rows(model, clips, rows, prompts, OPTIONS, [clips[4]] * 6)
    for start, change, row in zip(starts, changes, found, strict=True):
        assert row.ids == two_models(model, sounds[3:4], sounds[4:5], change, start)


def test_a_text_may_end_right_where_a_change_starts(model, clips, monkeypatch):
    """What must not be written first may well be written after a prefix: the end, above all."""
    written = varied(model, clips[0], [Change(PATCHED[1], ZERO, 0.0)])[0].ids
    monkeypatch.setattr(model.hf.generation_config, "begin_suppress_tokens", [written[3], model.end_token])
    (found,) = varied(model, clips[0], [Change(PATCHED[1], ZERO, 0.0, start=3)], written=written)
    assert found.ids == written


def test_frames_of_the_reference_can_be_chosen(model, sounds, clips):
    frames = torch.arange(50) // 3
    reference = Reference("clip", clip=object(), frames=frames)
    change = Change((Component("encoder", 2, "resid"),), reference)
    (found,) = varied(model, clips[0], [change], clips[1])
    with torch.no_grad():
        drawn_out = model.normed(clips[1].audio.residuals[-1][:, frames])
    (expected,) = write_rows(
        model, [replace(clips[1], encoded=drawn_out)], [Row(0)], torch.tensor([model.prompt("en")]), OPTIONS
    )
    assert found.ids == expected.ids
    assert found.ids != varied(model, clips[0], [replace(change, reference=NOISE)], clips[1])[0].ids


# Controls and means ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reference", [ZERO, NOISE], ids=["zero", "noise"])
@pytest.mark.parametrize("member", [PATCHED[0], PATCHED[3], PATCHED[5]], ids=lambda m: m[0].label)
def test_a_random_direction_moves_exactly_as_far_as_the_patch(model, reference, member):
    change = Change(member, reference, 0.6)
    point, head = member[0].point, member[0].head
    patcher = Patcher(model, [change, change.control(3), change.control(4)], 4)
    g = torch.Generator().manual_seed(1)
    shape = (48,) if head is None else (6, 8) if member[0].stack == "decoder" else (4, 12)
    a = torch.randn(1, 4, *shape, generator=g).double().expand(3, -1, *(-1,) * len(shape))
    visit = Visit(point, member[0].layer, 0, 0, "forward")
    if reference.is_heard:
        with patcher.listening():
            patcher._at(point, torch.randn(1, 4, *shape, generator=g).double(), visit)
    moved = patcher._at(point, a, visit) - a
    if head is not None:
        assert not moved[:, :, [h for h in range(shape[0]) if h != head]].any()
        moved = moved[:, :, head]
    distance = moved.norm(dim=-1)
    torch.testing.assert_close(distance[1], distance[0])
    torch.testing.assert_close(distance[2], distance[0])
    unit = moved / distance[..., None]
    torch.testing.assert_close(unit[1], unit[1, :1].expand_as(unit[1]))  # one direction at every position
    for other in (0, 2):
        assert abs(float(unit[1, 0] @ unit[other, 0])) < 0.95


def test_a_mean_reference_is_the_same_for_every_row_and_position(model, sounds, clips):
    head, block = Component("decoder", 0, "cross_attn", 3), Component("decoder", 1, "mlp")
    g = torch.Generator().manual_seed(3)
    means = {
        head.point: torch.randn(6, 8, generator=g).double() * 4,
        block.point: torch.randn(48, generator=g).double() * 4,
    }
    reference = Reference("mean").with_means(means)
    found = varied(model, clips[0], [Change((c,), reference, 0.9) for c in (head, block)])
    for row, component in zip(found, (head, block), strict=True):
        mean = means[component.point] if component.head is None else means[component.point][component.head]
        assert row.ids == generated(model, sounds[:1], [(component, lambda a, m=mean: 0.1 * a + 0.9 * m)])


def test_what_cannot_be_patched_is_refused(model, clips):
    head = Component("decoder", 0, "cross_attn", 3)
    prompts = torch.tensor([model.prompt("en")] * 2)
    rows = [Row(0, Change((head,))), Row(0, Change((head,), NOISE))]
    with pytest.raises(OptionError, match="different references"):
        write_rows(model, clips, rows, prompts, OPTIONS)
    with pytest.raises(OptionError, match="no corpus mean"):
        varied(model, clips[0], [Change((head,), Reference("mean"))])
    with pytest.raises(OptionError, match="hears the reference"):
        varied(model, clips[0], [Change((head,), NOISE)])
    for alpha in (float("nan"), float("inf")):
        with pytest.raises(OptionError, match="alpha"):
            Change((head,), ZERO, alpha)
    assert model.open_hooks == 0
