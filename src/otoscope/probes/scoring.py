"""How good held-out predictions are, with intervals over groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from otoscope.outcomes import bootstrap


@dataclass(frozen=True)
class ClassScore:
    """One class, held out.

    Attributes:
        name: The class.
        n: Its items.
        groups: Its groups (speakers).
        recall: Share of its items that were found.
        precision: Share right among the items taken for it; None when none was.
    """

    name: str
    n: int
    groups: int
    recall: float
    precision: float | None


def predicted(scores: np.ndarray) -> np.ndarray:
    """Class codes `(n,)` from log-odds `(n, 1)` or scores `(n, class)`."""
    return (scores[:, 0] > 0).astype(int) if scores.shape[1] == 1 else scores.argmax(axis=1)


def balanced_accuracy(y: np.ndarray, guess: np.ndarray) -> float:
    """Mean over classes of the share of their items that were found."""
    return float(np.mean([np.mean(guess[y == c] == c) for c in np.unique(y)]))


def balanced_interval(
    y: np.ndarray, guess: np.ndarray, groups: np.ndarray, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of the balanced accuracy: whole groups are drawn; where each has one class, within its class.

    Args:
        y: Class codes `(n,)`.
        guess: Predicted codes `(n,)`.
        groups: Group codes `(n,)`.
        seed: Of the draws.
    """
    classes, code = np.unique(y, return_inverse=True)
    units, unit = np.unique(groups, return_inverse=True)
    n = np.zeros((len(units), len(classes)))  # (group, class)
    right = np.zeros_like(n)
    np.add.at(n, (unit, code), 1)
    np.add.at(right, (unit, code), guess == y)
    return bootstrap(
        _mean_recall, right, n, strata=n.argmax(axis=1) if is_nested(y, groups) else None, seed=seed
    )


def _mean_recall(right: np.ndarray, n: np.ndarray) -> float:
    return float(np.mean(right.sum(axis=0) / n.sum(axis=0)))


def is_nested(y: np.ndarray, groups: np.ndarray) -> bool:
    """Whether every group has items of one class only, as speakers have one gender."""
    pairs = np.unique(np.stack([groups, y]), axis=1)
    return pairs.shape[1] == len(np.unique(groups))


def auc(y: np.ndarray, scores: np.ndarray) -> float:
    """Area under the ROC curve; of more than two classes the mean of one against the rest; NaN without both.

    Args:
        y: Class codes `(n,)`.
        scores: `(n,)` or `(n, 1)`, higher for class 1; or one column a class.
    """
    columns = scores.reshape(len(scores), -1)
    if columns.shape[1] == 1:
        return _area(y == 1, columns[:, 0])
    return float(np.mean([_area(y == c, columns[:, c]) for c in np.unique(y)]))


def _area(positive: np.ndarray, scores: np.ndarray) -> float:
    """Mann and Whitney's U over the number of pairs; ties count half."""
    n = np.count_nonzero(positive)
    pairs = n * (len(positive) - n)
    if not pairs or np.isnan(scores).any():
        return float("nan")
    ordered, own = np.sort(scores), scores[positive]
    # Twice the sum of ranks from 1; equal scores share the mean of theirs. SciPy's ranks take ten times as long to ask for.
    ranks = np.sum(ordered.searchsorted(own, "left") + ordered.searchsorted(own, "right") + 1)
    return float((ranks - n * (n + 1)) / 2 / pairs)


def auc_interval(y: np.ndarray, scores: np.ndarray, groups: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """95 % interval of the AUC: whole groups are drawn; where each has one class, within its class."""
    classes = list(y) if is_nested(y, groups) else None
    return bootstrap(auc, y, scores, groups=list(groups), strata=classes, seed=seed)


def class_table(
    y: np.ndarray, guess: np.ndarray, groups: np.ndarray, classes: Sequence[str]
) -> list[ClassScore]:
    """Every class by itself."""
    rows = []
    for code, name in enumerate(classes):
        of, taken = y == code, guess == code
        precision = float(np.mean(y[taken] == code)) if taken.any() else None
        rows.append(
            ClassScore(name, int(of.sum()), len(np.unique(groups[of])), float(np.mean(taken[of])), precision)
        )
    return rows


def r_squared(y: np.ndarray, guess: np.ndarray) -> float:
    """Share of a number's variance that the prediction explains; negative when the mean does better."""
    return float(1 - np.sum((y - guess) ** 2) / np.sum((y - y.mean()) ** 2))


def r_squared_interval(
    y: np.ndarray, guess: np.ndarray, groups: np.ndarray, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of `r_squared` over whole groups."""
    return bootstrap(r_squared, y, guess, groups=list(groups), seed=seed)


def shuffled(y: np.ndarray, groups: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Labels of a control task: as many of each, but meaningless (Hewitt and Liang 2019).

    Groups of one class exchange their labels as wholes, and an exchange that leaves the same groups together is drawn again.
    The items of all groups that have several classes exchange theirs one by one.
    """
    units, unit = np.unique(groups, return_inverse=True)
    pairs = np.unique(np.stack([unit, y]), axis=1)[0].astype(int)
    pure = np.bincount(pairs, minlength=len(units)) == 1  # by group
    out, whole = y.copy(), pure[unit]
    if whole.any():
        out[whole] = _exchanged(y[whole], unit[whole], rng)
    out[~whole] = rng.permutation(y[~whole])
    return out


def _exchanged(y: np.ndarray, groups: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    units, first = np.unique(groups, return_index=True)
    codes = y[first]
    new = rng.permutation(codes)
    if len(np.unique(codes)) < len(
        codes
    ):  # where every group has a label of its own there is but one partition
        for _ in range(100):
            if not _same_partition(codes, new):
                break
            new = rng.permutation(codes)
    return new[np.searchsorted(units, groups)]


def _same_partition(a: np.ndarray, b: np.ndarray) -> bool:
    return len(np.unique(np.stack([a, b]), axis=1).T) == len(np.unique(a))
