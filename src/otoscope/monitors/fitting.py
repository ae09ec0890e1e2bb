"""Fitting a monitor: probes, a recurrent head over them and the signals, calibration, a threshold, and a report beside baselines.

A corpus is divided into three parts that share no sentence: `train` for probes and head, `calibrate` for the calibration, for the
threshold and for what the baselines need to be chosen by, and `test`, which chooses nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from otoscope.corpora import Item
from otoscope.corpora.splitting import without_texts
from otoscope.errors import ManifestError, OptionError
from otoscope.models.transcripts import DecodeOptions
from otoscope.monitors.collecting import Text, collect
from otoscope.monitors.dividing import divided, origin, require_enough, require_possible
from otoscope.monitors.features import Features, reads_of
from otoscope.monitors.hindsight import facts_of_text, fit_hindsight
from otoscope.monitors.inputs import family_scores, fit_probes, marks_of, step_targets
from otoscope.monitors.monitor import Monitor, facts_of
from otoscope.monitors.recurrent import fit_recurrent
from otoscope.monitors.scoring import calibrated, inputs_of, joined_risk
from otoscope.monitors.thresholds import check_rate, conformal_threshold
from otoscope.monitors.verdicts import TARGETS
from otoscope.progress import Silence, notice, reporting_to, track
from otoscope.versions import versions

if TYPE_CHECKING:
    from otoscope.models.whisper import SpeechModel


@dataclass(frozen=True)
class FitOptions:
    """How a monitor is fitted.

    Attributes:
        false_alarms: Share of ordinary speech on which it may ring.
        seed: Of the parts, the folds and the head.
        language: To decode in; None: each recording's own, else detected.
        exclude: A corpus whose texts are kept out of all parts.
        dictionary: Features to look at as well: `neurons` or a folder, as `load_dictionary` takes it.
        point: Where those read, a place of the decoder.
        divisions: How often the texts are divided, fitted and judged, by successive seeds; the monitor is that of the first.
    """

    false_alarms: float = 0.05
    seed: int = 0
    language: str | None = None
    exclude: str | None = None
    dictionary: str | None = None
    point: str = "decoder_blocks.*.mlp"
    divisions: int = 1


@dataclass(frozen=True, eq=False)
class Fitted:
    """A monitor and what it was tried on.

    Attributes:
        monitor: The monitor.
        parts: Texts by part.
        scores: Logits of each step by text, for each part, from the head.
        family: Logits from single families, by name: for each part, target and text, `(step,)`.
        hindsight: Log-odds of each written text, `(text, target)`, of `calibrate`, by fits that had not seen them, and of `test`.
    """

    monitor: Monitor
    parts: dict[str, list[Text]]
    scores: dict[str, list[np.ndarray]]
    family: dict[str, dict[str, list[np.ndarray]]]
    hindsight: dict[str, np.ndarray]


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
        OptionError: The false-alarm rate is not between 0 and 1; there is no division; or the dictionary is none of the decoder.
        DictionaryError: There is no such dictionary, or it is of another model.
    """
    from otoscope.monitors.judging import over_divisions, report

    options, out = options or FitOptions(), Path(out)
    items = _usable(items, options)  # before any work
    features = options.dictionary and Features.of(model, options.dictionary, options.point)
    decoding = DecodeOptions(language=options.language)
    texts = collect(model, items, out / "steps", decoding, batch, reads_of(features or None))
    fitted = fit(model, items, texts, options, features or None)

    def decode(ids: list[int]) -> str:
        return model.tokenizer.decode(ids, skip_special_tokens=True)

    told = report(fitted, items, options, decode)
    reports = [told]
    for further in range(1, options.divisions):
        notice(f"Division {further + 1} of {options.divisions}.")
        other = replace(options, seed=options.seed + further)
        reports.append(report(fit(model, items, texts, other, features or None), items, other, decode))
    if options.divisions > 1:
        told["divisions"] = over_divisions(reports)
    monitor = replace(fitted.monitor, about=fitted.monitor.about | {"report": told})
    monitor.save(out)
    return monitor, told


def check_fit(items: Sequence[Item], options: FitOptions) -> None:
    """Refuse what `fit_monitor` would refuse whatever the model writes: before a model is loaded.

    Raises:
        ManifestError: There is too little of one kind of recording.
        OptionError: The false-alarm rate is not between 0 and 1, or there is no division.
    """
    with reporting_to(Silence()):  # fitting says the same once more
        _usable(items, options)


