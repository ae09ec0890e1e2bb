"""Probing a corpus: one linear probe a layer, with groups kept apart, controls and intervals.

The measure is the balanced accuracy of items that the probe did not see, whose groups (speakers, voices) it did not see either.
Beside it stand: the same on a control task with shuffled labels, on mel statistics of the sound (what a probe gets without any
model), and, if asked for, on a model of the same architecture with random weights. Intervals draw whole groups and hold the
fitted probes fixed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from otoscope.corpora import Item, folds, labels_of
from otoscope.errors import ManifestError, OptionError
from otoscope.figures.curves import probe_figure
from otoscope.figures.style import Saved
from otoscope.probes.harvesting import storable
from otoscope.probes.linear import Kind, LinearProbe, fit_probe, held_out, is_number, save_probes
from otoscope.probes.pooling import MEL
from otoscope.probes.scoring import (
    ClassScore,
    auc,
    auc_interval,
    balanced_accuracy,
    balanced_interval,
    class_table,
    predicted,
    r_squared,
    r_squared_interval,
    shuffled,
)
from otoscope.progress import notice, track
from otoscope.showing import Shows
from otoscope.versions import versions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from otoscope.documents.card import Card
    from otoscope.runs import ActivationStore

Site = Literal["encoder", "decoder"]

STACKS: Mapping[Site, tuple[str, ...]] = {
    "encoder": ("encoder", "audio_encoder"),
    "decoder": ("decoder", "text"),
}
"""What a site is called in the families' point tables."""

NO_GROUPS = "none"
"""Value of `group_by` with which every item is a group of its own."""

_NUMERIC_FROM = 10  # so many different numbers make a numeric label
_FEW = 10  # groups below which a bootstrap over them is not to be trusted
_DRAWS = 100  # tries to find shuffled labels that leave every class in both given parts


@dataclass(frozen=True)
class ProbeOptions:
    """How to probe.

    Attributes:
        site: `encoder`, the stack that hears, or `decoder`, the one that writes (of a language model the only one).
        pool: Which pool of it; see `otoscope.probes.pooling`.
        group_by: Label that training and test must not share; `none`: every item by itself.
        split_by: Label with the values `train` and `test`, in place of cross-validation.
        folds: Folds of the cross-validation, at most; no more than the rarest class has groups.
        shuffles: Control tasks, averaged.
        seed: Of folds, shuffles and intervals.
    """

    site: Site = "encoder"
    pool: str = "mean"
    group_by: str = "speaker"
    split_by: str | None = None
    folds: int = 5
    shuffles: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.site not in STACKS:
            raise OptionError(f"There is no site {self.site!r}.", f"Choose of: {', '.join(STACKS)}.")
        for name, least in (("folds", 2), ("shuffles", 1)):
            if getattr(self, name) < least:
                raise OptionError(f"{name} is {getattr(self, name)}.", f"Give {least} or more.")


@dataclass(frozen=True, eq=False)
class Task:
    """What is to be told from activations, and by what division of the items.

    Attributes:
        label: Name of the label.
        rows: Items (rows of the store) that have it.
        y: `(n,)` class codes or numbers.
        classes: Class names, sorted; empty for a numeric label.
        groups: `(n,)` group codes.
        folds: Pairs of row indices (into `rows`) to train and to test on.
        missing: Readable items without the label (or, where a division is given, in neither part of it).
        groups_disjoint: Whether training and test share no group.
        items: Number of items, of which the rows are frames if every frame is probed.
    """

    label: str
    rows: np.ndarray
    y: np.ndarray
    classes: tuple[str, ...]
    groups: np.ndarray
    folds: list[tuple[np.ndarray, np.ndarray]]
    missing: int
    groups_disjoint: bool
    items: int

    @property
    def kind(self) -> Kind:
        """`categorical` or `numeric`."""
        return "categorical" if self.classes else "numeric"


@dataclass(frozen=True)
class LayerScore:
    """What one layer gives; of a numeric label the measure is R squared, of classes the balanced accuracy.

    Attributes:
        layer: 0-based.
        score: The measure, held out.
        ci_low: Lower end of its 95 % interval over groups.
        ci_high: Upper end.
        control: The measure on shuffled labels, mean over the shuffles; None where the parts are too small to shuffle.
        baseline: The measure on mel statistics; None where there is no sound, and for single frames.
        random: The measure on the model with random weights, if that was asked for.
        accuracy: Share of items that are right (classes only).
        auc: Area under the ROC curve (classes only).
        auc_interval: Its 95 % interval over groups (two classes only).
        classes: Every class by itself (classes only).
    """

    layer: int
    score: float
    ci_low: float
    ci_high: float
    control: float | None
    baseline: float | None
    random: float | None
    accuracy: float | None = None
    auc: float | None = None
    auc_interval: tuple[float, float] | None = None
    classes: tuple[ClassScore, ...] = ()


