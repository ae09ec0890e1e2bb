"""What keeps a sweep honest: random components, halves, corrected p-values, and sets that explain more than one component."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

import numpy as np

_T = TypeVar("_T")


def others(resolved: np.ndarray, kinds: Sequence[Hashable]) -> np.ndarray:
    """How often a random other component of the same kind resolves each item.

    Args:
        resolved: `(component, item)`, bool.
        kinds: What each component may be compared with.

    Returns:
        `(component, item)`: the mean over the others of its kind; NaN where there is none.
    """
    resolved = np.asarray(resolved, dtype=float)
    out = np.full(resolved.shape, np.nan)
    for kind in set(kinds):
        rows = np.array([k == kind for k in kinds])
        count = int(rows.sum())
        if count > 1:
            out[rows] = (resolved[rows].sum(axis=0) - resolved[rows]) / (count - 1)
    return out


def shares(resolved: np.ndarray, kinds: Sequence[Hashable]) -> np.ndarray:
    """Share of the components of a kind, each with itself, that resolve each item: what `tail` takes under the null.

    If the components of a kind are alike, any of them is as likely as another to be among those that resolve an item. Were a
    component left out of its own comparison, what it alone resolves would have probability 0, and one lucky item would do.

    Args:
        resolved: `(component, item)`, bool.
        kinds: What each component may be compared with.

    Returns:
        `(component, item)`; NaN where a component has no other of its kind.
    """
    resolved = np.asarray(resolved, dtype=float)
    out = np.full(resolved.shape, np.nan)
    for kind in set(kinds):
        rows = np.array([k == kind for k in kinds])
        if rows.sum() > 1:
            out[rows] = resolved[rows].mean(axis=0)
    return out


def tail(count: int, probabilities: np.ndarray) -> float:
    """Probability of at least `count` successes in independent trials with these probabilities (Poisson binomial), exact.

    A component that is like the others of its kind resolves each item with the share of them that do (see `shares`), so that
    items which any disturbance resolves count for little.

    Args:
        count: Successes seen.
        probabilities: One a trial; NaN gives NaN.
    """
    distribution = np.array([1.0])
    for p in probabilities:
        distribution = np.convolve(distribution, [1 - p, p])
    return float(min(1.0, distribution[count:].sum())) if np.isfinite(distribution).all() else float("nan")


def tail_of_mean(changes: np.ndarray, seed: int, draws: int = 10_000) -> list[float]:
    """Of every component of one kind: the probability that one drawn from them anew for each item changes as much on average.

    The counterpart of `tail` for changes that are numbers: exact where there are at most `draws` ways to draw, else by drawing,
    the component itself counted as one draw (Phipson and Smyth 2010).

    Args:
        changes: `(component, item)`, the components of one kind.
        seed: Of the draws.
        draws: How many.

    Returns:
        One two-sided p-value a component, never 0; NaN if there are no items or no other component.
    """
    count, n = changes.shape
    if count < 2 or not n:
        return [float("nan")] * count
    seen = np.abs(changes.mean(axis=1))
    exact = count**n <= draws
    if exact:
        sums = np.zeros(1)
        for of_item in changes.T:
            sums = (sums[:, None] + of_item).ravel()
    else:
        drawn = np.random.default_rng(seed).integers(count, size=(draws, n))
        sums = changes[drawn, np.arange(n)].sum(axis=1)
    means = np.abs(sums) / n
    hits = np.array([(means >= s - 1e-12).sum() for s in seen])
    return (hits / len(means) if exact else (hits + 1) / (draws + 1)).tolist()


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction of several tests; NaN stays and does not count.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    p = np.asarray(p_values, dtype=float)
    adjusted = np.full(len(p), np.nan)
    tested = np.flatnonzero(np.isfinite(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    worst = 0.0
    for rank, i in enumerate(order):
        worst = max(worst, min(1.0, float(p[i]) * (len(order) - rank)))
        adjusted[i] = worst
    return adjusted.tolist()


def halves(groups: Sequence[Hashable], seed: int) -> np.ndarray:
    """Which items are for discovery: about half of them, so that no group is in both halves.

    Args:
        groups: Group of each item, such as its speaker; an item without one is its own.
        seed: Of the draw.

    Returns:
        `(item,)`, bool; of a single group all are for discovery.
    """
    names = list(dict.fromkeys(groups))
    sizes = {name: sum(g == name for g in groups) for name in names}
    order = np.random.default_rng(seed).permutation(len(names))
    chosen: set[Hashable] = set()
    taken, goal = 0, (len(groups) + 1) // 2
    for i in order:
        if taken + sizes[names[i]] <= goal or not chosen:
            chosen.add(names[i])
            taken += sizes[names[i]]
    return np.array([g in chosen for g in groups], dtype=bool)


def coverage(resolved: np.ndarray, limit: int | None = None) -> list[tuple[int, int]]:
    """Components one after another, each the one that resolves most of the items still left (greedy set cover).

    An item counts once any of the components resolves it *by itself*: existence, not what the set does together.

    Args:
        resolved: `(component, item)`, bool.
        limit: Components at most.

    Returns:
        Component and number of items covered so far, until nothing is gained.
    """
    left = np.asarray(resolved, dtype=bool).copy()
    covered, out = 0, []
    while limit is None or len(out) < limit:
        gains = left.sum(axis=1)
        best = int(gains.argmax()) if gains.size else 0
        if not gains.size or not gains[best]:
            return out
        covered += int(gains[best])
        left &= ~left[best]
        out.append((best, covered))
    return out


Scores = Callable[[Sequence[tuple[_T, ...]]], Sequence[float]]
"""What each of several sets achieves when all its members are applied at once."""


def greedy_set(
    candidates: Sequence[_T], scores: Scores[_T], limit: int
) -> list[tuple[tuple[_T, ...], float]]:
    """Sets that grow by the candidate that helps most when all are applied at once.

    Args:
        candidates: What can be added.
        scores: What sets achieve; called once a step, with every set that is tried.
        limit: Members at most.

    Returns:
        Each set and its score, as long as the score rises.
    """
    found: list[tuple[tuple[_T, ...], float]] = []
    members: tuple[_T, ...] = ()
    while len(members) < limit:
        tried = [(*members, c) for c in candidates if c not in members]
        achieved = list(scores(tried)) if tried else []
        best = int(np.argmax(achieved)) if achieved else -1
        if best < 0 or (found and achieved[best] <= found[-1][1]):
            break
        members = tried[best]
        found.append((members, achieved[best]))
    return found


def minimal_set(members: Sequence[_T], scores: Scores[_T], least: float) -> tuple[tuple[_T, ...], float]:
    """A set, and its score, from which no member can be taken without its score falling below `least`.

    Args:
        members: A set that reaches just `least`.
        scores: What sets achieve.
        least: What the set must go on reaching.
    """
    kept, score = tuple(members), least
    while len(kept) > 1:
        smaller = [tuple(m for m in kept if m != gone) for gone in kept]
        achieved = list(scores(smaller))
        best = int(np.argmax(achieved))
        if achieved[best] < least:
            break
        kept, score = smaller[best], achieved[best]
    return kept, score
