"""Every constant of a training, in one value that is saved beside the weights."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from otoscope.dictionaries.base import Reads, Writes
from otoscope.errors import OptionError

Kind = Literal["sae", "transcoder", "skip", "clt"]
Gate = Literal["topk", "batchtopk", "jumprelu"]
Tying = Literal["none", "source", "target"]
Scaling = Literal["none", "scale", "standard"]
Centre = Literal["geometric_median", "mean", "zero"]
DecoderStart = Literal["encoder", "zeros", "random"]
Precision = Literal["float32", "float64"]
Start = Literal["random", "neurons"]

_CHOICES: dict[str, Any] = {
    "kind": Kind,
    "activation": Gate,
    "tying": Tying,
    "scaling": Scaling,
    "centre": Centre,
    "decoder_start": DecoderStart,
    "start": Start,
    "dtype": Precision,
    "reads": Reads,
    "writes": Writes,
}


@dataclass(frozen=True)
class TrainConfig:
    """What is trained, and how.

    Vectors are counted over all processes: `batch` is shared out between them.

    Attributes:
        kind: `sae` reconstructs what it reads; `transcoder` the output of the layer that it reads; `skip` the same with a linear
            path around the features; `clt` the outputs of its own and all later layers.
        width: Features a layer.
        steps: Steps of the optimiser.
        activation: `topk` (Gao et al. 2024), `batchtopk` (Bussmann et al. 2024) or `jumprelu` (Rajamanoharan et al. 2024).
        k: Features that stay on at a position and layer. With `jumprelu` the L0 that the penalty aims at, or None.
        start_k: Features that stay on at the start, from which `k` is reached in even steps; None: `k` from the start.
        k_steps: Steps in which that happens.
        batch: Vectors a step.
        layers: Layers of the model that are learned, each for itself except by `clt`.
        model_layers: Layers of the model; None: up to the last one learned.
        reads: Where features read; None: `mlp_in`, for an SAE `point`.
        writes: Where they write; None: `mlp_raw`, for an SAE `point`.
        name: What the dictionary is called in results.
        tying: Decoders of a `clt`: `none` gives every pair of layers its own; `source` one a reading layer, `target` one a
            written layer, both with a learned scale a feature and pair.
        lr: Peak learning rate; None: 2e-4 at 2^14 features and the square root of the ratio for others (Gao et al. 2024).
        warmup: Steps of linear warm-up.
        decay: Share of the steps, the last ones, in which the rate falls linearly to zero.
        betas: Of Adam.
        eps: Of Adam.
        clip: Greatest norm of the gradient; None: as it is.
        sparsity: Coefficient of the L0 penalty of `jumprelu`.
        sparsity_warmup: Steps in which it rises linearly.
        bandwidth: Width of the kernel that estimates the gradient of the thresholds.
        start_l0: Features that a `jumprelu` dictionary has on at the start; None: `k`, or 1/32 of the width.
        threshold_momentum: How slowly the running threshold of `batchtopk` moves.
        aux: Coefficient of the auxiliary loss, by which dead features reconstruct what the living miss (Gao et al. 2024).
        aux_k: Dead features that take part at a position; None: 2 `k`, or a quarter of the width that is read.
        aux_every: Every how many vectors of a batch take part in the auxiliary loss: fewer estimate it at less cost.
        dead_after: Vectors without a sign of life after which a feature is dead.
        scaling: `scale` gives the inputs of a layer mean zero and, on average over the dimensions, variance 1; `standard` every
            dimension variance 1; `none` leaves them. Targets are scaled by one number, so that the objective stays the
            share of unexplained variance. Folded into the weights at the end.
        centre: What the biases start from: the geometric median (Bricken et al. 2023), the mean or zero.
        decoder_start: `encoder` (its transpose, SAEs only), `zeros` or `random`; None: `encoder` for an SAE, else `zeros`.
        start: `random` reading directions, or for transcoders of plain MLPs `neurons`: the first features are the model's own
            neurons, scaled so that the gate ranks them by what they write, the others read in small random directions, and
            bias and skip begin where they fit best.
        unit_decoder: Hold decoder rows at norm 1, the gradient projected accordingly.
        calibration: Vectors from which scaling and starting biases are taken.
        record_every: Steps between lines of the record.
        checkpoint_every: Steps between checkpoints; 0: none.
        shard: With several processes: each keeps Adam's moments of its share of the weights alone.
        seed: Of the initial weights.
        dtype: Precision of weights and optimiser.

    Raises:
        OptionError: A value cannot be used, or not with another one.
    """

    kind: Kind
    width: int
    steps: int
    activation: Gate = "topk"
    k: int | None = 32
    start_k: int | None = None
    k_steps: int = 0
    batch: int = 2048
    layers: tuple[int, ...] = (0,)
    model_layers: int | None = None
    reads: Reads | None = None
    writes: Writes | None = None
    name: str = "trained"
    tying: Tying = "none"
    lr: float | None = None
    warmup: int = 100
    decay: float = 0.2
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    clip: float | None = None
    sparsity: float = 1e-3
    sparsity_warmup: int = 0
    bandwidth: float = 0.5
    start_l0: float | None = None
    threshold_momentum: float = 0.99
    aux: float = 1 / 32
    aux_k: int | None = None
    aux_every: int = 4
    dead_after: int = 1_000_000
    scaling: Scaling = "scale"
    centre: Centre = "geometric_median"
    decoder_start: DecoderStart | None = None
    start: Start = "random"
    unit_decoder: bool = False
    calibration: int = 8192
    record_every: int = 10
    checkpoint_every: int = 500
    shard: bool = False
    seed: int = 0
    dtype: Precision = "float32"

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        object.__setattr__(self, "betas", tuple(self.betas))
        self._check_choices()
        self._check_numbers()
        self._check_together()

    def _check_choices(self) -> None:
        for name, choices in _CHOICES.items():
            value, known = getattr(self, name), get_args(choices)
            if value not in known and not (value is None and name in ("decoder_start", "reads", "writes")):
                raise OptionError(f"{name} cannot be {value!r}.", f"Choose from {', '.join(known)}.")

    def _check_numbers(self) -> None:
        for name in ("width", "steps", "batch", "calibration", "record_every", "aux_every", "dead_after"):
            _require(name, getattr(self, name), 1, whole=True)
        for name in ("warmup", "k_steps", "sparsity_warmup", "checkpoint_every", "seed"):
            _require(name, getattr(self, name), 0, whole=True)
        for name in ("k", "start_k", "aux_k"):
            if getattr(self, name) is not None:
                _require(name, getattr(self, name), 1, self.width, whole=True)
        for name in ("sparsity", "aux"):
            _require(name, getattr(self, name), 0)
        for name in ("decay", "threshold_momentum"):
            _require(name, getattr(self, name), 0, 1)
        for name in ("lr", "clip", "bandwidth", "eps", "start_l0"):
            value = getattr(self, name)
            if value is not None:
                _require(name, value, math.ulp(0.0))
        for beta in self.betas:
            _require("betas", beta, 0, 1 - 1e-12)
        if len(self.betas) != 2:
            raise OptionError("betas are two numbers.", "Give Adam's two, such as 0.9 and 0.999.")

    def _check_together(self) -> None:
        if self.activation != "jumprelu" and self.k is None:
            raise OptionError(f"A {self.activation} dictionary needs k.", "Say how many features stay on.")
        if self.start_k is not None and (self.activation == "jumprelu" or not self.k_steps):
            raise OptionError(
                "start_k needs k_steps, and a gate that counts features.",
                "Say in how many steps k is reached; the start of jumprelu is start_l0.",
            )
        if not self.layers or sorted(set(self.layers)) != list(self.layers) or self.layers[0] < 0:
            raise OptionError(
                f"layers cannot be {list(self.layers)}.", "Name at least one, each once, ascending from 0."
            )
        if self.model_layers is not None and self.layers[-1] >= self.model_layers:
            raise OptionError(
                f"Layer {self.layers[-1]} is none of {self.model_layers} layers.", "They are counted from 0."
            )
        if self.kind == "clt" and self.layers != tuple(range(self.model_layers or len(self.layers))):
            raise OptionError(
                f"A cross-layer transcoder of the layers {list(self.layers)} leaves some out.",
                "Train it on all layers of the model.",
            )
        if self.kind != "clt" and self.tying != "none":
            raise OptionError(
                f"A {self.kind} dictionary has no decoders to tie.", "Leave tying at none, or train a clt."
            )
        for place in ("reads", "writes"):
            value = getattr(self, place)
            if value is not None and (value == "point") != (self.kind == "sae"):
                raise OptionError(
                    f"A {self.kind} dictionary cannot have {place} = {value!r}.",
                    "An SAE reads and writes its own point; transcoders read and write around an MLP.",
                )
        if self.decoder_start == "encoder" and self.kind != "sae":
            raise OptionError(
                f"The decoder of a {self.kind} dictionary writes elsewhere than its encoder reads.",
                "Start it with zeros or random rows.",
            )
        if self.start == "neurons" and (
            self.kind == "sae" or self.decoder_start is not None or self.tying != "none"
        ):
            raise OptionError(
                "Only transcoders start from neurons, with decoders that are the neurons' own.",
                "Choose another kind, leave decoder_start and tying out, or start at random.",
            )
        if self.unit_decoder and self.starts_with == "zeros":
            raise OptionError(
                "Decoder rows that start as zeros have no norm to hold.",
                "Choose another decoder_start, or no unit_decoder.",
            )

    # What follows from the values ------------------------------------------------------------------------------------

    @property
    def starts_with(self) -> DecoderStart:
        """How the decoder starts."""
        return self.decoder_start or ("encoder" if self.kind == "sae" else "zeros")

    @property
    def places(self) -> tuple[Reads, Writes]:
        """Where features read and write."""
        if self.kind == "sae":
            return "point", "point"
        return self.reads or "mlp_in", self.writes or "mlp_raw"

    @property
    def peak_lr(self) -> float:
        """The learning rate between warm-up and decay."""
        return self.lr or 2e-4 / (self.width / 2**14) ** 0.5

    def lr_at(self, step: int) -> float:
        """Learning rate of a step, from 0."""
        rising = (step + 1) / self.warmup if self.warmup else 1.0
        last = self.decay * self.steps
        falling = (self.steps - step) / last if last else 1.0
        return self.peak_lr * min(1.0, rising, falling)

    def k_at(self, step: int) -> int:
        """Features that stay on at a step, from 0, where a gate counts them."""
        if self.start_k is None or step >= self.k_steps:
            return self.k or 0
        return round(self.start_k + ((self.k or 0) - self.start_k) * step / self.k_steps)

    def sparsity_at(self, step: int) -> float:
        """Coefficient of the L0 penalty at a step, from 0."""
        return self.sparsity * min(1.0, (step + 1) / self.sparsity_warmup if self.sparsity_warmup else 1.0)

    def aux_k_for(self, d_in: int) -> int:
        """Dead features that take part in the auxiliary loss at a position."""
        return self.aux_k or min(self.width, 2 * self.k if self.k else max(1, d_in // 4))

    # JSON ------------------------------------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """All values as JSON holds them."""
        return dataclasses.asdict(self) | {"layers": list(self.layers), "betas": list(self.betas)}

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> TrainConfig:
        """A configuration from a table; what is left out has its default.

        Raises:
            OptionError: A name is unknown or missing, or a value cannot be used.
        """
        known = {field.name: field for field in dataclasses.fields(cls)}
        unknown = [name for name in table if name not in known]
        if unknown:
            raise OptionError(f"A training has no option {unknown[0]!r}.", f"It has {', '.join(known)}.")
        missing = [name for name in ("kind", "width", "steps") if name not in table]
        if missing:
            raise OptionError(f"A training needs {missing[0]}.", "Add it to the configuration.")
        return cls(**table)


def _require(name: str, value: Any, least: float, most: float = math.inf, *, whole: bool = False) -> None:
    """Refuse what is no finite number from `least` to `most`."""
    number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not least <= value <= most:
        what = "a whole number" if whole else "a number"
        bounds = "above 0" if 0 < least < 1 else f"of at least {least:g}"
        raise OptionError(
            f"{name} cannot be {value!r}.",
            f"Give {what} {bounds}" + (f" and at most {most:g}." if math.isfinite(most) else "."),
        )
