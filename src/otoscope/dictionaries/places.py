"""Where a dictionary reads and writes, by the names of the point table.

`blocks.3.mlp` is the MLP of a layer: a transcoder reads what goes into it and reconstructs what comes out. Every other name is a
point that a sparse autoencoder reads and reconstructs, such as `encoder_blocks.2.hook_resid_post`. A star stands for all layers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from otoscope.errors import OptionError
from otoscope.models.wiring import stack_wiring

if TYPE_CHECKING:
    from otoscope.dictionaries.base import Reads, Writes
    from otoscope.models.base import Model

_MLP = "mlp"


@dataclass(frozen=True)
class Places:
    """Points of one stack.

    Attributes:
        stack: Its name in the point table.
        layers: Layers, ascending, from 0.
        inputs: What is read at each of them.
        targets: What is reconstructed; None: the inputs.
        reads: What a dictionary calls the place it reads at.
        writes: What it calls the place it writes to.
        model_layers: Layers of the stack.
    """

    stack: str
    layers: tuple[int, ...]
    inputs: tuple[str, ...]
    targets: tuple[str, ...] | None
    reads: Reads
    writes: Writes
    model_layers: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "stack": self.stack,
            "layers": list(self.layers),
            "inputs": list(self.inputs),
            "targets": None if self.targets is None else list(self.targets),
        }

    @property
    def points(self) -> list[str]:
        """All points, each once."""
        return list(dict.fromkeys([*self.inputs, *(self.targets or ())]))


def places_of(model: Model, point: str) -> Places:
    """Points that a name stands for.

    Args:
        model: The model.
        point: `PREFIX.LAYER.mlp`, or a point of a layer; LAYER is a number or `*`.

    Raises:
        OptionError: There is no such place, or it is no place of a layer.
    """
    match = re.fullmatch(r"(.+)\.(\d+|\*)\.([^.].*)", point)
    stacks = {prefix: stack for stack, prefix in model.points.stacks.items()}
    if match is None or match[1] not in stacks:
        known = ", ".join(f"{prefix}.*.mlp" for prefix in stacks)
        raise OptionError(
            f"{point!r} names no place of a layer of {model.origin.name}.",
            f"Name an MLP ({known}) or a point such as {next(iter(stacks))}.0.hook_resid_post.",
        )
    prefix, number, ending = match.groups()
    stack, wiring = stacks[prefix], stack_wiring(model, stacks[prefix])
    count = len(wiring.blocks)
    layers = tuple(range(count)) if number == "*" else (int(number),)
    if layers[-1] >= count:
        raise OptionError(
            f"There is no layer {layers[-1]} in the {stack}.", f"Choose 0 to {count - 1}, or *."
        )
    if ending != _MLP:
        names = tuple(model.points[f"{prefix}.{layer}.{ending}"].name for layer in layers)
        return Places(stack, layers, names, None, "point", "point", count)
    mlps = [wiring.blocks[layer].mlp for layer in layers]
    after_norm = any(mlp.post_norm is not None for mlp in mlps)
    return Places(
        stack,
        layers,
        tuple(mlp.input_point for mlp in mlps),
        tuple(f"{prefix}.{layer}.hook_mlp_out" for layer in layers),
        "mlp_in",
        "mlp_out" if after_norm else "mlp_raw",  # what a point shows is what is added to the stream
        count,
    )