@dataclass(frozen=True, eq=False)
class ProbeCurve(Shows):
    """A label, probed at every layer.

    Attributes:
        task: What was told.
        options: How.
        layers: One score a layer.
        model: Facts about the model.
        skipped: Items that could not be read: `audio_filepath`, `reason`, `remedy`.
        probes: The probes fitted on all items, by layer: their directions are to steer or watch with.
        settings: What the activations depend on.
    """

    task: Task
    options: ProbeOptions
    layers: tuple[LayerScore, ...]
    model: Mapping[str, Any]
    skipped: tuple[Mapping[str, str], ...] = ()
    probes: Mapping[int, LinearProbe] = field(default_factory=dict, repr=False)
    settings: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def groups(self) -> int:
        """Number of groups (speakers) among the items."""
        return len(np.unique(self.task.groups))

    def cautions(self) -> list[str]:
        """What a reader must know before believing the numbers."""
        out = ["The best layer was chosen on the same items, so its score flatters a little."]
        if not self.task.groups_disjoint:
            out.append(
                "Training and test share speakers, so the scores may tell speakers apart and not the label."
            )
        elif self.groups < _FEW:
            out.append(
                f"There are only {self.groups} groups: intervals over so few are too narrow (of those with 4 groups that "
                "say 95 %, about 70 % hold), and shuffled labels may come out below chance."
            )
        return out

    @property
    def best(self) -> LayerScore:
        """The layer with the best score, the first of equals. It was chosen on the same items, so it flatters a little."""
        return max(self.layers, key=lambda layer: layer.score)

    def plot(self, path: Saved = None, *, dark: bool = False) -> Figure:
        """Draw the curve with its controls for a paper; see `otoscope.figures`.

        Args:
            path: Also write it there, as .png, .svg or .pdf.
            dark: On a dark ground.

        Raises:
            OutputError: The file cannot be written.
        """
        return probe_figure(self.to_dict(), path=path, dark=dark)

    def __repr__(self) -> str:
        best = self.best
        where = f"{self.options.site} of {self.model.get('name')}"
        return f"ProbeCurve({self.task.label!r}, {where}, best layer {best.layer}: {best.score:.3f})"

    def card(self) -> Card:
        """Scores layer by layer, beside their controls."""
        from otoscope.documents.card import Card, Table

        head = ("layer", "score", "95 % interval", "shuffled labels", "mel statistics", "random weights")
        rows = [
            (
                one.layer,
                one.score,
                f"{one.ci_low:.3f} to {one.ci_high:.3f}",
                one.control,
                one.baseline,
                one.random,
            )
            for one in self.layers
        ]
        return Card(title=repr(self), table=Table.of(head, rows))

    def save_probes(self, path: Path | str) -> None:
        """Write the fitted probes as one safetensors file; see `load_probes`."""
        facts = {"label": self.task.label, "site": self.options.site, "pool": self.options.pool}
        save_probes(path, self.probes, facts | {"model": dict(self.model)})

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready results."""
        task = self.task
        trained = [len(train) for train, _ in task.folds]
        return {
            "label": task.label,
            "kind": task.kind,
            "measure": "balanced_accuracy" if task.classes else "r2",
            "site": self.options.site,
            "pool": self.options.pool,
            "classes": list(task.classes),
            "layers": [_layer_dict(layer, bool(task.classes)) for layer in self.layers],
            "best_layer": self.best.layer,
            "n_train": round(float(np.mean(trained))),
            "n_test": int(sum(len(test) for _, test in task.folds)),
            "n_items": task.items,
            "n_rows": len(task.rows),
            "n_groups": self.groups,
            "n_folds": len(task.folds),
            "groups_disjoint": task.groups_disjoint,
            "missing_labels": task.missing,
            "skipped": [dict(one) for one in self.skipped],
            "cautions": self.cautions(),
            "options": asdict(self.options),
            "model": self.model.get("name"),
            "model_details": dict(self.model),
            "settings": dict(self.settings),
            "seed": self.options.seed,
            "versions": versions(),
        }


def _layer_dict(layer: LayerScore, categorical: bool) -> dict[str, Any]:
    """The names that the JSON gives to a layer's numbers."""
    ends = {"ci_low": layer.ci_low, "ci_high": layer.ci_high}
    if not categorical:
        return {"layer": layer.layer, "r2": layer.score, **ends, "control_r2": layer.control,
                "baseline_r2": layer.baseline, "random_weights_r2": layer.random}  # fmt: skip
    return {
        "layer": layer.layer,
        "accuracy": layer.accuracy,
        "balanced_accuracy": layer.score,
        **ends,
        "auc": layer.auc,
        "auc_interval": layer.auc_interval and list(layer.auc_interval),
        "control_accuracy": layer.control,
        "baseline_accuracy": layer.baseline,
        "random_weights_accuracy": layer.random,
        "per_class": [asdict(one) for one in layer.classes],
    }


