"""Features of a dictionary among what a monitor looks at: those of the decoder that tell most, read by a linear probe."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from otoscope.dictionaries.loading import is_own, load_dictionary
from otoscope.dictionaries.places import Places, places_of
from otoscope.errors import DictionaryError, OptionError
from otoscope.probes.linear import fit_probe

if TYPE_CHECKING:
    from otoscope.dictionaries.base import Dictionary
    from otoscope.models.whisper import SpeechModel

CHOSEN = 48
"""Features that are read for each target, at most."""


@dataclass(frozen=True, eq=False)
class Features:
    """A dictionary of the decoder, ready to be read step by step.

    Attributes:
        name: Of the dictionary, as `load_dictionary` takes it; a folder as a whole path, which means the same everywhere.
        digest: What tells it from others, see `digest_of`.
        point: Where it reads, such as `decoder_blocks.*.mlp`.
        places: The points of that.
        dictionary: The features.
    """

    name: str
    digest: str
    point: str
    places: Places
    dictionary: Dictionary

    @classmethod
    def of(cls, model: SpeechModel, name: str, point: str) -> Features:
        """Load a dictionary.

        Raises:
            OptionError: The place is none of the decoder: what the encoder's features say is known before the first token.
            DictionaryError: There is no such dictionary, or it is of another model.
        """
        places = places_of(model, point)
        if places.stack != "decoder":
            raise OptionError(
                f"{point} lies in the {places.stack}, and a monitor reads features where the text is written.",
                "Name a place of the decoder, such as decoder_blocks.*.mlp.",
            )
        name = name if is_own(name) else str(Path(name).resolve())
        dictionary = load_dictionary(name, model, places.stack)
        digest = name if is_own(name) else digest_of(dictionary, places.layers)
        return cls(name, digest, point, places, dictionary)

    def active(self, layer: int, x: np.ndarray) -> np.ndarray:
        """Activations `(step, feature)` of one layer (0-based) at inputs `(step, d_in)`; float32."""
        given = torch.from_numpy(np.ascontiguousarray(x, np.float32))
        found = self.dictionary.encode(layer, given.to(self.dictionary.readings(layer)[0].weight.dtype))
        out = torch.zeros(len(x), self.dictionary.size(layer))
        out[found.pos, found.feature] = found.activation.float()
        return out.numpy()


def digest_of(dictionary: Dictionary, layers: Sequence[int]) -> str:
    """What tells a dictionary from others by what its features read, not by what they write.

    Its tensors are taken in bfloat16, so that it is the same for a model in float32 and in bfloat16.

    Args:
        dictionary: Of a folder; the model's own neurons are told by the model's digest.
        layers: Those that are read, 0-based.
    """
    found = hashlib.sha256(f"{dictionary.describe()['activation']} {dictionary.reads}".encode())
    for layer in layers:
        for reading in dictionary.readings(layer) if dictionary.size(layer) else ():
            for tensor in (reading.weight, reading.bias):
                if tensor is not None:
                    whole = tensor.detach().cpu().to(torch.bfloat16).contiguous()
                    found.update(f"{layer} {tuple(whole.shape)}".encode())
                    found.update(whole.view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def reads_of(features: Features | None) -> dict[int, str]:
    """Points that are read for it, by layer; none without a dictionary."""
    if features is None:
        return {}
    return dict(zip(features.places.layers, features.places.inputs, strict=True))


@dataclass(frozen=True, eq=False)
class FeatureProbes:
    """Linear probes of chosen features: of their activations at a step, and of the mean of these so far.

    Attributes:
        name: Of the dictionary.
        digest: What tells it from others; of the model's own neurons their name.
        point: Where it reads.
        chosen: `(n, 2)`: layer and feature, both 0-based, by layer.
        now: Weights on the activations at a step, `(n, probe)`.
        mean: Weights on their mean so far, `(n, probe)`.
        bias: `(probe,)`.
    """

    name: str
    digest: str
    point: str
    chosen: np.ndarray
    now: np.ndarray
    mean: np.ndarray
    bias: np.ndarray

    def check(self, features: Features) -> None:
        """Refuse a dictionary that these were not fitted on.

        Raises:
            DictionaryError: It is another one.
        """
        known = set(features.places.layers)
        there = all(n in known and f < features.dictionary.size(n) for n, f in self.chosen.tolist())
        if features.digest != self.digest or not there:
            raise DictionaryError(
                f"The dictionary {features.name} is not the one that this monitor was fitted with.",
                "Put that one back, or fit the monitor again with `otoscope monitor fit --dictionary`.",
            )

    def require_whole(self, targets: int) -> None:
        """Refuse tensors that do not fit each other.

        Args:
            targets: Probes that there have to be.

        Raises:
            ValueError: They do not.
        """
        n = len(self.chosen)
        shapes = [
            (self.chosen, (n, 2)), (self.now, (n, targets)), (self.mean, (n, targets)), (self.bias, (targets,)),
        ]  # fmt: skip
        if any(value.shape != shape or not np.isfinite(value).all() for value, shape in shapes):
            raise ValueError("its probes of features do not fit together")
        layers = self.chosen[:, 0]
        if self.chosen.dtype.kind not in "iu" or (self.chosen < 0).any() or (layers[1:] < layers[:-1]).any():
            raise ValueError("its features are no numbers of features, layer by layer")

    def activations(self, features: Features, read: Mapping[int, np.ndarray]) -> np.ndarray:
        """Of the chosen features, `(step, n)`.

        Args:
            features: The dictionary.
            read: What it reads, by layer: `(step, d_in)`.
        """
        if not len(self.chosen):  # none told the texts apart
            return np.zeros((len(next(iter(read.values()))), 0))
        parts = [
            features.active(layer, read[layer])[:, self.chosen[self.chosen[:, 0] == layer, 1]]
            for layer in np.unique(self.chosen[:, 0]).tolist()
        ]
        return np.concatenate(parts, axis=1).astype(np.float64)

    def log_odds(self, activations: np.ndarray, sums: np.ndarray, first: int) -> np.ndarray:
        """Of each step, `(step, probe)`.

        Args:
            activations: `(step, n)`.
            sums: Weighted sums of the activations up to and with each step, `(step, probe)`: `cumsum(activations @ mean)`.
            first: Number of the first step, from 0.
        """
        counts = np.arange(first + 1, first + 1 + len(activations))[:, None]
        return activations @ self.now + sums / counts + self.bias

    def tensors(self) -> dict[str, np.ndarray]:
        """By name, to be stored."""
        kept = {name: getattr(self, name).astype(np.float32) for name in ("now", "mean", "bias")}
        return kept | {"chosen": self.chosen.astype(np.int64)}

    def to_dict(self) -> dict[str, Any]:
        """What the tensors do not say."""
        return {"name": self.name, "digest": self.digest, "point": self.point}


def fit_features(
    features: Features,
    reads: Sequence[Mapping[int, np.ndarray]],
    goals: Sequence[np.ndarray],
    samples: Sequence[np.ndarray],
    strength: float,
) -> FeatureProbes:
    """Choose features by how far apart their activations are, and fit probes of them.

    Args:
        features: The dictionary.
        reads: Of each text what the dictionary reads, by layer `(step, d_in)`.
        goals: Of each text 1, 0 or NaN, `(step, target)`.
        samples: Steps of each text that are learnt from.
        strength: Inverse regularisation of the probes.

    Returns:
        The probes; where no feature differs between the answers, probes of none, which say nothing.
    """
    wanted = np.concatenate([goal[at] for goal, at in zip(goals, samples, strict=True)])
    chosen = _chosen(features, reads, samples, wanted)
    probes = FeatureProbes(
        features.name, features.digest, features.point, chosen, *_nothing(len(chosen), wanted.shape[1])
    )
    if not len(chosen):
        return probes
    rows = []
    for read, at in zip(reads, samples, strict=True):
        found = probes.activations(features, read)
        mean = np.cumsum(found, axis=0) / np.arange(1, len(found) + 1)[:, None]
        rows.append(np.concatenate([found, mean], axis=1)[at])
    x = np.concatenate(rows)
    for t in range(wanted.shape[1]):
        kept = ~np.isnan(wanted[:, t])
        fit = fit_probe(x[kept], wanted[kept, t].astype(int), ("no", "yes"), strength)
        probes.now[:, t], probes.mean[:, t] = np.split(fit.weight[0], 2)
        probes.bias[t] = fit.bias[0]
    return probes


def _nothing(count: int, targets: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.zeros((count, targets)), np.zeros((count, targets)), np.zeros(targets)


def _chosen(
    features: Features,
    reads: Sequence[Mapping[int, np.ndarray]],
    samples: Sequence[np.ndarray],
    wanted: np.ndarray,
) -> np.ndarray:
    """Layer and number of the features whose mean activation differs most, in standard deviations, by target."""
    pairs: list[tuple[int, int]] = []
    gaps: list[np.ndarray] = []
    for layer in features.places.layers:
        given = np.concatenate([read[layer][at] for read, at in zip(reads, samples, strict=True)])
        active = features.active(layer, given)
        gaps.append(np.stack([_gap(active, wanted[:, t]) for t in range(wanted.shape[1])]))
        pairs += [(layer, feature) for feature in range(active.shape[1])]
    gap = np.concatenate(gaps, axis=1)  # (target, feature of any layer)
    best = {int(i) for row in gap for i in np.argsort(-row)[:CHOSEN] if row[i] > 0}
    return np.array([pairs[i] for i in sorted(best)], dtype=np.int64).reshape(-1, 2)


def _gap(active: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """`(feature,)`: distance of the means of both answers, in pooled standard deviations; 0 for a feature that is never on."""
    yes, no = active[wanted == 1], active[wanted == 0]
    spread = np.sqrt((yes.var(axis=0) + no.var(axis=0)) / 2)
    gap = np.abs(yes.mean(axis=0) - no.mean(axis=0))
    return np.divide(gap, spread, out=np.zeros_like(gap), where=spread > 0)
