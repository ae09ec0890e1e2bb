"""Sparse decoding and its gradients: work and memory go with the active features, not with the width.

Every sum over active features, forwards or backwards, is one `embedding_bag`: over the features of a position to decode, over
the positions of a feature for the gradients of its rows. With n positions, k of F features active and d dimensions each costs
n k d, where dense products and dense gradients would cost n F d.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch.autograd import Function
from torch.nn.functional import embedding_bag

if TYPE_CHECKING:
    from torch import Tensor


class Pattern:
    """Which features are on at which positions, ordered by position.

    Args:
        pos: `(n,)` positions, ascending; int64.
        feature: `(n,)` features; int64.
        positions: Number of positions.
        features: Number of features.
    """

    def __init__(self, pos: Tensor, feature: Tensor, positions: int, features: int) -> None:
        self.pos, self.feature = pos, feature
        self.positions, self.features = positions, features

    def __len__(self) -> int:
        return len(self.feature)

    @cached_property
    def starts(self) -> Tensor:
        """`(positions,)` where the entries of each position begin."""
        return _starts(self.pos, self.positions)

    @cached_property
    def by_feature(self) -> tuple[Tensor, Tensor]:
        """`(n,)` order of the entries by feature, and `(features,)` where those of each feature begin."""
        small = torch.int16 if self.features < 2**15 else torch.int32  # a radix sort takes fewer passes
        return self.feature.to(small).argsort(stable=True), _starts(self.feature, self.features)

    def at_positions(self, values: Tensor, rows: Tensor) -> Tensor:
        """`(positions, d)`: the sum, over each position's features, of values times rows `(features, d)`."""
        return _bags(self.feature, rows, self.starts, values)

    def at_features(self, values: Tensor, rows: Tensor) -> Tensor:
        """`(features, d)`: the sum, over each feature's positions, of values times rows `(positions, d)`."""
        order, starts = self.by_feature
        return _bags(self.pos[order], rows, starts, values[order])

    def products(self, at_positions: Tensor, at_features: Tensor) -> Tensor:
        """`(n,)`: for each entry the product of its position's and its feature's row."""
        return torch.ops.aten._embedding_bag_per_sample_weights_backward(
            at_positions.contiguous(), at_features, self.feature, self.starts, self.pos, 0
        )

    def sums(self, values: Tensor) -> Tensor:
        """`(features,)`: the sum of each feature's values."""
        return values.new_zeros(self.features).index_add_(0, self.feature, values)

    def fired(self, values: Tensor) -> Tensor:
        """`(features,)`: whether any of a feature's values is above zero."""
        return torch.bincount(self.feature[values > 0], minlength=self.features) > 0


def _starts(which: Tensor, count: int) -> Tensor:
    counts = torch.bincount(which, minlength=count)
    return counts.cumsum(0) - counts


def _bags(index: Tensor, rows: Tensor, starts: Tensor, values: Tensor) -> Tensor:
    return embedding_bag(index, rows.contiguous(), starts, mode="sum", per_sample_weights=values)


class _Pick(Function):
    @staticmethod
    def forward(ctx: Any, w_enc: Tensor, b_enc: Tensor, x: Tensor, z: Tensor, pattern: Pattern) -> Tensor:
        ctx.save_for_backward(x)
        ctx.pattern = pattern
        return z.view_as(z)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (x,), pattern = ctx.saved_tensors, ctx.pattern
        return pattern.at_features(grads[0], x), pattern.sums(grads[0]), None, None, None


def pick(w_enc: Tensor, b_enc: Tensor, x: Tensor, z: Tensor, pattern: Pattern) -> Tensor:
    """Pre-activations of some entries, differentiable in the encoder's weights (inputs get no gradient).

    Args:
        w_enc: `(features, d_in)`.
        b_enc: `(features,)`.
        x: `(positions, d_in)`.
        z: `(n,)` pre-activations of the entries, which the dense product has computed already.
        pattern: The entries.
    """
    return _Pick.apply(w_enc, b_enc, x, z, pattern)  # type: ignore[return-value]


class _Decode(Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, w_dec: Tensor, pattern: Pattern) -> Tensor:
        ctx.save_for_backward(values, w_dec)
        ctx.pattern = pattern
        return pattern.at_positions(values, w_dec)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (values, w_dec), pattern = ctx.saved_tensors, ctx.pattern
        wanted = ctx.needs_input_grad
        return (
            pattern.products(grads[0], w_dec) if wanted[0] else None,
            pattern.at_features(values, grads[0]) if wanted[1] else None,
            None,
        )


def decode(values: Tensor, w_dec: Tensor, pattern: Pattern) -> Tensor:
    """What active features write: `(positions, d_out)`.

    Args:
        values: `(n,)` activations.
        w_dec: `(features, d_out)`.
        pattern: Whose they are.
    """
    return _Decode.apply(values, w_dec, pattern)  # type: ignore[return-value]


class _Spread(Function):
    @staticmethod
    def forward(ctx: Any, vector: Tensor, pattern: Pattern) -> Tensor:
        ctx.pattern = pattern
        return vector[pattern.feature]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return ctx.pattern.sums(grads[0]), None


def spread(vector: Tensor, pattern: Pattern) -> Tensor:
    """The feature's number `(features,)` at each entry: `(n,)`."""
    return _Spread.apply(vector, pattern)  # type: ignore[return-value]
