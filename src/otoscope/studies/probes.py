"""`study probes`: what the encoder knows of the speaker, the room and the words, with controls.

The observational half of "Beyond Transcription" (arXiv 2508.15882, section on probes): one linear probe a layer on the mean over
the sound's frames. What is different here: voices (or people, words, sentences, kinds of sound) of the test were never heard
in training, and beside every curve stand shuffled labels, mel statistics and the same architecture with random weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otoscope.corpora import Item, labels_of
from otoscope.corpora.recipes import Noise, NonSpeech, Prompts, Recipe, Voices
from otoscope.errors import AudioError, ManifestError
from otoscope.models.families import untrained
from otoscope.probes.corpus import default_options
from otoscope.probes.harvesting import Pools, harvest
from otoscope.probes.probing import ProbeCurve, ProbeOptions, check_labels, probe
from otoscope.progress import notice, track
from otoscope.studies.corpora import made, named
from otoscope.studies.reports import interval, study_directory, table, write_report, write_results
from otoscope.versions import versions
from otoscope.wording import number

if TYPE_CHECKING:
    from otoscope.models.base import Model

PAPER = "whisper-large-v3 in the paper"


@dataclass(frozen=True)
class Property:
    """Something that a layer may know.

    Attributes:
        label: The label that tells it.
        group_by: Labels of which the first that the corpus has is kept apart.
        kinds: Kinds of corpora that are asked for it (see `_kind`); one made by no recipe is always asked.
        paper: What the paper found with large-v3.
    """

    label: str
    group_by: tuple[str, ...]
    kinds: tuple[str, ...] = ()
    paper: str = "not in the paper"


SPEECH = "speech-and-sounds"
"""Name of the corpus that the study puts together from those that it has."""

PROPERTIES = (
    Property("gender", ("speaker",), ("voices", "prompts"), "94.6 % at layer 25 of 32 (LibriSpeech)"),
    Property("accent", ("speaker",), ("voices",), "97.0 % mean of four accents at layer 22 of 32"),
    Property(
        "noisy",
        ("speaker",),
        ("noise",),
        "90.0 % at layer 27 of 32 (dev-clean against dev-other, not added noise)",
    ),
    Property("subset", ("speaker",), (), "90.0 % at layer 27 of 32 (dev-clean against dev-other)"),
    Property("speech", ("sort",), (SPEECH,), "100 % in the decoder, layers 10 to 28 of 32"),
    Property("language", ("sentence", "speaker"), ("languages", "prompts")),
    Property(
        "category", ("word",), ("categories",), "85.6 % mean over pairs of categories at the last layer"
    ),
)
"""What is probed; `subset` is LibriSpeech's clean and other, for whoever has it."""

CONTROLS = ("control", "baseline", "random_weights")

NOTES = (
    "Scores are balanced accuracy on items whose groups no probe had met; intervals draw whole groups.",
    "The best layer was chosen on the same items, so its score flatters a little.",
    "A linear probe shows what can be read off a layer, not what the model uses.",
    "Mel statistics are what a probe gets without any model: a score at their height is no merit of the model.",
)


def own_corpora(folder: Path, seed: int = 0) -> dict[str, Path]:
    """Make the corpora of the study; real people only where the packages can be had.

    Args:
        folder: Where to; finished ones are found there again.
        seed: Of the recipes.

    Returns:
        Name to manifest.
    """
    six = ("f1", "f2", "f5", "m1", "m3", "m7")
    recipes: dict[str, Recipe] = {
        "voices": Voices(seed=seed, sentences=2),
        "categories": Voices(seed=seed, what="categories", voices=six[::3]),
        "languages": Voices(seed=seed, what="languages", voices=six, sentences=4),
        "nonspeech": NonSpeech(seed=seed, count=12, longest=8.0),
        "people": Prompts(seed=seed, sets=("prompts", "dialogue"), per_speaker=20),
        "few": Prompts(seed=seed + 1, sets=("prompts", "dialogue"), per_speaker=12),
    }
    there = {name: made(recipe, folder / name) for name, recipe in recipes.items()}
    source = there.pop("few") or there["voices"]
    if source:
        there["noise"] = made(Noise(seed=seed, source=source), folder / "noise")
    return {name: manifest for name, manifest in there.items() if manifest is not None}


