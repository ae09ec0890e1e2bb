"""Language models and Qwen2-Audio: changes in a batch equal `generate` with a hand-written hook."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
import torch
from tests.conftest import example_inputs, tiny

from otoscope.errors import OptionError
from otoscope.patching.changes import Change
from otoscope.patching.components import components
from otoscope.patching.references import Reference
from otoscope.patching.texts import write_texts

pytestmark = pytest.mark.usefixtures("one_thread")

TOKENS = 9
KINDS = ("llama", "gemma2", "gpt2", "qwen2_audio")


def shaken(kind):
    """A random model whose layers matter: left as it is, it would only repeat a token."""
    model = tiny(kind, dtype=torch.float64, seed=4)
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, p in model.hf.named_parameters():
            if p.dim() > 1 and ("layers" in name or ".h." in name or "head" in name):
                p.add_(torch.randn(p.shape, generator=g).double() * 0.25)
    model.hf.generation_config.eos_token_id = None
    return model


def inputs_of(model, seed=0):
    found = example_inputs(model, batch=1, seed=seed)
    return found | {"attention_mask": torch.ones_like(found["input_ids"])}


def module_of(model, c):
    layer = model.hf.get_submodule(f"{model.points.layers[c.stack]}.{c.layer}")
    kind = model.config.model_type
    if c.head is not None:
        attention = layer.attn if kind == "gpt2" else layer.self_attn
        return next(getattr(attention, n) for n in ("c_proj", "o_proj", "out_proj") if hasattr(attention, n))
    if c.stack == "audio_encoder":
        return layer.self_attn if c.part == "attn" else layer.fc2
    if kind == "gpt2":
        return layer.attn if c.part == "attn" else layer.mlp
    if kind == "gemma2":
        return layer.post_attention_layernorm if c.part == "attn" else layer.post_feedforward_layernorm
    return layer.self_attn if c.part == "attn" else layer.mlp


def put(model, c, new):
    module = module_of(model, c)
    if c.head is None:

        def after(_module, _args, out):
            return (new(out[0]), *out[1:]) if isinstance(out, tuple) else new(out)

        return module.register_forward_hook(after)
    width = model.points[c.point].width
    part = slice(c.head * width, (c.head + 1) * width)

    def before(_module, args):
        z = args[0].clone()
        z[..., part] = new(z[..., part])
        return (z, *args[1:])

    return module.register_forward_pre_hook(before)


def generated(model, inputs, hooks=(), tokens=TOKENS):
    with ExitStack() as stack, torch.no_grad():
        for c, new in hooks:
            stack.callback(put(model, c, new).remove)
        out = model.hf.generate(
            **inputs,
            max_new_tokens=tokens,
            do_sample=False,
            eos_token_id=model.hf.generation_config.eos_token_id,
        )
    return out[0, inputs["input_ids"].shape[1] :].tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_changes_in_a_batch_equal_generate_with_a_hook(kind):
    model = shaken(kind)
    inputs = inputs_of(model)
    every = [c for stack in model.points.stacks for c in components(model, stack)]
    changes = [Change((c,), alpha=1.0 if i % 2 else 1.8) for i, c in enumerate(every[::2])]
    found = write_texts(model, inputs, [None, *changes], TOKENS)
    assert found[0] == generated(model, inputs)
    for change, ids in zip(changes, found[1:], strict=True):
        hook = (change.components[0], lambda a, alpha=change.alpha: (1 - alpha) * a)
        assert ids == generated(model, inputs, [hook]), change.components[0].label
    assert len(set(map(tuple, found))) > 3
    assert model.open_hooks == 0


@pytest.mark.parametrize("kind", ["llama", "qwen2_audio"])
def test_a_reference_is_read_by_a_second_copy_that_is_given_the_same_tokens(kind):
    model = shaken(kind)
    inputs, other = inputs_of(model), inputs_of(model, seed=7)
    if kind == "qwen2_audio":
        other = inputs | {"input_features": other["input_features"]}
    every = [c for stack in model.points.stacks for c in components(model, stack)][::5]
    found = write_texts(model, inputs, [Change((c,), Reference("noise"), 0.9) for c in every], TOKENS, other)
    for c, ids in zip(every, found, strict=True):
        expected, more = [], torch.empty(1, 0, dtype=torch.long)
        for _ in range(TOKENS):
            feeds = [
                f
                | {
                    "input_ids": torch.cat([f["input_ids"], more], 1),
                    "attention_mask": torch.ones(
                        1, f["input_ids"].shape[1] + more.shape[1], dtype=torch.long
                    ),
                }
                for f in (inputs, other)
            ]
            there = []
            with torch.no_grad():
                handle = put(model, c, lambda a, there=there: (there.append(a.clone()), a)[1])
                model.forward(feeds[1])
                handle.remove()
                handle = put(model, c, lambda a, there=there: 0.1 * a + 0.9 * there[0])
                token = int(model.forward(feeds[0]).logits[0, -1].argmax())
                handle.remove()
            expected.append(token)
            more = torch.cat([more, torch.tensor([[token]])], 1)
        assert ids == expected, c.label


def test_a_row_ends_at_its_end_token_and_the_others_go_on():
    model = shaken("llama")
    inputs = inputs_of(model)
    changes = [None, *(Change((c,)) for c in components(model)[::3])]
    free = write_texts(model, inputs, changes, TOKENS)
    end = free[0][3]
    model.hf.generation_config.eos_token_id = [end, 96]
    found = write_texts(model, inputs, changes, TOKENS)
    assert found == [
        ids[: ids.index(end)] if end in ids else ids[: ids.index(96)] if 96 in ids else ids for ids in free
    ]
    assert len(set(map(len, found))) > 1
    assert write_texts(model, inputs, changes, 0) == [[] for _ in changes]


def test_a_reference_of_another_length_or_none_is_refused():
    model = shaken("llama")
    inputs = inputs_of(model)
    change = Change((components(model)[0],), Reference("noise"))
    with pytest.raises(OptionError, match="no inputs"):
        write_texts(model, inputs, [change], 3)
    longer = {name: torch.cat([x, x], 1) for name, x in inputs.items()}
    with pytest.raises(OptionError, match="not as long"):
        write_texts(model, inputs, [change], 3, longer)
