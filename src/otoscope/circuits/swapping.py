"""Swapping between two recordings of a minimal pair: does what differs in a graph make the difference in what is written?

Features of one recording are set to what they are in the other, at the same place: a decoder feature at the same position of the
same text, an encoder feature over the aligned segment. The change that the account of all paths predicts is compared with what
the model does. Two texts that differ only in the sound make the cleanest pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from otoscope.circuits.adjoint import Sweep
from otoscope.circuits.checking import Comparison
from otoscope.circuits.graph import FEATURE, HEARING, AttributionGraph
from otoscope.circuits.hearing import EncoderSweep
from otoscope.circuits.hearing_runs import Change, react
from otoscope.circuits.interventions import Intervention
from otoscope.circuits.speech_tracing import SpeechTracer
from otoscope.circuits.targets import target_seeds
from otoscope.errors import GraphError, OptionError
from otoscope.showing import Shows

if TYPE_CHECKING:
    from torch import Tensor


_ROWS = 8
"""Changes run at once."""


@dataclass(frozen=True, eq=False)
class Swap(Shows):
    """What swapping did to the first target.

    Attributes:
        names: Features that were swapped, and the segments of sound.
        each: One at a time: predicted and measured changes.
        random: The same with random features of the same places, beside what was predicted for the named ones.
        before: The target in the recording as it is.
        other: The target in the other recording.
        decoder: Change by all named decoder features together.
        encoder: Change by all named encoder features together.
        sound: Change when the whole sound is the other's.
    """

    names: tuple[str, ...]
    each: Comparison
    random: Comparison
    before: float
    other: float
    decoder: float
    encoder: float
    sound: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "features": list(self.names),
            "each": self.each.to_dict(),
            "random": self.random.to_dict(),
            "before": self.before,
            "other": self.other,
            "all_decoder_features": self.decoder,
            "all_encoder_features": self.encoder,
            "whole_sound": self.sound,
        }


def swap(
    graph: AttributionGraph,
    other: SpeechTracer,
    features: int = 32,
    segments: Sequence[int | None] | None = None,
    seed: int = 0,
) -> Swap:
    """Set the most influential features of each stack to what they are in another recording.

    Args:
        graph: A recogniser's graph with its tracer; its first target is watched.
        other: A tracer of the other recording, with the same text before the target.
        features: How many of each stack.
        segments: For each segment the one of the other recording that it is aligned with, or None; None: by number, from the
            start, which is right for the same words in the same order.
        seed: Of the random features.

    Raises:
        GraphError: The graph has no tracer or no features.
        OptionError: The texts differ before the target.
    """
    maker = _Swapping(graph, other, segments, seed)
    hearing = np.array([s in HEARING for s in graph.nodes.stream])
    influence, found = graph.influence(), []
    for mask in (~hearing, hearing):
        nodes = np.flatnonzero(mask & (graph.nodes.kind == FEATURE))
        found.append(nodes[np.argsort(-influence[nodes], kind="stable")[:features]].tolist())
    own, theirs = found
    if not own and not theirs:
        raise GraphError("The graph has no features to swap.", "Trace with more nodes.")
    changes = [maker.decoder(node) for node in own] + [maker.encoder(node) for node in theirs]
    randomly = [maker.decoder(node, random=True) for node in own]
    randomly += [maker.encoder(node, random=True) for node in theirs]
    predicted = np.array([maker.predicted(change) for change in changes])
    groups = [_joined(changes[: len(own)]), _joined(changes[len(own) :]), Change(sound=maker.sound())]
    target = list(graph.tracer.targets[:1])  # type: ignore[union-attr]
    measured = np.concatenate([
        react(maker.tracer, part, target)[:, 0].double().numpy()
        for rows in (changes, randomly, groups)
        for part in _batches(rows)
    ])  # fmt: skip
    each, by_random, together = np.split(measured, [len(changes), 2 * len(changes)])
    value = float(graph.values[len(graph.values) - len(graph.targets)])
    return Swap(
        tuple(graph.names[node] for node in (*own, *theirs)),
        Comparison(predicted, each, interval=True, seed=seed),
        Comparison(predicted, by_random, interval=True, seed=seed),
        value,
        maker.value_of_other(),
        *together.tolist(),
    )


def _batches(rows: Sequence[Change]) -> list[Sequence[Change]]:
    return [rows[at : at + _ROWS] for at in range(0, len(rows), _ROWS)]


def _joined(changes: Sequence[Change]) -> Change:
    return Change(
        tuple(one for change in changes for one in change.decoder),
        tuple(one for change in changes for one in change.encoder),
    )


class _Swapping:
    """Makes the changes of one pair."""

    def __init__(
        self,
        graph: AttributionGraph,
        other: SpeechTracer,
        segments: Sequence[int | None] | None,
        seed: int,
    ) -> None:
        if not isinstance(graph.tracer, SpeechTracer):
            raise GraphError("This graph has no recording to swap with.", "Trace a recording.")
        self.graph, self.other, self.rng = graph, other, np.random.default_rng(seed)
        self.tracer = graph.tracer
        self.target = self.tracer.targets[0]
        length = self.target.pos + 1
        if len(other.ids) < length or not torch.equal(other.ids[:length], self.tracer.ids[:length]):
            raise OptionError(
                "The two recordings have different texts before the target.",
                "Trace the other with the tokens of the first (SpeechTracer's ids).",
            )
        count = min(len(self.tracer.segments), len(other.segments))
        self.aligned = list(segments) if segments is not None else [*range(count)]
        seeds = target_seeds(self.tracer.tape, [self.target])
        sweep = Sweep(self.tracer.tape, self.tracer.dictionary, self.tracer.sources, through=True)
        self._rows = sweep.rows(seeds)[0]
        output = self.tracer.at_output(seeds, through=True)
        heard = EncoderSweep(self.tracer.encoder.sources, through=True).at_layers(output)
        self._at_layers = [g[:, 0] for g in heard]

    def decoder(self, node: int, random: bool = False) -> Change:
        """One decoder feature as it is in the other recording."""
        n = self.graph.nodes
        layer, pos, feature = int(n.layer[node]), int(n.pos[node]), int(n.feature[node])
        if random:
            active = self.tracer.sources.actives[layer]
            feature = int(self.rng.choice(active.feature[active.at(pos)].numpy()))
        at, which = torch.tensor([pos]), torch.tensor([feature])
        value = float(self.other.sources.activation_at(layer, at, which)[0])
        return Change(decoder=(Intervention.set(layer, feature, value, (pos,)),))

    def encoder(self, node: int, random: bool = False) -> Change:
        """One encoder feature over a segment, as it is over the aligned segment."""
        n = self.graph.nodes
        layer, segment, feature = int(n.layer[node]), int(n.pos[node]), int(n.feature[node])
        other = self.aligned[segment] if segment < len(self.aligned) else None
        if other is None:
            return Change()
        at, there = self.tracer.segments.frames(segment), self._stretched(segment, other)
        if random:
            feature = int(self.rng.integers(self.tracer.encoder_dictionary.size(layer)))
        values = self.other.encoder.sources.activation[layer][there, feature]
        one = Intervention.set(layer, feature, tuple(values.tolist()), tuple(at.tolist()))
        return Change(encoder=(one,))

    def _stretched(self, segment: int, other: int) -> Tensor:
        """For each frame of a segment the frame at the same share of the other one."""
        here, there = self.tracer.segments.frames(segment), self.other.segments.frames(other)
        share = (torch.arange(len(here)) + 0.5) / len(here)
        return there[(share * len(there)).long().clamp_max(len(there) - 1)]

    def sound(self) -> Tensor:
        """`(frame, d)`: from this recording's sound to the other's, frame by frame."""
        return self.other.hearing.embed - self.tracer.hearing.embed

    def predicted(self, change: Change) -> float:
        """What the account says."""
        total = 0.0
        for one in change.decoder:
            at, feature = torch.tensor(one.positions), torch.tensor([one.feature])
            activation = float(self.tracer.sources.activation_at(one.layer, at, feature)[0])
            if activation:
                column = self.tracer.sources.column(one.layer, int(at[0]), one.feature)
                total += float(self._rows[column]) / activation * float(one.delta(torch.tensor(activation)))
        sources, dictionary = self.tracer.encoder.sources, self.tracer.encoder_dictionary
        for one in change.encoder:
            at = torch.tensor(one.positions)
            delta = one.delta(sources.activation[one.layer][at, one.feature])
            for out in dictionary.targets(one.layer):
                vector = dictionary.decoder(one.layer, out, torch.tensor([one.feature]))[0]
                total += float(delta @ (self._at_layers[out][at] @ vector))
        return total

    def value_of_other(self) -> float:
        """The target's direction in the other recording."""
        from otoscope.circuits.targets import target_values

        with torch.no_grad():
            final = self.other.forward(1)
        return float(target_values([self.target], final)[0, 0])
