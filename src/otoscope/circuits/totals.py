"""What each source supplied in all, every path counted: through all features, by their frozen gates, nodes of a graph or not.

For each target the totals of sound, tokens, positions, biases and errors sum to it: a complete account in logits, signed, of
what was heard, what followed from the words before, and what would have been said in any case. It is as exact as the frozen
replacement model, and as little of a promise about what happens when a source is really taken away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import torch

from otoscope.circuits.targets import target_seeds
from otoscope.showing import Shows

if TYPE_CHECKING:
    from torch import Tensor

    from otoscope.circuits.adjoint import Sweep
    from otoscope.circuits.targets import Target
    from otoscope.circuits.tracer import Tracer


@dataclass(frozen=True, eq=False)
class Totals(Shows):
    """The account of some targets.

    Attributes:
        value: `(target,)` what they read.
        sound: `(target, segment)`; no segments where nothing is heard.
        tokens: `(target, pos)`.
        positions: `(target,)` all learned positions together.
        biases: `(target,)` all biases together.
        errors: `(target,)` all that the dictionary misses.
        heads: `(target, layer, head, segment)` by which head of cross-attention the sound came.
    """

    value: Tensor
    sound: Tensor
    tokens: Tensor
    positions: Tensor
    biases: Tensor
    errors: Tensor
    heads: Tensor

    def shares(self, target: int = 0) -> dict[str, float]:
        """Shares of the absolute account: `sound`, `tokens`, `positions`, `biases`, `errors`."""
        parts = {
            "sound": self.sound[target].abs().sum(),
            "tokens": self.tokens[target].abs().sum(),
            "positions": self.positions[target].abs(),
            "biases": self.biases[target].abs(),
            "errors": self.errors[target].abs(),
        }
        total = max(float(sum(parts.values())), 1e-30)
        return {name: float(part) / total for name, part in parts.items()}

    def strongest_heads(self, target: int, count: int = 100) -> list[list[float]]:
        """Layer, head, segment and part of what cross-attention brought, the largest first."""
        brought = self.heads[target]
        best = brought.abs().flatten().topk(min(count, brought.numel())).indices.tolist()
        _, heads, segments = brought.shape
        return [
            [i // (heads * segments), i // segments % heads, i % segments, float(brought.flatten()[i])]
            for i in best
        ]

    def to_dict(self) -> list[dict[str, Any]]:
        """JSON-ready, one object a target."""
        return [
            {
                "value": float(self.value[i]),
                "sound": self.sound[i].tolist(),
                "tokens": self.tokens[i].tolist(),
                "positions": float(self.positions[i]),
                "biases": float(self.biases[i]),
                "errors": float(self.errors[i]),
                "shares": self.shares(i),
                "heads": self.strongest_heads(i),
            }
            for i in range(len(self.value))
        ]


_BATCH = 2**27
"""Bytes that the full rows of one batch of targets may take."""


def totals(tracer: Tracer, targets: Sequence[Target] | None = None) -> Totals:
    """The account of some targets; None: of those that the tracer's last graph was made for."""
    chosen, sweep = list(tracer.targets if targets is None else targets), tracer.sweep.all_paths()
    size = max(1, _BATCH // (tracer.sources.columns * tracer.tape.embed.element_size()))
    batches = [_totals(tracer, sweep, chosen[at : at + size]) for at in range(0, len(chosen), size)]
    return Totals(*(torch.cat([getattr(each, f.name) for each in batches]) for f in fields(Totals)))


def _totals(tracer: Tracer, sweep: Sweep, targets: Sequence[Target]) -> Totals:
    s, tape = tracer.sources, tracer.tape
    seeds = target_seeds(tape, targets)
    if s.frames:
        rows, heads = sweep.rows_and_heads(seeds)
    else:
        rows, heads = sweep.rows(seeds), torch.zeros(len(seeds), tape.layers, 1, 0)
    sound = tracer.sound_of(rows)
    tokens = rows[:, s.tokens : s.tokens + len(tape)] * tracer.is_text
    positions = rows.new_zeros(len(rows))
    if s.positions is not None:
        positions = rows[:, s.positions : s.positions + len(tape)].sum(dim=1)
    biases, errors = rows[:, s.biases :].sum(dim=1), rows[:, s.features : s.tokens].sum(dim=1)
    value = sound.sum(dim=1) + tokens.sum(dim=1) + positions + biases + errors
    return Totals(value, sound, tokens, positions, biases, errors, heads)
