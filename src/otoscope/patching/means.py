"""Mean activations over a corpus: what a component says on the whole, whatever is heard."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from otoscope.activations import Visit
from otoscope.audio import Clip
from otoscope.models.transcribing import frames_of
from otoscope.models.whisper import SpeechModel
from otoscope.patching.components import Component

if TYPE_CHECKING:
    from torch import Tensor

    from otoscope.models.base import Model


class Means:
    """Running means of components' outputs, over the positions that write and the frames that hold sound.

    Args:
        model: The model.
        components: What will be patched.
    """

    def __init__(self, model: Model, components: Sequence[Component]) -> None:
        self.model = model
        self.names = sorted({component.point for component in components})
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, inputs: Any, first: int = 0, clip: Clip | None = None) -> None:
        """Take in one input under teacher forcing.

        Args:
            inputs: As `Scene.of` takes it.
            first: First position of the stack that writes that counts.
            clip: The sound, of which the padding after its end is left out.
        """
        main = next(iter(self.model.points.stacks))
        frames = (
            frames_of(self.model, clip) if clip is not None and isinstance(self.model, SpeechModel) else None
        )

        def note(x: Tensor, hook: Visit) -> None:
            part = x[:, first:] if self.model.points[hook.name].stack == main else x[:, :frames]
            rows = part.flatten(0, 1).to("cpu", torch.float64)  # MPS has no float64
            self._sums[hook.name] = self._sums.get(hook.name, 0) + rows.sum(dim=0)  # type: ignore[operator]
            self._counts[hook.name] = self._counts.get(hook.name, 0) + len(rows)

        with self.model.hooks([(self.names, note)]), torch.no_grad():
            self.model.forward(inputs)

    def result(self) -> dict[str, Tensor]:
        """Mean output at each point, `(head, d_head)` or `(d_model,)`."""
        dtype = self.model.dtype
        return {name: (total / self._counts[name]).to(dtype) for name, total in self._sums.items()}