# The task ---------------------------------------------------------------------------------------------------------------


def check_labels(items: Sequence[Item], label: str, options: ProbeOptions) -> None:
    """Refuse early, before any model is loaded, what cannot be probed.

    Raises:
        ManifestError: See `make_task`.
    """
    make_task(items, np.arange(len(items)), label, options, quiet=True)


def make_task(
    items: Sequence[Item], rows: np.ndarray, label: str, options: ProbeOptions, *, quiet: bool = False
) -> Task:
    """Labels, groups and folds.

    Args:
        items: The corpus.
        rows: Numbers of its items that have activations, in the store's order.
        label: Name of the label: a manifest field or label column.
        options: How to group and divide.
        quiet: Say nothing about items without the label.

    Raises:
        ManifestError: No item has the label, it has one class, a class has too few groups, or groups are not told.
    """
    told, parts = labels_of(items, label), _parts(items, options)
    values = [told[int(i)] if parts[int(i)] else None for i in rows]
    known = np.array([i for i, value in enumerate(values) if not _is_missing(value)], dtype=int)
    if not len(known):
        raise ManifestError(f"No recording has the label {_brief(label)}.", _known_labels(items))
    if len(known) < len(rows) and not quiet:
        notice(
            f"{len(rows) - len(known)} of {len(rows)} recordings have no {_brief(label)} and are left out."
        )
    y, classes = _coded([values[i] for i in known])
    if len(np.unique(y)) == 1:
        one = classes[0] if classes else y[0]
        raise ManifestError(
            f"Every recording has the {_brief(label)} {_brief(one)}.",
            "Give recordings of at least two classes.",
        )
    labelled = [items[int(rows[i])] for i in known]
    groups = _groups(labelled, options.group_by)
    cut = _folds(labelled, y, classes, groups, options, _brief(label))
    apart = options.group_by != NO_GROUPS and not any(set(groups[a]) & set(groups[b]) for a, b in cut)
    return Task(label, known, y, classes, groups, cut, len(rows) - len(known), apart, len(known))


def _parts(items: Sequence[Item], options: ProbeOptions) -> list[str | None]:
    """Which part of a given division each item is in, None for neither; "all" where none is given.

    Raises:
        ManifestError: No item is in a part called train, or none in one called test.
    """
    if not options.split_by:
        return ["all"] * len(items)
    values = [None if value is None else str(value) for value in labels_of(items, options.split_by)]
    there = sorted({value for value in values if value})
    if not {"train", "test"} <= set(there):
        raise ManifestError(
            f"The label {options.split_by} has no parts train and test; it has: {', '.join(map(_brief, there)) or 'nothing'}.",
            "Name the parts train and test, or leave --split-by out.",
        )
    return [value if value in ("train", "test") else None for value in values]


