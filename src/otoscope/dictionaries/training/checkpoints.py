"""The state of a training on disk: safetensors and JSON, never pickle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from otoscope.dictionaries.training import parallel
from otoscope.errors import TrainingError
from otoscope.files import atomic_write
from otoscope.text_values import object_in

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer

    from otoscope.dictionaries.training.modules import Coder

HEADER = "checkpoint.json"


class Checkpoints:
    """The last checkpoint of a folder: `checkpoint.json`, which names the file with the tensors and is written after it.

    Args:
        folder: Where they lie.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def last(self) -> dict[str, Any] | None:
        """What the last one says, `step` among it, or None.

        Raises:
            TrainingError: It cannot be read.
        """
        path = self.folder / HEADER
        if not path.exists():
            return None
        try:
            told = object_in(path)
            tensors = str(told["tensors"])
            if Path(tensors).name != tensors:
                raise ValueError("its tensors lie elsewhere")
            return {"step": int(told["step"]), "tensors": tensors, "data": list(told["data"])}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise _damaged(path) from error

    def save(self, step: int, coder: Coder, moments: list[dict[str, Tensor]], data: list[Any]) -> None:
        """Write one and remove the one before it.

        Args:
            step: Steps that are done.
            coder: Weights, units, thresholds and counters.
            moments: Adam's state of every parameter, in their order.
            data: Position in the data, JSON-ready, one a process.

        Raises:
            OutputError: It cannot be written.
        """
        from safetensors.torch import save

        told = {"step": step, "tensors": f"checkpoint-{step:07d}.safetensors", "data": data}
        with atomic_write(self.folder / told["tensors"], "wb") as file:
            file.write(save(_tensors(coder, moments)))
        with atomic_write(self.folder / HEADER) as file:
            json.dump(told, file, indent=1)
        for old in self.folder.glob("checkpoint-*.safetensors"):
            if old.name != told["tensors"]:
                old.unlink(missing_ok=True)

    def restore(self, told: dict[str, Any], coder: Coder, optimizer: Optimizer) -> None:
        """Put weights, optimiser and random numbers back to where they were.

        Raises:
            TrainingError: The file is damaged.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = self.folder / told["tensors"]
        try:
            found = load_file(path)
            device = next(coder.parameters()).device
            coder.load_state_dict({name: found[f"coder.{name}"] for name in coder.state_dict()})
            parts = ("step", "exp_avg", "exp_avg_sq")
            names = [name for name, _ in coder.named_parameters()]
            moments = [{part: found[f"{part}.{name}"].to(device) for part in parts} for name in names]
            parallel.set_moments(optimizer, moments)
            torch.set_rng_state(found["random"])
        except (OSError, SafetensorError, KeyError, RuntimeError) as error:
            raise _damaged(path) from error

    def remove(self) -> None:
        """Remove what is of no use any more."""
        (self.folder / HEADER).unlink(missing_ok=True)
        for old in self.folder.glob("checkpoint-*.safetensors"):
            old.unlink(missing_ok=True)


def _damaged(path: Path) -> TrainingError:
    return TrainingError(f"{path} is damaged.", "Begin the training in another folder.")


def _tensors(coder: Coder, moments: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    found = {f"coder.{name}": tensor.detach() for name, tensor in coder.state_dict().items()}
    for (name, _), mine in zip(coder.named_parameters(), moments, strict=True):
        found |= {f"{part}.{name}": tensor for part, tensor in mine.items()}
    found["random"] = torch.get_rng_state()
    # Clones, as two names of one memory cannot be written.
    return {name: tensor.contiguous().clone() for name, tensor in found.items()}
