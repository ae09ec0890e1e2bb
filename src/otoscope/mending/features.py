"""Features of a dictionary, turned down or up while the model runs (after arXiv 2606.07473, section 3).

What the features write is scaled, and everything else, the dictionary's error included, stays as it was: the change is
`decode(z') - decode(z)`, so that a dictionary that reconstructs badly does no harm by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from otoscope.activations import Visit
from otoscope.dictionaries.loading import load_dictionary
from otoscope.dictionaries.places import places_of
from otoscope.dictionaries.splicing import everywhere, spliced
from otoscope.errors import OptionError
from otoscope.mending.breaker import Trigger

if TYPE_CHECKING:
    from torch import Tensor

    from otoscope.models.base import Model


@dataclass(frozen=True)
class FeatureGate:
    """Features whose part of what is written is scaled.

    Attributes:
        dictionary: Folder of the dictionary, or `neurons` for the model's own.
        point: Where it reads: one layer's MLP (`decoder_blocks.3.mlp`), or an SAE's point (`encoder_blocks.2.hook_resid_post`).
        features: Numbers, from 0.
        factor: 0 takes them away, 2 doubles them.
    """

    dictionary: str
    point: str
    features: tuple[int, ...]
    factor: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "features", tuple(int(i) for i in self.features))
        if "*" in self.point:
            raise OptionError(f"{self.point} names several layers.", "Name one layer, one gate for each.")

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; `FeatureGate(**values)` gives it back."""
        return asdict(self) | {"features": list(self.features)}


@contextmanager
def gated_features(model: Model, gate: FeatureGate, trigger: Trigger | None = None) -> Iterator[None]:
    """Scale features inside the block, in all rows or in those that are in alarm.

    Raises:
        OptionError: There is no such place, or no such feature.
        DictionaryError: The dictionary cannot be read, or is of another model.
    """
    places = places_of(model, gate.point)
    dictionary = load_dictionary(gate.dictionary, model, places.stack)
    layer = places.layers[0]
    if not gate.features or not 0 <= min(gate.features) <= max(gate.features) < dictionary.size(layer):
        raise OptionError(
            f"{gate.dictionary} has no features {list(gate.features)} at {gate.point}.",
            f"Choose of 0 to {dictionary.size(layer) - 1}.",
        )
    chosen = torch.tensor(gate.features, device=model.device)

    def scale(at: int, x: Tensor, y: Tensor) -> Tensor:
        active = dictionary.encode(at, x.to(model.dtype))
        return y + (gate.factor - 1) * dictionary.written(active.only(torch.isin(active.feature, chosen)), at)

    def in_alarm(x: Tensor, visit: Visit) -> Tensor:
        assert trigger is not None
        rows = range(len(x)) if visit.rows is None else visit.rows
        on = torch.tensor([trigger.alarmed(row) for row in rows], device=x.device)
        return on[:, None].expand(x.shape[:2])

    with spliced(model, places, scale, everywhere if trigger is None else in_alarm):
        yield
