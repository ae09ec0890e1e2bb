"""`study hallucination`: how often text is invented, and whether the model's last states tell.

Two parts of "Beyond Transcription" (arXiv 2508.15882): a probe on the state that writes end-of-text, for wrong against right
transcripts and for sounds against speech. And the three hallucination rates in use, side by side from one decode, with and
without the checkpoint's suppress lists. What is different here: the transcripts that are compared have the same lengths, the
test's sentences and kinds of sound were never heard in training, and the model's built-in signals stand beside the probe.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from otoscope.corpora import Item, items
from otoscope.corpora.recipes import Noise, NonSpeech, Prompts, Voices
from otoscope.errors import ManifestError
from otoscope.models.transcripts import DecodeOptions
from otoscope.models.whisper import SpeechModel, require_speech
from otoscope.outcomes import (
    OutputType,
    Rate,
    Written,
    compression_ratio,
    error_rates,
    hallucination_rates,
    has_words,
    output_type,
    script_mismatch,
)
from otoscope.patching.judging import is_sound
from otoscope.probes.harvesting import Pools, harvest
from otoscope.probes.probing import ProbeOptions, check_labels, probe
from otoscope.probes.scoring import auc, auc_interval
from otoscope.progress import notice
from otoscope.studies.corpora import made
from otoscope.studies.reports import (
    interval,
    percent,
    study_directory,
    table,
    write_report,
    write_results,
)
from otoscope.versions import versions
from otoscope.wording import number

if TYPE_CHECKING:
    import pandas as pd

    from otoscope.models.base import Model
    from otoscope.runs import ActivationStore

POOLS = Pools(("mean",), ("mean", "end"))

NOTES = (
    "Rates of different definitions or decodings must not be compared; each column says which it is.",
    "Right is a word error rate of 0, wrong is neither word error rate below 0.5 nor character error rate below 0.25.",
    "Right and wrong have the same lengths: of each band of token counts as many of both are kept. What is written for sounds is "
    "so short that nothing could be matched with speech: there the number of tokens alone tells much.",
    "The best layer was chosen on the same items, so its score flatters a little; the built-in signals were not chosen.",
)

SIGNALS = {
    "no-speech probability": ("no_speech_prob", 1),
    "mean log-probability": ("avg_logprob", -1),
    "compression ratio": ("compression_ratio", 1),
    "number of tokens": ("n_tokens", 1),
}
"""What a user has without looking inside: column, and the sign with which it points to wrong texts. Of matched lengths the
last should tell nothing."""


@dataclass(frozen=True)
class Task:
    """Two kinds of transcripts that a probe is to tell apart, of the same lengths or as they come."""

    name: str
    label: str
    matched: bool
    paper: str


TASKS = (
    Task(
        "wrong or right transcripts of speech",
        "wrong",
        True,
        "93.4 % LibriSpeech, 88.1 % Common Voice (decoder layer 22 of 32)",
    ),
    Task("words for a sound or for speech", "sound", False, "100 % (decoder layers 10 to 28 of 32)"),
)


def own_corpora(folder: Path, seed: int = 0) -> list[Path]:
    """Make the study's corpora: sounds without speech, and speech clean and in noise so strong that it is misheard.

    Returns:
        Manifests. Speech is of real people where the packages can be had, else synthetic.
    """
    sounds = made(Prompts(seed=seed, sets=("nonspeech",)), folder / "sounds")
    manifests = [made(NonSpeech(seed=seed, count=8, music=(sounds,) if sounds else ()), folder / "nonspeech")]
    people = Prompts(seed=seed, languages=("en",), per_speaker=80)
    speech = made(people, folder / "speech") or made(Voices(seed=seed), folder / "voices")
    if speech:
        kinds, snrs = ("white", "pink", "babble", "music"), (5.0, 0.0, -5.0)
        manifests.append(made(Noise(seed=seed, source=speech, kinds=kinds, snrs=snrs), folder / "noisy"))
    return [manifest for manifest in manifests if manifest]


def study_hallucination(
    model: Model, data: Sequence[Path | str], out: Path | str, *, seed: int = 0, batch: int | None = None
) -> dict[str, Any]:
    """Rates of invented text, and how well it can be told from inside.

    Args:
        model: A Whisper model.
        data: Manifests: sounds without speech (text "" or the label speech: no) and speech with its text; none: the study makes
            its own below `out`.
        out: Directory for `results.json`, `report.md` and figures; activations are kept in `out/activations`.
        seed: Of recipes, folds, shuffles and matching.
        batch: Windows at once.

    Returns:
        What `results.json` holds.

    Raises:
        ModelError: The model is no Whisper model.
        ManifestError: There are no sounds without speech.
        OutputError: The directory cannot be written.
    """
    model = require_speech(model)
    with study_directory(out, "hallucination", model, data, seed) as out:
        return _study(model, data, out, seed, batch)


def _study(
    model: SpeechModel, data: Sequence[Path | str], out: Path, seed: int, batch: int | None
) -> dict[str, Any]:
    corpus = [item for path in data or own_corpora(out / "data", seed) for item in items(path)]
    sounds = [item for item in corpus if is_sound(item)]
    speech = [item for item in corpus if not is_sound(item) and item.text]
    if not sounds:
        raise ManifestError("There are no sounds without speech.", "Give a manifest whose texts are empty.")
    every = [*sounds, *speech]
    store = harvest(model, every, out / "activations" / "suppressed", POOLS, batch=batch)
    free = harvest(
        model, sounds, out / "activations" / "free", POOLS, DecodeOptions(suppress=False), batch=batch
    )
    results = {
        "study": "hallucination",
        "model": model.describe(),
        "seed": seed,
        "rates": {
            "suppress lists on": _rates(model, store, sounds),
            "suppress lists off": _rates(model, free, sounds),
        },
        "speech": _speech_errors(store, every),
        "tasks": [found for task in TASKS if (found := _tell(task, store, every, seed))],
        "notes": list(NOTES),
        "versions": versions(),
    }
    write_results(out, results)
    write_report(out, f"Invented text: {model.origin.name}", _report(results))
    return results


# Rates ------------------------------------------------------------------------------------------------------------------


def _rates(model: SpeechModel, store: ActivationStore, sounds: Sequence[Item]) -> dict[str, Any]:
    """The three definitions, of all sounds and by kind, and what is written most."""
    index = store.index[store.index["item"] < len(sounds)]
    written = [_written(model, row) for row in index.to_dict("records")]  # type: ignore[call-overload]
    kinds = [str(sounds[i].labels.get("kind", "sound")) for i in index["item"]]
    by_kind = {
        kind: hallucination_rates(w for w, k in zip(written, kinds, strict=True) if k == kind).to_dict()
        for kind in sorted(set(kinds))
    }
    phrases = Counter(w.text.strip() for w in written if w.text.strip())
    return {
        **hallucination_rates(written).to_dict(),
        "by_kind": by_kind,
        "phrases": [{"text": text, "count": count} for text, count in phrases.most_common(8)],
        "types": Counter(str(output_type(w.text, is_speech=False)) for w in written),
    }


def _written(model: SpeechModel, row: Mapping[str, Any]) -> Written:
    return Written(
        text=row["written"],
        no_speech_prob=row["no_speech_prob"],
        avg_logprob=row["avg_logprob"],
        language=row["language_written"],
        token_ids=[int(token) for window in row["tokens"] for token in window],
        vocab_size=model.config.vocab_size,
        seconds=row["seconds"],
    )


def _speech_errors(store: ActivationStore, every: Sequence[Item]) -> dict[str, Any]:
    """How the speech came out."""
    types = [
        kind
        for row in _rows(store)
        if (kind := _type(row, every[row["item"]])) is not None and not is_sound(every[row["item"]])
    ]
    return {kind: Rate(types.count(kind), len(types)).to_dict() for kind in OutputType} if types else {}


def _rows(store: ActivationStore) -> list[dict[str, Any]]:
    return store.index.to_dict("records")  # type: ignore[call-overload, return-value]


def _type(row: Mapping[str, Any], item: Item) -> OutputType | None:
    return output_type(row["written"], reference=item.text, language=item.language or row["language_written"])


# Telling them apart -----------------------------------------------------------------------------------------------------


def _tell(task: Task, store: ActivationStore, every: Sequence[Item], seed: int) -> dict[str, Any] | None:
    """One task: probes at every layer on two pools, and the built-in signals on the same transcripts."""
    index = _with_signals(store.index)
    y = np.array([_class(task, row, every[row["item"]]) for row in index.to_dict("records")])  # type: ignore[call-overload]
    kept = np.flatnonzero(y >= 0)
    if task.matched:
        kept = length_matched(y, index["n_tokens"].to_numpy(), np.random.default_rng(seed))
    labelled = _labelled(task, every, index, y, kept)
    options = ProbeOptions(site="decoder", pool="end", group_by="origin", seed=seed)
    try:
        check_labels(labelled, task.label, options)
    except ManifestError as error:
        notice(f"{task.name}: left out. {error.reason}")
        return None
    curves = {
        pool: probe(store, labelled, task.label, replace(options, pool=pool)).to_dict()
        for pool in ("end", "mean")
    }
    groups = np.unique(
        [str(labelled[i].labels["origin"]) for i in index["item"].iloc[kept]], return_inverse=True
    )[1]
    signals = {}
    for name, (column, sign) in SIGNALS.items():
        scores = sign * index[column].to_numpy(dtype=float)[kept]
        low, high = auc_interval(y[kept], scores, groups, seed)
        signals[name] = {"auc": auc(y[kept], scores), "ci_low": low, "ci_high": high}
    tokens = index["n_tokens"].to_numpy()
    return {
        "task": task.name,
        "label": task.label,
        "lengths_matched": task.matched,
        "paper": task.paper,
        "found": {"yes": int(np.sum(y == 1)), "no": int(np.sum(y == 0))},
        "used": {"yes": int(np.sum(y[kept] == 1)), "no": int(np.sum(y[kept] == 0))},
        "mean_tokens": {
            name: float(tokens[kept][y[kept] == code].mean()) for name, code in (("yes", 1), ("no", 0))
        },
        "curves": curves,
        "signals": signals,
    }


def _with_signals(index: pd.DataFrame) -> pd.DataFrame:
    return index.assign(
        n_tokens=[sum(map(len, windows)) for windows in index["tokens"]],
        compression_ratio=[compression_ratio(text) for text in index["written"]],
    )


def _class(task: Task, row: Mapping[str, Any], item: Item) -> int:
    """1: what the task looks for; 0: a transcript without an error; -1: neither."""
    if is_sound(item):
        return 1 if task.label == "sound" and has_words(row["written"]) else -1
    if script_mismatch(item.text or "", language=item.language):
        return -1  # the reference is wrong, so nothing tells whether the transcript is
    if error_rates([item.text or ""], [row["written"]], item.language or row["language_written"]).wer == 0:
        return 0
    wrong = _type(row, item) in (OutputType.UNGROUNDED, OutputType.LOOP)
    return 1 if task.label == "wrong" and wrong else -1


def length_matched(y: np.ndarray, lengths: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rows of both classes with the same distribution of lengths.

    Of each band of lengths (1, 2, 3, 4, 5 to 6, 7 to 8, 9 to 11, ... each about a third wider) as many of both classes are drawn
    as the rarer has.

    Args:
        y: 1, 0, or another number for rows to leave out, `(n,)`.
        lengths: `(n,)`.
        rng: For the draw.

    Returns:
        Rows, ascending.
    """
    bands = np.floor(np.log(np.maximum(lengths, 1)) / np.log(4 / 3)).astype(int)
    kept: list[np.ndarray] = []
    for band in np.unique(bands):
        of = [np.flatnonzero((bands == band) & (y == code)) for code in (0, 1)]
        count = min(map(len, of))
        kept += [rng.permutation(rows)[:count] for rows in of]
    return np.sort(np.concatenate(kept)).astype(int) if kept else np.zeros(0, int)


