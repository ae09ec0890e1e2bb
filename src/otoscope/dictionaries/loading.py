"""`load_dictionary`: from a name or a folder to features."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from otoscope.dictionaries.base import model_shape
from otoscope.dictionaries.neurons import NeuronBasis
from otoscope.errors import DictionaryError

if TYPE_CHECKING:
    from otoscope.dictionaries.base import Dictionary
    from otoscope.models.base import Model

NEURONS = "neurons"

_MISFITS = (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError, RuntimeError)
"""What settings and tensors that contradict each other surface as, wherever they first meet."""


def load_dictionary(name: str | Path, model: Model, stream: str | None = None) -> Dictionary:
    """Features for a model.

    Args:
        name: `neurons` for the model's own, `neurons:frozen`, `neurons:up` or `neurons:half` to say what of a gated neuron is
            frozen, or a folder: otoscope's own format, circuit-tracer's, SAELens' or Gemma Scope's.
        model: The model they are for.
        stream: The stack they are of, such as `encoder`; None: the one that writes.

    Raises:
        DictionaryError: There is no such dictionary, it is damaged, or it is of another model.
    """
    if is_own(name):
        gate = str(name).partition(":")[2]
        return NeuronBasis(model, gate or "half", stream)  # type: ignore[arg-type]
    dictionary = _from_folder(Path(name), model, stream)
    dictionary.check(model, stream)
    return dictionary


def is_own(name: str | Path) -> bool:
    """Whether a name means the model's own neurons, and no folder."""
    return str(name).partition(":")[0] == NEURONS


def _from_folder(folder: Path, model: Model, stream: str | None) -> Dictionary:
    from safetensors import SafetensorError

    try:
        return _read(folder, model, stream)
    except _MISFITS as error:
        why = f"{type(error).__name__}: {error}"
    except SafetensorError as error:  # of a tensor that is only looked at when its rows are needed
        why = str(error)
    raise DictionaryError(
        f"The dictionary in {folder} does not fit together ({why[:200]}).", "Fetch or save it again."
    )


def _read(folder: Path, model: Model, stream: str | None) -> Dictionary:
    from otoscope.dictionaries.formats import circuit_tracer, gemma_scope, own, sae_lens
    from otoscope.dictionaries.formats.files import below

    if not folder.is_dir():
        raise DictionaryError(
            f"There is no dictionary {folder}.", f"Name a folder, or {NEURONS} for the model's own."
        )
    if (folder / own.HEADER).exists():
        return own.load_own(folder, model.dtype)
    if (folder / circuit_tracer.CONFIG).exists():
        return circuit_tracer.load_circuit_tracer(folder, model.dtype)
    if next(below(folder, sae_lens.CONFIG), None):
        return sae_lens.load_sae_lens(folder, model.dtype, model_shape(model, stream)[1])
    if any(next(below(folder, f"*.{ending}"), None) for ending in ("npz", "safetensors")):
        return gemma_scope.load_gemma_scope(folder, model.dtype)
    raise DictionaryError(
        f"{folder} holds no dictionary: no {own.HEADER}, {circuit_tracer.CONFIG}, {sae_lens.CONFIG} or .npz.",
        "Name a folder in one of these formats.",
    )
