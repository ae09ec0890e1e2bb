"""How results show themselves in a notebook: each asks the views, which nothing else below them knows."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def asked(view: str) -> Any:
    """A module of the views, looked up by name when something is to be drawn."""
    return import_module(f"otoscope.views.{view}")


class Shows:
    """A result that shows itself in a notebook as a small card.

    The card is what its method `card` gives (`otoscope.documents.card`), and else is made from `to_dict`.
    """

    def _repr_html_(self) -> str:
        return asked("cards").html_of(self)
