"""Cards of results, as HTML for notebooks: small, in the notebook's own colours, and with every text escaped."""

from __future__ import annotations

import re
from html import escape
from typing import Any

from otoscope.documents.card import Card, Mark, Table, card_of

_LONGEST = 400

# Everything is mixed from the notebook's own text colour, so that it fits light and dark themes alike.
_FAINT = "color-mix(in srgb, currentColor 18%, transparent)"
_MUTED = "opacity:.72"


def html_of(result: Any) -> str:
    """The card of a result: its own, or one made from its `to_dict`."""
    card = result.card() if hasattr(result, "card") else card_of(_name(result), result.to_dict())
    return render(Card.model_validate(card))  # rooms below the documents give its fields


def render(card: Card) -> str:
    """One card."""
    parts = [f'<div style="font-weight:600">{_text(card.title)}</div>']
    parts += [
        f'<p style="margin:.4em 0;line-height:1.9">{"".join(map(_mark, text))}</p>' for text in card.texts
    ]
    if card.facts:
        parts.append(_facts(card.facts))
    if card.table:
        parts.append(_table(card.table))
    if card.lines:
        lines = "\n".join(map(_text, card.lines))
        parts.append(f'<pre style="margin:.4em 0;white-space:pre-wrap">{lines}</pre>')
    if card.note:
        parts.append(f'<div style="font-size:.9em;{_MUTED}">{_text(card.note)}</div>')
    return f'<div class="otoscope-card" style="max-width:60em;padding:.2em 0">{"".join(parts)}</div>'


def _text(text: str) -> str:
    shown = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
    # Isolated, so that marks of direction inside reorder nothing outside.
    return f"<bdi>{escape(shown)}</bdi>"


def _mark(mark: Mark) -> str:
    style = f"border-bottom:3px {'double' if mark.alarm else 'solid'} rgb(226 140 20 / {mark.amount:.2f})"
    told = f' title="{escape(mark.told[:_LONGEST])}"' if mark.told else ""
    return f'<span style="{style}"{told}>{_text(mark.text)}</span>'


def _facts(facts: dict[str, str]) -> str:
    pairs = "".join(
        f'<div style="display:flex;gap:1em;justify-content:space-between;border-bottom:1px solid {_FAINT}">'
        f'<span style="{_MUTED}">{_text(name)}</span><span style="text-align:right">{_text(value)}</span></div>'
        for name, value in facts.items()
    )
    grid = "display:grid;grid-template-columns:repeat(auto-fill,minmax(18em,1fr));gap:0 2em;margin:.4em 0"
    return f'<div style="{grid}">{pairs}</div>'


def _table(table: Table) -> str:
    numeric = [
        all(re.fullmatch(r"[−-]?[\d.]+(e[+−-]?\d+)?( %)?|–", row[i]) for row in table.rows if i < len(row))
        for i in range(len(table.head))
    ]
    side = ["right" if number else "left" for number in numeric]
    cell = "padding:.1em .7em;font-variant-numeric:tabular-nums"
    head = "".join(
        f'<th style="{cell};text-align:{side[i]};font-weight:400;{_MUTED}">{_text(name)}</th>'
        for i, name in enumerate(table.head)
    )
    rows = "".join(
        "<tr>"
        + "".join(
            f'<td style="{cell};text-align:{side[min(i, len(side) - 1)]}">{_text(value)}</td>'
            for i, value in enumerate(row)
        )
        + "</tr>"
        for row in table.rows
    )
    more = table.count - len(table.rows)
    left = f'<div style="font-size:.9em;{_MUTED}">and {more} more rows</div>' if more > 0 else ""
    return (
        f'<div style="overflow-x:auto"><table style="border-collapse:collapse;margin:.4em 0">'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>{left}"
    )


def _name(result: Any) -> str:
    """`AttributionGraph` as "Attribution graph"."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(result).__name__)
    return words[0] + words[1:].lower()
