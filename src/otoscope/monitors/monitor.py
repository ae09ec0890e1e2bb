"""A fitted monitor: from what is read while a model writes to a risk for every token, and an alarm."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from otoscope.errors import ModelError, OptionError
from otoscope.files import atomic_folder, atomic_write
from otoscope.models.transcribing import Window, frames_of
from otoscope.monitors.features import FeatureProbes, Features, reads_of
from otoscope.monitors.reading import EVERY, Block, Reader
from otoscope.monitors.recurrent import Recurrent
from otoscope.monitors.signals import SIGNALS
from otoscope.monitors.verdicts import TARGETS
from otoscope.showing import Shows
from otoscope.text_values import object_in

if TYPE_CHECKING:
    from torch import Tensor

    from otoscope.audio import Clip
    from otoscope.documents.card import Card
    from otoscope.models.base import LogitFilter
    from otoscope.models.whisper import SpeechModel

FORMAT = 1
_ABOUT, _WEIGHTS = "monitor.json", "monitor.safetensors"
_VECTORS = ("slope", "offset", "ordinary")
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
        return replace(self, threshold=threshold, false_alarm_rate=false_alarm_rate)

    @property
    def digest(self) -> str:
        """What tells it from other monitors."""
        found = hashlib.sha256(f"{self.threshold} {self.slope} {self.offset}".encode())
        features = {}
        if self.features is not None:
            features = self.features.tensors()
            found.update(f"{self.features.digest} {self.features.point}".encode())
        for value in (*vars(self.probes).values(), *vars(self.head).values(), *features.values()):
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
        if self.features is not None:
            tensors |= {f"features.{name}": value for name, value in self.features.tensors().items()}
        told = {
            "format": FORMAT,
            "model": self.model,
            "layers": list(self.layers),
            "signals": list(SIGNALS),
            "targets": list(TARGETS),
            "threshold": self.threshold,
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

        folder = Path(folder)
        try:
            told = object_in(folder / _ABOUT)
            if (told["format"], told["signals"], told["targets"]) != (FORMAT, list(SIGNALS), list(TARGETS)):
                raise OptionError(f"{folder} holds a monitor of another release.", "Fit it again.")
            tensors = load_file(folder / _WEIGHTS)
            probes = Probes(
                **{name: tensors[f"probes.{name}"].astype(np.float64) for name in Probes.__dataclass_fields__}
            )
            head = Recurrent.of(
                {name.removeprefix("head."): x for name, x in tensors.items() if name[:5] == "head."}
            )
            made = cls(
                {name: str(told["model"][name]) for name in ("name", "weights")}, tuple(map(int, told["layers"])), probes, head,
                threshold=float(told["threshold"]), false_alarm_rate=float(told["false_alarm_rate"]), about=dict(told["about"]),
                features=_features(told.get("features"), tensors),
                **{name: tensors[name].astype(np.float64) for name in _VECTORS},
            )  # fmt: skip
            made._require_whole()
            return made
        except (OSError, ValueError, KeyError, TypeError, IndexError, SafetensorError) as error:
            raise OptionError(
                f"{folder} holds no monitor.", "Name a folder that `otoscope monitor fit` wrote."
            ) from error

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
            (self.ordinary, (len(self.ordinary),)),
        ]  # fmt: skip
        if f is not None:
            f.require_whole(targets)
        if not layers or any(value.shape != shape or not np.isfinite(value).all() for value, shape in shapes):
            raise ValueError("its tensors do not fit together")
        if not (self.threshold >= 0 and 0 <= self.false_alarm_rate <= 1):
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


@dataclass(eq=False)
class Progress:
    """One row under the eyes of a monitor.

    Attributes:
        risks: Risk of each step so far, the end token's included.
        parts: Probability of each of `TARGETS`, a row a step.
        alarm: Number of the first step (0-based) that is an alarm, or None.
    """

    risks: list[float] = field(default_factory=list)
    parts: list[list[float]] = field(default_factory=list)
    alarm: int | None = None

    @property
    def risk(self) -> float:
        """Of the text so far: the highest."""
        return max(self.risks, default=0.0)


@dataclass(eq=False)
class _State:
    """What one row's past leaves."""

    sums: np.ndarray  # (layer, probe)
    hidden: np.ndarray
    frames: np.ndarray | None = None  # (frame, probe)
    window: np.ndarray | None = None  # (probe,)
    features: np.ndarray | None = None  # (probe,), weighted sums of activations so far


