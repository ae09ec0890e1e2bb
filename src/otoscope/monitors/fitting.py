"""Fitting a monitor: probes, a recurrent head over them and the signals, calibration, a threshold, and a report beside baselines.

A corpus is divided into three parts that share no sentence: `train` for probes and head, `calibrate` for the calibration, for the
threshold and for what the baselines need to be chosen by, and `test`, which chooses nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from otoscope.corpora import Item, folds, split
from otoscope.corpora.splitting import without_texts
from otoscope.errors import ManifestError
from otoscope.models.transcripts import DecodeOptions
from otoscope.monitors.collecting import Text, collect
from otoscope.monitors.monitor import (
    Monitor,
    Probes,
    calibrated,
    check_rate,
    conformal_threshold,
    facts_of,
    inputs_of,
    joined_risk,
)
from otoscope.monitors.recurrent import fit_recurrent
from otoscope.monitors.verdicts import TARGETS, loop_onset
from otoscope.probes.linear import LinearProbe, fit_probe
from otoscope.progress import notice, track
from otoscope.versions import versions

if TYPE_CHECKING:
    from otoscope.models.whisper import SpeechModel

SHARES = {"train": 0.5, "calibrate": 0.2, "test": 0.3}

STEPS = 16
"""Steps of each text that probes learn from, spread evenly."""

FOLDS = 4
"""Folds by which probes give the head's training texts log-odds of probes that never saw them."""

LEAST = 8
"""Texts of each kind that a target needs in training."""

STRENGTH = 0.003
"""Inverse regularisation of the probes."""


@dataclass(frozen=True)
class FitOptions:
    """How a monitor is fitted.

    Attributes:
        false_alarms: Share of ordinary speech on which it may ring.
        seed: Of the parts, the folds and the head.
        language: To decode in; None: each recording's own, else detected.
        exclude: A corpus whose texts are kept out of all parts.
    """

    false_alarms: float = 0.05
    seed: int = 0
    language: str | None = None
    exclude: str | None = None


@dataclass(frozen=True, eq=False)
class Fitted:
    """A monitor and what it was tried on.

    Attributes:
        monitor: The monitor.
        parts: Texts by part.
        scores: Logits of each step by text, for each part, from the head.
        family: Logits from single families, by name: for each part, target and text, `(step,)`.
    """

    monitor: Monitor
    parts: dict[str, list[Text]]
    scores: dict[str, list[np.ndarray]]
    family: dict[str, dict[str, list[np.ndarray]]]


def fit_monitor(
    model: SpeechModel,
    items: Sequence[Item],
    out: Path | str,
    options: FitOptions | None = None,
    batch: int | None = None,
) -> tuple[Monitor, dict[str, Any]]:
    """Fit a monitor to a model, and try it on texts it has not seen.

    Args:
        model: The recogniser.
        items: Recordings: ordinary speech with its text, sounds in which nobody speaks, and whatever makes the model loop.
        out: Folder for the monitor; what the model does is kept in `out/steps`.
        options: How to fit.
        batch: Windows at once.

    Returns:
        The monitor, saved in `out`, and its report, see `otoscope.monitors.judging.report`.

    Raises:
        ManifestError: There is too little of one kind of text.
        OptionError: The false-alarm rate is not between 0 and 1.
    """
    from otoscope.monitors.judging import report

    options, out = options or FitOptions(), Path(out)
    check_rate(options.false_alarms)  # before any work
    items = _distinct(items, options)
    texts = collect(model, items, out / "steps", DecodeOptions(language=options.language), batch)
    fitted = fit(model, items, texts, options)
    told = report(fitted, items, options, lambda ids: model.tokenizer.decode(ids, skip_special_tokens=True))
    monitor = replace(fitted.monitor, about=fitted.monitor.about | {"report": told})
    monitor.save(out)
    return monitor, told


def _distinct(items: Sequence[Item], options: FitOptions) -> list[Item]:
    from otoscope.corpora import items as items_of

    kept = list(items)
    if options.exclude:
        kept = without_texts(kept, items_of(options.exclude))
    if not kept:
        raise ManifestError("There are no recordings to learn from.", "Name a manifest.")
    return kept


def origin(item: Item) -> str:
    """What must not be in two parts: the sentence, or what is said again and again; without either its source, else itself."""
    if item.labels.get("unit"):
        return str(item.labels["unit"]).casefold()
    if item.text:
        return " ".join(item.text.casefold().split())
    return str(item.labels.get("source") or item.audio_filepath)


