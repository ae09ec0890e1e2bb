"""What a monitor is worth on texts that chose nothing: AUC and F1 beside its parts and beside baselines, false alarms, delay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from otoscope.corpora import Item
from otoscope.monitors.baselines import baseline_scores
from otoscope.monitors.collecting import Text
from otoscope.monitors.monitor import calibrated, joined_risk
from otoscope.monitors.verdicts import TARGETS, loop_onset
from otoscope.outcomes import Rate, bootstrap
from otoscope.probes.scoring import auc, auc_interval

if TYPE_CHECKING:
    from otoscope.monitors.fitting import FitOptions, Fitted

MONITOR = "monitor"
"""Name of the monitor's own line."""


def report(fitted: Fitted, items: Sequence[Item], options: FitOptions) -> dict[str, Any]:
    """Try a monitor on its test part.

    Returns:
        `targets`: for each target a line a scorer, with `auc`, `f1` at the threshold that is best on the calibrating part, and
        95 % intervals over sentences; `false_alarms` on ordinary speech; `delay` in tokens from the second copy of a loop to the
        alarm; `detected`, the share of bad texts with an alarm.
    """
    from otoscope.monitors.fitting import origin

    parts = {name: fitted.parts[name] for name in ("calibrate", "test")}
    groups = np.unique([origin(items[t.item]) for t in parts["test"]], return_inverse=True)[1]
    outside = {
        name: baseline_scores([t.facts for t in texts], [items[t.item] for t in texts])
        for name, texts in parts.items()
    }
    targets = {}
    for t, target in enumerate(TARGETS):
        scorers = {MONITOR: {name: [x[:, t].max() for x in fitted.scores[name]] for name in parts}}
        for family, scores in fitted.family.items():
            scorers[family] = {name: [x[:, t].max() for x in scores[name]] for name in parts}
        lines = [
            _line(name, "inside", {p: np.array(v) for p, v in of.items()}, parts, target, groups)
            for name, of in scorers.items()
        ]
        lines += [
            _line(name, "outside", {p: outside[p][name] for p in parts}, parts, target, groups)
            for name in outside["test"]
        ]
        told = [getattr(text.verdict, target) for text in parts["test"]]
        targets[target] = {"yes": told.count(True), "no": told.count(False), "scorers": lines}
    return {
        "targets": targets,
        "seed": options.seed,
        "asked_false_alarms": options.false_alarms,
        **_alarms(fitted, parts["test"]),
    }


def _line(
    name: str,
    kind: str,
    scores: dict[str, np.ndarray],
    parts: dict[str, list[Text]],
    target: str,
    groups: np.ndarray,
) -> dict[str, Any]:
    """One scorer and one target."""
    kept, y, x = {}, {}, {}
    for part, texts in parts.items():
        told = np.array([-1 if (v := getattr(t.verdict, target)) is None else int(v) for t in texts])
        kept[part] = told >= 0
        y[part], x[part] = told[kept[part]], scores[part][kept[part]]
    threshold = best_f1_threshold(y["calibrate"], x["calibrate"])
    rung = x["test"] >= threshold
    groups = groups[kept["test"]]
    low, high = auc_interval(y["test"], x["test"], groups)
    f1_low, f1_high = bootstrap(f1, y["test"], rung, groups=list(groups))
    return {
        "name": name, "kind": kind, "auc": auc(y["test"], x["test"]), "ci_low": low, "ci_high": high,
        "f1": f1(y["test"], rung), "f1_low": f1_low, "f1_high": f1_high, "n": len(y["test"]),
    }  # fmt: skip


def f1(y: np.ndarray, rung: np.ndarray) -> float:
    """Harmonic mean of precision and recall; NaN without a bad text."""
    hits = float(np.sum((y == 1) & rung))
    total = float(np.sum(y == 1) + np.sum(rung))
    return 2 * hits / total if np.sum(y == 1) else float("nan")


def best_f1_threshold(y: np.ndarray, scores: np.ndarray) -> float:
    """The score from which on F1 is greatest."""
    candidates = np.unique(scores)
    return float(candidates[int(np.argmax([f1(y, scores >= c) for c in candidates]))])


def _alarms(fitted: Fitted, test: Sequence[Text]) -> dict[str, Any]:
    monitor = fitted.monitor
    risks = [joined_risk(calibrated(x, monitor.slope, monitor.offset)) for x in fitted.scores["test"]]
    first = [
        int(np.argmax(r >= monitor.threshold)) if (r >= monitor.threshold).any() else None for r in risks
    ]
    ordinary = [a is not None for a, t in zip(first, test, strict=True) if t.verdict.ordinary]
    loops = [(t, a) for t, a in zip(test, first, strict=True) if t.verdict.loop]
    delays = [a - onset for t, a in loops if a is not None and (onset := loop_onset(t.tokens)) is not None]
    invented = [a is not None for t, a in zip(test, first, strict=True) if t.verdict.invented]
    return {
        "threshold": monitor.threshold,
        "false_alarms": Rate.of(ordinary).to_dict(),
        "detected": {
            "invented": Rate.of(invented).to_dict(),
            "loop": Rate.of([a is not None for _, a in loops]).to_dict(),
        },
        "delay": {
            "n": len(delays),
            "median": float(np.median(delays)) if delays else None,
            "quartiles": [float(q) for q in np.quantile(delays, [0.25, 0.75])] if delays else None,
        },
    }
