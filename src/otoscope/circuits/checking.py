"""Is the graph true? Its predictions beside what happens when features are taken away.

`direct`: with everything frozen, each edge must be the change it predicts. That is a test of the arithmetic.
`free`: the model reacts as it does, and the change of the target is compared with what the replacement model says: the sum over
all paths, those through features that are no nodes of the graph included. That is the scientific claim, and it may fail:
patterns, scales and gates move when a feature goes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from otoscope.circuits.adjoint import Sweep
from otoscope.circuits.graph import AttributionGraph
from otoscope.circuits.influence import path_sums
from otoscope.circuits.interventions import Freeze, Intervention, Row, intervening
from otoscope.circuits.readings import Readings, own, own_features
from otoscope.circuits.speech_tracing import SpeechTracer
from otoscope.circuits.targets import Target, target_seeds, target_values
from otoscope.errors import GraphError
from otoscope.outcomes import bootstrap
from otoscope.progress import track
from otoscope.showing import Shows

if TYPE_CHECKING:
    from torch import Tensor

    from otoscope.circuits.tracer import Tracer
    from otoscope.documents.card import Card

_ROWS = 16
"""Interventions run at once."""


@dataclass(frozen=True, eq=False)
class Comparison(Shows):
    """Predicted and measured changes.

    Attributes:
        predicted: `(n,)`.
        measured: `(n,)`.
        interval: Whether `to_dict` gives a bootstrap interval.
        baselines: By name, another prediction and what it is compared with: `(n,)` each.
        seed: Of the interval.
    """

    predicted: np.ndarray
    measured: np.ndarray
    interval: bool = False
    baselines: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    seed: int = 0

    @classmethod
    def joined(cls, parts: Sequence[Comparison]) -> Comparison:
        """All pairs of several comparisons with the same baselines."""
        baselines = {
            name: (
                np.concatenate([part.baselines[name][0] for part in parts]),
                np.concatenate([part.baselines[name][1] for part in parts]),
            )
            for name in parts[0].baselines
        }
        return cls(
            np.concatenate([part.predicted for part in parts]),
            np.concatenate([part.measured for part in parts]),
            parts[0].interval,
            baselines,
            parts[0].seed,
        )

    @property
    def correlation(self) -> float | None:
        """Pearson's, or None where one side does not vary."""
        return _finite(_correlation(self.predicted, self.measured))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: `n`, `correlation`, and where asked for `ci_low`, `ci_high` and `baselines`."""
        told: dict[str, Any] = {"n": len(self.measured), "correlation": self.correlation}
        if self.interval:
            told["ci_low"], told["ci_high"] = self._bounds()
            told["baselines"] = {name: _finite(_correlation(*pair)) for name, pair in self.baselines.items()}
        return told

    def _bounds(self) -> tuple[float | None, float | None]:
        try:
            return bootstrap(_correlation, self.predicted, self.measured, seed=self.seed)
        except ValueError:
            return None, None


@dataclass(frozen=True, eq=False)
class Check(Shows):
    """A faithfulness report of one graph.

    Attributes:
        features: Ids of the features that were ablated.
        direct: Everything frozen: every edge of these features.
        free: The model reacting: the targets' changes against sums over paths. Baselines: `activation_x_gradient` (of the real
            model), `activation`, `direct_edge` (the edge to the target alone), `paths_within_graph` (paths through nodes of the
            graph alone), and `random_features`: what is measured when,
            in place of each feature, a random one of nearly the same activation goes, compared with the same prediction.
        ladder: Where asked for, correlations of what happens with what happens when less reacts: `gates` (norm scales react,
            gates of features and attention patterns do not) and `patterns` (gates react, too). What each step of `free`
            makes good of its shortfall is due to what was let loose.
        top_effect: Mean absolute change of the targets by these features.
        random_effect: The same by the random ones.
        seed: Of the random features and the interval.
        kinds: Of a recogniser's graph the same by kind of node: `decoder_features`, `encoder_features`, `supernodes` (features
            of one layer and place together) and `sound` (segments that are silenced).
    """

    features: tuple[str, ...]
    direct: Comparison
    free: Comparison
    top_effect: float
    random_effect: float
    seed: int
    kinds: dict[str, Check] = field(default_factory=dict)
    ladder: dict[str, Comparison] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: `direct` and `free`, what was changed, mean effects and the seed; `kinds` where there are several."""
        effects = {"top": self.top_effect, "random": self.random_effect}
        return {
            "direct": self.direct.to_dict(),
            "free": self.free.to_dict() | {"mean_absolute_effect": effects} | self._told_ladder(),
            "features": list(self.features),
            "seed": self.seed,
            **({"kinds": {name: each.to_dict() for name, each in self.kinds.items()}} if self.kinds else {}),
        }

    def _told_ladder(self) -> dict[str, Any]:
        return (
            {"ladder": {name: each.correlation for name, each in self.ladder.items()}} if self.ladder else {}
        )

    @classmethod
    def joined(cls, kinds: dict[str, Check], seed: int) -> Check:
        """All kinds together."""
        parts = list(kinds.values())
        counts = [len(part.free.measured) for part in parts]
        return cls(
            tuple(name for part in parts for name in part.features),
            Comparison.joined([part.direct for part in parts]),
            Comparison.joined([part.free for part in parts]),
            float(np.average([part.top_effect for part in parts], weights=counts)),
            float(np.average([part.random_effect for part in parts], weights=counts)),
            seed,
            kinds,
            {name: Comparison.joined([part.ladder[name] for part in parts]) for name in parts[0].ladder},
        )

    def card(self) -> Card:
        """Predictions beside what happened, kind by kind."""
        from otoscope.documents.card import Card, Table

        rows = []
        for kind, each in (self.kinds or {"all": self}).items():
            told = each.to_dict()
            rows += [
                (kind.replace("_", " "), name, told[way]["n"], told[way]["correlation"])
                for way, name in (("direct", "everything frozen"), ("free", "the model reacts"))
            ]
        head = ("nodes taken away", "how", "n", "correlation with the graph")
        return Card(title="Check of a graph", table=Table.of(head, rows))


