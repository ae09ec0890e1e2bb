"""What a monitor is worth on texts that chose nothing: AUC and F1 beside its parts and beside baselines, false alarms, delay."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from otoscope.corpora import Item
from otoscope.monitors.baselines import baseline_scores
from otoscope.monitors.collecting import Text
from otoscope.monitors.dividing import origin
from otoscope.monitors.scoring import calibrated, joined_risk
from otoscope.monitors.verdicts import TARGETS, loop_onset
from otoscope.outcomes import Rate, bootstrap, compression_ratio, is_loop
from otoscope.probes.scoring import auc, auc_interval

if TYPE_CHECKING:
    from otoscope.monitors.fitting import FitOptions, Fitted

MONITOR = "monitor"
"""Name of the monitor's own line: of whole texts in hindsight, of beginning ones the highest of the steps shown."""

WRITING = "monitor, while writing"
"""The highest of all steps of a whole text: what made it ring, and is never taken back."""

DETECTOR = "loop detector"
"""What finds loops in the labels: for loops it is the truth but for those that were said, so it is no baseline."""

SOON = 12
"""Tokens after the beginning of a loop's second copy by which an alarm should have come."""

EARLY = "loop, early"
"""The target `loop` once more, with loops cut off `SOON` tokens into their second copy, everything else whole."""

Decode = Callable[[list[int]], str]
"""From tokens to text."""


def report(fitted: Fitted, items: Sequence[Item], options: FitOptions, decode: Decode) -> dict[str, Any]:
    """Try a monitor on its test part.

    Returns:
        `targets`: for each target, and for `EARLY`, a line a scorer, with `auc`, `f1` at the threshold that is best on the
        calibrating part, and 95 % intervals over sentences; `false_alarms` on ordinary speech; `hindsight`, the share of ordinary
        speech and of bad texts that are doubtful once written; `delay` in tokens from the second copy of a loop to the alarm;
        `detected`, the share of bad texts with an alarm, and of loops with one no more than `SOON` tokens into their second copy.
    """
    parts = {name: fitted.parts[name] for name in ("calibrate", "test")}
    groups = np.unique([origin(items[t.item]) for t in parts["test"]], return_inverse=True)[1]
    targets = {}
    for name, target in (*((t, t) for t in TARGETS), (EARLY, "loop")):
        steps = {p: [_known(text, name) for text in texts] for p, texts in parts.items()}
        scores = _inside(fitted, steps, TARGETS.index(target))
        if name != EARLY:
            scores[WRITING] = scores[MONITOR]
            scores[MONITOR] = {p: fitted.hindsight[p][:, TARGETS.index(target)] for p in parts}
        lines = [_line(n, "inside", of, parts, target, groups) for n, of in scores.items()]
        scores = _outside(parts, steps, items, decode)
        detector = scores.pop(DETECTOR)
        lines += [_line(n, "outside", of, parts, target, groups) for n, of in scores.items()]
        lines.append(_line(DETECTOR, "label", detector, parts, target, groups))
        told = [getattr(text.verdict, target) for text in parts["test"]]
        targets[name] = {"yes": told.count(True), "no": told.count(False), "scorers": lines}
    return {
        "targets": targets,
        "seed": options.seed,
        "asked_false_alarms": options.false_alarms,
        **_alarms(fitted, parts["test"]),
    }