def fit(model: SpeechModel, items: Sequence[Item], texts: Sequence[Text], options: FitOptions) -> Fitted:
    """Fit a monitor to collected texts."""
    parts = _divided(items, texts, options.seed)
    _require(parts["train"])
    with track("Fitting", 2 * len(TARGETS), "targets") as task:
        probes, held_out = _fit_probes(parts["train"], items, options.seed, task)
        inputs = {part: [_inputs(probes, text) for text in kept] for part, kept in parts.items()}
        inputs["train"] = [
            inputs_of(text.signals, *read) for text, read in zip(parts["train"], held_out, strict=True)
        ]
        goals = {part: [step_targets(text) for text in kept] for part, kept in parts.items()}
        head = fit_recurrent(inputs["train"], goals["train"], _weights(goals["train"]), options.seed)
        scores = {part: [head.advance(head.start(), x)[1] for x in kept] for part, kept in inputs.items()}
        family = _families(inputs, goals, probes.bias.shape[0])
        task.advance(len(TARGETS))
    slope, offset = calibration(scores["calibrate"], parts["calibrate"])
    risks = [peak_risk(x, slope, offset) for x in scores["calibrate"]]
    ordinary = np.array(
        [r for r, text in zip(risks, parts["calibrate"], strict=True) if text.verdict.ordinary]
    )
    if not len(ordinary):
        raise ManifestError(
            "There is no ordinary speech to choose the threshold by.", "Add recordings with their texts."
        )
    monitor = Monitor(
        dict(facts_of(model)), tuple(range(probes.bias.shape[0])), probes, head, slope, offset,
        conformal_threshold(ordinary, options.false_alarms), options.false_alarms, np.sort(ordinary),
        {
            "options": asdict(options) | {"exclude": Path(options.exclude).name if options.exclude else None},
            "texts": {part: len(kept) for part, kept in parts.items()},
            "ordinary_calibrate": len(ordinary),
            "versions": versions(),
        },
    )  # fmt: skip
    return Fitted(monitor, parts, scores, family)


def _divided(items: Sequence[Item], texts: Sequence[Text], seed: int) -> dict[str, list[Text]]:
    """Texts by part; each part has its share of what is to be told apart."""
    labelled = [
        replace(items[t.item], labels={"origin": origin(items[t.item]), "kind": _kind(t)}) for t in texts
    ]
    names = split(labelled, SHARES, "origin", "kind", seed)
    return {part: [t for t, name in zip(texts, names, strict=True) if name == part] for part in SHARES}


def _kind(text: Text) -> str:
    v = text.verdict
    return f"{v.invented} {v.loop} {v.ordinary}"


def _require(train: Sequence[Text]) -> None:
    for target in TARGETS:
        told = [getattr(text.verdict, target) for text in train]
        if min(told.count(True), told.count(False)) < LEAST:
            raise ManifestError(
                f"Of the texts to learn from {told.count(True)} are {_ADJECTIVE[target]} and {told.count(False)} are not; "
                f"{LEAST} of each are needed.",
                "Add recordings: `otoscope corpus make nonspeech`, `loops` and `prompts` make some.",
            )


_ADJECTIVE = {"invented": "invented", "loop": "loops"}


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


def _weights(goals: Sequence[np.ndarray]) -> np.ndarray:
    """`(text, target)`: both answers of a target count the same in all, but none more than ten times the other."""
    positive = np.stack([np.nanmax(np.nan_to_num(goal, nan=-1.0), axis=0) for goal in goals])
    out = np.zeros(positive.shape)
    for t in range(positive.shape[1]):
        counts = {code: max(int((positive[:, t] == code).sum()), 1) for code in (0.0, 1.0)}
        for code, count in counts.items():
            out[positive[:, t] == code, t] = min(len(goals) / (2 * count), 10.0)
    return out


# Probes -----------------------------------------------------------------------------------------------------------------

_Read = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Log-odds of the probes of the stream `(step, layer, probe)`, of what is heard `(step, probe)`, of the window `(probe,)`."""


def _fit_probes(
    train: Sequence[Text], items: Sequence[Item], seed: int, task: Any
) -> tuple[Probes, list[_Read]]:
    """Probes of all training texts; and what those give that were fitted without a text's fold."""
    groups = [origin(items[text.item]) for text in train]
    fold = folds(groups, [_kind(text) for text in train], FOLDS, seed)
    held_out: list[_Read | None] = [None] * len(train)
    for k in range(FOLDS):
        probes = _probes_of([text for text, f in zip(train, fold, strict=True) if f != k])
        for i in np.flatnonzero(fold == k).tolist():
            held_out[i] = _read(probes, train[i])
    probes = _probes_of(train)
    task.advance(len(TARGETS))
    return probes, [read for read in held_out if read is not None]