def study_probes(
    model: Model,
    data: Sequence[Path | str],
    out: Path | str,
    *,
    seed: int = 0,
    batch: int | None = None,
    random_weights: bool = True,
) -> dict[str, Any]:
    """Probe a model's encoder for every property that the corpora have labels for.

    Args:
        model: A Whisper model or Qwen2-Audio.
        data: Manifests; none: the study makes its own corpora below `out`.
        out: Directory for `results.json`, `report.md` and figures; activations are kept in `out/activations`.
        seed: Of recipes, folds, shuffles and random weights.
        batch: Windows at once.
        random_weights: Also probe the architecture with random weights, which hears every corpus again.

    Returns:
        What `results.json` holds.

    Raises:
        ManifestError: No corpus has a label to probe.
        OutputError: The directory cannot be written.
    """
    with study_directory(out, "probes", model, data, seed) as out:
        return _study(model, data, out, seed, batch, random_weights)


def _study(
    model: Model, data: Sequence[Path | str], out: Path, seed: int, batch: int | None, random_weights: bool
) -> dict[str, Any]:
    corpora = named(data or list(own_corpora(out / "data", seed).values()))
    corpora |= _speech_and_sounds(corpora)
    plan = [
        (what, name)
        for what in PROPERTIES
        for name, corpus in corpora.items()
        if _applies(what, name, corpus)
    ]
    if not plan:
        raise ManifestError(
            "No corpus has a label that this study probes.",
            f"It knows: {', '.join(p.label for p in PROPERTIES)}.",
        )
    blank = untrained(model, seed) if random_weights else None
    findings = []
    with track("Properties", len(plan), "properties") as task:
        for what, name in plan:
            finding = _find(model, blank, what, name, corpora[name], out, seed, batch)
            findings += [finding] if finding else []
            task.advance()
    results = {
        "study": "probes",
        "model": model.describe(),
        "seed": seed,
        "corpora": {name: len(corpus) for name, corpus in corpora.items()},
        "findings": findings,
        "notes": list(NOTES),
        "versions": versions(),
    }
    write_results(out, results)
    write_report(out, f"What the encoder of {model.origin.name} knows", _report(results))
    return results


