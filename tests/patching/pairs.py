"""Minimal pairs on small random models, shared by the patching tests."""

from __future__ import annotations

from functools import cache, cached_property

import torch
from tests.conftest import example_inputs, tiny

from otoscope.activations import ActivationCache
from otoscope.patching.metrics import logit_difference
from otoscope.patching.scene import Scene

METRIC = logit_difference(5, 9)


def everything(_name: str) -> bool:
    return True


class Pair:
    """A random model with a clean and a corrupted input of equal length, both passed."""

    def __init__(self, family: str, attention: str = "eager", model=None, **changes) -> None:
        self.model = model or tiny(family, dtype=torch.float64, attention=attention, **changes)
        self.clean, self.corrupt = (
            {k: v[:1] for k, v in example_inputs(self.model, seed=seed).items()} for seed in (0, 1)
        )
        self.scene = Scene.of(self.model, self.corrupt)
        self.clean_cache = self.read(self.clean)

    @cached_property
    def corrupt_cache(self) -> ActivationCache:
        return self.read(self.corrupt)

    def read(self, inputs) -> ActivationCache:
        return self.model.run_with_cache(inputs, everything)[1]

    def score(self, inputs) -> float:
        with torch.no_grad():
            return score(self.model.forward(inputs).logits)

    def hooked(self, name: str, change) -> float:
        """The corrupted run's score when `change(x, clean)` writes into a point's activation, by a hook of its own."""
        clean = self.clean_cache[name]

        def hook(x, _visit):
            x = x.clone()
            change(x, clean)
            return x

        return score(self.model.run_with_hooks(self.corrupt, [(name, hook)]).logits)


def score(logits: torch.Tensor) -> float:
    return float(logits[0, -1, 5] - logits[0, -1, 9])


@cache
def pair(family: str, attention: str = "eager") -> Pair:
    return Pair(family, attention)


def filled(points, values: dict[str, torch.Tensor]) -> ActivationCache:
    """A cache with these activations."""
    from otoscope.activations import Visit

    made = ActivationCache(points, "eager")
    for name, value in values.items():
        made.store(name, value, Visit(name, points[name].layer, 0, 0, "forward"))
    return made
