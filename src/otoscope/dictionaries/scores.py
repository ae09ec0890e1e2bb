"""How well a dictionary reconstructs vectors that it did not learn from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from otoscope.errors import OptionError
from otoscope.showing import Shows

if TYPE_CHECKING:
    from torch import Tensor

    from otoscope.dictionaries.base import Dictionary
    from otoscope.dictionaries.training.buffer import Vectors

DENSE = 0.1
"""A feature that is active at more than this share of positions is called dense."""


@dataclass(frozen=True)
class LayerScores:
    """Scores of one layer.

    Attributes:
        layer: Layer, from 0.
        explained_variance: 1 less the squared error over the variance of what is reconstructed, summed over dimensions.
        l0: Active features a position, on average.
        dead: Features never active.
        dense: Features active at more than a tenth of the positions.
        width: Features.
    """

    layer: int
    explained_variance: float
    l0: float
    dead: int
    dense: int
    width: int


@dataclass(frozen=True)
class Reconstruction(Shows):
    """Scores over some vectors.

    Attributes:
        vectors: How many positions.
        layers: One entry a layer.
    """

    vectors: int
    layers: tuple[LayerScores, ...]

    @property
    def explained_variance(self) -> float:
        """Mean over the layers."""
        return sum(layer.explained_variance for layer in self.layers) / len(self.layers)

    @property
    def l0(self) -> float:
        """Mean over the layers."""
        return sum(layer.l0 for layer in self.layers) / len(self.layers)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: means and sums over the layers, and every layer."""
        from dataclasses import asdict

        return {
            "vectors": self.vectors,
            "explained_variance": self.explained_variance,
            "l0": self.l0,
            "dead": sum(layer.dead for layer in self.layers),
            "dense": sum(layer.dense for layer in self.layers),
            "layers": [asdict(layer) for layer in self.layers],
        }


class _Sums:
    """Running sums of one layer."""

    def __init__(self, width: int, d: int) -> None:
        self.missed = torch.zeros((), dtype=torch.float64)
        self.square = torch.zeros((), dtype=torch.float64)
        self.sum = torch.zeros(d, dtype=torch.float64)
        self.active = torch.zeros(width, dtype=torch.int64)

    def add(self, target: Tensor, error: Tensor, feature: Tensor) -> None:
        """Note a batch."""
        self.missed += error.double().square().sum()
        self.square += target.double().square().sum()
        self.sum += target.double().sum(dim=0)
        self.active += torch.bincount(feature, minlength=len(self.active))


def reconstruction(dictionary: Dictionary, layers: Iterable[int], data: Iterable[Vectors]) -> Reconstruction:
    """Score a dictionary.

    Args:
        dictionary: The features.
        layers: Layers of the vectors, in their order.
        data: Batches of inputs `(layer, n, d_in)` and targets `(layer, n, d_out)`; targets None: the inputs.

    Raises:
        OptionError: There are no vectors.
    """
    layers, sums, count = list(layers), {}, 0
    with torch.no_grad():
        for vectors in data:
            inputs = vectors.inputs.float()
            targets = inputs if vectors.targets is None else vectors.targets.float()
            count += inputs.shape[1]
            actives = {layer: dictionary.encode(layer, x) for layer, x in zip(layers, inputs, strict=True)}
            every = [actives.get(layer, next(iter(actives.values()))) for layer in range(max(layers) + 1)]
            for layer, x, y in zip(layers, inputs, targets, strict=True):
                error = dictionary.error(every, layer, x, y)
                if layer not in sums:
                    sums[layer] = _Sums(dictionary.size(layer), y.shape[1])
                sums[layer].add(y, error, actives[layer].feature)
    if not count:
        raise OptionError("There are no vectors to judge by.", "Name recordings or texts.")
    return Reconstruction(count, tuple(_scored(layer, sums[layer], count) for layer in layers))


def _scored(layer: int, sums: _Sums, count: int) -> LayerScores:
    variance = sums.square - sums.sum.square().sum() / count
    return LayerScores(
        layer,
        1 - float(sums.missed / variance),
        float(sums.active.sum() / count),
        int((sums.active == 0).sum()),
        int((sums.active > DENSE * count).sum()),
        len(sums.active),
    )
