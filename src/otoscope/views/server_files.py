"""The one walk through a served folder: links are not followed, hidden files and folders are passed over."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def files_below(folder: Path, deepest: int) -> Iterator[os.DirEntry[str]]:
    """Files below a folder, of each folder by name; what may not be read, or has just gone, has none.

    Args:
        folder: Where to begin.
        deepest: Folders in folders that are gone into.
    """
    pending = [(os.fspath(folder), 0)]
    while pending:
        here, depth = pending.pop()
        try:
            children = sorted(os.scandir(here), key=lambda child: child.name)
        except OSError:
            continue
        for child in children:
            if child.name.startswith(".") or child.is_symlink():
                continue
            if not child.is_dir(follow_symlinks=False):
                yield child
            elif depth < deepest:
                pending.append((child.path, depth + 1))
