"""Recordings that were skipped: each is named, the rest is done, and the exit code says so to whoever reads no warnings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import typer

from otoscope.cli.show import warn

PARTLY = 3
"""Exit code: done, except for recordings that were skipped."""


def warn_of_skipped(skipped: Sequence[Mapping[str, str]], total: int) -> None:
    """Name what was skipped, and say how much of the whole it is.

    Args:
        skipped: `audio_filepath`, `reason` and perhaps `remedy` of each.
        total: How many recordings there were.
    """
    for one in skipped:
        why = f"{one['reason']} {one.get('remedy', '')}".rstrip()
        warn(f"{one['audio_filepath']} was skipped: {why}")
    if skipped:
        warn(f"{len(skipped)} of {total} recordings {'was' if len(skipped) == 1 else 'were'} skipped.")


def end(skipped: Sequence[object]) -> None:
    """End a command whose results are written: with exit code 3 if recordings were skipped.

    Raises:
        Exit: Some were.
    """
    if skipped:
        raise typer.Exit(PARTLY)