class Scorer:
    """Risk of every step of some rows, block by block.

    Args:
        monitor: The monitor.
        features: The dictionary that it looks at, if it does: see `Monitor.features_of`.
    """

    def __init__(self, monitor: Monitor, features: Features | None = None) -> None:
        self.monitor, self.features = monitor, features
        self.rows: dict[int, Progress] = {}
        self._states: dict[int, _State] = {}

    def take(self, block: Block) -> Progress:
        """Go on with a row."""
        if block.first == 0:
            self.rows[block.row], self._states[block.row] = Progress(), self._begin(block)
        progress, state = self.rows[block.row], self._states[block.row]
        residual = block.residual.float().cpu().numpy().astype(np.float64)
        attention = block.attention.cpu().numpy().astype(np.float64)
        state.hidden, logits = self.monitor.head.advance(
            state.hidden, self._inputs(state, block, residual, attention)
        )
        parts = calibrated(logits, self.monitor.slope, self.monitor.offset)
        for i, risk in enumerate(joined_risk(parts).tolist()):
            progress.risks.append(risk)
            progress.parts.append(parts[i].tolist())
            if progress.alarm is None and risk >= self.monitor.threshold:
                progress.alarm = block.first + i
        return progress

    def _begin(self, block: Block) -> _State:
        probes = self.monitor.probes
        encoded = block.encoded.float().cpu().numpy()
        frames = encoded @ probes.heard.astype(np.float32) + probes.heard_bias
        window = encoded[: block.track.frames].mean(axis=0) @ probes.window + probes.window_bias
        zero = np.zeros(probes.bias.shape[1])
        return _State(np.zeros(probes.bias.shape), self.monitor.head.start(), frames, window, zero)

    def _inputs(self, state: _State, block: Block, residual: np.ndarray, attention: np.ndarray) -> np.ndarray:
        probes = self.monitor.probes
        layered = residual.transpose(1, 0, 2)  # (layer, step, d_model)
        sums = state.sums[:, None] + np.cumsum(layered @ probes.mean, axis=1)
        state.sums = sums[:, -1]
        counts = np.arange(block.first + 1, block.first + 1 + len(residual))[None, :, None]
        read = layered @ probes.now + sums / counts + probes.bias[:, None]
        assert state.frames is not None
        assert state.window is not None
        heard = attention @ state.frames
        told = self._told_by_features(state, block)
        return inputs_of(block.signals, read.transpose(1, 0, 2), heard, state.window, told)

    def _told_by_features(self, state: _State, block: Block) -> np.ndarray | None:
        probes = self.monitor.features
        if probes is None or self.features is None:
            return None
        read = {layer: x.float().cpu().numpy() for layer, x in block.read.items()}
        active = probes.activations(self.features, read)
        sums = state.features + np.cumsum(active @ probes.mean, axis=0)
        state.features = sums[-1]
        return probes.log_odds(active, sums, block.first)


def conformal_threshold(risks: np.ndarray, rate: float) -> float:
    """Least threshold that at most a share `rate` of texts like these reaches, in expectation.

    Of n risks the one of rank ceil((n + 1) (1 - rate)), and a hair above it (Vovk et al. 2005); n must be at least 1 / rate - 1.

    Args:
        risks: Of texts of ordinary speech, `(text,)`.
        rate: Between 0 and 1.

    Raises:
        OptionError: The rate is not between 0 and 1, or too low for so few texts.
    """
    check_rate(rate)
    ranked = np.sort(risks)
    rank = int(np.ceil((len(ranked) + 1) * (1 - rate)))
    if rank > len(ranked):
        raise OptionError(
            f"{len(ranked)} texts of ordinary speech cannot promise a false-alarm rate of {rate:g}.",
            f"Ask for at least {1 / (len(ranked) + 1):.3f}, or fit a monitor with more ordinary speech.",
        )
    return float(np.nextafter(ranked[rank - 1], np.inf))


def check_rate(rate: float) -> None:
    """Refuse what is no share.

    Raises:
        OptionError: It is not between 0 and 1.
    """
    if not 0 < rate < 1:
        raise OptionError(
            f"A false-alarm rate of {rate:g} cannot be asked for.",
            "Choose a share between 0 and 1, such as 0.05.",
        )


