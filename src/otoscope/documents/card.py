"""A result in short, as a notebook shows it: facts, marked words, one table. Made for the eye; programs take `to_dict`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import Field

from otoscope.documents.base import Part, Probability, Text

ROWS = 12
"""Rows of a table that are shown; what is left out is counted."""


class Mark(Part):
    """A piece of text; `amount` is how strongly it is marked, and `told` what the mark says."""

    text: Text
    amount: Probability = 0.0
    told: Text = ""
    alarm: bool = False


class Table(Part):
    """Rows under a head; `rows` are cut to `ROWS`, of `count`. Cells that are numbers are numbers as text."""

    head: list[Text]
    rows: list[list[Text]]
    count: int

    @classmethod
    def of(cls, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> Table:
        """A table of any values."""
        every = list(rows)
        shown = [[spelled(value) for value in row] for row in every[:ROWS]]
        return cls(head=list(head), rows=shown, count=len(every))


class Card(Part):
    """A result in short."""

    title: Text
    texts: list[list[Mark]] = Field(default_factory=list)  # paragraphs
    facts: dict[Text, Text] = Field(default_factory=dict)
    table: Table | None = None
    lines: list[Text] = Field(default_factory=list)
    note: Text = ""


def card_of(title: str, data: Mapping[str, Any]) -> Card:
    """The card of a result that has nothing better: its numbers, and the first list of its rows."""
    facts: dict[str, str] = {}
    table = None
    for name, value in data.items():
        spoken = name.replace("_", " ")
        if isinstance(value, Mapping):
            facts |= {f"{spoken}: {k}": spelled(v) for k, v in value.items() if _is_plain(v)}
        elif _is_rows(value):
            table = table or _table(value)
        elif _is_plain(value):
            facts[spoken] = spelled(value)
        elif isinstance(value, Sequence):
            facts[spoken] = f"{len(value)} values"
    return Card(title=title, facts=dict(list(facts.items())[:24]), table=table)


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float | bool)


def _is_rows(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(row, Mapping) for row in value)


def _table(rows: Sequence[Mapping[str, Any]]) -> Table:
    head = [name for name, value in rows[0].items() if _is_plain(value)][:8]
    return Table.of(
        [name.replace("_", " ") for name in head], [[row.get(name) for name in head] for row in rows]
    )


def spelled(value: Any) -> str:
    """A value as people read it: four digits, a dash for what is not known."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}".replace("-", "−")
    return str(value)
