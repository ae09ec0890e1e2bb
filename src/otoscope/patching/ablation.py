"""Zero ablation, teacher-forced: how much each written token depends on each attention block, head and MLP.

A component's output is set to zero at every position and the written tokens are given to the decoder; what is measured is each
token's log-probability.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from otoscope.activations import Edit
from otoscope.patching.components import Component, attention_parts
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
    return _under(scene, [component.zeroed() for component in chosen], first, batch, "Zeroing components")


def attention_blocks(chosen: Sequence[Component]) -> list[Component]:
    """The whole attention blocks among components: those with heads to compare."""
    return [c for c in chosen if c.head is None and c.part in attention_parts(c.stack)]


def take_random(
    scene: Scene, blocks: Sequence[Component], first: int, batch: int, draws: int, seed: int
) -> Tensor:
    """The control of zeroed heads: a random subspace as wide as a head, taken out of what an attention block writes.

    Args:
        scene: The input and its text.
        blocks: Whole attention blocks.
        first: Position of the first token that is looked at.
        batch: Rows at once.
        draws: Subspaces of each block.
        seed: Of the draws.

    Returns:
        `(block * draws, token)` log-probabilities, float32, on the CPU, the draws of a block together.
    """
    generator = torch.Generator().manual_seed(seed)
    edits = []
    for block in blocks:
        point = scene.model.points[f"{block.id}.hook_z"]
        heads = point.heads or 1
        width = scene.model.config.d_model
        for _ in range(draws):
            basis = torch.randn(width // heads, width, generator=generator)
            edits.append(Edit.project_out(block.point, basis))
    return _under(scene, edits, first, batch, "Taking out random subspaces")


def _under(scene: Scene, edits: Sequence[Edit], first: int, batch: int, label: str) -> Tensor:
    """`(edit, token)` log-probability of every token under each edit alone."""
    rows = [[edit] for edit in edits]
    out = torch.empty(len(rows), len(scene.tokens) - first)
    with track(label, len(rows), "components") as task:
        for chunk in scene.chunks(rows, batch):
            out[chunk] = scene.logprobs([rows[i] for i in chunk], first).cpu()
            task.advance(len(chunk))
    return out
