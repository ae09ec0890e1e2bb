"""Directions and subspaces of the decoder's stream that invented text has, and edits made of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from otoscope.activations import Edit
from otoscope.errors import OptionError
from otoscope.mending.lessons import HeardItem
from otoscope.models.decoding import batches
from otoscope.probes.linear import load_probes
from otoscope.progress import track

if TYPE_CHECKING:
    from torch import Tensor

    from otoscope.models.whisper import SpeechModel


def point_after(layer: int) -> str:
    """Point of the decoder's stream after a layer (0-based)."""
    return f"decoder_blocks.{layer}.hook_resid_post"


@torch.no_grad()
def decoder_states(
    model: SpeechModel, heard: Sequence[HeardItem], tokens: Sequence[Sequence[int]], prompt: int
) -> dict[int, Tensor]:
    """The decoder's stream after each layer, averaged over the positions that write.

    Args:
        model: The recogniser.
        heard: Recordings.
        tokens: Prompt and written ids of each recording.
        prompt: Length of the prompts; its last position writes the first token.

    Returns:
        Layer (0-based) to `(recording, d_model)`, in float64.
    """
    layers = range(model.config.decoder_layers)
    rows: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    with track("Reading the decoder", len(heard), "recordings") as task:
        for chunk in batches(range(len(heard)), model.batch):
            longest = max(len(tokens[i]) for i in chunk)
            ids = [[*tokens[i], *[model.end_token] * (longest - len(tokens[i]))] for i in chunk]
            encoded = torch.stack([heard[i].encoded for i in chunk]).to(model.device, model.dtype)
            with model.capturing([point_after(layer) for layer in layers]) as cache:
                decoder = model.hf.model.decoder  # type: ignore[union-attr]
                decoder(  # type: ignore[operator]
                    input_ids=torch.tensor(ids, device=model.device),
                    encoder_hidden_states=encoded,
                    use_cache=False,
                )
            for layer in layers:
                states = cache[point_after(layer)].double().cpu()
                rows[layer] += [
                    states[k, prompt - 1 : len(tokens[i])].mean(dim=0) for k, i in enumerate(chunk)
                ]
            task.advance(len(chunk))
    return {layer: torch.stack(found) for layer, found in rows.items()}


def mean_difference(towards: Tensor, away: Tensor) -> Tensor:
    """The vector `(width,)` from the mean of one set of states `(n, width)` to that of another (arXiv 2606.07473).

    Raises:
        OptionError: A set is empty.
    """
    if not len(towards) or not len(away):
        raise OptionError(
            "There is nothing to take the difference of.",
            "Give sounds without speech, and speech, to the search.",
        )
    return towards.mean(dim=0) - away.mean(dim=0)


def invented_subspace(invented: Tensor, empty: Tensor, rank: int) -> Tensor:
    """An orthonormal basis `(rank, width)` of where states of invented text lie, seen from those without (arXiv 2609.04561).

    The first right singular vectors of the invented states, each less the mean of the others.

    Args:
        invented: `(n, width)`.
        empty: `(m, width)`: states that write nothing, or what is right.
        rank: How many.

    Raises:
        OptionError: There are fewer states than directions.
    """
    if not 1 <= rank <= min(invented.shape) or not len(empty):
        raise OptionError(
            f"{len(invented)} states have no subspace of rank {rank}.",
            "Give more sounds, or ask for a lower rank.",
        )
    return torch.linalg.svd(invented - empty.mean(dim=0), full_matrices=False)[2][:rank]


def steering(vector: Tensor, layer: int, strength: float) -> Edit:
    """Add a multiple of a vector to the stream after a layer (0-based), at every position."""
    return Edit.add(point_after(layer), (strength * vector).float())


def projecting(basis: Tensor, layer: int) -> Edit:
    """Take a subspace out of the stream after a layer (0-based), at every position."""
    return Edit.project_out(point_after(layer), basis.float())


def probe_direction(path: Path | str, layer: int, towards: str | None = None) -> Tensor:
    """The unit vector `(width,)` of a saved probe.

    Args:
        path: A file that `otoscope probe` wrote.
        layer: Layer, 0-based.
        towards: Class that it points to; None: the second of two.

    Raises:
        OptionError: The file has no probe of this layer, or the probe no such class.
    """
    probes, _ = load_probes(path)
    if layer not in probes:
        raise OptionError(
            f"{path} has no probe of layer {layer}.", f"Choose one of: {', '.join(map(str, sorted(probes)))}."
        )
    probe = probes[layer]
    if towards is not None and towards not in probe.classes:
        raise OptionError(
            f"The probe knows no class {towards!r}.", f"Choose one of: {', '.join(probe.classes)}."
        )
    directions = torch.from_numpy(probe.direction)
    if len(directions) > 1:
        return directions[probe.classes.index(towards or probe.classes[-1])]
    away = towards is not None and towards == probe.classes[0]
    return -directions[0] if away else directions[0]