def _labelled(
    task: Task, every: Sequence[Item], index: pd.DataFrame, y: np.ndarray, kept: np.ndarray
) -> list[Item]:
    """The corpus with the task's label on the rows that are kept; `origin` is the sentence or the kind of sound."""
    told = {int(index["item"].iloc[row]): "yes" if y[row] == 1 else "no" for row in kept}
    return [
        replace(item, labels={"origin": _origin(item), **({task.label: told[i]} if i in told else {})})
        for i, item in enumerate(every)
    ]


def _origin(item: Item) -> str:
    return str(item.labels.get("kind")) if is_sound(item) else str(item.text)


# The report -------------------------------------------------------------------------------------------------------------


def _report(results: Mapping[str, Any]) -> list[str]:
    names = {
        "raw": "A raw: text is not empty",
        "filtered": "B filtered: not empty after Whisper's no-speech rule",
        "gate": "C gate only: no-speech rule alone",
        "words": "words: text has a letter or digit",
        "loops": "loops",
    }
    rates = results["rates"]
    parts = [
        table(
            ("rate on sounds without speech", *rates),
            [(title, *(percent(r[key]) for r in rates.values())) for key, title in names.items()],
        ),
        "Share with words, by kind of sound:",
        table(
            ("kind", *rates),
            [
                (kind, *(percent(r["by_kind"][kind]["words"]) for r in rates.values()))
                for kind in next(iter(rates.values()))["by_kind"]
            ],
        ),
        "What is written most:",
        table(
            ("decoding", "text", "clips"),
            [(name, _brief(p["text"]), p["count"]) for name, r in rates.items() for p in r["phrases"]],
        ),
    ]
    for task in results["tasks"]:
        parts += [f"## {task['task'][0].upper()}{task['task'][1:]}", *_task_report(task)]
    return [*parts, *(f"- {note}" for note in results["notes"])]


