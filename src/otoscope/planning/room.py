"""Saying before a command starts that it would not fit into memory, and what would."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from otoscope.errors import OptionError, OtoscopeError
from otoscope.machine import free_memory
from otoscope.models.published import find_published
from otoscope.models.sources import REGISTRY
from otoscope.progress import notice

if TYPE_CHECKING:
    from otoscope.planning.plan import Plan

_LARGE = 0.1
"""Share of the free memory that weights must take before a command is planned: for less, planning takes longer than it helps."""

_DOUBT = 1.5
"""How far beyond what is free a plan has to be before it is believed: what `benchmarks/planning.py` holds predictions to."""


def require_room(
    command: str,
    name: str,
    *,
    device: str,
    dtype: str,
    batch: int | None,
    seconds: float,
    units: int | None = None,
) -> None:
    """Refuse a command whose plan goes far beyond the memory that is free. Only models that are large here are looked at.

    Args:
        command: One of `otoscope.planning.commands.COMMANDS`.
        name: The model.
        device: As for `load_model`; memory of accelerators is not planned.
        dtype: As for `load_model`.
        batch: Rows at once; None: the model's own default.
        seconds: Of sound, in all.
        units: Features, steps or trials; None: the command's default.

    Raises:
        OptionError: It would not fit.
    """
    free = free_memory()
    if device not in ("auto", "cpu") or _weights(name) <= _LARGE * free:
        return
    from otoscope.models.base import pick_device

    if pick_device(device).type != "cpu":
        return
    try:
        wanted = _plan(command, name, dtype, batch, seconds, units)
    except OtoscopeError:  # the command itself says it
        return
    except Exception as error:  # what cannot be planned must not be stopped, but a bug must be seen
        notice(f"Whether {name} fits into memory could not be told ({type(error).__name__}: {error}).")
        return
    if wanted.peak_bytes <= _DOUBT * free:
        return
    raise OptionError(
        f"`otoscope {command}` with {name} takes about {wanted.peak_bytes / 1e9:.1f} GB of memory, of which the weights in "
        f"{wanted.dtype} are {wanted.weight_bytes / 1e9:.1f} GB; {free / 1e9:.1f} GB are free.",
        _remedy(command, name, dtype, batch, seconds, units, free),
    )


def _plan(command: str, name: str, dtype: str, batch: int | None, seconds: float, units: int | None) -> Plan:
    from otoscope.models.loading import load_model
    from otoscope.planning.commands import plan
    from otoscope.planning.machine import UNMEASURED

    model = load_model(name, "meta", dtype)
    return plan(model, command, UNMEASURED, seconds=seconds, batch=batch, units=units)


def _remedy(
    command: str, name: str, dtype: str, batch: int | None, seconds: float, units: int | None, free: float
) -> str:
    for precision in dict.fromkeys((dtype, "bfloat16")):
        for rows in dict.fromkeys((batch, 1)):
            try:
                fits = _plan(command, name, precision, rows, seconds, units).peak_bytes <= free
            except OtoscopeError:
                continue
            if fits:
                options = ["--dtype bfloat16"] * (precision != dtype) + [f"--batch {rows}"] * (rows != batch)
                return f"Give it {' '.join(options)}, which fits, or free memory."
    return "Free memory, or take a smaller model; `otoscope models check NAME --plan` says what each takes."


def _weights(name: str) -> float:
    """Bytes of a model's weights in float32, as far as that is known without a look at them."""
    known = find_published(name)
    if known is not None:
        return known.parameters_millions * 4e6
    path = Path(name)
    if name in REGISTRY or not path.is_dir():
        return 0.0
    return float(sum(file.stat().st_size for file in path.glob("*.safetensors")))
