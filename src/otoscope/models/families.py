"""The known families, and small random models of them.

Another package adds a family with an entry point in the group `otoscope.families` that names a `Family` or a tuple of them.
"""

from __future__ import annotations

import copy
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import torch

from otoscope.errors import ModelError
from otoscope.models import causal_lm, qwen2_audio, whisper
from otoscope.models.base import Family, Model, Origin

GROUP = "otoscope.families"


@cache
def families() -> dict[str, Family]:
    """Every family by the `model_type` it covers; those of other packages come last and do not displace ours.

    A package whose entry point cannot be loaded is left out; `family_of` names it to whoever needs its family.
    """
    found: list[Family] = [whisper.FAMILY, qwen2_audio.FAMILY, *causal_lm.FAMILIES]
    for entry in entry_points(group=GROUP):
        offered = _offered(entry)
        found += [] if isinstance(offered, Exception) else offered
    table: dict[str, Family] = {}
    for family in found:
        for model_type in family.model_types:
            table.setdefault(model_type, family)
    return table


def _offered(entry: EntryPoint) -> list[Family] | Exception:
    """The families of an entry point, or what went wrong in that package's code, which may be anything."""
    try:
        value = entry.load()
        offered = [value] if isinstance(value, Family) else list(value)
    except Exception as error:
        return error
    if all(isinstance(family, Family) for family in offered):
        return offered
    return TypeError(f"{entry.value} is no Family and no tuple of them")


def family_of(model_type: str) -> Family:
    """The family that covers a `config.model_type`.

    Raises:
        ModelError: None does, or the package that may cover it cannot be loaded.
    """
    known = families()
    if model_type not in known:
        _refuse_broken(model_type)
        raise ModelError(
            f"otoscope has no hook points for models of type {model_type!r}.",
            f"Known types: {', '.join(known)}. The guide docs/guides/adding-a-family.md shows how to add one.",
        )
    return known[model_type]


def _refuse_broken(model_type: str) -> None:
    """Say that the family asked for may be one that another package fails to deliver."""
    for entry in entry_points(group=GROUP):
        error = _offered(entry)
        if isinstance(error, Exception):
            package = entry.dist.name if entry.dist else entry.module
            why = (str(error).splitlines() or [""])[0][:200].rstrip(".")
            raise ModelError(
                f"otoscope has no hook points for models of type {model_type!r} of its own, and the entry point "
                f"{entry.name!r} ({entry.value}) of the package {package} fails: {type(error).__name__}: {why}.",
                f"Repair, update or remove the package {package}.",
            ) from error


def random_model(
    model_type: str,
    seed: int = 0,
    *,
    dtype: torch.dtype = torch.float32,
    attention: str = "eager",
    **changes: Any,
) -> Model:
    """A small random model of a family's real class, biases and norms included, for tests and documentation.

    Args:
        model_type: Transformers' `model_type`, such as `whisper` or `gemma2`.
        seed: Of the weights.
        dtype: Precision.
        attention: Attention implementation.
        changes: Configuration values to set.
    """
    import transformers

    family = family_of(model_type)
    config = family.tiny_config(model_type)
    for key, value in changes.items():
        setattr(config, key, value)
    config._attn_implementation = attention
    auto = getattr(transformers, family.auto_class)
    build = auto.from_config if hasattr(auto, "from_config") else auto
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        hf = build(config).to(dtype)
        with torch.no_grad():
            for parameter in hf.parameters():
                # Library initialisation leaves biases at zero and gains at one, where many mistakes do not show.
                scale = 0.5 if parameter.dim() == 1 else parameter.shape[-1] ** -0.5
                parameter.add_(torch.randn(parameter.shape, dtype=torch.float64).to(dtype) * scale)
    return family.model(hf, family, None, Origin(f"random {model_type} (seed {seed})"))


def untrained(model: Model, seed: int = 0) -> Model:
    """The same architecture with the weights that training would begin with: a control for what training brought.

    Args:
        model: The model whose class, configuration, processor and generation settings are taken.
        seed: Of the weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        hf = type(model.hf)(copy.deepcopy(model.config))
    hf.generation_config = model.hf.generation_config
    hf = hf.to(device=model.device, dtype=model.dtype)  # type: ignore[call-arg]
    origin = Origin(f"{model.origin.name} with random weights (seed {seed})")
    return type(model)(hf, model.family, model.processor, origin, model.batch)
