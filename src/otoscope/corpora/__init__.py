"""Collections of recordings and texts: reading, writing, checking, dividing."""

from __future__ import annotations

from otoscope.corpora.checking import CorpusReport, Finding, check
from otoscope.corpora.item import Item, labels_of
from otoscope.corpora.joining import Joined, joined
from otoscope.corpora.manifest import read_manifest, read_texts, write_manifest
from otoscope.corpora.splitting import folds, split
from otoscope.corpora.targets import items, items_or_texts

__all__ = [
    "CorpusReport",
    "Finding",
    "Item",
    "Joined",
    "check",
    "folds",
    "items",
    "items_or_texts",
    "joined",
    "labels_of",
    "read_manifest",
    "read_texts",
    "split",
    "write_manifest",
]
