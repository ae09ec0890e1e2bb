"""A sweep over components: layer by head, component or position, beside a control.

All indices (layers, heads, positions, tokens, items) are 0-based. Shares are 0 to 1, changes of log-probabilities in nats.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from otoscope.documents.base import Document, Index, JsonScalar, Part, Probability, Text
from otoscope.figures.grids import sweep_figure
from otoscope.figures.style import Saved

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Verdict = Literal["unchanged", "resolved", "restored", "collapsed"]
"""What became of an item: the outcome stayed; it is gone; it is gone and what is left is nearer to what was said; hardly anything
is left."""


SweepControl = Literal["random components", "other cells"]
"""What a value is held against: what a random other component of its kind does, or the mean of the sweep's other cells."""


class SweepMeasure(Part):
    """Something measured of every cell. `control` names its control; `random` and `stands_out` say in words what that is, and
    when a cell exceeds it.
    """

    name: Text
    title: Text
    unit: Literal["share", "nats", "logits", "metric"]
    control: SweepControl
    random: Text
    stands_out: Text


class SweepGrid(Part):
    """One grid of cells; rows are layers, row 0 first."""

    title: Text
    rows: list[Text]
    columns_name: Text  # "head", "position", or "" of a single column
    columns: list[Text]


class SweepItem(Part):
    """Something the sweep was made over: a recording, or a token of one. `before` is what was written without a patch."""

    name: Text
    before: Text
    half: Literal["discovery", "test"] | None = None


class SweepOutcome(Part):
    """One item under one cell's patch; `text` is the index of what was written in the document's `texts`."""

    item: Index
    verdict: Verdict | None = None
    change: float | None = None
    text: Index | None = None


class SweepValue(Part):
    """One measure of one cell, with its 95 % interval over items and its controls.

    A missing `value` was not measured: the cell was not patched, and `n` is 0. `random` is that of the measure's `control`,
    `direction` that of moving the same activation as far in a random direction, `p` the chance that a random component does as
    much, `p_adjusted` that chance corrected over all components. `test` is the value on the half of the items that was not
    looked at when winners were chosen.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    count: Index | None = None
    n: Index
    random: float | None = None
    direction: float | None = None
    p: Probability | None = None
    p_adjusted: Probability | None = None
    test: float | None = None
    test_n: Index | None = None
    stands_out: bool


class SweepCell(Part):
    """One component. `values` has one entry a measure; `price` is what the patch adds to an error rate on ordinary speech."""

    grid: Index
    row: Index
    column: Index
    component: Text
    label: Text
    winner: bool = False
    values: list[SweepValue]
    outcomes: list[SweepOutcome] = Field(default_factory=list)
    price: float | None = None


class SweepPrice(Part):
    """What one patch costs on other recordings: measure, before, after."""

    label: Text
    rows: list[tuple[Text, Text, Text]]


class SweepDoc(Document):
    """A sweep."""

    kind: Literal["sweep"] = "sweep"
    version: Literal[1] = 1
    title: Text
    model: Text
    headline: Text  # what was found, in one sentence
    about: Text  # what was patched with what and over what, in one or two sentences
    items_name: Text = "recording"
    measures: list[SweepMeasure]
    grids: list[SweepGrid]
    cells: list[SweepCell]
    items: list[SweepItem] = Field(default_factory=list)
    texts: list[Text] = Field(default_factory=list)
    price_name: Text | None = None
    prices: list[SweepPrice] = Field(default_factory=list)
    price_note: Text | None = None
    settings: dict[str, JsonScalar] = Field(default_factory=dict)
    versions: dict[str, Text] = Field(default_factory=dict)
    notes: list[Text] = Field(default_factory=list)

    @model_validator(mode="after")
    def _parts_agree(self) -> SweepDoc:
        places = set()
        for cell in self.cells:
            if cell.grid >= len(self.grids):
                raise ValueError("a cell names a grid that does not exist")
            grid = self.grids[cell.grid]
            if cell.row >= len(grid.rows) or cell.column >= len(grid.columns):
                raise ValueError("a cell lies outside of its grid")
            if len(cell.values) != len(self.measures):
                raise ValueError("a cell has not one value a measure")
            if (place := (cell.grid, cell.row, cell.column)) in places:
                raise ValueError("two cells lie at the same place")
            places.add(place)
            if any(value.value is None and value.n for value in cell.values):
                raise ValueError("a value is missing, and was measured")
            for outcome in cell.outcomes:
                if outcome.item >= len(self.items) or (outcome.text or 0) >= max(len(self.texts), 1):
                    raise ValueError("an outcome names an item or a text that does not exist")
        return self

    def summary(self) -> str:
        """A few lines of plain text: what was found, and the strongest components beside their control."""
        if not self.measures:
            return "\n".join([self.title, self.headline])
        first = self.measures[0]
        values = [
            (cell.label, of.value, of.random)
            for cell in self.cells
            if (of := cell.values[0]) and of.value is not None
        ]
        lines = [
            f"  {label}: {value:.2f}" + ("" if random is None else f", {first.control} {random:.2f}")
            for label, value, random in sorted(values, key=lambda one: -abs(one[1]))[:5]
        ]
        return "\n".join([self.title, self.headline, f"{first.title}:", *lines])

    def plot(self, path: Saved = None, *, dark: bool = False, measure: int = 0) -> Figure:
        """Draw the grids for a paper; see `otoscope.figures`.

        Args:
            path: Also write it there, as .png, .svg or .pdf.
            dark: On a dark ground.
            measure: Which measure.

        Raises:
            OutputError: The file cannot be written.
        """
        return sweep_figure(
            self.model_dump(exclude={"cells": {"__all__": {"outcomes"}}}), measure, path=path, dark=dark
        )
