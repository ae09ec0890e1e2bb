"""Direct logit attribution: the logit of a token as a sum over what each part of the model wrote into the residual stream.

The final norm's scale is frozen at the value it had, so the last step from stream to logit is linear and the sum is exact
(Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits", logit attribution). Only the direct path counts:
what a part does by way of later layers is in those layers' terms.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from otoscope.activations.placing import head_output_weights
from otoscope.errors import OptionError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from otoscope.activations import ActivationCache, HookPoint
    from otoscope.models.base import Model


@dataclass(frozen=True, eq=False)
class DirectAttribution:
    """Logits of tokens as sums; layers and heads are counted from 0, everything is float64 on the CPU.

    A logit counts from the mean over the vocabulary, which softmax does not see. With `against`, it is the difference of two
    logits. Where the family caps its logits (Gemma 2), it is the logit before the cap.

    Attributes:
        tokens: `(token,)` ids.
        against: `(token,)` ids that were subtracted, or None for the mean over the vocabulary.
        logits: `(token,)` what the parts sum to, computed from the norm's own output.
        components: Names of the rows of `component`: `embed`, `pos_embed` where there is one, `{layer}.self_attn`,
            `{layer}.cross_attn`, `{layer}.mlp` (an attention that is alone is `attn`), and last `bias` (the final norm's).
        component: `(component, token)`; sums to `logits`.
        heads: For each attention part `(layer, head, token)`.
        head_bias: For each attention part `(layer, token)`: its output bias. Heads and bias sum to the part's component.
    """

    tokens: Tensor
    against: Tensor | None
    logits: Tensor
    components: tuple[str, ...]
    component: Tensor
    heads: dict[str, Tensor]
    head_bias: dict[str, Tensor]

    @property
    def layer(self) -> Tensor:
        """`(layer, token)`: what each layer's attention and MLP added together."""
        of_row = [int(name.split(".")[0]) if "." in name else -1 for name in self.components]
        out = self.component.new_zeros(max(of_row) + 1, self.component.shape[1])
        for row, layer in enumerate(of_row):
            if layer >= 0:
                out[layer] += self.component[row]
        return out

    @property
    def error(self) -> float:
        """Largest distance between a logit and its sum: rounding of the model's own arithmetic."""
        return float((self.component.sum(dim=0) - self.logits).abs().max()) if len(self.tokens) else 0.0


def attribution_points(model: Model) -> list[str]:
    """Names of the points that `direct_attribution` reads from a cache."""
    stack = _Stack(model)
    per_layer = [
        name
        for layer in range(stack.layers)
        for name in (
            *(f"{stack.prefix}.{layer}.{part}.hook_z" for part in stack.parts),
            *(stack.attention_out(layer, part) for part in stack.parts),
            f"{stack.prefix}.{layer}.hook_mlp_out",
        )
    ]
    start, end = f"{stack.prefix}.0.hook_resid_pre", f"{stack.prefix}.{stack.layers - 1}.hook_resid_post"
    return [*([stack.positions] if stack.positions else []), start, *per_layer, end]


def direct_attribution(
    model: Model,
    cache: ActivationCache,
    tokens: Tensor,
    *,
    against: Tensor | None = None,
    row: int = 0,
    positions: slice | None = None,
) -> DirectAttribution:
    """Split the logit of each token into parts.

    Nothing larger than `(token, d_model)` is made beside the cache: a head is projected onto the token's direction, not into
    the stream.

    Args:
        model: The model.
        cache: What `attribution_points` names.
        tokens: `(token,)` ids.
        against: `(token,)` ids to subtract; None: the mean over the vocabulary.
        row: Batch row of the cache.
        positions: The cache's positions that wrote the tokens, one a token; None: all of them.

    Raises:
        OptionError: There are not as many tokens as positions.
        PointError: The cache lacks a point.
    """
    stack = _Stack(model)
    reader = _Reader(cache, row, positions or slice(None))
    with torch.no_grad():
        final = reader(f"{stack.prefix}.{stack.layers - 1}.hook_resid_post")
        _check_length(tokens, final)
        if against is not None:
            _check_length(against, final)
        target = _directions(stack.unembedding, tokens, against)
        normed = _through(stack.norm, final)
        direction = target * _frozen_scale(stack.norm, final, normed)
        if isinstance(stack.norm, torch.nn.LayerNorm):  # centring, moved from the stream to the direction
            direction = direction - direction.mean(dim=-1, keepdim=True)
        rows = _component_rows(stack, reader, direction)
        heads, head_bias = _head_rows(stack, reader, direction)
        shift = _unembedding_shift(stack.unembedding, tokens, against)
        rows["bias"] = target @ _bias(stack.norm, target.shape[-1]) + shift
        logits = (target * normed).sum(dim=-1) + shift
    component = torch.stack(list(rows.values()))
    others = None if against is None else against.cpu()
    return DirectAttribution(tokens.cpu(), others, logits, tuple(rows), component, heads, head_bias)


def _check_length(tokens: Tensor, final: Tensor) -> None:
    if len(tokens) != len(final):
        raise OptionError(
            f"{len(tokens)} tokens do not go with {len(final)} positions.",
            "Say with positions which of them wrote the tokens.",
        )


class _Stack:
    """Where the parts of the main stack are, told by the point table."""

    def __init__(self, model: Model) -> None:
        self.points, self.hf = model.points, model.hf
        stack, self.prefix = next(iter(model.points.stacks.items()))
        self.layers = len(model.hf.get_submodule(model.points.layers[stack]))  # type: ignore[arg-type]
        first = f"{self.prefix}.0."
        self.parts = [
            name.removeprefix(first).removesuffix(".hook_z")
            for name in model.points
            if name.startswith(first) and name.endswith(".hook_z")
        ]
        own = [name for name, point in model.points.items() if point.stack == stack]
        self.positions = next((name for name in own if name.endswith("pos_embed.hook_out")), None)
        self.norm = self.module(next(name for name in own if name.endswith("ln_final.hook_out")))
        self.unembedding = self.module("unembed.hook_out")

    def module(self, point: str) -> nn.Module:
        """The module of a point."""
        return self.hf.get_submodule(self.points[point].module)

    def attention_out(self, layer: int, part: str) -> str:
        """Name of the point where a part's contribution meets the stream."""
        suffix = "hook_cross_attn_out" if part == "cross_attn" else "hook_attn_out"
        return f"{self.prefix}.{layer}.{suffix}"

    def projection(self, layer: int, part: str) -> tuple[HookPoint, nn.Module]:
        """A part's output projection, and the point of its input."""
        name = f"{self.prefix}.{layer}.{part}.hook_z"
        return self.points[name], self.module(name)

    def post_norm(self, layer: int, part: str) -> nn.Module | None:
        """The norm between the projection and the stream (Gemma 2 and 3), if there is one."""
        attention = self.projection(layer, part)[0].module.rpartition(".")[0]
        out = self.attention_out(layer, part)
        return None if self.points[out].module == attention else self.module(out)


class _Reader:
    """One row of the cache, some positions of it, in float64 on the CPU (some accelerators have none)."""

    def __init__(self, cache: ActivationCache, row: int, positions: slice) -> None:
        self.cache, self.row, self.positions = cache, row, positions

    def __call__(self, name: str) -> Tensor:
        value = self.cache[name]
        row = value[min(self.row, len(value) - 1)]  # a position table may have one row for all
        return row[self.positions].cpu().double()


def _double(x: Tensor) -> Tensor:
    return x.detach().cpu().double()


def _bias(module: nn.Module, width: int) -> Tensor:
    """A module's bias `(width,)`, zero where it has none."""
    bias = getattr(module, "bias", None)
    return torch.zeros(width, dtype=torch.float64) if bias is None else _double(bias)


def _through(norm: nn.Module, x: Tensor) -> Tensor:
    """What a norm makes of `x`, in the model's own precision."""
    weight = next(norm.parameters())
    return _double(norm(x.to(weight.device, weight.dtype)))


def _directions(unembedding: nn.Module, tokens: Tensor, against: Tensor | None) -> Tensor:
    """`(token, d_model)`: unembedding rows, the mean over the vocabulary or those of `against` subtracted."""
    weight: Tensor = unembedding.weight.detach().cpu()  # type: ignore[operator,union-attr]
    base = weight.mean(dim=0, dtype=torch.float64) if against is None else weight[against.cpu()].double()
    return weight[tokens.cpu()].double() - base


def _unembedding_shift(unembedding: nn.Module, tokens: Tensor, against: Tensor | None) -> Tensor:
    """`(token,)`: what an unembedding bias adds; zero in every family that otoscope knows."""
    bias = _bias(unembedding, len(unembedding.weight))  # type: ignore[arg-type]
    return bias[tokens.cpu()] - (bias.mean() if against is None else bias[against.cpu()])


def _frozen_scale(norm: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """What the norm multiplied each coordinate by at these inputs `(token, d_model)`; a LayerNorm after centring.

    RMSNorms compute in float32 whatever the model's precision, and some gains are stored minus one. So their factor is taken
    as output over input, rounding included; coordinates too small for that get gain times the fitted scale.
    """
    if isinstance(norm, torch.nn.LayerNorm):
        return _double(norm.weight) * (x.var(dim=-1, unbiased=False, keepdim=True) + norm.eps).rsqrt()
    gain = _through(norm, torch.full_like(x[:1], 1e3))  # so large an input drowns the norm's epsilon
    scaled = x * gain
    power = scaled.square().sum(dim=-1, keepdim=True).clamp_min(1e-300)
    fitted = (y * scaled).sum(dim=-1, keepdim=True) / power
    least = (
        torch.finfo(next(norm.parameters()).dtype).eps ** 0.5 * x.square().mean(dim=-1, keepdim=True).sqrt()
    )
    safe = x.abs() > least
    return torch.where(safe, y / torch.where(safe, x, 1.0), fitted * gain)


def _component_rows(stack: _Stack, reader: _Reader, direction: Tensor) -> dict[str, Tensor]:
    def along(value: Tensor) -> Tensor:
        return (value * direction).sum(dim=-1)

    start = reader(f"{stack.prefix}.0.hook_resid_pre")
    rows = {"embed": along(start)}
    if stack.positions:
        rows["pos_embed"] = along(reader(stack.positions))
        rows["embed"] = rows["embed"] - rows["pos_embed"]
    for layer in range(stack.layers):
        for part in stack.parts:
            rows[f"{layer}.{part}"] = along(reader(stack.attention_out(layer, part)))
        rows[f"{layer}.mlp"] = along(reader(f"{stack.prefix}.{layer}.hook_mlp_out"))
    return rows


def _head_rows(
    stack: _Stack, reader: _Reader, direction: Tensor
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    heads: dict[str, list[Tensor]] = {part: [] for part in stack.parts}
    biases: dict[str, list[Tensor]] = {part: [] for part in stack.parts}
    for layer in range(stack.layers):
        for part in stack.parts:
            by_head, bias = _heads_of(stack, reader, layer, part, direction)
            heads[part].append(by_head)
            biases[part].append(bias)
    stacked = [{part: torch.stack(value) for part, value in each.items()} for each in (heads, biases)]
    return stacked[0], stacked[1]


def _heads_of(
    stack: _Stack, reader: _Reader, layer: int, part: str, direction: Tensor
) -> tuple[Tensor, Tensor]:
    """`(head, token)` of one attention block and `(token,)` of its output bias."""
    point, projection = stack.projection(layer, part)
    weights = _double(head_output_weights(projection, point.heads or 1))
    z, bias = reader(point.name), _bias(projection, weights.shape[-1])
    norm = stack.post_norm(layer, part)
    if norm is not None:  # the block's sum passes the post-norm, so each head passes its frozen scale
        out = reader(stack.attention_out(layer, part))
        raw = torch.einsum("thd,hdm->tm", z, weights) + bias
        direction = direction * _frozen_scale(norm, raw, out)
    toward = torch.einsum("tm,hdm->thd", direction, weights)  # the direction as each head's output sees it
    return (toward * z).sum(dim=-1).T, direction @ bias
