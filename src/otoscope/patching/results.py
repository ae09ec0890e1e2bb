"""What a sweep found: effects with intervals and controls, winners, coverage, price."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from otoscope.corpora import Item
from otoscope.corpora.item import key_of
from otoscope.figures.grids import patch_figure
from otoscope.figures.style import Saved
from otoscope.outcomes import Rate
from otoscope.patching.components import Component
from otoscope.patching.controls import coverage, halves, holm, others, shares, tail
from otoscope.showing import Shows
from otoscope.versions import versions

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from otoscope.documents.card import Card
    from otoscope.patching.sweeping import SweepOptions

LEVEL = 0.05
"""Level of Holm's corrected tests that makes a component a winner."""

_RANDOM_SETS = 500

NOTES = (
    "Resolved: the outcome is gone; restored: gone, the text has not collapsed, and it is nearer to what was said, where known.",
    "Random components (random_rate): a random other component of the same kind on the same items; p (p_value): chance that one "
    "drawn from all of its kind anew for each item resolves at least as many (exact, one-sided); random direction "
    "(direction_rate): the same activation moved as far in a random direction.",
    "Winners are chosen on the discovery half by what they restore, with Holm's correction over all components; the test half "
    "was not looked at for that.",
    "A component is patched off the distribution it was trained on, and others may make up for it.",
)


@dataclass(frozen=True)
class Effect(Shows):
    """What patching one component did to the items that had the outcome.

    Attributes:
        resolved: Items whose outcome was gone.
        restored: Items whose outcome was gone and whose text had not collapsed and was nearer to what was said.
        random: Rate at which a random other component of its kind resolves them; None without another.
        random_restored: The same for restoring.
        p_value: Chance that a component drawn anew from its kind for every item resolves as many; None without another.
        restored_p_value: The same for restoring.
        direction: Items that were resolved by a move in a random direction; None where that control was left out.
        direction_restored: The same for restoring.
    """

    resolved: Rate
    restored: Rate
    random: float | None
    random_restored: float | None
    p_value: float | None
    restored_p_value: float | None
    direction: Rate | None
    direction_restored: Rate | None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        low, high = self.resolved.interval or (None, None)
        restored_low, restored_high = self.restored.interval or (None, None)
        return {
            "resolved": self.resolved.count,
            "restored": self.restored.count,
            "n": self.resolved.n,
            "rate": self.resolved.rate,
            "ci_low": low,
            "ci_high": high,
            "random_rate": self.random,
            "p_value": self.p_value,
            "restored_rate": self.restored.rate,
            "restored_ci_low": restored_low,
            "restored_ci_high": restored_high,
            "restored_random_rate": self.random_restored,
            "restored_p_value": self.restored_p_value,
            "direction_rate": self.direction.rate if self.direction else None,
            "restored_direction_rate": self.direction_restored.rate if self.direction_restored else None,
        }


@dataclass(frozen=True)
class Winner(Shows):
    """A component that was chosen on the discovery half.

    Attributes:
        component: It.
        p_adjusted: Its restoring on the discovery half against random components, corrected over all; None without others.
    """

    component: Component
    p_adjusted: float | None

    @property
    def significant(self) -> bool:
        """Whether it stands out; if nothing does, the best is taken all the same, and said."""
        return self.p_adjusted is not None and self.p_adjusted <= LEVEL

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return self.component.to_dict() | {"p_adjusted": self.p_adjusted, "significant": self.significant}


