"""Parts of a corpus that share no speaker, and folds for cross-validation."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from otoscope.corpora.item import Item, key_of, labels_of
from otoscope.errors import ManifestError, OptionError
from otoscope.progress import notice

SHARES: Mapping[str, float] = {"train": 0.8, "test": 0.2}
"""What `split` makes unasked."""

_TRIES = 100  # random orders at most, of which the best is kept
_WORK = (
    10_000  # groups placed in all orders together, so that a large corpus takes no longer than a small one
)
_COVERAGE = 1e3  # a part without a class costs more than any deviation from the shares


def split(
    items: Sequence[Item],
    shares: Mapping[str, float] = SHARES,
    group_by: str = "speaker",
    stratify_by: str | None = None,
    seed: int = 0,
) -> list[str]:
    """Assign every item to a part so that no group lies in two parts.

    Groups are assigned whole, in random order, each to the part that then is nearest to its share of items (and of
    each class, so that a class lies in every part if it has groups enough); moves of single groups follow until none
    helps, and the best of several random orders is kept.

    Args:
        items: The corpus.
        shares: Name and share of items of each part; the shares add up to 1.
        group_by: The label that parts must not share.
        stratify_by: The label whose classes should have the same shares; items without it are a class of their own.
        seed: Seed of the order.

    Returns:
        The name of each item's part.

    Raises:
        ManifestError: An item has no `group_by` label, there are fewer groups than parts, or a class is found in
            one group alone.
        OptionError: The shares are no positive numbers that add up to 1.
    """
    _check_shares(shares)
    groups = labels_of(items, group_by)
    if missing := sum(group is None for group in groups):
        raise ManifestError(
            f"{missing} of {len(items)} items have no {group_by}.",
            "Label them, leave them out, or group by a label that every item has.",
        )
    strata = labels_of(items, stratify_by) if stratify_by else [None] * len(items)
    names = list(shares)
    parts = _parts(groups, strata, np.array([shares[name] for name in names]), seed, group_by)
    return [names[part] for part in parts]


def folds(
    groups: Sequence[object], labels: Sequence[object], count: int, seed: int = 0
) -> npt.NDArray[np.int64]:
    """Folds for cross-validation in which no group lies in two folds and every class is spread evenly.

    Scikit-learn's `StratifiedGroupKFold` is not used: its shuffling reorders only groups whose class counts have the same
    standard deviation, so that groups of different sizes come in the same folds for every seed. Here, too, a few groups
    can be divided well in a few ways only, and seeds may agree.

    Args:
        groups: The group of each item, n of them.
        labels: The class of each item, n of them; None is a class of its own.
        count: Number of folds, at least 2.
        seed: Seed of the order.

    Returns:
        int64, shape (n,): the fold of each item, 0 to `count` - 1. No fold is empty, and no class lies in one fold
        alone, so each can be learnt from the other folds.

    Raises:
        ManifestError: There are fewer groups than folds, or a class is found in one group alone.
        OptionError: `count` is less than 2, or there are not as many groups as labels.
    """
    if count < 2:
        raise OptionError(f"{count} folds cannot be tested on each other.", "Ask for at least 2 folds.")
    if len(groups) != len(labels):
        raise OptionError(
            f"There are {len(groups)} groups and {len(labels)} labels.", "Give one of each for every item."
        )
    return _parts(groups, labels, np.full(count, 1 / count), seed, "group")


@dataclass(frozen=True)
class Part:
    """What is in one part of a corpus.

    Attributes:
        items: Number of items.
        groups: Number of groups.
        classes: Items of each class, the classes as `key_of` writes them; empty when it was not stratified.
    """

    items: int
    groups: int
    classes: dict[str, int]


def contents(
    items: Sequence[Item], parts: Sequence[str], group_by: str = "speaker", stratify_by: str | None = None
) -> dict[str, Part]:
    """What is in each part that `split` made, by name, the largest first.

    Args:
        items: The corpus.
        parts: The part of each item.
        group_by: As for `split`.
        stratify_by: As for `split`.
    """
    groups = labels_of(items, group_by)
    classes = labels_of(items, stratify_by) if stratify_by else []
    found = {}
    for name, size in Counter(parts).most_common():
        inside = [index for index, part in enumerate(parts) if part == name]
        counted = Counter(key_of(classes[index]) for index in inside) if classes else {}
        found[name] = Part(
            size, len({key_of(groups[index]) for index in inside}), dict(sorted(counted.items()))
        )
    return found


def without_texts(corpus: Sequence[Item], others: Sequence[Item]) -> list[Item]:
    """Items whose text, but for case and spaces, is none of others'; how many are left out is said.

    Args:
        corpus: What is learned from.
        others: What is to be judged by later.
    """

    def plain(item: Item) -> str:
        return " ".join((item.text or "").casefold().split())

    taken = {plain(item) for item in others} - {""}
    kept = [item for item in corpus if plain(item) not in taken]
    notice(
        f"{len(corpus) - len(kept)} of {len(corpus)} recordings or texts are left out, as their texts are to be judged by."
    )
    return kept


def _check_shares(shares: Mapping[str, float]) -> None:
    values = list(shares.values())
    usable = all(math.isfinite(share) and share > 0 for share in values) and all(shares)
    if len(values) < 2 or not usable or abs(sum(values) - 1) > 1e-6:
        said = ", ".join(f"{name}={share:g}" for name, share in shares.items()) or "none"
        raise OptionError(
            f"The shares {said} do not divide a corpus.",
            "Name at least two parts with shares above 0 that add up to 1, such as train=0.8, test=0.2.",
        )


def _parts(
    groups: Sequence[object],
    strata: Sequence[object],
    shares: npt.NDArray[np.float64],
    seed: int,
    group_by: str,
) -> npt.NDArray[np.int64]:
    """The part of each item, (n,)."""
    group_ids, _ = _numbered(groups)
    stratum_ids, classes = _numbered(strata)
    counts = np.zeros((group_ids.max(initial=-1) + 1, len(classes)))
    np.add.at(counts, (group_ids, stratum_ids), 1)
    if len(counts) < len(shares):
        raise ManifestError(
            f"There are {len(counts)} different values of {group_by}, too few for {len(shares)} parts.",
            "Make fewer parts, add recordings, or group by another label.",
        )
    _check_classes((counts > 0).sum(axis=0), classes, group_by)
    assigned = _assign(counts, shares, seed)
    _check_spread(counts, assigned, classes)
    return assigned[group_ids]


def _numbered(values: Sequence[object]) -> tuple[npt.NDArray[np.int64], list[str]]:
    """Each value's index among the different ones, and these as sorted keys."""
    keys = [key_of(value) for value in values]
    different = sorted(set(keys))
    index = {key: i for i, key in enumerate(different)}
    return np.array([index[key] for key in keys], np.int64), different


