"""Running a recogniser again while its sound, features of its encoder or features of its decoder are changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from otoscope.circuits.interventions import Freeze, Intervention, intervening
from otoscope.circuits.targets import Target, target_values

if TYPE_CHECKING:
    from torch import Tensor

    from otoscope.activations import HookFunction
    from otoscope.circuits.speech_tracing import SpeechTracer
    from otoscope.circuits.tape import Tape
    from otoscope.dictionaries.base import Dictionary


@dataclass(frozen=True, eq=False)
class Change:
    """What is done in one row, all of it together.

    Attributes:
        decoder: Changes of decoder features.
        encoder: Changes of encoder features; their positions are frames.
        sound: `(frame, d)` added to what the convolutions made of the sound, or None.
        output: `(frame, d)` added to the encoder's output, or None.
    """

    decoder: tuple[Intervention, ...] = ()
    encoder: tuple[Intervention, ...] = ()
    sound: Tensor | None = None
    output: Tensor | None = None

    @property
    def heard(self) -> bool:
        """Whether the encoder has to run again."""
        return bool(self.encoder) or self.sound is not None


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came of a batch of changes.

    Attributes:
        final: `(row, pos, d)` after the decoder's last norm.
        decoder: By layer, what decoder features read, `(row, pos, d)`; empty unless everything was frozen.
        encoder: By layer, what encoder features read, `(row, frame, d)`; empty where the encoder did not run.
    """

    final: Tensor
    decoder: dict[int, Tensor]
    encoder: dict[int, Tensor]


def run(tracer: SpeechTracer, changes: Sequence[Change], freeze: Freeze = "none") -> Outcome:
    """Run both stacks, or the decoder alone where nothing changes what the encoder hears.

    Args:
        tracer: The recording's.
        changes: One a batch row.
        freeze: `all` holds patterns, norm scales and MLP outputs of both stacks; `none` lets them react.
    """
    with torch.no_grad():
        if any(change.heard for change in changes):
            heard, encoder = _hear(tracer, changes, freeze)
        else:
            heard, encoder = tracer.output.expand(len(changes), -1, -1), {}
        if any(change.output is not None for change in changes):
            heard = _added(heard, [change.output for change in changes])
        final, decoder = _write(tracer, changes, freeze, heard)
    return Outcome(final, decoder, encoder)


def _hear(
    tracer: SpeechTracer, changes: Sequence[Change], freeze: Freeze
) -> tuple[Tensor, dict[int, Tensor]]:
    tape, dictionary = tracer.hearing, tracer.encoder_dictionary
    sounds = [change.sound for change in changes]
    first: tuple[str, HookFunction] = (
        f"{tape.wiring.prefix}.0.hook_resid_pre",
        lambda x, _hook: _added(x, sounds),
    )
    points = read_points(tape, dictionary) if freeze == "all" else []
    with (
        tracer.model.hooks(fwd_hooks=[first]),
        intervening(
            tracer.model,
            dictionary,
            [change.encoder for change in changes],
            tape=tape,
            sources=tracer.encoder.sources,
            freeze=freeze,
            stream=tape.stream,
        ),
        tracer.model.capturing([tape.wiring.final_point, *points]) as cache,
    ):
        heard = tracer.hear(len(changes))
    return heard, {layer: cache[name] for layer, name in enumerate(points)}


def _write(
    tracer: SpeechTracer, changes: Sequence[Change], freeze: Freeze, heard: Tensor
) -> tuple[Tensor, dict[int, Tensor]]:
    points = read_points(tracer.tape, tracer.dictionary) if freeze == "all" else []
    with (
        intervening(
            tracer.model,
            tracer.dictionary,
            [change.decoder for change in changes],
            tape=tracer.tape,
            sources=tracer.sources,
            freeze=freeze,
        ),
        tracer.model.capturing([tracer.tape.wiring.final_point, *points]) as cache,
    ):
        final = tracer.forward(len(changes), heard)
    return final, {layer: cache[name] for layer, name in enumerate(points)}


def _added(x: Tensor, what: Sequence[Tensor | None]) -> Tensor:
    return torch.stack([row if more is None else row + more for row, more in zip(x, what, strict=True)])


def read_points(tape: Tape, dictionary: Dictionary) -> list[str]:
    """Names of the points that the features of each layer read at."""
    after_norm = dictionary.reads == "mlp_in"
    return [b.mlp.input_point if after_norm else b.mlp.stream_point for b in tape.wiring.blocks]


def react(tracer: SpeechTracer, changes: Sequence[Change], targets: Sequence[Target]) -> Tensor:
    """How targets change, `(row, target)`, when the model reacts as it does."""
    clean = run(tracer, [Change()]).final[0]
    return target_values(targets, run(tracer, changes).final) - target_values(targets, clean)


@dataclass(frozen=True, eq=False)
class Gradients:
    """Gradient of a target in the real model, nothing frozen.

    Attributes:
        decoder: At the place every decoder MLP writes to: `(pos, d)` each.
        encoder: The same of the encoder: `(frame, d)` each.
        sound: At what the convolutions made of the sound: `(frame, d)`.
    """

    decoder: list[Tensor]
    encoder: list[Tensor]
    sound: Tensor


def gradients(tracer: SpeechTracer, target: Target) -> Gradients:
    """Of one target, through both stacks."""
    heard = tracer.hearing
    leaves: list[Tensor] = []
    handles = []
    for tape, dictionary in ((tracer.tape, tracer.dictionary), (heard, tracer.encoder_dictionary)):
        for block, mlp in zip(tape.wiring.blocks, tape.mlp, strict=True):
            leaf = torch.zeros_like(mlp.raw, requires_grad=True)
            after = dictionary.writes == "mlp_out" and block.mlp.post_norm is not None
            module = block.mlp.post_norm if after else block.mlp.down_module
            assert module is not None
            handles.append(module.register_forward_hook(lambda _m, _a, out, leaf=leaf: out + leaf))
            leaves.append(leaf)
    sound = torch.zeros_like(heard.embed, requires_grad=True)
    name = f"{heard.wiring.prefix}.0.hook_resid_pre"
    try:
        with torch.enable_grad(), tracer.model.hooks(fwd_hooks=[(name, lambda x, _hook: x + sound)]):
            final = tracer.forward(1, tracer.hear(1))
            value = target_values([target], final).sum()
            found = torch.autograd.grad(value, [*leaves, sound])
    finally:
        for handle in handles:
            handle.remove()
    count = tracer.tape.layers
    return Gradients(list(found[:count]), list(found[count:-1]), found[-1])
