"""Collections of recordings: manifests."""

from __future__ import annotations

from otoscope.corpora.manifest import Item, items, read_manifest

__all__ = ["Item", "items", "read_manifest"]