def _brief(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."


def _task_report(task: Mapping[str, Any]) -> list[str]:
    n, tokens = task["used"], task["mean_tokens"]
    rows = []
    for pool, curve in task["curves"].items():
        best = next(layer for layer in curve["layers"] if layer["layer"] == curve["best_layer"])
        rows.append((
            f"probe, {pool}, layer {best['layer']}", number(best["balanced_accuracy"]),
            interval(best["ci_low"], best["ci_high"]), number(best["auc"]), interval(*best["auc_interval"]),
            number(best["control_accuracy"]), number(best["baseline_accuracy"]),
        ))  # fmt: skip
    rows += [
        (name, "–", "–", number(signal["auc"]), interval(signal["ci_low"], signal["ci_high"]), "–", "–")
        for name, signal in task["signals"].items()
    ]
    header = (
        "what tells",
        "balanced accuracy",
        "95 % interval",
        "AUC",
        "95 % interval",
        "shuffled labels",
        "mel statistics",
    )
    matched = " of the same lengths" if task["lengths_matched"] else ""
    return [
        f"{n['yes']} against {n['no']} transcripts{matched} (mean {tokens['yes']:.1f} and {tokens['no']:.1f} tokens). "
        f"The paper, with whisper-large-v3: {task['paper']}.",
        table(header, rows),
    ]