def _check_classes(groups_with: npt.NDArray[np.int64], classes: list[str], group_by: str) -> None:
    for number, name in zip(groups_with, classes, strict=True):
        if number == 1 and name != "null":
            raise ManifestError(
                f"All items of the class {name} have the same {group_by}, so they cannot be in two parts.",
                f"Add items of this class from another {group_by}, or leave the class out.",
            )


def _check_spread(counts: npt.NDArray, assigned: npt.NDArray[np.int64], classes: list[str]) -> None:
    for column, name in enumerate(classes):
        if name != "null" and len(set(assigned[counts[:, column] > 0])) == 1:
            raise ManifestError(
                f"The class {name} cannot be kept in two parts with the groups there are.",
                "Make fewer parts, add groups, or stratify by another label.",
            )


def _assign(
    counts: npt.NDArray[np.float64], shares: npt.NDArray[np.float64], seed: int
) -> npt.NDArray[np.int64]:
    """The part of each group, (groups,), from items by (groups, classes) and the parts' shares.

    Minimises the squared deviations of every part's share of each class and of all items.
    """
    counts = np.column_stack([counts, counts.sum(axis=1)])  # the size counts like one more class
    relative = counts / counts.sum(axis=0)
    rng = np.random.default_rng(seed)
    tries = max(1, min(_TRIES, _WORK // len(counts)))
    found = [_attempt(relative, shares, rng.permutation(len(counts))) for _ in range(tries)]
    return min(found, key=lambda attempt: attempt[0])[1]


def _attempt(
    relative: npt.NDArray[np.float64], shares: npt.NDArray[np.float64], order: npt.NDArray[np.int64]
) -> tuple[float, npt.NDArray[np.int64]]:
    """Cost and parts of one greedy assignment in the given order, improved by single moves."""
    excess = np.repeat(
        -shares[:, None], relative.shape[1], axis=1
    )  # (parts, classes): share held less share due
    covered = np.zeros(excess.shape, np.int64)  # groups of each class that a part holds
    parts = np.zeros(len(relative), np.int64)
    has = relative > 0
    for group in order:
        cost = excess @ relative[group] - _COVERAGE * (covered == 0) @ has[group]
        parts[group] = part = int(np.argmin(cost))
        excess[part] += relative[group]
        covered[part] += has[group]
    for _ in range(len(relative)):
        change = _changes(relative, has, excess, covered, parts)
        group, part = np.unravel_index(np.argmin(change), change.shape)
        if change[group, part] >= -1e-12:
            break
        for place, sign in ((parts[group], -1), (part, 1)):
            excess[place] += sign * relative[group]
            covered[place] += sign * has[group]
        parts[group] = part
    return float((excess**2).sum() + _COVERAGE * (covered == 0).sum()), parts


def _changes(
    relative: npt.NDArray[np.float64],
    has: npt.NDArray[np.bool_],
    excess: npt.NDArray[np.float64],
    covered: npt.NDArray[np.int64],
    parts: npt.NDArray[np.int64],
) -> npt.NDArray[np.float64]:
    """How the cost changes when one group moves to one part, (groups, parts)."""
    pull = 2 * relative @ excess.T  # (groups, parts)
    stay = np.take_along_axis(pull, parts[:, None], axis=1)
    own = 2 * (relative**2).sum(axis=1, keepdims=True)
    gained = has @ (covered == 0).T.astype(float)
    lost = (has & (covered == 1)[parts]).sum(axis=1, keepdims=True)
    change = pull - stay + own + _COVERAGE * (lost - gained)
    np.put_along_axis(change, parts[:, None], 0.0, axis=1)
    return change