def over_divisions(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What of a report is chance: its figures over several divisions of the same texts, each with a monitor of its own.

    The divisions share their texts, so that their spread is less than that among corpora; it says how much hangs on which texts
    happened to be tested.

    Returns:
        `seeds`; and `targets`: for each a line a scorer, `auc` and `f1` the means, `auc_sd` and `f1_sd` the standard deviations,
        and `auc_beaten` and `f1_beaten` the share of divisions in which the monitor does better (a tie counts half).
    """
    targets = {}
    for target in reports[0]["targets"]:
        each = [{line["name"]: line for line in told["targets"][target]["scorers"]} for told in reports]
        names = [name for name in each[0] if all(name in lines for lines in each)]
        targets[target] = [
            {"name": name, "kind": each[0][name]["kind"]}
            | _spread("auc", [(lines[MONITOR]["auc"], lines[name]["auc"]) for lines in each])
            | _spread("f1", [(lines[MONITOR]["f1"], lines[name]["f1"]) for lines in each])
            for name in names
        ]
    return {"seeds": [told["seed"] for told in reports], "targets": targets}


def _spread(of: str, pairs: Sequence[tuple[float, float]]) -> dict[str, float]:
    """Of the figures of the monitor and of another scorer."""
    ours, theirs = np.array(pairs).T
    beaten = np.mean((ours > theirs) + 0.5 * (ours == theirs))
    return {of: float(theirs.mean()), f"{of}_sd": float(theirs.std(ddof=1)), f"{of}_beaten": float(beaten)}


_Scores = dict[str, dict[str, np.ndarray]]
"""By scorer and part, `(text,)`."""


def _known(text: Text, target: str) -> int:
    """How many tokens of a text a scorer is shown."""
    onset = loop_onset(text.tokens) if target == EARLY and text.verdict.loop else None
    return len(text.tokens) + 1 if onset is None else onset + SOON


def _inside(fitted: Fitted, steps: Mapping[str, Sequence[int]], t: int) -> _Scores:
    """The highest logit among the steps that are shown."""
    return {
        name: {p: np.array([x[:n, t].max() for x, n in zip(of[p], steps[p], strict=True)]) for p in steps}
        for name, of in {MONITOR: fitted.scores, **fitted.family}.items()
    }


def _outside(
    parts: Mapping[str, Sequence[Text]],
    steps: Mapping[str, Sequence[int]],
    items: Sequence[Item],
    decode: Decode,
) -> _Scores:
    """Baselines of the text as far as it is shown; what is averaged over the whole text stays what it is."""
    found: _Scores = {}
    for part, texts in parts.items():
        facts = []
        for text, n in zip(texts, steps[part], strict=True):
            cut = {}
            if n < len(text.tokens):
                written = decode(text.tokens[:n])
                cut = {
                    "written": written,
                    "tokens": text.tokens[:n],
                    "compression_ratio": compression_ratio(written),
                }
            facts.append(text.facts | cut)
        told = baseline_scores(facts, [items[t.item] for t in texts])
        told[DETECTOR] = np.array(
            [is_loop(f["written"], language=f["language_written"]) for f in facts], dtype=float
        )
        for name, scores in told.items():
            found.setdefault(name, {})[part] = scores
    return found


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
    bad = y == 1
    hits, n = np.count_nonzero(bad & rung), np.count_nonzero(bad)
    return 2 * hits / (n + np.count_nonzero(rung)) if n else float("nan")


def best_f1_threshold(y: np.ndarray, scores: np.ndarray) -> float:
    """The score from which on F1 is greatest."""
    candidates = np.unique(scores)
    return float(candidates[int(np.argmax([f1(y, scores >= c) for c in candidates]))])


def _alarms(fitted: Fitted, test: Sequence[Text]) -> dict[str, Any]:
    monitor = fitted.monitor
    risks = [joined_risk(calibrated(x, monitor.slope, monitor.offset)) for x in fitted.scores["test"]]
    doubted = joined_risk(calibrated(fitted.hindsight["test"])) >= monitor.hindsight.threshold
    first = [
        int(np.argmax(r >= monitor.threshold)) if (r >= monitor.threshold).any() else None for r in risks
    ]
    ordinary = [a is not None for a, t in zip(first, test, strict=True) if t.verdict.ordinary]
    loops = [(t, a) for t, a in zip(test, first, strict=True) if t.verdict.loop]
    delays = [a - onset for t, a in loops if a is not None and (onset := loop_onset(t.tokens)) is not None]
    invented = [a is not None for t, a in zip(test, first, strict=True) if t.verdict.invented]
    soon = [a is not None and a <= (loop_onset(t.tokens) or 0) + SOON for t, a in loops]
    return {
        "threshold": monitor.threshold,
        "false_alarms": Rate.of(ordinary).to_dict(),
        "hindsight": {
            "threshold": monitor.hindsight.threshold,
            "false_alarms": Rate.of(doubted[[t.verdict.ordinary for t in test]].tolist()).to_dict(),
            **{
                name: Rate.of(doubted[[bool(getattr(t.verdict, name)) for t in test]].tolist()).to_dict()
                for name in TARGETS
            },
        },
        "detected": {
            "invented": Rate.of(invented).to_dict(),
            "loop": Rate.of([a is not None for _, a in loops]).to_dict(),
            "loop, early": Rate.of(soon).to_dict(),
        },
        "delay": {
            "n": len(delays),
            "median": float(np.median(delays)) if delays else None,
            "quartiles": [float(q) for q in np.quantile(delays, [0.25, 0.75])] if delays else None,
        },
    }
