"""Splicing: the model goes on with what a dictionary makes of its activations, in place of the activations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from otoscope.models.transcribing import Window, frames_of

if TYPE_CHECKING:
    from torch import Tensor

    from otoscope.activations import HookFunction, Visit
    from otoscope.dictionaries.base import Active, Dictionary
    from otoscope.dictionaries.places import Places
    from otoscope.models.base import Model
    from otoscope.models.decoding import LogitFilter
    from otoscope.models.whisper import SpeechModel

Replacement = Callable[[int, "Tensor", "Tensor"], "Tensor"]
"""From a layer, what is read there `(n, d_in)` and what stands there `(n, d_out)`, what is to stand there."""

Kept = Callable[["Tensor", "Visit"], "Tensor"]
"""From an activation `(row, pos, d)`, `(row, pos)` where the replacement takes its place; elsewhere the activation stays."""


def reconstructing(dictionary: Dictionary) -> Callable[[], Replacement]:
    """Replacements by a dictionary's reconstruction; one is made for every block."""

    def fresh() -> Replacement:
        actives: dict[int, Active] = {}

        def replace(layer: int, x: Tensor, _y: Tensor) -> Tensor:
            actives[layer] = dictionary.encode(layer, x)
            every = [actives.get(n, actives[layer]) for n in range(layer + 1)]
            return dictionary.reconstruct(every, layer, x)

        return replace

    return fresh


def zeroing() -> Replacement:
    """Nothing in its place: what the loss is measured against."""
    return lambda _layer, _x, y: torch.zeros_like(y)


@contextmanager
def spliced(model: Model, places: Places, replace: Replacement, where: Kept) -> Iterator[None]:
    """Replace what stands at some places inside the block, around any forward call or decoding.

    Args:
        model: The model.
        places: Points.
        replace: What takes their place.
        where: At which positions.
    """
    read: dict[int, Tensor] = {}

    def reading(layer: int) -> HookFunction:
        def note(x: Tensor, _hook: Visit) -> None:
            read[layer] = x

        return note

    def writing(layer: int, own: bool) -> HookFunction:
        def write(y: Tensor, hook: Visit) -> Tensor:
            x, kept = y if own else read[layer], where(y, hook)
            out = y.clone()
            if bool(kept.any()):
                out[kept] = replace(layer, x[kept].float(), y[kept].float()).to(y.dtype)
            return out

        return write

    targets = places.targets or places.inputs
    hooks = [] if places.targets is None else [
        (name, reading(layer)) for layer, name in zip(places.layers, places.inputs, strict=True)
    ]  # fmt: skip
    hooks += [
        (name, writing(layer, places.targets is None))
        for layer, name in zip(places.layers, targets, strict=True)
    ]
    with model.hooks(fwd_hooks=hooks):
        yield


def everywhere(x: Tensor, _hook: Visit) -> Tensor:
    """All positions."""
    return torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)


def from_position(first: int) -> Kept:
    """Positions of the text: the prompt stays as it is."""

    def kept(x: Tensor, hook: Visit) -> Tensor:
        positions = torch.arange(hook.offset, hook.offset + x.shape[1], device=x.device)
        return (positions >= first).expand(x.shape[:2])

    return kept


def within(frames: Sequence[int]) -> Kept:
    """Frames of the sound: the padding stays as it is."""

    def kept(x: Tensor, _hook: Visit) -> Tensor:
        length = torch.tensor(list(frames), device=x.device)
        return torch.arange(x.shape[1], device=x.device) < length[:, None]

    return kept


class Splicer:
    """A watcher for `transcribe_all`: every recording is written with the replacement in place.

    Args:
        model: The recogniser.
        places: Points.
        fresh: Makes a replacement for each batch.
        prompt: Tokens of the decoder's prompt.
    """

    def __init__(
        self, model: SpeechModel, places: Places, fresh: Callable[[], Replacement], prompt: int
    ) -> None:
        self.model, self.places, self.fresh, self.prompt = model, places, fresh, prompt

    @contextmanager
    def watching(self, features: Tensor, windows: Sequence[Window]) -> Iterator[Sequence[LogitFilter]]:
        """One batch; see `Watcher`."""
        heard = self.places.stack == "encoder"
        where = (
            within([frames_of(self.model, window.clip) for window in windows])
            if heard
            else from_position(self.prompt)
        )
        with spliced(self.model, self.places, self.fresh(), where):
            yield []
