"""The same intervention at random other places: what a change has to be compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from otoscope.documents.changes import ComponentChange, FeatureChange
from otoscope.documents.intervention import Intervention
from otoscope.patching.components import components
from otoscope.studies.lab import spelled

if TYPE_CHECKING:
    from otoscope.models.base import Model
    from otoscope.studies.lab import Lab, Run

_TRIES = 200


def elsewhere(lab: Lab, intervention: Intervention, clean: Run, count: int, seed: int) -> list[Intervention]:
    """Interventions of the same size at other places, all different.

    Args:
        lab: The model, and what it is given.
        intervention: What they are compared with.
        clean: The undisturbed run, whose active features are drawn from.
        count: At most so many; fewer, or none, where there are no other places.
        seed: Of the draws.
    """
    rng = np.random.default_rng(seed)
    active = _ActiveFeatures(lab, intervention, clean)
    found: dict[Intervention, None] = {}
    for _ in range(_TRIES if intervention else 0):
        if len(found) >= count:
            break
        silence = _spans(rng, intervention.silence, lab.duration)
        drawn = _components(rng, intervention.components(), lab.model)
        features = _features(rng, intervention.changes(), active)
        if silence is None or drawn is None or features is None:
            continue
        zero, scale = (tuple(str(c) for c in drawn if bool(c.factor) is scaled) for scaled in (False, True))
        other = {"silence": silence, "zero": zero, "scale": scale, "features": features}
        found[intervention.model_copy(update=other)] = None
    return list(found)


def _spans(
    rng: np.random.Generator, spans: tuple[tuple[float, float], ...], duration: float
) -> tuple[tuple[float, float], ...] | None:
    """Spans of the same lengths that touch neither the old ones nor each other; None: these draws did not fit."""
    taken, drawn = list(spans), []
    for t0, t1 in spans:
        length = min(t1, duration) - t0
        if length > duration:
            return None
        start = round(float(rng.uniform(0, duration - length)), 3)
        span = (start, round(start + length, 3))
        if any(span[0] < end and begin < span[1] for begin, end in taken):
            return None
        taken.append(span)
        drawn.append(span)
    return tuple(sorted(drawn))


def _components(
    rng: np.random.Generator, changed: list[ComponentChange], model: Model
) -> list[ComponentChange] | None:
    """As many others of the same kind: heads of the same stack's attention for heads, blocks of the stack for blocks."""
    taken = {one.place for one in changed}
    drawn = []
    for one in changed:
        pool = [
            c
            for c in components(model, one.stack)
            if (c.head is None) == (one.head is None) and (one.head is None or c.part == one.part)
            if spelled(c) not in taken
        ]
        if not pool:
            return None
        found = pool[int(rng.integers(len(pool)))]
        drawn.append(one._replace(layer=found.layer, part=found.part, head=found.head))
        taken.add(drawn[-1].place)
    return sorted(drawn, key=str)


def _features(
    rng: np.random.Generator, changes: list[FeatureChange], active: _ActiveFeatures
) -> tuple[str, ...] | None:
    """Others of the same layer that are active where the changed ones are."""
    taken = {(c.stack, c.layer, c.feature) for c in changes}
    drawn = []
    for change in changes:
        pool = active.of(change)
        pool = pool[[(change.stack, change.layer, int(f)) not in taken for f in pool]] if len(pool) else pool
        if not len(pool):
            return None
        feature = int(pool[int(rng.integers(len(pool)))])
        taken.add((change.stack, change.layer, feature))
        drawn.append(str(change._replace(feature=feature)))
    return tuple(sorted(drawn))


class _ActiveFeatures:
    """Which features of a layer are active in the undisturbed run where a change acts; found once for each change."""

    def __init__(self, lab: Lab, intervention: Intervention, clean: Run) -> None:
        self._lab, self._intervention, self._clean = lab, intervention, clean
        self._known: dict[tuple, np.ndarray] = {}

    def of(self, change: FeatureChange) -> np.ndarray:
        """Their numbers, ascending."""
        key = (change.stack, change.layer, change.spans, change.positions)
        if key not in self._known:
            self._known[key] = self._found(change)
        return self._known[key]

    def _found(self, change: FeatureChange) -> np.ndarray:
        dictionary = self._lab.dictionary(self._intervention, change.stack)
        read = self._clean.read_of(change.stack, dictionary, change.layer)
        places = self._lab.places(change)
        kept = read if places is None else read[[p for p in places if p < len(read)]]
        if not len(kept):
            return np.zeros(0, np.int64)
        return np.unique(dictionary.encode(change.layer, kept).feature.cpu().numpy())
