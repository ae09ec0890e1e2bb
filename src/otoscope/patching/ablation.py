"""Zero ablation, teacher-forced: how much each written token depends on each attention block, head and MLP.

A component's output is set to zero at every position and the written tokens are given to the decoder; what is measured is each
token's log-probability.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from otoscope.patching.components import Component
from otoscope.patching.scene import Scene
from otoscope.progress import track

if TYPE_CHECKING:
    from torch import Tensor


def ablate(scene: Scene, chosen: Sequence[Component], first: int, batch: int) -> Tensor:
    """Log-probability of every token with each component zeroed.

    Args:
        scene: The input and its text.
        chosen: Components of any of its stacks.
        first: Position of the first token that is looked at; the prompt lies before it.
        batch: Components at once.

    Returns:
        `(component, token)`, float32, on the CPU, in the order of `chosen`.
    """
    edits = [[component.zeroed()] for component in chosen]
    out = torch.empty(len(chosen), len(scene.tokens) - first)
    with track("Zeroing components", len(chosen), "components") as task:
        for chunk in scene.chunks(edits, batch):
            out[chunk] = scene.logprobs([edits[i] for i in chunk], first).cpu()
            task.advance(len(chunk))
    return out
