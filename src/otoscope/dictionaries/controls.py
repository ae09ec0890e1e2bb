"""What a dictionary is compared with: the model's own neurons, as few of them, and random features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from otoscope.dictionaries.activation import Activation
from otoscope.dictionaries.base import Active, Dictionary, Origin, active_of
from otoscope.dictionaries.neurons import NeuronBasis
from otoscope.dictionaries.transcoder import Transcoder, TranscoderSet

if TYPE_CHECKING:
    from torch import Tensor

    from otoscope.dictionaries.places import Places
    from otoscope.models.base import Model


class FewNeurons(NeuronBasis):
    """The neurons that write most at each position, so many of them; what the others write is missed.

    Args:
        model: The model.
        k: Neurons that stay, of each layer.
        stream: The stack.
    """

    exact = False

    def __init__(self, model: Model, k: Sequence[int], stream: str | None = None) -> None:
        super().__init__(model, stream=stream)
        self.k = tuple(k)

    def encode(self, layer: int, x: Tensor) -> Active:
        """The neurons whose activation times the length of what they write is largest."""
        active = super().encode(layer, x)
        dense = x.new_zeros(len(x), self.size(layer))
        dense[active.pos, active.feature] = active.activation
        length = self.decoder(layer, layer, None).norm(dim=1)
        few = (dense.abs() * length).topk(min(self.k[layer], self.size(layer)), dim=1).indices
        return active_of(layer, torch.zeros_like(dense).scatter_(1, few, dense.gather(1, few)))

    def error(self, actives: Sequence[Active], out: int, x: Tensor, y: Tensor) -> Tensor:
        """What the other neurons write."""
        return Dictionary.error(self, actives, out, x, y)


def random_dictionary(
    places: Places,
    widths: Sequence[int],
    k: Sequence[int],
    calibration: Callable[[int], tuple[Tensor, Tensor]],
    seed: int = 0,
) -> TranscoderSet:
    """Features that read in random directions, their write vectors fitted to what they should reconstruct by least squares.

    Args:
        places: Points.
        widths: Features of each layer of `places`.
        k: Features that stay on at a position.
        calibration: Inputs and targets `(n, d)` of a layer, from which write vectors are fitted.
        seed: Of the directions.

    Returns:
        The dictionary: what is left of a trained one when only its reading directions are random.
    """
    generator, parts = torch.Generator().manual_seed(seed), {}
    for layer, width, few in zip(places.layers, widths, k, strict=True):
        x, y = calibration(layer)
        w = torch.randn(width, x.shape[1], generator=generator, dtype=torch.float32)
        w = w / w.norm(dim=1, keepdim=True) / x.std(dim=0).mean().clamp_min(1e-6)
        bias = -(w @ x.mean(dim=0))
        activation = Activation("topk", few)
        z = x @ w.T + bias
        kept = torch.zeros_like(z).scatter_(1, (best := z.topk(few, dim=1)).indices, best.values.relu())
        ridge = kept.T @ kept + 1e-2 * float(kept.square().sum(dim=0).mean() + 1e-6) * torch.eye(width)
        centre = y.mean(dim=0)
        decoder = torch.linalg.solve(ridge, kept.T @ (y - centre))
        parts[layer] = Transcoder(w, bias, decoder, centre, activation)
    return TranscoderSet(
        parts, layers=places.model_layers, reads=places.reads, writes=places.writes, origin=Origin("random", "none", {})
    )  # fmt: skip
