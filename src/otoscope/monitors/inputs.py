"""What a monitor's head is given of texts: signals, and the log-odds of linear probes fitted on the training texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from otoscope.corpora import Item, folds
from otoscope.monitors.collecting import Text
from otoscope.monitors.dividing import classes, origin
from otoscope.monitors.features import FeatureProbes, Features, fit_features
from otoscope.monitors.monitor import Probes
from otoscope.monitors.signals import ATTENTION_SIGNALS, SIGNALS, TEXT_SIGNALS, TOKEN_SIGNALS
from otoscope.monitors.verdicts import TARGETS, loop_onset
from otoscope.probes.linear import LinearProbe, fit_probe

STEPS = 16
"""Steps of each text that probes learn from, spread evenly."""

FOLDS = 4
"""Folds by which probes give the head's training texts log-odds of probes that never saw them."""

STRENGTH = 0.003
"""Inverse regularisation of the probes."""


def step_targets(text: Text) -> np.ndarray:
    """`(step, target)`: 1 where an alarm is due, 0 where not, NaN where nobody knows.

    A loop is due from the second copy on; before it the text was no loop yet.
    """
    out = np.full((len(text.signals), len(TARGETS)), np.nan)
    if text.verdict.invented is not None:
        out[:, 0] = text.verdict.invented
    if text.verdict.loop is not None:
        out[:, 1] = 0.0
        onset = loop_onset(text.tokens) if text.verdict.loop else None
        if onset is not None:
            out[onset:, 1] = 1.0
        elif text.verdict.loop:
            out[:, 1] = np.nan
    return out


_Read = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]
"""Log-odds of the probes of the stream `(step, layer, probe)`, of what is heard `(step, probe)`, of the window `(probe,)`, and of
a dictionary's features `(step, probe)`."""


@dataclass(frozen=True, eq=False)
class Probed:
    """All probes."""

    linear: Probes
    features: Features | None
    chosen: FeatureProbes | None

    @classmethod
    def of(cls, train: Sequence[Text], features: Features | None) -> Probed:
        """Fit them to training texts."""
        chosen = None
        if features is not None:
            goals, samples = (
                [step_targets(text) for text in train],
                [_spread(len(text.signals)) for text in train],
            )
            chosen = fit_features(features, [text.read for text in train], goals, samples, STRENGTH)
        return cls(_probes_of(train), features, chosen)

    def read(self, text: Text) -> _Read:
        """What they say of a text."""
        told = None
        if self.features is not None and self.chosen is not None:
            active = self.chosen.activations(self.features, text.read)
            told = self.chosen.log_odds(active, np.cumsum(active @ self.chosen.mean, axis=0), 0)
        return *_read(self.linear, text), told


def fit_probes(
    train: Sequence[Text], items: Sequence[Item], seed: int, features: Features | None, task: Any
) -> tuple[Probed, list[_Read]]:
    """Probes of all training texts; and what those give that were fitted without a text's fold."""
    groups = [origin(items[text.item]) for text in train]
    fold = folds(groups, classes(train, groups), FOLDS, seed)
    held_out: list[_Read | None] = [None] * len(train)
    for k in range(FOLDS):
        probes = Probed.of([text for text, f in zip(train, fold, strict=True) if f != k], features)
        for i in np.flatnonzero(fold == k).tolist():
            held_out[i] = probes.read(train[i])
    probes = Probed.of(train, features)
    task.advance(len(TARGETS))
    return probes, [read for read in held_out if read is not None]