LADDER: tuple[Freeze, ...] = ("gates", "patterns")
"""What is let loose, step by step, between the frozen replacement model and the model itself."""


def check(graph: AttributionGraph, features: int = 64, seed: int = 0, *, ladder: bool = False) -> Check:
    """Ablate the most influential features, and random ones of equal activation.

    Args:
        graph: A graph with its tracer.
        features: How many.
        seed: Of the random features and the interval.
        ladder: Also run the same with part of the model held, to tell why `free` falls short; takes about as long again.

    Raises:
        GraphError: The graph has no tracer, no features, or a target inside the stack.
    """
    tracer = graph.tracer
    if tracer is None:
        raise GraphError("A graph that was read from a file cannot be checked.", "Trace it again.")
    targets = _targets(tracer)
    if isinstance(tracer, SpeechTracer):
        from otoscope.circuits.hearing_checks import check_hearing

        return check_hearing(graph, features, seed, ladder=ladder)
    nodes = top_features(graph, tracer, features)
    if not len(nodes):
        raise GraphError("The graph has no features to ablate.", "Trace with more nodes.")
    others = random_features(graph, tracer, nodes, seed)
    top = [_ablation(graph, node) for node in nodes]
    direct = _direct(graph, tracer, nodes, top)
    changes = react(tracer, [*top, *others], targets)  # (intervention, target)
    measured, by_others = changes[: len(nodes)], changes[len(nodes) :]
    free = _free(graph, tracer, nodes, measured, by_others, targets, seed)
    effects = np.abs(measured).mean(), np.abs(by_others).mean()
    steps = {name: react(tracer, top, targets, name).ravel() for name in LADDER} if ladder else {}
    return Check(
        tuple(graph.names[node] for node in nodes), direct, free, float(effects[0]), float(effects[1]), seed,
        ladder={name: Comparison(step, measured.ravel()) for name, step in steps.items()},
    )  # fmt: skip


def _targets(tracer: Tracer) -> list[Target]:
    if any(target.layer is not None for target in tracer.targets):
        raise GraphError("Only graphs of what is written can be checked.", "Trace a token.")
    return list(tracer.targets)


def own_rows(graph: AttributionGraph, tracer: Tracer) -> np.ndarray:
    """Rows of the features of that stack, and of the targets."""
    return np.flatnonzero(own(graph, tracer)[graph.row_nodes])


def top_features(graph: AttributionGraph, tracer: Tracer, count: int) -> np.ndarray:
    """Nodes of the most influential features."""
    nodes = own_features(graph, tracer)
    influence = graph.influence()[nodes]
    return nodes[np.argsort(-influence, kind="stable")[:count]]