def _speech_and_sounds(corpora: Mapping[str, Sequence[Item]]) -> dict[str, list[Item]]:
    """Speech of people against sounds in which nobody speaks, where both are there; `sort`: the speaker, or the kind of sound."""
    every = [item for corpus in corpora.values() for item in corpus]
    sounds = [item for item in every if item.labels.get("speech") == "no"]
    people = [
        item for item in every if item.labels.get("recipe") in (None, "prompts") and "speaker" in item.labels
    ]
    if not sounds or not people:
        return {}
    people = people[:: max(1, len(people) // len(sounds))]  # about as many of both
    told = [(item, "no", str(item.labels.get("kind"))) for item in sounds]
    told += [(item, "yes", str(item.labels["speaker"])) for item in people]
    return {SPEECH: [replace(item, labels={"speech": yes, "sort": sort}) for item, yes, sort in told]}


def _applies(what: Property, name: str, corpus: Sequence[Item]) -> bool:
    kind = _kind(name, corpus)
    asked = kind in what.kinds or kind is None
    return asked and any(value is not None for value in labels_of(corpus, what.label))


def _kind(name: str, corpus: Sequence[Item]) -> str | None:
    """The recipe of a corpus, with that of `voices` told apart by what they say; None where no recipe made it."""
    if name == SPEECH:
        return name
    recipes = {item.labels.get("recipe") for item in corpus}
    if recipes != {"voices"}:
        return None if recipes == {None} else str(next(iter(recipes - {None})))
    several = len({item.language for item in corpus}) > 1
    return "categories" if "category" in corpus[0].labels else "languages" if several else "voices"


def _find(
    model: Model,
    blank: Model | None,
    what: Property,
    name: str,
    corpus: Sequence[Item],
    out: Path,
    seed: int,
    batch: int | None,
) -> dict[str, Any] | None:
    """One property of one corpus; None, and said, where its labels do not allow a probe."""
    options = default_options(model, "encoder", group_by=_group_by(what, corpus), seed=seed)
    kept = _with_groups_enough(corpus, what.label, options.group_by)
    try:
        check_labels(kept, what.label, options)
        curve = _curve(model, blank, what.label, name, corpus, kept, options, out, batch)
    except (ManifestError, AudioError) as error:
        notice(f"{what.label} of {name} is left out: {error.reason}")
        return None
    return {"property": what.label, "corpus": name, "paper": what.paper, **curve.to_dict()}


def _curve(
    model: Model, blank: Model | None, label: str, name: str, corpus: Sequence[Item], kept: Sequence[Item],
    options: ProbeOptions, out: Path, batch: int | None,
) -> ProbeCurve:  # fmt: skip
    def heard(of: Model, directory: str) -> Any:
        return harvest(of, corpus, out / "activations" / directory, Pools(), batch=batch)

    store = heard(model, name)
    return probe(
        store, kept, label, options, random=None if blank is None else heard(blank, f"{name}-random")
    )


def _group_by(what: Property, corpus: Sequence[Item]) -> str:
    return next(
        (name for name in what.group_by if any(v is not None for v in labels_of(corpus, name))),
        what.group_by[-1],
    )


def _with_groups_enough(corpus: Sequence[Item], label: str, group_by: str) -> list[Item]:
    """The corpus; classes of a single group (a language with one speaker) have lost their label, for none could be held out."""
    groups: dict[str, set[str]] = {}
    for value, group in zip(labels_of(corpus, label), labels_of(corpus, group_by), strict=True):
        groups.setdefault(str(value), set()).add(str(group))
    return [
        _without(item, label) if value is not None and len(groups[str(value)]) < 2 else item
        for item, value in zip(corpus, labels_of(corpus, label), strict=True)
    ]


def _without(item: Item, label: str) -> Item:
    if label == "language":
        return replace(item, language=None)
    return replace(item, labels={key: value for key, value in item.labels.items() if key != label})


def _report(results: Mapping[str, Any]) -> list[str]:
    header = ("property", "corpus", "items", "groups", "classes", "best layer", "balanced accuracy", "95 % interval", "AUC",
              "shuffled labels", "mel statistics", "random weights", PAPER)  # fmt: skip
    rows = []
    for finding in results["findings"]:
        best = next(layer for layer in finding["layers"] if layer["layer"] == finding["best_layer"])
        rows.append((
            finding["property"], finding["corpus"], finding["n_items"],
            f"{finding['n_groups']} ({finding['options']['group_by']})", len(finding["classes"]), best["layer"],
            number(best[finding["measure"]]), interval(best["ci_low"], best["ci_high"]), number(best.get("auc")),
            *(number(best[f"{control}_{'accuracy' if finding['classes'] else 'r2'}"]) for control in CONTROLS), finding["paper"],
        ))  # fmt: skip
    layers = [layer["layer"] for layer in results["findings"][0]["layers"]] if results["findings"] else []
    curves = [
        (f["property"], f["corpus"], *(number(layer[f["measure"]]) for layer in f["layers"]))
        for f in results["findings"]
    ]
    return [
        "Layers are counted from 0; a layer is the residual stream after its block.",
        table(header, rows),
        "Balanced accuracy by layer:",
        table(("property", "corpus", *map(str, layers)), curves),
        *(f"- {note}" for note in results["notes"]),
    ]
