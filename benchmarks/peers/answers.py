"""How far two answers to the same question agree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

Answer = Mapping[str, np.ndarray]


def largest_difference(ours: Answer, theirs: Answer) -> dict[str, Any]:
    """The largest difference of any number, and the largest number beside it.

    Raises:
        AssertionError: The answers are not of the same parts and shapes.
    """
    assert sorted(ours) == sorted(theirs), (sorted(ours), sorted(theirs))
    assert all(ours[name].shape == theirs[name].shape for name in ours), [
        (ours[n].shape, theirs[n].shape) for n in ours
    ]
    return {
        "largest_difference": max(float(np.abs(ours[name] - theirs[name]).max()) for name in ours),
        "largest_number": max(float(np.abs(theirs[name]).max()) for name in theirs),
    }  # fmt: skip


def same_rows(ours: Answer, theirs: Answer) -> dict[str, Any]:
    """How many rows of the only part are the same throughout."""
    (mine,), (its,) = ours.values(), theirs.values()
    same = mine.shape == its.shape and (mine == its).reshape(len(mine), -1).all(axis=1).sum()
    return {"same": int(same), "of": len(mine)}
