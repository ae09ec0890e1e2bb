"""How a stack is wired: the norms, weights and modules behind the names of the point table.

Everything is read from the table and from module attributes, so a family that has points has wiring, and no part of the
code that computes with weights asks which family it has before it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from otoscope.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from otoscope.activations import HookPoint
    from otoscope.models.base import Model


@dataclass(frozen=True, eq=False)
class Affine:
    """`x @ weight.T + bias`.

    Attributes:
        weight: `(out, in)`, whatever way round the module stores it.
        bias: `(out,)`, or None.
    """

    weight: Tensor
    bias: Tensor | None

    def __call__(self, x: Tensor) -> Tensor:
        """`(..., in)` -> `(..., out)`."""
        y = x @ self.weight.T
        return y if self.bias is None else y + self.bias


@dataclass(frozen=True, eq=False)
class AttentionWiring:
    """One attention part of a layer.

    Attributes:
        name: Prefix of its points, such as `blocks.3.attn`.
        norm: What normalises its input.
        q: Query projection; k, v and o likewise (`o` takes the heads' outputs side by side).
        k: Key projection.
        v: Value projection.
        o: Output projection.
        heads: Query heads.
        kv_heads: Key and value heads; each serves `heads / kv_heads` consecutive query heads.
        module: The attention module.
        post_norm: The norm between output projection and stream (Gemma 2 and 3), or None.
    """

    name: str
    norm: nn.Module
    q: Affine
    k: Affine
    v: Affine
    o: Affine
    heads: int
    kv_heads: int
    module: nn.Module
    post_norm: nn.Module | None


@dataclass(frozen=True, eq=False)
class MlpWiring:
    """The MLP of a layer: `down(act(pre(x)))`, or `down(act(pre(x)) * up(x))` where it is gated.

    Attributes:
        norm: What normalises its input.
        stream_point: Point of the stream that it reads, before the norm.
        input_point: Point of its input, after the norm.
        pre: First projection; the gate in a gated MLP.
        up: Second projection of a gated MLP, or None.
        down: Output projection.
        act: The activation function, elementwise.
        down_module: The module of `down`; what leaves it is the MLP's raw output.
        post_norm: The norm between it and the stream (Gemma 2 and 3), or None.
    """

    norm: nn.Module
    stream_point: str
    input_point: str
    pre: Affine
    up: Affine | None
    down: Affine
    act: Callable[[Tensor], Tensor]
    down_module: nn.Module
    post_norm: nn.Module | None


@dataclass(frozen=True, eq=False)
class BlockWiring:
    """One layer.

    Attributes:
        layer: Its index, from 0.
        attention: Its attention part.
        mlp: Its MLP.
        parallel: Attention and MLP read the same stream, side by side.
        cross: Its attention to another stack, between the two, or None.
    """

    layer: int
    attention: AttentionWiring
    mlp: MlpWiring
    parallel: bool
    cross: AttentionWiring | None = None


@dataclass(frozen=True, eq=False)
class StackWiring:
    """One stack of layers, from its embeddings to its final norm.

    Attributes:
        stream: Its name in the point table, such as `text` or `decoder`.
        prefix: Prefix of its points, such as `blocks`.
        blocks: Its layers.
        final_norm: The norm after the last layer.
        final_point: Point of what leaves it.
        embed: Point of the token embeddings, or None where the stream begins with sound.
        positions: Point of the learned positions, or None.
        unembedding: Its module; None where nothing is written from it.
    """

    stream: str
    prefix: str
    blocks: tuple[BlockWiring, ...]
    final_norm: nn.Module
    final_point: str
    embed: str | None
    positions: str | None
    unembedding: nn.Module | None


def stack_wiring(model: Model, stream: str | None = None) -> StackWiring:
    """Wiring of a stack.

    Args:
        model: The model.
        stream: Its name in the point table; None: the stack that writes.

    Raises:
        ModelError: An activation function is not found.
    """
    points = model.points
    stream = stream or next(iter(points.stacks))
    prefix = points.stacks[stream]
    own = [
        name for name, point in points.items() if point.stack == stream and not name.startswith(f"{prefix}.")
    ]
    count = len(model.hf.get_submodule(points.layers[stream]))  # type: ignore[arg-type]

    def named(ending: str) -> str | None:
        return next((name for name in own if name.endswith(ending)), None)

    def module(name: str) -> nn.Module:
        return model.hf.get_submodule(points[name].module)

    positions, final, unembed = (named(f"{x}.hook_out") for x in ("pos_embed", "ln_final", "unembed"))
    return StackWiring(
        stream,
        prefix,
        tuple(_block(model, prefix, layer) for layer in range(count)),
        module(str(final)),
        str(final),
        next(
            (name for name in own if name.endswith("embed.hook_out") and name not in (positions, unembed)),
            None,
        ),
        positions,
        module(unembed) if unembed else None,
    )


def _block(model: Model, prefix: str, layer: int) -> BlockWiring:
    name = f"{prefix}.{layer}"
    crossing = f"{name}.cross_attn.hook_z" in model.points
    own = "attn" if f"{name}.attn.hook_z" in model.points else "self_attn"
    mid = "hook_resid_mid_cross" if crossing else "hook_resid_mid"
    parallel = f"{name}.hook_resid_mid" not in model.points
    return BlockWiring(
        layer,
        _attention(model, name, own, "ln1", "hook_attn_out"),
        _mlp(model, name, "ln3" if crossing else "ln2", "hook_resid_pre" if parallel else mid),
        parallel,
        _attention(model, name, "cross_attn", "ln2", "hook_cross_attn_out") if crossing else None,
    )


def _attention(model: Model, block: str, part: str, norm: str, out_point: str) -> AttentionWiring:
    def point(suffix: str) -> HookPoint:
        return model.points[f"{block}.{suffix}"]

    z = point(f"{part}.hook_z")
    path = z.module.rpartition(".")[0]
    parts = {letter: _projection(model, point(f"{part}.hook_{letter}")) for letter in "qkv"}
    out = point(out_point).module
    return AttentionWiring(
        f"{block}.{part}",
        model.hf.get_submodule(point(f"{norm}.hook_out").module),
        **parts,
        o=_affine(model.hf.get_submodule(z.module)),
        heads=z.heads or 1,
        kv_heads=point(f"{part}.hook_v").heads or 1,
        module=model.hf.get_submodule(path),
        post_norm=None if out == path else model.hf.get_submodule(out),
    )


def _mlp(model: Model, block: str, norm: str, stream: str) -> MlpWiring:
    def module(suffix: str) -> nn.Module:
        return model.hf.get_submodule(model.points[f"{block}.{suffix}"].module)

    gated = f"{block}.mlp.hook_pre_linear" in model.points
    down, out = (model.points[f"{block}.{suffix}"].module for suffix in ("mlp.hook_post", "hook_mlp_out"))
    inside = down == out or down.startswith(f"{out}.")
    return MlpWiring(
        module(f"{norm}.hook_out"),
        f"{block}.{stream}",
        f"{block}.{norm}.hook_out",
        _affine(module("mlp.hook_pre")),
        _affine(module("mlp.hook_pre_linear")) if gated else None,
        _affine(module("mlp.hook_post")),
        _activation(model, block, down),
        module("mlp.hook_post"),
        None if inside else model.hf.get_submodule(out),
    )


def _activation(model: Model, block: str, down: str) -> Callable[[Tensor], Tensor]:
    """The activation function: an attribute of what owns the MLP's last projection."""
    owner = model.hf.get_submodule(down.rpartition(".")[0])
    for name in ("act_fn", "activation_fn", "act"):
        if hasattr(owner, name):
            return getattr(owner, name)
    raise ModelError(
        f"The activation function of {block} is not found.", "Name it act_fn, activation_fn or act."
    )


def _affine(module: nn.Module) -> Affine:
    weight: Tensor = module.weight.detach()  # type: ignore[assignment,union-attr]
    if type(module).__name__ == "Conv1D":  # GPT-2 stores its weights as (in, out)
        weight = weight.T
    bias: Tensor | None = getattr(module, "bias", None)
    return Affine(weight, None if bias is None else bias.detach())


def _projection(model: Model, point: HookPoint) -> Affine:
    """A query, key or value projection, cut out of a fused one where the family has that."""
    whole = _affine(model.hf.get_submodule(point.module))
    if point.layout.part is None:
        return whole
    index, count = point.layout.part
    bias = None if whole.bias is None else whole.bias.chunk(count)[index]
    return Affine(whole.weight.chunk(count)[index], bias)