def _is_missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _brief(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _known_labels(items: Sequence[Item]) -> str:
    names = sorted({name for item in items for name in item.labels})
    return f"Choose one of the labels there are: {', '.join(names)}." if names else "Add it to the manifest."


def _coded(values: Sequence[object]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Class codes and names, or numbers and no names."""
    if all(is_number(value) for value in values) and len(set(values)) > _NUMERIC_FROM:
        return np.array(values, dtype=float), ()
    names = [str(value) for value in values]
    classes = tuple(sorted(set(names)))
    return np.array([classes.index(name) for name in names]), classes


def _groups(items: Sequence[Item], group_by: str) -> np.ndarray:
    if group_by == NO_GROUPS:
        return np.arange(len(items))
    values = labels_of(items, group_by)
    missing = sum(value is None for value in values)
    if missing:
        raise ManifestError(
            f"{missing} of {len(items)} recordings have no {group_by} to keep apart.",
            "Name another label with --group-by, or --group-by none to let training and test share speakers.",
        )
    names = [str(value) for value in values]
    order = {name: i for i, name in enumerate(sorted(set(names)))}
    return np.array([order[name] for name in names])


def _folds(
    items: Sequence[Item],
    y: np.ndarray,
    classes: Sequence[str],
    groups: np.ndarray,
    options: ProbeOptions,
    label: str,
) -> list[tuple[np.ndarray, np.ndarray]]:
    if options.split_by:
        return [_given_split(items, y, classes, options.split_by)]
    names = classes or ("",)
    counts = [len(np.unique(groups[y == c] if classes else groups)) for c in range(len(names))]
    fewest = int(np.argmin(counts))
    numbers = all(name.replace(".", "", 1).lstrip("-").isdigit() for name in classes) if classes else False
    if counts[fewest] < 2:
        what = f"The {label} {_brief(names[fewest])}" if classes else f"The label {label}"
        if options.group_by == NO_GROUPS:
            raise ManifestError(f"{what} has one recording only.", "Add another, or leave that class out.")
        raise ManifestError(
            f"{what} has recordings of one {options.group_by} only, so that nothing tells the two apart.",
            "Add another, or say --group-by none to let training and test share it."
            + (
                f" (Numbers are told by regression from {_NUMERIC_FROM + 1} different ones on.)"
                if numbers
                else ""
            ),
        )
    count = min(options.folds, counts[fewest])
    number = folds(list(groups), list(y) if classes else [0] * len(y), count, options.seed)
    return [(np.flatnonzero(number != i), np.flatnonzero(number == i)) for i in range(count)]


def _given_split(
    items: Sequence[Item], y: np.ndarray, classes: Sequence[str], name: str
) -> tuple[np.ndarray, np.ndarray]:
    parts = np.array([str(value) for value in labels_of(items, name)])
    train, test = np.flatnonzero(parts == "train"), np.flatnonzero(parts == "test")
    for part, rows in (("train", train), ("test", test)):
        if len(np.unique(y[rows])) < max(2, len(classes)):
            raise ManifestError(
                f"The {part} part of {name} has not every class.",
                "Put recordings of each class into both parts.",
            )
    return train, test


# The curve --------------------------------------------------------------------------------------------------------------


def probe(
    store: ActivationStore,
    items: Sequence[Item],
    label: str,
    options: ProbeOptions | None = None,
    *,
    random: ActivationStore | None = None,
) -> ProbeCurve:
    """Probe every layer of a store for a label.

    Args:
        store: Activations of `items`, from `harvest`.
        items: The corpus, with labels.
        label: What to tell.
        options: How.
        random: Activations of the same items in a model with random weights, as a further control.

    Raises:
        ManifestError: The labels do not allow it; see `make_task`.
        OptionError: The store has no such stack or pool.
    """
    options = options or ProbeOptions()
    _check_same_corpus(items, store, random)
    of_items = make_task(items, store.index["item"].to_numpy(), label, options)
    task, tasks = _in_rows(store, of_items, options), _controls(store, of_items, options)
    names = _layers(store, options)
    baseline = _measure(store.read(MEL), task) if MEL in store.names and options.pool != "frames" else None
    scores, probes = [], {}
    with track(f"Probing {_brief(label)}", len(names), "layers") as progress:
        for layer, name in names.items():
            x = store.read(name)
            control = float(np.mean([_measure(x, other) for other in tasks])) if tasks else None
            unlearnt = None if random is None else _measure(random.read(name), task)
            scores.append(_score(layer, x, task, options, control, baseline, unlearnt))
            probes[layer] = fit_probe(x[task.rows], task.y, task.classes)
            progress.advance()
    return ProbeCurve(
        task=task,
        options=options,
        layers=tuple(scores),
        model=store.run.settings["model"],
        skipped=tuple(store.skipped[["audio_filepath", "reason", "remedy"]].to_dict("records")),  # type: ignore[call-overload]
        probes=probes,
        settings=store.run.settings,
    )


def _check_same_corpus(items: Sequence[Item], store: ActivationStore, random: ActivationStore | None) -> None:
    """Refuse labels of other items than those that were heard."""
    index = store.index
    numbers = index["item"].tolist()
    named = [storable(items[i].audio_filepath) if i < len(items) else None for i in numbers]
    if named != index["audio_filepath"].tolist():
        raise OptionError(
            "The store holds activations of other items, or in another order.",
            "Give the items that were harvested, in their order.",
        )
    if random is not None and random.index["item"].tolist() != numbers:
        raise OptionError("The two stores hold different items.", "Harvest both from the same corpus.")


def _layers(store: ActivationStore, options: ProbeOptions) -> dict[int, str]:
    """Layer to name of its vectors, ascending."""
    prefixes = tuple(f"{stack}.{options.pool}." for stack in STACKS[options.site])
    names = {int(name.rpartition(".")[2]): name for name in store.names if name.startswith(prefixes)}
    if not names:
        there = sorted({name.rpartition(".")[0] for name in store.names if "." in name})
        raise OptionError(
            f"There are no activations of the {options.site} pooled by {options.pool}.",
            f"There are: {', '.join(there)}.",
        )
    return dict(sorted(names.items()))


def _in_rows(store: ActivationStore, task: Task, options: ProbeOptions) -> Task:
    """The task over single frames, where an item has many rows."""
    if options.pool != "frames":
        return task
    counts = store.index["frames"].to_numpy().astype(int)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    rows = np.concatenate([starts[row] + np.arange(int(counts[row])) for row in task.rows])
    place = np.repeat(np.arange(len(task.rows)), counts[task.rows])
    cut = [
        (np.flatnonzero(np.isin(place, train)), np.flatnonzero(np.isin(place, test)))
        for train, test in task.folds
    ]
    return replace(task, rows=rows, y=task.y[place], groups=task.groups[place], folds=cut)


def _controls(store: ActivationStore, task: Task, options: ProbeOptions) -> list[Task]:
    """The task with shuffled labels, some times."""
    drawn = (_control(task, options, number) for number in range(options.shuffles))
    return [_in_rows(store, one, options) for one in drawn if one is not None]


def _control(task: Task, options: ProbeOptions, number: int) -> Task | None:
    """Labels of items shuffled; folds are made anew, for they follow the labels. None where given parts are too small for it."""
    rng = np.random.default_rng([options.seed, number])
    if not task.classes or not options.split_by:
        y = shuffled(task.y, task.groups, rng)
        return replace(task, y=y, folds=_folds_like(task, y, options) if task.classes else task.folds)
    for _ in range(_DRAWS):
        y = shuffled(task.y, task.groups, rng)
        if all(len(np.unique(y[rows])) == len(task.classes) for rows in task.folds[0]):
            return replace(task, y=y)
    return None


def _folds_like(task: Task, y: np.ndarray, options: ProbeOptions) -> list[tuple[np.ndarray, np.ndarray]]:
    which = folds(list(task.groups), list(y), len(task.folds), options.seed)
    return [(np.flatnonzero(which != i), np.flatnonzero(which == i)) for i in range(len(task.folds))]


def _tested(x: np.ndarray, task: Task) -> tuple[np.ndarray, np.ndarray]:
    """Held-out scores, and the rows that have one."""
    scores = held_out(x[task.rows], task.y, task.folds, task.classes)
    there = np.flatnonzero(np.isfinite(scores[:, 0]))
    return scores[there], there


def _measure(x: np.ndarray, task: Task) -> float:
    scores, there = _tested(x, task)
    y = task.y[there]
    return balanced_accuracy(y, predicted(scores)) if task.classes else r_squared(y, scores[:, 0])


def _score(
    layer: int,
    x: np.ndarray,
    task: Task,
    options: ProbeOptions,
    control: float | None,
    baseline: float | None,
    random: float | None,
) -> LayerScore:
    scores, there = _tested(x, task)
    y, groups = task.y[there], task.groups[there]
    if not task.classes:
        low, high = r_squared_interval(y, scores[:, 0], groups, options.seed)
        return LayerScore(layer, r_squared(y, scores[:, 0]), low, high, control, baseline, random)
    guess = predicted(scores)
    low, high = balanced_interval(y, guess, groups, options.seed)
    return LayerScore(
        layer, balanced_accuracy(y, guess), low, high, control, baseline, random,
        accuracy=float(np.mean(guess == y)), auc=auc(y, scores),
        auc_interval=auc_interval(y, scores, groups, options.seed) if len(task.classes) == 2 else None,
        classes=tuple(class_table(y, guess, groups, task.classes)),
    )  # fmt: skip