def _usable(items: Sequence[Item], options: FitOptions) -> list[Item]:
    from otoscope.corpora import items as items_of

    check_rate(options.false_alarms)
    if options.divisions < 1:
        raise OptionError(
            f"{options.divisions} divisions are none.", "Name 1, or more for the spread among them."
        )
    kept = list(items)
    if options.exclude:
        kept = without_texts(kept, items_of(options.exclude))
    if not kept:
        raise ManifestError("There are no recordings to learn from.", "Name a manifest.")
    require_possible(kept, options.false_alarms)
    return kept


def fit(
    model: SpeechModel,
    items: Sequence[Item],
    texts: Sequence[Text],
    options: FitOptions,
    features: Features | None = None,
) -> Fitted:
    """Fit a monitor to collected texts.

    The threshold is chosen by the same texts that the calibration is fitted on. A conformal threshold promises its rate of false
    alarms, in expectation, by texts that had no part in the scores; two numbers a target bend that little, but the promise is not
    exact.
    """
    require_enough(texts, items, options.false_alarms)
    parts = divided(texts, items, options.false_alarms, options.seed)
    with track("Fitting", 2 * len(TARGETS), "targets") as task:
        probes, held_out = fit_probes(parts["train"], items, options.seed, features, task)
        inputs = {
            part: [inputs_of(text.signals, *probes.read(text)) for text in kept]
            for part, kept in parts.items()
        }
        inputs["train"] = [
            inputs_of(text.signals, *read) for text, read in zip(parts["train"], held_out, strict=True)
        ]
        goals = {part: [step_targets(text) for text in kept] for part, kept in parts.items()}
        layers = probes.linear.bias.shape[0]
        head = fit_recurrent(inputs["train"], goals["train"], _weights(goals["train"]), options.seed)
        scores = {part: [head.advance(head.start(), x)[1] for x in kept] for part, kept in inputs.items()}
        family = family_scores(inputs, goals, layers, features is not None)
        task.advance(len(TARGETS))
    slope, offset = calibration(scores["calibrate"], parts["calibrate"])
    risks = [peak_risk(x, slope, offset) for x in scores["calibrate"]]
    ordinary = np.array(
        [r for r, text in zip(risks, parts["calibrate"], strict=True) if text.verdict.ordinary]
    )
    facts = {
        part: np.stack(
            [
                facts_of_text(calibrated(x, slope, offset), text.facts)
                for x, text in zip(scores[part], parts[part], strict=True)
            ]
        )
        for part in ("calibrate", "test")
    }
    calibrating = parts["calibrate"]
    hindsight, held_out_texts = fit_hindsight(
        facts["calibrate"],
        np.stack([marks_of(text) for text in calibrating]),
        np.array([text.verdict.ordinary for text in calibrating]),
        np.array([origin(items[text.item]) for text in calibrating]),
        options.false_alarms,
        options.seed,
    )
    monitor = Monitor(
        dict(facts_of(model)), tuple(range(layers)), probes.linear, head, slope, offset,
        conformal_threshold(ordinary, options.false_alarms), options.false_alarms, np.sort(ordinary), hindsight,
        {
            # Where they lay on one machine says nothing on another.
            "options": asdict(options)
            | {
                name: Path(folder).name if folder else None
                for name, folder in (("exclude", options.exclude), ("dictionary", options.dictionary))
            },
            "texts": {part: len(kept) for part, kept in parts.items()},
            "ordinary_calibrate": len(ordinary),
            "versions": versions(),
        },
        probes.chosen,
    )  # fmt: skip
    afterwards = {"calibrate": held_out_texts, "test": hindsight.log_odds(facts["test"])}
    return Fitted(monitor, parts, scores, family, afterwards)


_ADJECTIVE = {"invented": "invented", "loop": "loops"}


def _weights(goals: Sequence[np.ndarray]) -> np.ndarray:
    """`(text, target)`: both answers of a target count the same in all, but none more than ten times the other."""
    positive = np.stack([np.nanmax(np.nan_to_num(goal, nan=-1.0), axis=0) for goal in goals])
    out = np.zeros(positive.shape)
    for t in range(positive.shape[1]):
        counts = {code: max(int((positive[:, t] == code).sum()), 1) for code in (0.0, 1.0)}
        for code, count in counts.items():
            out[positive[:, t] == code, t] = min(len(goals) / (2 * count), 10.0)
    return out


# Calibration ------------------------------------------------------------------------------------------------------------


def calibration(scores: Sequence[np.ndarray], texts: Sequence[Text]) -> tuple[np.ndarray, np.ndarray]:
    """Slope and offset of each target, by the highest logit of each text (Platt 1999); the slope stays positive."""
    from sklearn.linear_model import LogisticRegression

    slope, offset = np.ones(len(TARGETS)), np.zeros(len(TARGETS))
    for t in range(len(TARGETS)):
        marks = np.array([marks_of(text)[t] for text in texts])
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
