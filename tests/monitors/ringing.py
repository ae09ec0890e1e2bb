"""A monitor made by hand: it rings for a loop once a text has repeated itself for some tokens, whatever the model."""

from __future__ import annotations

import numpy as np
from tests.monitors.monitors_of import plain_hindsight

from otoscope.monitors.monitor import Monitor, Probes, facts_of
from otoscope.monitors.recurrent import Recurrent
from otoscope.monitors.signals import SIGNALS
from otoscope.monitors.verdicts import TARGETS


def echo_monitor(model, tokens: float = 8.0, threshold: float = 0.5) -> Monitor:
    """One that rings when more than `tokens` tokens repeat those before them; with a threshold of 0 always."""
    width, layers, targets = model.config.d_model, (0, 1), len(TARGETS)
    probes = Probes(
        now=np.zeros((len(layers), width, targets)),
        mean=np.zeros((len(layers), width, targets)),
        bias=np.zeros((len(layers), targets)),
        heard=np.zeros((width, targets)),
        heard_bias=np.zeros(targets),
        window=np.zeros((width, targets)),
        window_bias=np.zeros(targets),
    )
    inputs = len(SIGNALS) + (len(layers) + 2) * targets
    w_in, b_in = np.zeros((3, inputs)), np.array([0.0, -50.0, -10 * np.log1p(tokens)])
    w_in[2, SIGNALS.index("echo")] = 10.0  # the gate of what is new; the one of what stays is shut
    head = Recurrent(
        np.zeros(inputs), np.ones(inputs), w_in, np.zeros((3, 1)), b_in, np.zeros(3),
        np.array([[0.0], [8.0]]), np.array([-8.0, 0.0]),
    )  # fmt: skip
    return Monitor(
        facts_of(model),
        layers,
        probes,
        head,
        np.ones(targets),
        np.zeros(targets),
        threshold,
        0.05,
        np.zeros(20),
        plain_hindsight(np.zeros(20), threshold),
    )