def _probes_of(train: Sequence[Text]) -> Probes:
    samples = [_spread(len(text.signals)) for text in train]
    goals = np.concatenate([step_targets(text)[at] for text, at in zip(train, samples, strict=True)])
    layers, width = train[0].residual.shape[1:]
    now, mean = np.zeros((2, layers, width, len(TARGETS)))
    bias = np.zeros((layers, len(TARGETS)))
    for layer in range(layers):
        x = np.concatenate(
            [_with_mean(text.residual[:, layer])[at] for text, at in zip(train, samples, strict=True)]
        )
        for t in range(len(TARGETS)):
            probe = _probe(x, goals[:, t])
            now[layer, :, t], mean[layer, :, t] = np.split(probe.weight[0], 2)
            bias[layer, t] = probe.bias[0]
    heard_x = np.concatenate(
        [text.heard[at].astype(np.float32) for text, at in zip(train, samples, strict=True)]
    )
    heard = [_probe(heard_x, goals[:, t]) for t in range(len(TARGETS))]
    whole = np.stack([text.window for text in train])
    marks = np.stack([marks_of(text) for text in train])
    window = [_probe(whole, marks[:, t]) for t in range(len(TARGETS))]
    return Probes(
        now, mean, bias,
        np.stack([p.weight[0] for p in heard], axis=1), np.array([p.bias[0] for p in heard]),
        np.stack([p.weight[0] for p in window], axis=1), np.array([p.bias[0] for p in window]),
    )  # fmt: skip


def marks_of(text: Text) -> np.ndarray:
    """`(target,)`: 1, 0 or NaN."""
    return np.array([np.nan if (v := getattr(text.verdict, t)) is None else float(v) for t in TARGETS])


def _with_mean(stream: np.ndarray) -> np.ndarray:
    """The stream `(step, d)` and its mean so far, side by side, `(step, 2 d)`."""
    x = stream.astype(np.float32)
    return np.concatenate([x, np.cumsum(x, axis=0) / np.arange(1, len(x) + 1)[:, None]], axis=1)


def _probe(x: np.ndarray, y: np.ndarray) -> LinearProbe:
    kept = ~np.isnan(y)
    return fit_probe(x[kept], y[kept].astype(int), ("no", "yes"), STRENGTH)


def _read(probes: Probes, text: Text) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    layered = text.residual.astype(np.float64).transpose(1, 0, 2)
    counts = np.arange(1, len(text.signals) + 1)[None, :, None]
    stream = layered @ probes.now + np.cumsum(layered @ probes.mean, axis=1) / counts + probes.bias[:, None]
    heard = text.heard.astype(np.float64) @ probes.heard + probes.heard_bias
    return stream.transpose(1, 0, 2), heard, text.window @ probes.window + probes.window_bias


# Families by themselves -------------------------------------------------------------------------------------------------


def family_scores(
    inputs: Mapping[str, Sequence[np.ndarray]],
    goals: Mapping[str, Sequence[np.ndarray]],
    layers: int,
    featured: bool,
) -> dict[str, dict[str, list[np.ndarray]]]:
    """What single families of inputs tell by a logistic regression of each step: by name and part, `(step, target)` a text."""
    targets = len(TARGETS)
    first = len(SIGNALS)
    columns = {
        "token statistics": [SIGNALS.index(name) for name in TOKEN_SIGNALS],
        "repetition of tokens": [SIGNALS.index(name) for name in TEXT_SIGNALS],
        "cross-attention": [SIGNALS.index(name) for name in ATTENTION_SIGNALS],
        **{
            f"residual stream, layer {n}": [first + n * targets + t for t in range(targets)]
            for n in range(layers)
        },
        "residual stream, all layers": list(range(first, first + layers * targets)),
        "encoder": list(range(first + layers * targets, first + (layers + 2) * targets)),
    }
    if featured:
        columns["dictionary features"] = [first + (layers + 2) * targets + t for t in range(targets)]
    steps = np.concatenate([x[_spread(len(x))] for x in inputs["train"]])
    wanted = np.concatenate([y[_spread(len(y))] for y in goals["train"]])
    out: dict[str, dict[str, list[np.ndarray]]] = {}
    for name, chosen in columns.items():
        fits = [_probe(steps[:, chosen], wanted[:, t]) for t in range(targets)]
        out[name] = {
            part: [np.concatenate([p.scores(x[:, chosen]) for p in fits], axis=1) for x in kept]
            for part, kept in inputs.items()
        }
    return out


def _spread(steps: int) -> np.ndarray:
    """Steps of a text that are learnt from."""
    return np.unique(np.linspace(0, steps - 1, min(STEPS, steps)).round().astype(int))