def _ablation(graph: AttributionGraph, node: int) -> Row:
    n = graph.nodes
    return [Intervention.ablate(int(n.layer[node]), int(n.feature[node]), (int(n.pos[node]),))]


_NEAREST = 10
"""A random feature is drawn from so many of the nearest in activation."""


def random_features(graph: AttributionGraph, tracer: Tracer, nodes: np.ndarray, seed: int) -> list[Row]:
    """For each feature one outside the graph, of the same layer and position and nearly the same activation."""
    rng, n = np.random.default_rng(seed), graph.nodes
    taken = {(int(n.layer[i]), int(n.pos[i]), int(n.feature[i])) for i in own_features(graph, tracer)}
    rows: list[Row] = []
    for node in nodes:
        layer, pos = int(n.layer[node]), int(n.pos[node])
        active = tracer.sources.actives[layer]
        here = active.at(pos)
        distance = np.abs(active.activation[here].abs().double().numpy() - abs(n.activation[node]))
        nearest = active.feature[here].numpy()[np.argsort(distance, kind="stable")].tolist()
        free = [*islice((f for f in nearest if (layer, pos, f) not in taken), _NEAREST)]
        if free:
            chosen = int(rng.choice(free))
            taken.add((layer, pos, chosen))
            rows.append([Intervention.ablate(layer, chosen, (pos,))])
        else:
            rows.append([])  # all features of this place are in the graph: nothing is done
    return rows


# Running -----------------------------------------------------------------------------------------------------------------


def react(
    tracer: Tracer, rows: Sequence[Row], targets: Sequence[Target], freeze: Freeze = "none"
) -> np.ndarray:
    """How targets change under interventions, one row each, on the traced prompt.

    Args:
        tracer: The prompt's.
        rows: Interventions.
        targets: Tokens or directions after the final norm.
        freeze: What may not react.

    Returns:
        `(row, target)` changes.
    """
    clean = _run(tracer, [[]], freeze)[0]
    before = target_values(targets, clean)
    changes = []
    with track("Ablating", len(rows), "interventions") as task:
        for at in range(0, len(rows), _ROWS):
            final, _ = _run(tracer, rows[at : at + _ROWS], freeze)
            changes.append(target_values(targets, final) - before)
            task.advance(len(rows[at : at + _ROWS]))
    return torch.cat(changes).double().numpy()


def _run(tracer: Tracer, rows: Sequence[Row], freeze: Freeze) -> tuple[Tensor, dict[int, Tensor]]:
    """Final norm's output `(row, pos, d)` and what features read, by layer."""
    wiring, model = tracer.tape.wiring, tracer.model
    after_norm, final = tracer.dictionary.reads == "mlp_in", wiring.final_point
    reads = [b.mlp.input_point if after_norm else b.mlp.stream_point for b in wiring.blocks]
    names = reads if freeze == "all" else []
    frozen = {"tape": tracer.tape, "sources": tracer.sources, "freeze": freeze}
    # What reads comes after what freezes: hooks of one module run in the order they are placed in.
    with (
        torch.no_grad(),
        intervening(model, tracer.dictionary, rows, **frozen),
        model.capturing([final, *names]) as cache,
    ):
        tracer.forward(len(rows))
    return cache[final], {layer: cache[name] for layer, name in enumerate(names)}


# Comparing ---------------------------------------------------------------------------------------------------------------


def direct_effects(graph: AttributionGraph, rows: Sequence[Row]) -> np.ndarray:
    """How the rows of the stack that writes change under interventions, everything else frozen: `(intervention, row)`.

    Raises:
        GraphError: The graph has no tracer.
    """
    if graph.tracer is None:
        raise GraphError("A graph that was read from a file has no model to run.", "Trace the prompt again.")
    tracer, targets = graph.tracer, _targets(graph.tracer)
    readings = Readings(graph, tracer)
    final, inputs = _run(tracer, [[]], "all")
    before = readings.of(inputs)
    values = target_values(targets, final)
    changes = []
    for at in range(0, len(rows), _ROWS):
        final, inputs = _run(tracer, rows[at : at + _ROWS], "all")
        features = readings.of(inputs) - before
        changes.append(torch.cat([features, target_values(targets, final) - values], dim=1))
    return torch.cat(changes).double().numpy()


