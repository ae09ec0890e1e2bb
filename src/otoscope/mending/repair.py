"""A repair: what is changed in a model to mend it, as one value that is saved, loaded, priced, applied and exported."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch

from otoscope.activations import Edit, load_edits, save_edits
from otoscope.errors import EditError, OptionError, OutputError
from otoscope.files import atomic_folder, atomic_write, require_folder
from otoscope.mending.breaker import Breaker
from otoscope.mending.features import FeatureGate
from otoscope.monitors.thresholds import check_rate
from otoscope.showing import Shows
from otoscope.text_values import object_in
from otoscope.versions import versions

if TYPE_CHECKING:
    from torch import Tensor

    from otoscope.models.base import Model

When = Literal["always", "alarm"]

DESCRIPTION = "repair.json"
_EDITS, _WEIGHTS = "edits.safetensors", "weights.safetensors"
_FORMAT = 1


@dataclass(frozen=True, eq=False)
class Repair(Shows):
    """What mends a model.

    Attributes:
        name: Short name, as tables print it.
        model: Facts about the model it was made for; `digest` tells its weights from others'.
        edits: Activations that are changed.
        features: Features of dictionaries that are scaled.
        weights: New values of parameters, by Hugging Face's names.
        breaker: The loop breaker, or None.
        may_be_empty: The end may be written first. Whisper's checkpoints suppress that (`begin_suppress_tokens`, OpenAI's
            `suppress_blank`), so that a text without timestamps is never empty, whatever the model has learnt.
        when: Edits, features and breaker act `always`, or in rows that are in `alarm` alone. Changed weights cannot wait for an
            alarm, nor can `may_be_empty`: they are in force either way.
        stop: The text of a row in alarm is ended at once.
        false_alarms: Share of ordinary speech on which the monitor may ring for this repair; None: as the monitor is set.
        made: How it was made: settings, seed, scores; JSON values.
    """

    name: str
    model: Mapping[str, Any]
    edits: tuple[Edit, ...] = ()
    features: tuple[FeatureGate, ...] = ()
    weights: Mapping[str, Tensor] = field(default_factory=dict)
    breaker: Breaker | None = None
    may_be_empty: bool = False
    when: When = "always"
    stop: bool = False
    false_alarms: float | None = None
    made: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.when not in get_args(When):
            raise OptionError(f"A repair cannot act {self.when!r}.", "Choose always or alarm.")
        if self.when == "always" and (self.stop or self.false_alarms is not None):
            raise OptionError("What always acts asks no monitor.", "Make it act in alarm alone.")
        if self.false_alarms is not None:
            check_rate(self.false_alarms)
        if any(edit.rows is not None for edit in self.edits):
            raise EditError(
                "An edit of a repair names rows, and which recording is in which row is not known.",
                "Leave rows out.",
            )

    @classmethod
    def of(cls, model: Model, name: str, **parts: Any) -> Repair:
        """A repair for a model; each edit is checked against its points.

        Raises:
            PointError: A point does not exist.
            EditError: An edit does not fit its point.
        """
        repair = cls(name, facts_of(model), **parts)
        for edit in repair.edits:
            edit.check(model.points[edit.point])
        return repair

    @property
    def stacks(self) -> set[str]:
        """Short names of the stacks whose activations or weights it changes (`encoder`, `decoder`)."""
        places = (*self.edits, *self.features)
        names = [*(place.point for place in places), *self.weights]
        return {"encoder" if "encoder_" in name or ".encoder." in name else "decoder" for name in names}

    def fits(self, model: Model) -> bool:
        """Whether it was made for these weights."""
        return self.model["digest"] == model.weights_digest()

    def require_fit(self, model: Model) -> None:
        """Refuse another model.

        Raises:
            OptionError: It was made for other weights.
        """
        if not self.fits(model):
            raise OptionError(
                f"The repair {self.name} was made for other weights ({self.model['name']}) than {model.origin.name} has.",
                "Name the model that it was made for, in the same files, or make a repair for this one.",
            )

    def joined(self, other: Repair) -> Repair:
        """Both repairs in one, this one's edits first; where both say something, the other has the last word."""
        if self.model["digest"] != other.model["digest"] or self.when != other.when:
            raise OptionError(
                f"{self.name} and {other.name} do not go together.",
                "Join repairs of the same model that act at the same times.",
            )
        return replace(
            self,
            name=f"{self.name}+{other.name}",
            edits=(*self.edits, *other.edits),
            features=(*self.features, *other.features),
            weights={**self.weights, **other.weights},
            breaker=other.breaker or self.breaker,
            may_be_empty=self.may_be_empty or other.may_be_empty,
            stop=self.stop or other.stop,
            false_alarms=self.false_alarms if other.false_alarms is None else other.false_alarms,
            made={"joined": [dict(self.made), dict(other.made)]},
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, without the tensors."""
        told = {
            "name": self.name,
            "model": dict(self.model),
            "edits": [edit.to_dict() for edit in self.edits],
            "features": [gate.to_dict() for gate in self.features],
            "weights": {name: list(value.shape) for name, value in self.weights.items()},
            "breaker": self.breaker and self.breaker.to_dict(),
            "may_be_empty": self.may_be_empty,
            "when": self.when,
            "stop": self.stop,
            "false_alarms": self.false_alarms,
            "made": dict(self.made),
        }
        return json.loads(json.dumps(told))  # as it comes back: tuples are lists there

    def digest(self) -> str:
        """SHA-256 of what it does, and to which model: its name and how it was made apart."""
        told = {key: value for key, value in self.to_dict().items() if key not in ("name", "made")}
        digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
        tensors = [edit.value for edit in self.edits if edit.value is not None]
        for tensor in (*tensors, *(self.weights[name] for name in sorted(self.weights))):
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def save(self, folder: Path | str) -> Path:
        """Write it into a folder, made if it is not there: `repair.json`, and tensors in safetensors.

        Raises:
            OutputError: The folder cannot be written.
        """
        from safetensors.torch import save

        folder = Path(folder)
        told = {"format": _FORMAT, **self.to_dict(), "versions": versions()}
        with atomic_folder(folder, last=DESCRIPTION) as begun:
            save_edits(self.edits, begun / _EDITS)
            with atomic_write(begun / _WEIGHTS, "wb") as file:
                file.write(save({name: value.contiguous() for name, value in self.weights.items()}))
            with atomic_write(begun / DESCRIPTION) as file:
                json.dump(told, file, indent=1, allow_nan=False)
        return folder


def facts_of(model: Model) -> dict[str, Any]:
    """What a repair remembers of the model it is for."""
    told = model.describe()
    return {key: told[key] for key in ("name", "family", "source")} | {"digest": model.weights_digest()}


def load_repair(folder: Path | str) -> Repair:
    """Read a repair.

    Raises:
        OptionError: The folder holds none, or one of a newer otoscope.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    remedy = "Name a directory made by `otoscope mend`."
    folder = require_folder(folder, remedy)
    try:
        told = object_in(folder / DESCRIPTION)
        if told["format"] != _FORMAT:
            raise OptionError(
                f"{folder} holds a repair of format {told['format']}, this otoscope reads {_FORMAT}.",
                "Use the otoscope that it was made with.",
            )
        json.dumps(told, allow_nan=False)  # what is taken can be saved again
        return Repair(
            name=str(told["name"]),
            model=dict(told["model"]),
            edits=tuple(load_edits(folder / _EDITS)),
            features=tuple(FeatureGate(**gate) for gate in told["features"]),
            weights=load_file(folder / _WEIGHTS),
            breaker=Breaker(**told["breaker"]) if told["breaker"] else None,
            may_be_empty=bool(told["may_be_empty"]),
            when=told["when"],
            stop=bool(told["stop"]),
            false_alarms=told["false_alarms"],
            made=dict(told["made"]),
        )
    except (OSError, ValueError, KeyError, TypeError, SafetensorError, EditError) as error:
        raise OptionError(
            f"{folder} holds no repair that can be read ({type(error).__name__}).",
            remedy,
        ) from error


def require_empty(folder: Path | str) -> Path:
    """Refuse a folder that holds anything.

    Raises:
        OutputError: It does, or it is a file.
    """
    folder = Path(folder)
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise OutputError(f"{folder} is not empty.", "Choose a new or empty directory.")
    return folder