def _probes_of(train: Sequence[Text]) -> Probes:
    samples = [_sampled(text) for text in train]
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
    marks = np.stack([_of_text(text) for text in train])
    window = [_probe(whole, marks[:, t]) for t in range(len(TARGETS))]
    return Probes(
        now, mean, bias,
        np.stack([p.weight[0] for p in heard], axis=1), np.array([p.bias[0] for p in heard]),
        np.stack([p.weight[0] for p in window], axis=1), np.array([p.bias[0] for p in window]),
    )  # fmt: skip


def _of_text(text: Text) -> np.ndarray:
    """`(target,)`: 1, 0 or NaN."""
    return np.array([np.nan if (v := getattr(text.verdict, t)) is None else float(v) for t in TARGETS])


def _sampled(text: Text) -> np.ndarray:
    steps = len(text.signals)
    return np.unique(np.linspace(0, steps - 1, min(STEPS, steps)).round().astype(int))


def _with_mean(stream: np.ndarray) -> np.ndarray:
    """The stream `(step, d)` and its mean so far, side by side, `(step, 2 d)`."""
    x = stream.astype(np.float32)
    return np.concatenate([x, np.cumsum(x, axis=0) / np.arange(1, len(x) + 1)[:, None]], axis=1)


def _probe(x: np.ndarray, y: np.ndarray) -> LinearProbe:
    kept = ~np.isnan(y)
    return fit_probe(x[kept], y[kept].astype(int), ("no", "yes"), STRENGTH)


def _read(probes: Probes, text: Text) -> _Read:
    layered = text.residual.astype(np.float64).transpose(1, 0, 2)
    counts = np.arange(1, len(text.signals) + 1)[None, :, None]
    stream = layered @ probes.now + np.cumsum(layered @ probes.mean, axis=1) / counts + probes.bias[:, None]
    heard = text.heard.astype(np.float64) @ probes.heard + probes.heard_bias
    return stream.transpose(1, 0, 2), heard, text.window @ probes.window + probes.window_bias


def _inputs(probes: Probes, text: Text) -> np.ndarray:
    return inputs_of(text.signals, *_read(probes, text))


# Families by themselves -------------------------------------------------------------------------------------------------


def _families(
    inputs: Mapping[str, Sequence[np.ndarray]], goals: Mapping[str, Sequence[np.ndarray]], layers: int
) -> dict[str, dict[str, list[np.ndarray]]]:
    """What single families of inputs tell by a logistic regression of each step: by name and part, `(step, target)` a text."""
    from otoscope.monitors.signals import ATTENTION_SIGNALS, SIGNALS, TEXT_SIGNALS, TOKEN_SIGNALS

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
    return np.unique(np.linspace(0, steps - 1, min(STEPS, steps)).round().astype(int))


# Calibration ------------------------------------------------------------------------------------------------------------


def calibration(scores: Sequence[np.ndarray], texts: Sequence[Text]) -> tuple[np.ndarray, np.ndarray]:
    """Slope and offset of each target, by the highest logit of each text (Platt 1999); the slope stays positive."""
    from sklearn.linear_model import LogisticRegression

    slope, offset = np.ones(len(TARGETS)), np.zeros(len(TARGETS))
    for t in range(len(TARGETS)):
        marks = np.array([_of_text(text)[t] for text in texts])
        peaks = np.array([x[:, t].max() for x in scores])
        kept = ~np.isnan(marks)
        if len(np.unique(marks[kept])) < 2:
            notice(f"No {_ADJECTIVE[TARGETS[t]]} texts to calibrate by: the risk is the head's own.")
            continue
        fit = LogisticRegression(C=1.0).fit(peaks[kept, None], marks[kept])
        slope[t], offset[t] = max(float(fit.coef_[0, 0]), 1e-3), float(fit.intercept_[0])
    return slope, offset


def peak_risk(logits: np.ndarray, slope: np.ndarray, offset: np.ndarray) -> float:
    """Risk of a text: the highest of its steps."""
    return float(joined_risk(calibrated(logits, slope, offset)).max())
