"""Monitors with random weights, for small random models."""

from __future__ import annotations

import numpy as np

from otoscope.monitors.features import FeatureProbes
from otoscope.monitors.hindsight import FACTS, Hindsight
from otoscope.monitors.monitor import Monitor, Probes, facts_of
from otoscope.monitors.recurrent import Recurrent
from otoscope.monitors.signals import SIGNALS
from otoscope.monitors.verdicts import TARGETS


def random_monitor(model, seed=0, threshold=0.75, chosen=None):
    """With probes of the model's own neurons where `chosen` names some, `(n, 2)`."""
    rng = np.random.default_rng(seed)
    layers, width, targets, hidden = model.config.decoder_layers, model.config.d_model, len(TARGETS), 5
    inputs = len(SIGNALS) + (layers + 2 + (chosen is not None)) * targets
    probes = Probes(
        *(rng.normal(size=(2, layers, width, targets)) / width),
        rng.normal(size=(layers, targets)),
        *(x for _ in range(2) for x in (rng.normal(size=(width, targets)) / width, rng.normal(size=targets))),
    )
    head = Recurrent(
        np.zeros(inputs), np.ones(inputs), rng.normal(size=(3 * hidden, inputs)) / 4,
        rng.normal(size=(3 * hidden, hidden)), rng.normal(size=3 * hidden), rng.normal(size=3 * hidden),
        rng.normal(size=(targets, hidden)), rng.normal(size=targets),
    )  # fmt: skip
    risks = np.sort(rng.uniform(size=50))
    return Monitor(
        dict(facts_of(model)), tuple(range(layers)), probes, head, np.ones(targets), np.zeros(targets),
        threshold, 0.05, risks, plain_hindsight(risks, threshold),
        features=None if chosen is None else _probes_of(np.asarray(chosen), rng),
    )  # fmt: skip


def plain_hindsight(ordinary, threshold):
    """One that goes by the last step alone."""
    weights = np.zeros((len(TARGETS), len(FACTS)))
    weights[:, FACTS.index("last")] = 1
    return Hindsight(weights, np.zeros(len(TARGETS)), ordinary, threshold)


def _probes_of(chosen, rng):
    shape = len(chosen), len(TARGETS)
    weights = rng.normal(size=shape), rng.normal(size=shape), rng.normal(size=len(TARGETS))
    return FeatureProbes("neurons", "neurons", "decoder_blocks.*.mlp", chosen.reshape(-1, 2), *weights)
