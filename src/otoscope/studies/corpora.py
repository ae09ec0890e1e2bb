"""Corpora that studies make by themselves, or are given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from otoscope.corpora import Item, items
from otoscope.corpora.recipes import Recipe, make_corpus
from otoscope.errors import OtoscopeError
from otoscope.progress import notice


def made(recipe: Recipe, folder: Path) -> Path | None:
    """The manifest of a recipe's corpus, made or found finished; None, and said, where it cannot be made."""
    try:
        return make_corpus(recipe, folder).manifest
    except OtoscopeError as error:
        notice(f"The corpus {folder.name} is left out: {error}")
        return None


def named(manifests: Sequence[Path | str]) -> dict[str, list[Item]]:
    """Corpora by a short name each: that of the folder, or of the manifest's folder, counted on where two have the same.

    Raises:
        ManifestError: One cannot be read.
    """
    out: dict[str, list[Item]] = {}
    for path in map(Path, manifests):
        folder = path.resolve() if path.is_dir() else path.resolve().parent
        name = "".join(c if c.isalnum() or c in "-_." else "-" for c in folder.name) or "corpus"
        same = [other for other in out if other == name or other.startswith(f"{name}-")]
        out[name if not same else f"{name}-{len(same) + 1}"] = items(path)
    return out