def _direct(graph: AttributionGraph, tracer: Tracer, nodes: np.ndarray, rows: Sequence[Row]) -> Comparison:
    """Every pair of an ablated feature and a row that may depend on it."""
    measured = direct_effects(graph, rows)
    rows_of = own_rows(graph, tracer)
    predicted = -graph.matrix[rows_of][:, nodes].toarray().T
    later = _may_depend(graph, nodes, graph.row_nodes[rows_of])
    return Comparison(predicted[later], measured[later])


def _may_depend(graph: AttributionGraph, nodes: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """`(node, row)` whether the row reads above the node's layer and not before its position."""
    n = graph.nodes
    above = n.layer[rows][None] > n.layer[nodes][:, None]
    return above & (n.pos[rows][None] >= n.pos[nodes][:, None])


def _free(
    graph: AttributionGraph,
    tracer: Tracer,
    nodes: np.ndarray,
    measured: np.ndarray,
    by_others: np.ndarray,
    targets: list[Target],
    seed: int,
) -> Comparison:
    predicted = -total_effects(graph, tracer, nodes, targets).ravel()
    within = -path_sums(graph)[:, nodes].T
    first = len(graph.values) - len(targets)
    edges = -graph.matrix[first:, nodes].toarray().T
    activation = np.repeat(-graph.nodes.activation[nodes][:, None], len(targets), axis=1)
    gradient = -activation_times_gradient(graph, tracer, nodes, targets)
    changes = measured.ravel()
    baselines = {
        "activation_x_gradient": (gradient.ravel(), changes),
        "activation": (activation.ravel(), changes),
        "direct_edge": (edges.ravel(), changes),
        "paths_within_graph": (within.ravel(), changes),
        "random_features": (predicted, by_others.ravel()),
    }
    return Comparison(predicted, changes, True, baselines, seed)


def total_effects(
    graph: AttributionGraph, tracer: Tracer, nodes: np.ndarray, targets: Sequence[Target]
) -> np.ndarray:
    """`(node, target)`: what features supply along all paths of the replacement model, gates, patterns and scales frozen.

    Paths through features that are no nodes of the graph count as well: one sweep that passes through all of them.
    """
    n, sweep = graph.nodes, Sweep(tracer.tape, tracer.dictionary, tracer.sources, through=True)
    rows = sweep.rows(target_seeds(tracer.tape, targets))
    columns = [tracer.sources.column(int(n.layer[i]), int(n.pos[i]), int(n.feature[i])) for i in nodes]
    return rows[:, columns].T.double().numpy()


def activation_times_gradient(
    graph: AttributionGraph, tracer: Tracer, nodes: np.ndarray, targets: Sequence[Target]
) -> np.ndarray:
    """`(node, target)`: activation times the gradient of the real, unfrozen model."""
    dictionary, n = tracer.dictionary, graph.nodes
    gradients = [_output_gradients(tracer, target) for target in targets]
    table = np.zeros((len(nodes), len(targets)))
    for i, node in enumerate(nodes):
        layer, pos, feature = int(n.layer[node]), int(n.pos[node]), torch.tensor([int(n.feature[node])])
        for out in dictionary.targets(layer):
            vector = dictionary.decoder(layer, out, feature)[0]
            table[i] += [float(g[out][pos] @ vector) for g in gradients]
    return table * n.activation[nodes][:, None]


def _output_gradients(tracer: Tracer, target: Target) -> list[Tensor]:
    """Gradient of a target at the place every MLP writes to: a list of `(pos, d)`."""
    wiring = tracer.tape.wiring
    leaves = [torch.zeros_like(mlp.raw, requires_grad=True) for mlp in tracer.tape.mlp]
    handles = []
    for block, leaf in zip(wiring.blocks, leaves, strict=True):
        after = tracer.dictionary.writes == "mlp_out" and block.mlp.post_norm is not None
        module = block.mlp.post_norm if after else block.mlp.down_module
        assert module is not None
        handles.append(module.register_forward_hook(lambda _m, _a, out, leaf=leaf: out + leaf))
    try:
        with torch.enable_grad():
            value = target_values([target], tracer.forward(1)).sum()
            return list(torch.autograd.grad(value, leaves))
    finally:
        for handle in handles:
            handle.remove()


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    if len(a) < 2 or a.std() == 0 or b.std() == 0:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