@dataclass(frozen=True, eq=False)
class PatchResult(Shows):
    """A finished sweep.

    Attributes:
        model: Facts about the model.
        options: What was patched and looked for.
        components: What was patched.
        baseline: One line an item: `item`, `text`, `ids`, `language`, `has`, `reason`.
        names: The recordings.
        groups: Group of every item; no group is in both halves.
        effects_table: One line a text: `item`, `component`, `control`, `resolved`, `collapsed`, `restored`, `text`, `tokens`.
        price: What the winners cost; None if nothing was priced.
        sets: What sets of components do that are patched at once; None if they were not searched.
    """

    model: Mapping[str, Any]
    options: SweepOptions
    components: Sequence[Component]
    baseline: pd.DataFrame
    names: Sequence[str]
    groups: Sequence[Hashable]
    effects_table: pd.DataFrame
    price: Mapping[str, Any] | None = None
    sets: Mapping[str, Any] | None = None

    @classmethod
    def of(
        cls,
        model: Mapping[str, Any],
        options: SweepOptions,
        components: Sequence[Component],
        corpus: Sequence[Item],
        baseline: pd.DataFrame,
        effects: pd.DataFrame,
    ) -> PatchResult:
        """Put together what a run holds."""
        groups = [group_of(item, options.group_by, i) for i, item in enumerate(corpus)]
        names = [item.audio_filepath for item in corpus]
        return cls(model, options, components, baseline, names, groups, effects)

    @cached_property
    def lines(self) -> list[dict[str, Any]]:
        """The baseline, one dict an item; what is missing is None, whatever the table makes of it."""
        table = self.baseline.astype(object)
        return table.where(table.notna(), None).to_dict("records")  # type: ignore[call-overload, return-value]

    # Counts ----------------------------------------------------------------------------------------------------------

    @property
    def n_items(self) -> int:
        """Items that could be read."""
        return sum(line["reason"] is None for line in self.lines)

    @cached_property
    def affected(self) -> list[int]:
        """Items that have the outcome without a patch."""
        return [line["item"] for line in self.lines if line["has"]]

    @property
    def n_outcome(self) -> int:
        """How many have it."""
        return len(self.affected)

    @property
    def baseline_rate(self) -> Rate:
        """Share of items that have the outcome."""
        return Rate(self.n_outcome, self.n_items)

    def matrix(self, column: str, control: bool = False) -> np.ndarray:
        """`(component, affected item)`, bool: `resolved`, `restored` or `collapsed`."""
        out = np.zeros((len(self.components), self.n_outcome), dtype=bool)
        place = {item: i for i, item in enumerate(self.affected)}
        for line in self._texts:
            if line["control"] == control and line["item"] in place:
                out[line["component"], place[line["item"]]] = line[column]
        return out

    @cached_property
    def _texts(self) -> list[dict[str, Any]]:
        return self.effects_table.to_dict("records")  # type: ignore[call-overload, return-value]

    @cached_property
    def discovery(self) -> np.ndarray:
        """Which affected items are the discovery half, `(item,)`, bool."""
        return halves([self.groups[i] for i in self.affected], self.options.seed)

    # Effects ---------------------------------------------------------------------------------------------------------

    @cached_property
    def effects(self) -> list[dict[str, Effect]]:
        """Of every component: `all`, `discovery` and `test`."""
        parts = {
            "all": np.ones(self.n_outcome, dtype=bool),
            "discovery": self.discovery,
            "test": ~self.discovery,
        }
        by_part = {name: self._effects(rows) for name, rows in parts.items()}
        return [{name: by_part[name][i] for name in parts} for i in range(len(self.components))]

    def _effects(self, items: np.ndarray) -> list[Effect]:
        resolved, restored = (self.matrix(name)[:, items] for name in ("resolved", "restored"))
        control = self._controls(items)
        kinds = [(c.stack, c.kind) for c in self.components]
        by_others, by_all = ([of(m, kinds) for m in (resolved, restored)] for of in (others, shares))
        return [
            Effect(
                resolved=Rate.of(resolved[i].tolist()),
                restored=Rate.of(restored[i].tolist()),
                random=_mean(by_others[0][i]),
                random_restored=_mean(by_others[1][i]),
                p_value=_chance(resolved[i], by_all[0][i]),
                restored_p_value=_chance(restored[i], by_all[1][i]),
                direction=None if control is None else Rate.of(control[0][i].tolist()),
                direction_restored=None if control is None else Rate.of(control[1][i].tolist()),
            )
            for i in range(len(self.components))
        ]

    def _controls(self, items: np.ndarray) -> list[np.ndarray] | None:
        if not self.options.direction_control:
            return None
        return [self.matrix(name, control=True)[:, items] for name in ("resolved", "restored")]

    @cached_property
    def p_adjusted(self) -> list[float | None]:
        """Of every component: its restoring on the discovery half, corrected over all components."""
        found = [e["discovery"].restored_p_value for e in self.effects]
        return [_number(p) for p in holm([float("nan") if p is None else p for p in found])]

    @cached_property
    def winner_indices(self) -> list[int]:
        """Components that restore most on the discovery half, among those that stand out; if none does, the best one."""
        if not self.n_outcome:
            return []
        order = self.ranked
        standing_out = [i for i in order if (p := self.p_adjusted[i]) is not None and p <= LEVEL]
        if standing_out:
            return standing_out[: self.options.winners]
        return order[:1] if self.effects[order[0]]["discovery"].restored.count else []

    @cached_property
    def ranked(self) -> list[int]:
        """All components, those first that restore most on the discovery half."""
        return sorted(range(len(self.components)), key=self._rank)

    def _rank(self, i: int) -> tuple[int, int, int]:
        found = self.effects[i]["discovery"]
        return -found.restored.count, -found.resolved.count, i

    @property
    def winners(self) -> list[Winner]:
        """The winners."""
        return [Winner(self.components[i], self.p_adjusted[i]) for i in self.winner_indices]

    @cached_property
    def cumulative(self) -> list[dict[str, Any]]:
        """Components one after another that cover most items (by restoring each item alone), chosen on the discovery half.

        Beside it what as many random components of the sweep cover.
        """
        restored = self.matrix("restored")
        found, test = restored[:, self.discovery], restored[:, ~self.discovery]
        rng = np.random.default_rng(self.options.seed)
        out, chosen = [], []
        for component, covered in coverage(found):
            chosen.append(component)
            draws = [
                restored[rng.permutation(len(restored))[: len(chosen)]].any(axis=0).mean()
                for _ in range(_RANDOM_SETS)
            ]
            out.append(
                self.components[component].to_dict()
                | {
                    "discovery": Rate(covered, found.shape[1]).to_dict(),
                    "test": Rate.of(np.any(test[chosen], axis=0).ravel().tolist()).to_dict(),
                    "random_rate": float(np.mean(draws)),
                }
            )
        return out

    @property
    def any_component(self) -> Rate:
        """Items that some component restores: the best of many tries, which flatters."""
        return Rate.of(np.any(self.matrix("restored"), axis=0).ravel().tolist())

    # Showing ---------------------------------------------------------------------------------------------------------

    @property
    def skipped(self) -> list[dict[str, str]]:
        """Recordings that could not be read, and why."""
        return [
            {"audio_filepath": str(self.names[line["item"]]), "reason": line["reason"]}
            for line in self.lines
            if line["reason"] is not None
        ]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; layers and heads are counted from 0."""
        effects = [
            c.to_dict()
            | {"label": c.label, "kind": c.kind}
            | e["all"].to_dict()
            | {"p_adjusted": p, "discovery": e["discovery"].to_dict(), "test": e["test"].to_dict()}
            for c, e, p in zip(self.components, self.effects, self.p_adjusted, strict=True)
        ]
        return {
            "model": dict(self.model),
            "options": self.options.to_dict(),
            "n_items": self.n_items,
            "n_outcome": self.n_outcome,
            "baseline_outcome_rate": self.baseline_rate.rate,
            "baseline_outcome": self.baseline_rate.to_dict(),
            "effects": effects,
            "any_component": self.any_component.to_dict(),
            "winners": [w.to_dict() for w in self.winners],
            "cumulative": self.cumulative,
            "sets": dict(self.sets) if self.sets is not None else None,
            "price": dict(self.price) if self.price is not None else None,
            "items": self._items(),
            "skipped": self.skipped,
            "notes": list(NOTES),
            "versions": versions(),
        }

    def _items(self) -> list[dict[str, Any]]:
        """The items that have the outcome."""
        return [
            {
                "item": i,
                "audio_filepath": self.names[i],
                "text": self.lines[i]["text"],
                "half": "discovery" if first else "test",
            }
            for i, first in zip(self.affected, self.discovery, strict=True)
        ]

    def plot(self, path: Saved = None, *, dark: bool = False) -> Figure:
        """Draw the grids, less what random components do, for a paper; see `otoscope.figures`.

        Args:
            path: Also write it there, as .png, .svg or .pdf.
            dark: On a dark ground.

        Raises:
            OutputError: The file cannot be written.
        """
        return patch_figure(self.to_dict(), path=path, dark=dark)

    def __repr__(self) -> str:
        return (
            f"PatchResult({self.options.outcome}: {self.n_outcome} of {self.n_items} items, "
            f"{len(self.components)} components, winners: {', '.join(w.component.label for w in self.winners) or 'none'})"
        )

    def card(self) -> Card:
        """The components that restored most."""
        from otoscope.documents.card import Card, Table

        order = sorted(range(len(self.components)), key=lambda i: -self.effects[i]["all"].restored.count)
        rows = [
            (self.components[i].label, e.resolved.count, e.restored.count, e.resolved.n, e.random, e.p_value)
            for i in order
            for e in [self.effects[i]["all"]]
        ]
        return Card(
            title=repr(self),
            table=Table.of(("component", "resolved", "restored", "n", "random rate", "p"), rows),
        )


def group_of(item: Item, label: str, number: int) -> Hashable:
    """What must not be in both halves: the item's label, or the item itself where it has none."""
    value = item.labels.get(label)
    return number if value is None else key_of(value)


def _chance(resolved: np.ndarray, shares: np.ndarray) -> float | None:
    return _number(tail(int(resolved.sum()), shares)) if len(resolved) else None


def _mean(values: np.ndarray) -> float | None:
    return None if not len(values) else _number(float(values.mean()))


def _number(value: float) -> float | None:
    return value if np.isfinite(value) else None
