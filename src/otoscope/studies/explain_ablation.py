"""The stage of `explain` that zeroes every component, and random subspaces beside the heads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from otoscope.documents.base import Array
from otoscope.documents.explain import Ablation, Control
from otoscope.documents.explain import Component as ComponentInfo
from otoscope.patching.ablation import ablate, attention_blocks, take_random
from otoscope.patching.components import components
from otoscope.patching.scene import Scene

if TYPE_CHECKING:
    from torch import Tensor

    from otoscope.models.hearing import Heard
    from otoscope.models.whisper import SpeechModel

_DRAWS = 2
"""Random subspaces that the heads of an attention block are compared with."""


def ablation_of(
    model: SpeechModel, heard: Heard, tokens: Tensor, prompt: int, batch: int, *, controls: bool, seed: int
) -> Ablation:
    """How much each written token's log-probability changes without each component.

    Args:
        model: A Whisper model.
        heard: The sound, once it was heard.
        tokens: Prompt and written tokens, `(pos,)`.
        prompt: Tokens of the prompt.
        batch: Rows at once.
        controls: Whether random subspaces are taken out as well.
        seed: Of these.
    """
    chosen = [*components(model, "decoder"), *components(model, "encoder")]
    listed = [
        ComponentInfo(id=c.id, label=c.label, stack=c.stack, layer=c.layer, part=c.part, head=c.head)  # type: ignore[arg-type]
        for c in chosen
    ]
    if len(tokens) == prompt:
        return Ablation(components=listed, change=Array.pack(np.zeros((len(listed), 0), np.float32), "f32"))
    scene = Scene.heard(model, heard.encoded, tokens, heard.audio)
    base = scene.logprobs([()], prompt).cpu()
    change = ablate(scene, chosen, prompt, batch) - base
    blocks = attention_blocks(chosen) if controls else []
    random = take_random(scene, blocks, prompt, batch, _DRAWS, seed) - base
    return Ablation(
        components=listed,
        change=Array.pack(change.numpy(), dtype="f32"),
        controls=[
            Control(stack=c.stack, layer=c.layer, part=c.part)  # type: ignore[arg-type]
            for c in blocks
            for _ in range(_DRAWS)
        ],
        control_change=Array.pack(random.numpy(), dtype="f32") if blocks else None,
    )


def no_ablation(tokens: int) -> Ablation:
    """Of so many written tokens, without a single component."""
    return Ablation(components=[], change=Array.pack(np.zeros((0, tokens), np.float32), "f32"))
