"""Vectors made of a few known features, so that what is learned can be compared with what is there."""

from __future__ import annotations

import torch

from otoscope.dictionaries.training.buffer import Vectors
from otoscope.dictionaries.training.config import TrainConfig

FEATURES, WIDTH, ON = 24, 16, 2


class Planted:
    """Batches in which on average `ON` of the features of each layer are on.

    What features of a layer write is added to its own target and, of a `clt`, to every later layer's.

    Args:
        kind: As in `TrainConfig`.
        layers: Layers.
        steps: Batches.
        batch: Vectors in each.
        seed: Of everything.
        tying: Whether a feature of a `clt` writes the same into every layer (`source`), or the same as the features of its number
            in other layers (`target`).
    """

    def __init__(
        self,
        kind: str,
        layers: int = 1,
        steps: int = 400,
        batch: int = 512,
        seed: int = 0,
        tying: str = "none",
    ) -> None:
        self.kind, self.layers, self.steps, self.batch, self.seed = kind, layers, steps, batch, seed
        g = torch.Generator().manual_seed(seed)
        self.reads = self._unit(torch.randn(layers, FEATURES, WIDTH, generator=g))
        self.writes = self._unit(torch.randn(layers, layers, FEATURES, WIDTH, generator=g))  # [from, into]
        for at in range(layers):
            for out in range(at + 1, layers):
                if tying != "none":
                    self.writes[at, out] = self.writes[at, at] if tying == "source" else self.writes[out, out]
        self.skip = torch.randn(WIDTH, WIDTH, generator=g) / WIDTH**0.5
        self.offset = torch.randn(WIDTH, generator=g)

    @staticmethod
    def _unit(x):
        return x / x.norm(dim=-1, keepdim=True)

    def __iter__(self):
        for number in range(self.steps):
            yield self.batch_of(number)

    def batch_of(self, number: int) -> Vectors:
        g = torch.Generator().manual_seed(1000 * self.seed + number + 1)
        shape = (self.layers, self.batch, FEATURES)
        on = torch.rand(shape, generator=g) < ON / FEATURES
        a = on * (1 + torch.rand(shape, generator=g))
        x = a @ self.reads + self.offset
        if self.kind == "sae":
            return Vectors(x)
        y = torch.stack([a[at] @ self.writes[at, at] for at in range(self.layers)])
        if self.kind == "clt":
            for at in range(self.layers):
                for out in range(at + 1, self.layers):
                    y[out] += a[at] @ self.writes[at, out]
        if self.kind == "skip":
            y = y + x @ self.skip.T
        return Vectors(x, y - 2 * self.offset)


def config_of(kind: str, **more) -> TrainConfig:
    """A training that suits `Planted`."""
    defaults = {
        "width": 32, "steps": 400, "k": 3, "batch": 512, "lr": 1e-2, "warmup": 20, "dead_after": 5000,
        "calibration": 2048, "checkpoint_every": 0, "sparsity": 0.05,
    }  # fmt: skip
    return TrainConfig(kind, **{**defaults, **more})


def recovered(found: torch.Tensor, planted: torch.Tensor) -> float:
    """Mean over planted rows of the largest cosine with a found one."""
    found = found / found.norm(dim=1, keepdim=True).clamp_min(1e-9)
    return float((planted @ found.T).amax(dim=1).mean())
