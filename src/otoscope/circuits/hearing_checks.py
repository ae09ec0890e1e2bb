"""Is a recogniser's graph true? Features of both stacks are ablated, alone and together, and stretches of sound silenced.

As in `checking`, `direct` holds everything and must be exact, and `free` lets the model react. What is expected of silence is
the account of all paths, applied to the change that silence makes in what the convolutions made of the sound.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from otoscope.circuits.adjoint import Sweep
from otoscope.circuits.checking import LADDER, Check, Comparison, random_features, top_features
from otoscope.circuits.graph import FEATURE, FRAME, HEARING, PROJECTOR, AttributionGraph
from otoscope.circuits.hearing import EncoderSources, EncoderSweep
from otoscope.circuits.hearing_runs import Change, Gradients, gradients, run
from otoscope.circuits.influence import path_sums
from otoscope.circuits.interventions import Freeze, Intervention
from otoscope.circuits.readings import PooledReadings, Readings
from otoscope.circuits.segments import PADDING
from otoscope.circuits.targets import Target, target_seeds, target_values
from otoscope.errors import GraphError
from otoscope.progress import track

if TYPE_CHECKING:
    from torch import Tensor

    from otoscope.circuits.speech_tracing import SpeechTracer

_DECODER_ROWS, _ENCODER_ROWS, _FROZEN_ROWS = 16, 8, 2
"""Changes run at once: of the decoder alone, of the encoder, of the encoder with its patterns held."""

_GROUP = 3
"""A supernode has at least so many features of one layer and place."""


@dataclass(frozen=True, eq=False)
class _Case:
    """One thing that is taken away.

    Attributes:
        name: What.
        removed: The node itself taken away, for the direct test.
        change: What is done to the model that reacts.
        random: The same to something like it that the graph does not name.
        edges: `(row,)` the edges that say what goes when it is removed.
        reads: `(row,)` whether a row may depend on it.
        total: `(target,)` what goes along all paths.
        baselines: By name, another prediction `(target,)`.
    """

    name: str
    removed: Change
    change: Change
    random: Change
    edges: np.ndarray
    reads: np.ndarray
    total: np.ndarray
    baselines: dict[str, np.ndarray]


def check_hearing(
    graph: AttributionGraph, features: int = 64, seed: int = 0, *, ladder: bool = False
) -> Check:
    """Check a recogniser's graph.

    Args:
        graph: A graph with its tracer.
        features: How many features of the decoder, the most influential; of encoder features, supernodes and segments at most
            half as many each, as the encoder runs again for each of them.
        seed: Of the random ones and the intervals.
        ladder: Also run the same with part of the model held, to tell why `free` falls short.

    Raises:
        GraphError: The graph has nothing to take away.
    """
    maker = _Cases(graph, seed)
    kinds = {
        "decoder_features": maker.decoder(features),
        "encoder_features": maker.encoder(features // 2),
        "supernodes": maker.supernodes(features // 2),
        "sound": maker.sound(features // 2),
    }
    kinds = {name: cases for name, cases in kinds.items() if cases}
    if not kinds:
        raise GraphError("The graph has nothing to take away.", "Trace with more nodes.")
    every = [case for cases in kinds.values() for case in cases]
    direct, free, steps = _measured(graph, every, maker.targets, LADDER if ladder else ())
    checks, at = {}, 0
    for name, cases in kinds.items():
        part = slice(at, at + len(cases))
        mine = {step: changes[part] for step, changes in steps.items()}
        checks[name] = _check(cases, direct[part], free[0][part], free[1][part], mine, seed)
        at += len(cases)
    return Check.joined(checks, seed)


def _check(
    cases: Sequence[_Case],
    direct: np.ndarray,
    free: np.ndarray,
    by_random: np.ndarray,
    steps: dict[str, np.ndarray],
    seed: int,
) -> Check:
    reads = np.stack([case.reads for case in cases])
    predicted = -np.stack([case.edges for case in cases])
    expected = -np.stack([case.total for case in cases]).ravel()
    changes, others = free.ravel(), by_random.ravel()
    baselines = {
        name: (-np.stack([case.baselines[name] for case in cases]).ravel(), changes)
        for name in cases[0].baselines
    }
    baselines["random_features"] = (expected, others)
    return Check(
        tuple(case.name for case in cases),
        Comparison(predicted[reads], direct[reads]),
        Comparison(expected, changes, True, baselines, seed),
        float(np.abs(changes).mean()),
        float(np.abs(others).mean()),
        seed,
        ladder={name: Comparison(step.ravel(), changes) for name, step in steps.items()},
    )


# Measuring ---------------------------------------------------------------------------------------------------------------


def _measured(
    graph: AttributionGraph, cases: Sequence[_Case], targets: Sequence[Target], ladder: Sequence[Freeze]
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray], dict[str, np.ndarray]]:
    """Changes of all rows with everything frozen `(case, row)`; of the targets, by the cases, at random, and step by step."""
    tracer: SpeechTracer = graph.tracer  # type: ignore[assignment]
    own, pooled = Readings(graph, tracer), PooledReadings(graph, tracer.encoder.sources)

    def rows(changes: Sequence[Change]) -> Tensor:
        outcome = run(tracer, changes, "all")
        values = target_values(targets, outcome.final)
        heard = pooled.of(outcome.encoder, len(changes))
        return torch.cat([own.of(outcome.decoder), heard, values], dim=1)

    def reacting(changes: Sequence[Change], freeze: Freeze = "none") -> Tensor:
        return target_values(targets, run(tracer, changes, freeze).final)

    removed, changed, randomly = (
        [getattr(case, name) for case in cases] for name in ("removed", "change", "random")
    )
    with track("Checking", (3 + len(ladder)) * len(cases), "interventions") as task:
        direct = _in_batches(removed, rows, _FROZEN_ROWS, task.advance)
        free = _in_batches(changed, reacting, _ENCODER_ROWS, task.advance)
        others = _in_batches(randomly, reacting, _ENCODER_ROWS, task.advance)
        steps = {
            freeze: _in_batches(changed, partial(reacting, freeze=freeze), _FROZEN_ROWS, task.advance)
            for freeze in ladder
        }
    return direct, (free, others), steps


def _in_batches(
    changes: Sequence[Change],
    measure: Callable[[Sequence[Change]], Tensor],
    heard_at_once: int,
    tell: Callable[[int], None],
) -> np.ndarray:
    """What changes from a run in which nothing is done; those that leave the encoder alone apart from the others."""
    found: dict[int, Tensor] = {}
    for hearing, size in ((False, _DECODER_ROWS), (True, heard_at_once)):
        mine = [i for i, change in enumerate(changes) if change.heard == hearing]
        # Compared with a run of the same path: rounding of the encoder is no effect.
        idle = Change(encoder=()) if not hearing else Change(sound=torch.zeros(()))
        before = measure([idle]) if mine else None
        for at in range(0, len(mine), size):
            batch = mine[at : at + size]
            after = measure([changes[i] for i in batch])
            assert before is not None
            found |= {i: row - before[0] for i, row in zip(batch, after, strict=True)}
            tell(len(batch))
    return torch.stack([found[i] for i in range(len(changes))]).double().numpy()


def _without(x: Tensor, at: Tensor) -> Tensor:
    gone = torch.zeros_like(x)
    gone[at] = -x[at]
    return gone


# Cases -------------------------------------------------------------------------------------------------------------------


class _Cases:
    """Makes the cases of one graph."""

    def __init__(self, graph: AttributionGraph, seed: int) -> None:
        tracer: SpeechTracer = graph.tracer  # type: ignore[assignment]
        self.graph, self.tracer, self.seed = graph, tracer, seed
        self.targets = list(tracer.targets)
        self.rng = np.random.default_rng(seed)
        self.nodes, self.segments = graph.nodes, tracer.segments
        self.influence = graph.influence()
        n = graph.nodes
        self.hearing = np.array([stream in HEARING for stream in n.stream])
        self.rows = graph.row_nodes
        self.writes = ~self.hearing[self.rows]
        self.matrix = graph.matrix.tocsc()
        self.within = path_sums(graph)
        self.opened = self._opened()
        self.heard = tracer.hearing
        self._totals()
        self.gradients: list[Gradients] = [gradients(tracer, target) for target in self.targets]

    def _opened(self) -> np.ndarray:
        """`(row,)` rows of the decoder that are carried into the encoder: they no longer read its output."""
        n = self.nodes
        closed = np.flatnonzero(np.isin(n.kind, (FRAME, PROJECTOR)) & ~self.hearing)
        reads_output = np.asarray(abs(self.graph.matrix[:, closed]).sum(axis=1)).ravel() > 0
        return (
            self.writes & ~reads_output if self.tracer.settings.encoder_nodes else np.zeros_like(self.writes)
        )

    def _totals(self) -> None:
        """Sums over all paths, for features of both stacks and for what the convolutions made of the sound."""
        tracer = self.tracer
        seeds = target_seeds(tracer.tape, self.targets)
        self.decoder_totals = Sweep(tracer.tape, tracer.dictionary, tracer.sources, through=True).rows(seeds)
        at_output = tracer.at_output(seeds, through=True)
        through = EncoderSweep(tracer.encoder.sources, through=True)
        self.encoder_totals = through.from_output(at_output)
        self.at_start = through.at_start(at_output)  # (frame, target, d)

    # Kinds -----------------------------------------------------------------------------------------------------------

    def decoder(self, count: int) -> list[_Case]:
        """Features of the decoder, the most influential."""
        tracer, n = self.tracer, self.nodes
        nodes = top_features(self.graph, tracer, count)
        others = random_features(self.graph, tracer, nodes, self.seed)
        return [
            self._case([int(node)], Change(decoder=self._ablated(int(node))), Change(decoder=tuple(other)))
            for node, other in zip(nodes, others, strict=True)
            if n.kind[node] == FEATURE
        ]

    def encoder(self, count: int) -> list[_Case]:
        """Features of the encoder over a segment, the most influential."""
        nodes = self._strongest(self.hearing & (self.nodes.kind == FEATURE), count)
        taken = {self._place(int(i)) for i in np.flatnonzero(self.hearing & (self.nodes.kind == FEATURE))}
        return [
            self._case(
                [int(node)], Change(encoder=self._ablated(int(node))), self._random_encoder(int(node), taken)
            )
            for node in nodes
        ]

    def supernodes(self, count: int) -> list[_Case]:
        """Features of one layer and one position or segment, all of them together: their parts add up exactly."""
        n, groups = self.nodes, defaultdict(list)
        for node in np.flatnonzero(n.kind == FEATURE):
            groups[bool(self.hearing[node]), int(n.layer[node]), int(n.pos[node])].append(int(node))
        large = [members for members in groups.values() if len(members) >= _GROUP]
        large.sort(key=lambda members: -self.influence[members].sum())
        cases = []
        for members in large[:count]:
            ablated = tuple(one for node in members for one in self._ablated(node))
            hearing = self.hearing[members[0]]
            change = Change(encoder=ablated) if hearing else Change(decoder=ablated)
            cases.append(self._case(members, change, self._random_group(members)))
        return cases

    def sound(self, count: int) -> list[_Case]:
        """Segments of sound, silenced."""
        n, cases = self.nodes, []
        opened = {int(n.pos[i]): [int(i)] for i in n.of(FRAME) if self.hearing[i]}
        given = self._given()
        known = opened or {segment: nodes for segment, (nodes, _) in given.items()}
        audible = [s for s in range(len(self.segments)) if self.segments.labels[s] != PADDING]
        audible.sort(key=lambda s: -self.influence[known.get(s, [])].sum())
        sounding = int(sum(len(self.segments.frames(s)) for s in audible))
        for segment in audible[:count]:
            at = self.segments.frames(segment)
            if opened:
                removed = Change(sound=_without(self.heard.embed, at))
            else:
                removed = Change(output=_without(self.tracer.output, given.get(segment, ([], at[:0]))[1]))
            first = int(self.rng.integers(0, max(sounding - len(at), 0) + 1))
            elsewhere = self.tracer.silenced(torch.arange(first, first + len(at)))
            silence = self.tracer.silenced(at)
            cases.append(
                self._silence(segment, known.get(segment, []), removed, silence, Change(sound=elsewhere))
            )
        return cases

    def _given(self) -> dict[int, tuple[list[int], Tensor]]:
        """By segment, the nodes of what the stack that writes is given of it, and their places in that."""
        n, found = self.nodes, {}
        for i in np.flatnonzero(np.isin(n.kind, (FRAME, PROJECTOR)) & ~self.hearing).tolist():
            segment, places = self.tracer.given_at(int(n.pos[i]))
            nodes, before = found.get(segment, ([], places[:0]))
            found[segment] = ([*nodes, i], torch.cat([before, places]))
        return found

    # Parts of cases --------------------------------------------------------------------------------------------------

    def _case(self, nodes: list[int], change: Change, random: Change) -> _Case:
        total, gradient = (np.zeros(len(self.targets)) for _ in range(2))
        for node in nodes:
            total = total + self._total(node)
            gradient = gradient + self._gradient(node)
        activation = float(self.nodes.activation[nodes].sum())
        baselines = {
            "activation_x_gradient": gradient,
            "activation": np.full(len(self.targets), activation),
            "direct_edge": self._edges(nodes)[len(self.rows) - len(self.targets) :],
            "paths_within_graph": self.within[:, nodes].sum(axis=1),
        }
        name = " + ".join(self.graph.names[node] for node in nodes)
        return _Case(
            name, change, change, random, self._edges(nodes), self._may_read(nodes[0]), total, baselines
        )

    def _silence(
        self, segment: int, nodes: list[int], removed: Change, silence: Tensor, random: Change
    ) -> _Case:
        """Parts of a segment: the account and the gradient, applied to what silence takes away."""
        gone = -silence.to(self.at_start)
        frames = gone.abs().sum(dim=1).nonzero().flatten()
        total = torch.einsum("snd,sd->n", self.at_start[frames], gone[frames]).double().numpy()
        gradient = np.array([float((g.sound[frames] * gone[frames]).sum()) for g in self.gradients])
        loudness = float(self.heard.embed[self.segments.frames(segment)].norm(dim=1).sum())
        edges = self._edges(nodes)
        baselines = {
            "activation_x_gradient": gradient,
            "activation": np.full(len(self.targets), loudness),
            "direct_edge": edges[len(self.rows) - len(self.targets) :],
            "paths_within_graph": self.within[:, nodes].sum(axis=1),
        }
        begin, end = self.segments.spans[segment]
        name = f"{self.segments.labels[segment] or 'sound'} {begin:.2f}-{end:.2f} s"
        reads = self._may_read(nodes[0]) if nodes else np.zeros(len(self.rows), dtype=bool)
        return _Case(name, removed, Change(sound=silence), random, edges, reads, total, baselines)

    def _edges(self, nodes: Sequence[int]) -> np.ndarray:
        return np.asarray(self.matrix[:, list(nodes)].sum(axis=1)).ravel()

    def _may_read(self, node: int) -> np.ndarray:
        """`(row,)` rows that read above a node, of the streams that it reaches."""
        n, rows = self.nodes, self.rows
        if not self.hearing[node]:
            if n.kind[node] in (FRAME, PROJECTOR):  # what is given, while the encoder is closed
                return self.writes & ~self.opened
            return self.writes & (n.layer[rows] > n.layer[node]) & (n.pos[rows] >= n.pos[node])
        return self.opened | (~self.writes & (n.layer[rows] > n.layer[node]))

    def _total(self, node: int) -> np.ndarray:
        layer, pos, feature = self._place(node)
        if self.hearing[node]:
            column = self.tracer.encoder.sources.column(layer, pos, feature)
            return self.encoder_totals[:, column].double().numpy()
        column = self.tracer.sources.column(layer, pos, feature)
        return self.decoder_totals[:, column].double().numpy()

    def _gradient(self, node: int) -> np.ndarray:
        layer, pos, feature = self._place(node)
        hearing = self.hearing[node]
        dictionary = self.tracer.encoder_dictionary if hearing else self.tracer.dictionary
        found = np.zeros(len(self.targets))
        for out in dictionary.targets(layer):
            vector = dictionary.decoder(layer, out, torch.tensor([feature]))[0]
            for i, g in enumerate(self.gradients):
                if hearing:
                    at = self.segments.frames(pos)
                    active = self.tracer.encoder.sources.activation[layer][at, feature]
                    found[i] += float(active @ (g.encoder[out][at] @ vector))
                else:
                    found[i] += float(g.decoder[out][pos] @ vector) * self.nodes.activation[node]
        return found

    def _place(self, node: int) -> tuple[int, int, int]:
        n = self.nodes
        return int(n.layer[node]), int(n.pos[node]), int(n.feature[node])

    def _ablated(self, node: int) -> tuple[Intervention, ...]:
        layer, pos, feature = self._place(node)
        at = tuple(self.segments.frames(pos).tolist()) if self.hearing[node] else (pos,)
        return (Intervention.ablate(layer, feature, at),)

    def _strongest(self, mask: np.ndarray, count: int) -> np.ndarray:
        nodes = np.flatnonzero(mask)
        return nodes[np.argsort(-self.influence[nodes], kind="stable")[:count]]

    # Random ones -----------------------------------------------------------------------------------------------------

    def _random_encoder(self, node: int, taken: set[tuple[int, int, int]]) -> Change:
        """A feature of the same layer and segment, nearly as active, that is no node."""
        layer, segment, _ = self._place(node)
        at = self.segments.frames(segment)
        feature = self._alike(self.tracer.encoder.sources, layer, at, segment, node, taken)
        if feature is None:
            return Change()
        taken.add((layer, segment, feature))
        return Change(encoder=(Intervention.ablate(layer, feature, tuple(at.tolist())),))

    def _alike(
        self,
        sources: EncoderSources,
        layer: int,
        at: Tensor,
        segment: int,
        node: int,
        taken: set[tuple[int, int, int]],
    ) -> int | None:
        pooled = sources.activation[layer][at].sum(dim=0).abs().double().numpy()
        distance = np.abs(pooled - abs(self.nodes.activation[node]))
        order = np.argsort(distance, kind="stable")
        near = [int(i) for i in order[:64] if (layer, segment, int(i)) not in taken and pooled[i] > 0][:10]
        return int(self.rng.choice(near)) if near else None

    def _random_group(self, members: list[int]) -> Change:
        taken = {self._place(node) for node in np.flatnonzero(self.nodes.kind == FEATURE).tolist()}
        if self.hearing[members[0]]:
            found = [self._random_encoder(node, taken) for node in members]
            return Change(encoder=tuple(one for change in found for one in change.encoder))
        rows = random_features(self.graph, self.tracer, np.array(members), self.seed)
        return Change(decoder=tuple(one for row in rows for one in row))
