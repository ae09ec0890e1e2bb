"""A fitted monitor: its probes, head, calibration and threshold as one saved value, for one model alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from otoscope.errors import ModelError, OptionError
from otoscope.files import atomic_folder, atomic_write, require_folder
from otoscope.monitors.features import FeatureProbes, Features
from otoscope.monitors.hindsight import FACTS, USED, Hindsight
from otoscope.monitors.recurrent import Recurrent
from otoscope.monitors.signals import SIGNALS
from otoscope.monitors.thresholds import conformal_threshold
from otoscope.monitors.verdicts import TARGETS
from otoscope.showing import Shows
from otoscope.text_values import object_in

if TYPE_CHECKING:
    from otoscope.documents.card import Card
    from otoscope.models.whisper import SpeechModel

FORMAT = 2
_ABOUT, _WEIGHTS = "monitor.json", "monitor.safetensors"
_VECTORS = ("slope", "offset", "ordinary")
_HINDSIGHT = ("weights", "bias", "ordinary")
_SHIPPED = Path(__file__).parent / "shipped"


@dataclass(frozen=True, eq=False)
class Probes:
    """Linear probes of the residual stream and of what is heard; all of them sums, so that means over steps are running sums.

    Attributes:
        now: Weights on the stream at a step, `(layer, d_model, probe)`.
        mean: Weights on its mean so far, `(layer, d_model, probe)`.
        bias: `(layer, probe)`.
        heard: Weights on the encoder frames that a step attends to, `(d_model, probe)`.
        heard_bias: `(probe,)`.
        window: Weights on the mean of the frames that hold sound, `(d_model, probe)`.
        window_bias: `(probe,)`.
    """

    now: np.ndarray
    mean: np.ndarray
    bias: np.ndarray
    heard: np.ndarray
    heard_bias: np.ndarray
    window: np.ndarray
    window_bias: np.ndarray


@dataclass(frozen=True, eq=False)
class Monitor(Shows):
    """What tells how much a text under way is to be trusted.

    Attributes:
        model: Facts about the model it was fitted to: `name` and `weights`, the digest.
        layers: Decoder layers that it reads, 0-based.
        probes: Linear probes; probe i is of `TARGETS[i]`.
        head: The recurrent head over signals and probes.
        slope: Of the calibration of each target, `(target,)`: the probability is the logistic of `slope * logit + offset`.
        offset: `(target,)`.
        threshold: Risk from which it is an alarm.
        false_alarm_rate: Share of ordinary speech that the threshold was chosen for.
        ordinary: Risks of texts of ordinary speech, by which it was chosen, ascending.
        hindsight: What says more of a text once it is written.
        about: How it was made: corpora, seed, versions, scores.
        features: Probes of a dictionary's features, where it looks at one.
    """

    model: dict[str, Any]
    layers: tuple[int, ...]
    probes: Probes
    head: Recurrent
    slope: np.ndarray
    offset: np.ndarray
    threshold: float
    false_alarm_rate: float
    ordinary: np.ndarray
    hindsight: Hindsight
    about: dict[str, Any] = field(default_factory=dict)
    features: FeatureProbes | None = None

    def features_of(self, model: SpeechModel) -> Features | None:
        """The dictionary that it looks at, loaded; None without one.

        Raises:
            DictionaryError: It is not where it was, another one than the monitor was fitted with, or of another model.
        """
        if self.features is None:
            return None
        found = Features.of(model, self.features.name, self.features.point)
        self.features.check(found)
        return found

    def check(self, model: SpeechModel) -> None:
        """Refuse a model that it was not fitted to.

        Raises:
            ModelError: The weights are others.
        """
        if model.weights_digest() != self.model["weights"]:
            raise ModelError(
                f"This monitor was fitted to {self.model['name']}, and {model.origin.name} has other weights.",
                "Fit one with `otoscope monitor fit`, or use the model it belongs to.",
            )

    def card(self) -> Card:
        """What it was fitted to, and when it rings."""
        from otoscope.documents.card import Card, spelled

        facts = {
            "model": str(self.model["name"]),
            "decoder layers read": ", ".join(map(str, self.layers)),
            "alarm from risk": spelled(self.threshold),
            "doubtful in hindsight from risk": spelled(self.hindsight.threshold),
            "share of ordinary speech that rings": spelled(self.false_alarm_rate),
            "texts of ordinary speech it was set by": str(len(self.ordinary)),
        }
        return Card(title="Monitor", facts=facts)

    def at(self, false_alarm_rate: float) -> Monitor:
        """The same with the threshold for another rate of false alarms.

        Raises:
            OptionError: It is not between 0 and 1.
        """
        threshold = conformal_threshold(self.ordinary, false_alarm_rate)
        hindsight = self.hindsight.at(false_alarm_rate)
        return replace(self, threshold=threshold, false_alarm_rate=false_alarm_rate, hindsight=hindsight)

    @property
    def digest_of_risks(self) -> str:
        """What tells it from monitors that see other risks; from which risk on they ring is not looked at."""
        return replace(self, threshold=0.0, hindsight=replace(self.hindsight, threshold=0.0)).digest

    @property
    def digest(self) -> str:
        """What tells it from other monitors."""
        found = hashlib.sha256(f"{self.threshold} {self.slope} {self.offset}".encode())
        features = {}
        if self.features is not None:
            features = self.features.tensors()
            found.update(f"{self.features.digest} {self.features.point}".encode())
        afterwards = self.hindsight.weights, self.hindsight.bias, np.array(self.hindsight.threshold)
        for value in (
            *vars(self.probes).values(),
            *vars(self.head).values(),
            *features.values(),
            *afterwards,
        ):
            found.update(np.ascontiguousarray(value, np.float32).tobytes())
        return found.hexdigest()

    def save(self, folder: Path | str) -> Path:
        """Write it into a folder.

        Raises:
            OutputError: It cannot be written.
        """
        from safetensors.numpy import save

        folder = Path(folder)
        tensors = {f"probes.{k}": np.ascontiguousarray(v, np.float32) for k, v in vars(self.probes).items()}
        tensors |= {f"head.{name}": value for name, value in self.head.tensors().items()}
        tensors |= {name: getattr(self, name).astype(np.float32) for name in _VECTORS}
        tensors |= {f"hindsight.{name}": getattr(self.hindsight, name) for name in _HINDSIGHT}
        if self.features is not None:
            tensors |= {f"features.{name}": value for name, value in self.features.tensors().items()}
        told = {
            "format": FORMAT,
            "model": self.model,
            "layers": list(self.layers),
            "signals": list(SIGNALS),
            "targets": list(TARGETS),
            "facts": {target: list(facts) for target, facts in USED.items()},
            "threshold": self.threshold,
            "hindsight_threshold": self.hindsight.threshold,
            "false_alarm_rate": self.false_alarm_rate,
            "features": None if self.features is None else self.features.to_dict(),
            "about": self.about,
        }
        with atomic_folder(folder, last=_ABOUT) as begun:
            with atomic_write(begun / _WEIGHTS, "wb") as file:
                file.write(save(tensors))
            with atomic_write(begun / _ABOUT) as file:
                json.dump(told, file, indent=1)
        return folder

    @classmethod
    def load(cls, folder: Path | str) -> Monitor:
        """Read one from a folder.

        Raises:
            OptionError: There is none, or one of another format.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        remedy = "Name a folder that `otoscope monitor fit` wrote."
        folder = require_folder(folder, remedy)
        try:
            told = object_in(folder / _ABOUT)
            format_of = told["format"], told["signals"], told["targets"], told.get("facts")
            if format_of != (FORMAT, list(SIGNALS), list(TARGETS), {t: list(f) for t, f in USED.items()}):
                raise OptionError(f"{folder} holds a monitor of another release.", "Fit it again.")
            tensors = load_file(folder / _WEIGHTS)
            probes = Probes(
                **{name: tensors[f"probes.{name}"].astype(np.float64) for name in Probes.__dataclass_fields__}
            )
            head = Recurrent.of(
                {name.removeprefix("head."): x for name, x in tensors.items() if name[:5] == "head."}
            )
            made = cls(
                {name: str(told["model"][name]) for name in ("name", "weights")}, _numbers(told["layers"]), probes, head,
                hindsight=Hindsight(
                    *(tensors[f"hindsight.{name}"].astype(np.float64) for name in _HINDSIGHT),
                    threshold=float(told["hindsight_threshold"]),
                ),
                threshold=float(told["threshold"]), false_alarm_rate=float(told["false_alarm_rate"]), about=dict(told["about"]),
                features=_features(told.get("features"), tensors),
                **{name: tensors[name].astype(np.float64) for name in _VECTORS},
            )  # fmt: skip
            made._require_whole()
            return made
        except (OSError, ValueError, KeyError, TypeError, IndexError, SafetensorError) as error:
            raise OptionError(f"{folder} holds no monitor.", remedy) from error

    def _require_whole(self) -> None:
        """Refuse tensors that do not fit each other.

        Raises:
            ValueError: They do not.
        """
        p, h, targets, layers = self.probes, self.head, len(TARGETS), len(self.layers)
        d, hidden, inputs, f = p.now.shape[1], h.hidden, len(h.mean), self.features
        more = 0 if f is None else targets
        shapes = [
            (p.now, (layers, d, targets)), (p.mean, (layers, d, targets)), (p.bias, (layers, targets)),
            (p.heard, (d, targets)), (p.heard_bias, (targets,)), (p.window, (d, targets)), (p.window_bias, (targets,)),
            (h.mean, (len(SIGNALS) + (layers + 2) * targets + more,)), (h.scale, (inputs,)), (h.w_in, (3 * hidden, inputs)),
            (h.w_hidden, (3 * hidden, hidden)), (h.b_in, (3 * hidden,)), (h.b_hidden, (3 * hidden,)),
            (h.w_out, (targets, hidden)), (h.b_out, (targets,)), (self.slope, (targets,)), (self.offset, (targets,)),
            (self.ordinary, (len(self.ordinary),)), (self.hindsight.weights, (targets, len(FACTS))),
            (self.hindsight.bias, (targets,)), (self.hindsight.ordinary, (len(self.hindsight.ordinary),)),
        ]  # fmt: skip
        if f is not None:
            f.require_whole(targets)
        if not layers or any(value.shape != shape or not np.isfinite(value).all() for value, shape in shapes):
            raise ValueError("its tensors do not fit together")
        if not (self.threshold >= 0 and self.hindsight.threshold >= 0 and 0 <= self.false_alarm_rate <= 1):
            raise ValueError("its threshold is none")

    @classmethod
    def shipped(cls, model: SpeechModel) -> Monitor:
        """The monitor for a model that comes with otoscope.

        Raises:
            OptionError: There is none for these weights.
        """
        digest = model.weights_digest()
        for about in sorted(_SHIPPED.glob(f"*/{_ABOUT}")):
            if object_in(about)["model"]["weights"] == digest:
                return cls.load(about.parent)
        raise OptionError(
            f"No monitor for {model.origin.name} comes with otoscope.",
            "Fit one: `otoscope monitor fit MANIFEST --model ... --out DIR`, and name it with --monitor DIR.",
        )


def _features(told: dict[str, Any] | None, tensors: Mapping[str, np.ndarray]) -> FeatureProbes | None:
    if told is None:
        return None
    kept = {name: tensors[f"features.{name}"] for name in ("chosen", "now", "mean", "bias")}
    weights = {name: x if name == "chosen" else x.astype(np.float64) for name, x in kept.items()}
    name = str(told["name"])
    return FeatureProbes(name, str(told.get("digest", name)), str(told["point"]), **weights)


def _numbers(told: Any) -> tuple[int, ...]:
    if not all(type(number) is int and number >= 0 for number in told) or sorted(set(told)) != told:
        raise ValueError("its layers are no numbers in order")
    return tuple(told)


def facts_of(model: SpeechModel) -> Mapping[str, Any]:
    """What a monitor keeps of the model that it is fitted to."""
    return {"name": model.origin.name, "weights": model.weights_digest()}
