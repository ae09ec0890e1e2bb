"""What a monitor says of a text once it is written: its own steps together with what the whole text tells.

While a text is being written the highest risk so far is all there is, and it never takes back what it said. Afterwards more is
known: how the text ended, how long it is, how well it compresses. `Hindsight` is a logistic of such facts, one a target, fitted
on the texts that calibrate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from otoscope.monitors.scoring import calibrated, joined_risk
from otoscope.monitors.signals import LONGEST
from otoscope.monitors.thresholds import conformal_threshold
from otoscope.monitors.verdicts import TARGETS
from otoscope.outcomes import loop_signs
from otoscope.progress import notice

if TYPE_CHECKING:
    from otoscope.models.transcripts import Segment, Transcript

FACTS = ("highest", "last", "compression", "tokens", "repeated", "loop")
"""What there is to look at: log-odds of the highest and of the last step, and the logarithms of the text's compression ratio, of
its tokens and of the longest run of repeated words, and whether `LoopSigns.is_loop` finds a loop in it, said or not."""

USED = {"invented": ("last",), "loop": FACTS}
"""What is looked at, by target; other facts are 0. Chosen, with the strength, by the log-loss over folds of the calibrating parts
that the shipped monitors were fitted with."""

STRENGTH = 1.0
"""Inverse regularisation, of standardised facts."""

FOLDS = 5
"""Folds by which the texts that it is fitted on are told what one that never saw them says."""

_LEAST = 1e-9  # of a probability, so that its log-odds are finite


@dataclass(frozen=True, eq=False)
class Hindsight:
    """The fitted logistic.

    Attributes:
        weights: `(target, fact)`.
        bias: `(target,)`.
        ordinary: Risks of texts of ordinary speech, ascending, each by a fit that had not seen it.
        threshold: Risk from which a written text is doubtful.
    """

    weights: np.ndarray
    bias: np.ndarray
    ordinary: np.ndarray
    threshold: float

    def log_odds(self, facts: np.ndarray) -> np.ndarray:
        """Of each target, of facts `(..., target, fact)`."""
        return (facts * self.weights).sum(axis=-1) + self.bias

    def parts(self, steps: Sequence[Sequence[float]], told: Mapping[str, Any]) -> np.ndarray:
        """Probability of each target, `(target,)`; see `facts_of_text`."""
        return calibrated(self.log_odds(facts_of_text(np.asarray(steps), told)))

    def at(self, false_alarm_rate: float) -> Hindsight:
        """The same with the threshold for another rate of false alarms."""
        return replace(self, threshold=conformal_threshold(self.ordinary, false_alarm_rate))


def facts_of_text(steps: np.ndarray, told: Mapping[str, Any]) -> np.ndarray:
    """Facts of one written text, `(target, fact)`, float64.

    Args:
        steps: Probability of each target at each step, `(step, target)`; at least one step. Those beyond `LONGEST`, of which
            fitting keeps nothing, are not looked at.
        told: `written`, `language_written`, `tokens`, `compression_ratio`.
    """
    odds = _log_odds(steps[:LONGEST])
    signs = loop_signs(told["written"], language=told["language_written"])
    repetition = [
        np.log(max(told["compression_ratio"], 0.1)),
        np.log1p(len(told["tokens"])),
        np.log1p(signs.run_length or 0),
        float(signs.is_loop),
    ]
    every = np.array([[odds[:, t].max(), odds[-1, t], *repetition] for t in range(len(TARGETS))])
    return np.where(_USED, every, 0.0)


_USED = np.array([[fact in USED[target] for fact in FACTS] for target in TARGETS])


def told_of_segment(transcript: Transcript, segment: Segment) -> dict[str, Any]:
    """What `facts_of_text` is told of a segment that is one decoding window."""
    return {
        "written": segment.text,
        "language_written": transcript.language,
        "tokens": transcript.ids[segment.first_token : segment.end_token],
        "compression_ratio": segment.compression_ratio,
    }


def fit_hindsight(
    facts: np.ndarray,
    marks: np.ndarray,
    ordinary: np.ndarray,
    groups: np.ndarray,
    false_alarms: float,
    seed: int = 0,
) -> tuple[Hindsight, np.ndarray]:
    """Fit it to the texts that calibrate.

    Args:
        facts: `(text, target, fact)`.
        marks: Truth, `(text, target)`; NaN where nobody knows.
        ordinary: Which texts are ordinary speech, `(text,)`.
        groups: Texts of one group lie in one fold, `(text,)`.
        false_alarms: Share of ordinary speech that may be doubtful.
        seed: Of the folds.

    Returns:
        It, and the log-odds `(text, target)` of each text by fits that had not seen it.
    """
    weights, bias = np.zeros(facts.shape[1:]), np.zeros(facts.shape[1])
    held_out = np.empty(marks.shape)
    shuffled = np.random.default_rng(seed).permutation(np.unique(groups))
    parts = np.array_split(shuffled, min(FOLDS, len(shuffled)))
    for t in range(marks.shape[1]):
        weights[t], bias[t] = _logistic(facts[:, t], marks[:, t])
        for part in parts:
            out = np.isin(groups, part)
            if len(np.unique(marks[~out, t][~np.isnan(marks[~out, t])])) < 2:
                notice(
                    f"All texts with one answer for {TARGETS[t]!r} share a fold: hindsight is set by the last step there."
                )
            w, b = _logistic(facts[~out, t], marks[~out, t])
            held_out[out, t] = facts[out, t] @ w + b
    risks = np.sort(joined_risk(calibrated(held_out[ordinary])))
    return Hindsight(weights, bias, risks, conformal_threshold(risks, false_alarms)), held_out


def _logistic(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, float]:
    """Weights and bias of raw facts; the last step alone where only one answer is known."""
    from sklearn.linear_model import LogisticRegression

    known = ~np.isnan(y)
    if len(np.unique(y[known])) < 2:
        return np.eye(x.shape[1])[FACTS.index("last")], 0.0
    x, y = x[known], y[known]
    mean, scale = x.mean(axis=0), np.maximum(x.std(axis=0), 1e-6)
    fit = LogisticRegression(C=STRENGTH, max_iter=1000).fit((x - mean) / scale, y)
    w = fit.coef_[0] / scale
    return w, float(fit.intercept_[0] - w @ mean)


def _log_odds(p: np.ndarray) -> np.ndarray:
    p = np.clip(p, _LEAST, 1 - _LEAST)
    return np.log(p) - np.log1p(-p)