def inputs_of(
    signals: np.ndarray,
    read: np.ndarray,
    heard: np.ndarray,
    window: np.ndarray,
    features: np.ndarray | None = None,
) -> np.ndarray:
    """Inputs of the head, `(step, input)`.

    Args:
        signals: `(step, signal)`.
        read: Log-odds of the probes of the residual stream, `(step, layer, probe)`.
        heard: Of what is attended to, `(step, probe)`.
        window: Of the whole window, `(probe,)`.
        features: Of a dictionary's features, `(step, probe)`, where there is one.
    """
    whole = np.broadcast_to(window, (len(signals), len(window)))
    more = [] if features is None else [features]
    return np.concatenate([signals, read.reshape(len(read), -1), heard, whole, *more], axis=1)


def calibrated(logits: np.ndarray, slope: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Probabilities of logits `(..., target)` (Platt 1999)."""
    return 0.5 * (1 + np.tanh(0.5 * (logits * slope + offset)))


def joined_risk(parts: np.ndarray) -> np.ndarray:
    """Risk that a text is invented or loops: `(..., target)` to `(...)`, as if one said nothing of the other."""
    return 1 - np.prod(1 - parts, axis=-1)


Listener = Callable[[int, Progress], None]
"""Called with a row of the batch and how it stands, after each of its blocks."""


class Watch:
    """A watcher for `transcribe_all` that knows the risk of every token; see `otoscope.models.transcribing.Watcher`.

    Args:
        monitor: The monitor.
        model: The model it was fitted to.
        listener: Told of every block at once.
        keeping: Keep how windows went, to be taken.
        every: Steps that are looked at together: 1 rings soonest, more cost less.

    Raises:
        ModelError: It was fitted to another model.
    """

    def __init__(
        self,
        monitor: Monitor,
        model: SpeechModel,
        listener: Listener | None = None,
        keeping: bool = True,
        every: int = EVERY,
    ) -> None:
        monitor.check(model)
        self.monitor, self.model, self.listener, self.keeping = monitor, model, listener, keeping
        self.every = every
        self.newest: dict[int, Progress] = {}
        self._features = monitor.features_of(model)
        self.scorer = Scorer(monitor, self._features)
        self._done: dict[tuple[int, int], Progress] = {}
        self._reader = Reader(model, monitor.layers, self._take, every, reads_of(self._features))

    def _take(self, block: Block) -> None:
        progress = self.scorer.take(block)
        if self.listener:
            self.listener(block.row, progress)

    def begin(self) -> None:
        """Keep how windows go from here on, and forget what was kept."""
        self.keeping = True
        self._done.clear()

    def alarmed(self, row: int) -> bool:
        """Whether a row of the batch is in alarm at one of the newest steps, which are looked at together."""
        progress = self.scorer.rows.get(row)
        return progress is not None and max(progress.risks[-self.every :]) >= self.monitor.threshold

    @contextmanager
    def over(self, clips: Sequence[Clip]) -> Iterator[None]:
        """Watch what is decoded inside the block, whoever decodes; row i hears clip i. Other filters come after the monitor's."""
        self.scorer = Scorer(self.monitor, self._features)
        frames = [frames_of(self.model, clip) for clip in clips]
        try:
            with self._reader.following(frames) as follow, self.model.filtering(lambda _: follow, first=True):
                yield
        finally:
            # an alarm ends with its batch
            self.newest, self.scorer = self.scorer.rows, Scorer(self.monitor, self._features)

    @contextmanager
    def watching(self, features: Tensor, windows: Sequence[Window]) -> Iterator[Sequence[LogitFilter]]:
        """Watch one batch."""
        with self.over([window.clip for window in windows]):
            yield []
        for row, window in enumerate(windows if self.keeping else ()):
            self._done[window.recording, window.number] = self.newest.get(row, Progress())

    def take(self, recording: int) -> list[Progress]:
        """How the windows of a recording went, in order, and forget them."""
        numbers = sorted(number for of, number in self._done if of == recording)
        return [self._done.pop((recording, number)) for number in numbers]


def facts_of(model: SpeechModel) -> Mapping[str, Any]:
    """What a monitor keeps of the model that it is fitted to."""
    return {"name": model.origin.name, "weights": model.weights_digest()}
