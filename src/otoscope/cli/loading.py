"""Loading the model of a long command, once it is known that the command fits into memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from otoscope.cli.options import Common

if TYPE_CHECKING:
    from otoscope.corpora import Item
    from otoscope.models.base import Model


_EXACT = ("explain", "trace")
"""Commands with graphs, which half precision is too coarse for."""


def load_for(
    command: str, name: str, common: Common, recordings: Sequence[Item] = (), units: int | None = None
) -> Model:
    """The model of a command, or an error before anything is loaded that says what the command would take.

    Where no precision is named, what sums small parts takes float32 on accelerators as well.

    Args:
        command: As `otoscope models check --plan` calls it.
        name: The model.
        common: Device, precision and rows at once.
        recordings: What is heard; none: one window.
        units: Features of a trace, steps of a training, trials of a search; None: the command's default.

    Raises:
        OptionError: The command goes far beyond the memory that is free.
        ModelError: The model cannot be loaded.
    """
    from otoscope.models.loading import load_model
    from otoscope.planning.room import require_room

    dtype = exact(common.dtype) if command in _EXACT else common.dtype
    require_room(
        command,
        name,
        device=common.device,
        dtype=dtype,
        batch=common.batch,
        seconds=_seconds(recordings),
        units=units,
    )
    return load_model(name, common.device, dtype)


def exact(dtype: str) -> str:
    """A precision for graphs: float32 where none is named."""
    return "float32" if dtype == "auto" else dtype


def _seconds(recordings: Sequence[Item]) -> float:
    """A window for each recording that does not say how long it is."""
    return sum(max(item.duration or 30.0, 30.0) for item in recordings) or 30.0
