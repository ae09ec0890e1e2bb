"""The tuned lens: an affine translator a layer, into the basis of the last layer (Belrose et al. 2023, arXiv 2303.08112).

The plain lens reads a layer as if it were the last, although layers may rotate, shift and scale what they hold. A translator
`h + h @ change + bias` begins as the identity and is trained:

- decoder and language model: KL divergence from the model's own distribution to the translated one. The start is ridge
  regression onto the last layer's residual stream; then Adam.
- encoder: mean squared distance to the last layer's residual stream before its norm, by ridge regression. The decoder does
  not take part, so a translated layer may still be written differently from what is closest.

The penalty of the regression is on `change`, so that little data stays near the plain lens. The last layer is the identity.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from otoscope.audio import Clip
from otoscope.corpora import Item
from otoscope.errors import AudioError, ModelError, OptionError
from otoscope.files import atomic_folder, atomic_write
from otoscope.lenses.listening import first_window, read_again, write
from otoscope.models.causal_lm import LanguageModel
from otoscope.models.hearing import listen
from otoscope.models.transcripts import DecodeOptions
from otoscope.models.whisper import SpeechModel
from otoscope.progress import notice, track
from otoscope.text_values import object_in
from otoscope.versions import versions

if TYPE_CHECKING:
    from torch import Tensor

    from otoscope.models.base import Model

FORMAT = 1
"""Version of the file format."""

_TENSORS, _HEADER = "tuned_lens.safetensors", "tuned_lens.json"
_KEPT_BYTES = 512 * 2**20  # residual streams kept for the KL steps; of more, a random sample is
_MEASURED = 1000  # positions at most on which a divergence is measured: each costs a whole vocabulary


@dataclass(frozen=True)
class TunedSettings:
    """How a tuned lens is trained.

    Attributes:
        ridge: Penalty on `change`, in positions: it weighs as much as this many positions of data would.
        steps: Adam steps on the KL divergence after the ridge start; 0 leaves the ridge solution.
        batch: Tokens a step.
        learning_rate: Of Adam, falling linearly to zero.
        held_out: Share of the recordings (or texts) that only measure; at least one.
        language: Language to decode in; None: detect.
        seed: Of the choice of held-out recordings, of the sample and of the batches.
    """

    ridge: float = 10.0
    steps: int = 60
    batch: int = 64
    learning_rate: float = 1e-3
    held_out: float = 0.2
    language: str | None = None
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Translators:
    """Affine maps of one stack, a layer each; the last layer's is the identity.

    Attributes:
        change: `(layer, d_model, d_model)`, float32, applied from the right and added to the stream.
        bias: `(layer, d_model)`, float32.
    """

    change: Tensor
    bias: Tensor

    def __post_init__(self) -> None:
        layers, width = self.bias.shape
        if tuple(self.change.shape) != (layers, width, width):
            raise ValueError(f"translators of shapes {tuple(self.change.shape)} and {layers, width}")

    def __call__(self, layer: int, residual: Tensor) -> Tensor:
        """The stream `(..., d_model)` of a layer, translated; same precision and device."""
        change, bias = (x[layer].to(residual) for x in (self.change, self.bias))
        return residual + residual @ change + bias


@dataclass(frozen=True, eq=False)
class TunedLens:
    """Translators of a model's stacks, with where they come from.

    Attributes:
        stacks: Stack name (`decoder`, `encoder`, `text`) to its translators.
        model: Name and digest of the model they belong to.
        settings: How they were trained.
        measured: For each stack, layer by layer, the loss on held-out recordings before and after.
        versions: What they were trained with.
    """

    stacks: Mapping[str, Translators]
    model: Mapping[str, str]
    settings: TunedSettings
    measured: Mapping[str, Any]
    versions: Mapping[str, str] = field(default_factory=versions)

    def apply(self, residuals: Sequence[Tensor], stack: str) -> list[Tensor]:
        """Translate one residual stream a layer, `(..., d_model)`; what it gives goes where the plain streams would.

        Raises:
            OptionError: The lens has no such stack, or is for one of other layers.
        """
        if stack not in self.stacks:
            raise OptionError(
                f"This tuned lens has no translators for the {stack}.",
                f"It has some for: {', '.join(self.stacks)}.",
            )
        layers, width = self.stacks[stack].bias.shape
        if len(residuals) != layers or any(residual.shape[-1] != width for residual in residuals):
            raise OptionError(
                f"This tuned lens is for {layers} layers of {width} dimensions.", "Train one for this model."
            )
        return [self.stacks[stack](layer, residual) for layer, residual in enumerate(residuals)]

    def header(self) -> dict[str, Any]:
        """JSON-ready facts: model, layers, settings, what was measured, versions."""
        return {
            "format": FORMAT,
            "model": dict(self.model),
            "stacks": {stack: len(maps.bias) for stack, maps in self.stacks.items()},
            "settings": asdict(self.settings),
            "measured": dict(self.measured),
            "versions": dict(self.versions),
        }

    def save(self, folder: Path | str) -> None:
        """Write the lens into a folder, which is made if it is not there.

        Raises:
            OutputError: It cannot be written.
        """
        from safetensors.torch import save

        tensors = {
            f"{stack}.{name}": getattr(maps, name).contiguous()
            for stack, maps in self.stacks.items()
            for name in ("change", "bias")
        }
        data = save(tensors)
        header = self.header() | {"sha256": hashlib.sha256(data).hexdigest()}
        with atomic_folder(folder, last=_HEADER) as begun:
            with atomic_write(begun / _TENSORS, "wb") as file:
                file.write(data)
            with atomic_write(begun / _HEADER) as file:
                json.dump(header, file, indent=1, allow_nan=False)

    @classmethod
    def load(cls, folder: Path | str, model: Model) -> TunedLens:
        """Read a lens and refuse it for any model but its own.

        Raises:
            ModelError: It cannot be read, is damaged, or belongs to another model.
        """
        lens = _read(Path(folder))
        own = fingerprint(model)
        if lens.model["sha256"] != own["sha256"]:
            raise ModelError(
                f"The tuned lens in {folder} belongs to {lens.model['name']}, not to {own['name']}.",
                "Train one for this model with `otoscope lens MANIFEST --fit-tuned DIR`.",
            )
        return lens


def _read(folder: Path) -> TunedLens:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        header = object_in(folder / _HEADER)
        data = (folder / _TENSORS).read_bytes()
        if header["format"] != FORMAT or hashlib.sha256(data).hexdigest() != header["sha256"]:
            raise ValueError("its two files do not go together, or are of another version")
        tensors = load(data)
        stacks = {
            str(stack): Translators(tensors[f"{stack}.change"], tensors[f"{stack}.bias"])
            for stack in dict(header["stacks"])
        }
        settings = TunedSettings(**header["settings"])
        model = {name: str(header["model"][name]) for name in ("name", "sha256")}
        return TunedLens(stacks, model, settings, dict(header["measured"]), dict(header["versions"]))
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise ModelError(
            f"There is no usable tuned lens in {folder}: {why}.",
            "Name the folder that `otoscope lens MANIFEST --fit-tuned DIR` wrote.",
        ) from error


def fingerprint(model: Model) -> dict[str, str]:
    """Name and digest of a model: of its weight files, or of the parameters of a model built in memory."""
    if model.origin.sha256:
        return {"name": model.origin.name, "sha256": model.origin.sha256}
    digest = hashlib.sha256()
    for parameter in model.hf.parameters():
        digest.update(parameter.detach().cpu().double().numpy().tobytes())
    return {"name": model.origin.name, "sha256": digest.hexdigest()}


# Training ----------------------------------------------------------------------------------------------------------------


def fit_tuned_lens(
    model: Model, items: Sequence[Item | Clip | str | Tensor], settings: TunedSettings | None = None
) -> TunedLens:
    """Train a tuned lens on what the model itself writes.

    Recordings are read one at a time (the first window of each) and go through the model once. Kept are sums for the
    regressions, and at most half a gigabyte of the decoder's residual streams for the KL steps.

    Args:
        model: A Whisper model or a language model.
        items: Recordings for Whisper; texts, or their ids `(pos,)`, for a language model. Recordings
            that cannot be read are named and skipped.
        settings: How to train.

    Raises:
        ModelError: The model is of another kind.
        OptionError: There are fewer than two usable items, or the kinds of model and items do not go together.
    """
    settings = settings or TunedSettings()
    _check(model, items)
    fitting = _Fitting(model, settings)
    order = torch.randperm(len(items), generator=fitting.generator).tolist()
    measuring = set(order[: max(1, round(settings.held_out * len(items)))])
    with track("Reading for the tuned lens", len(items), "items") as task, torch.no_grad():
        for i, item in enumerate(items):
            for stack, residuals in _streams(model, item, settings):
                fitting.take(stack, residuals, held_out=i in measuring)
            task.advance()
    return fitting.finish()


def _check(model: Model, items: Sequence[Item | Clip | str | Tensor]) -> None:
    if not isinstance(model, SpeechModel | LanguageModel):
        raise ModelError(
            f"{model.origin.name} is neither a Whisper model nor a language model.",
            "Train a tuned lens for one of those.",
        )
    wanted = (str, torch.Tensor) if isinstance(model, LanguageModel) else (Item, Clip)
    if any(not isinstance(item, wanted) for item in items):
        raise OptionError(
            "These items do not go with the model.",
            "Give texts to a language model and recordings to Whisper.",
        )
    if len(items) < 2:
        raise OptionError(
            "A tuned lens needs two items at least: one to learn from and one to measure on.", "Give more."
        )


def _streams(
    model: Model, item: Item | Clip | str | Tensor, settings: TunedSettings
) -> Iterator[tuple[str, list[Tensor]]]:
    """Stack name and one residual stream `(pos, d_model)` a layer."""
    stack, prefix = next(iter(model.points.stacks.items()))
    points = f"{prefix}.*.hook_resid_post"
    if isinstance(model, LanguageModel):
        _, cache = model.run_with_cache(item, points)
        yield stack, [cache["resid_post", i][0] for i in range(len(cache))]
        return
    assert isinstance(model, SpeechModel)
    assert isinstance(item, Item | Clip)  # both by `_check`
    try:
        clip, _ = first_window(item, model.window_seconds)
    except AudioError as error:
        notice(f"Skipped: {error.reason}")
        return
    heard = listen(model, clip)
    yield "encoder", [residual[0] for residual in heard.resid_post]
    _, decoded = write(
        model, clip, heard.encoded, DecodeOptions(language=model.check_language(settings.language))
    )
    if decoded.ids:
        tokens = torch.tensor([*decoded.prompt, *decoded.ids], device=model.device)
        cache = read_again(model, heard.encoded, tokens, len(decoded.prompt), [points])
        yield stack, [cache["resid_post", i][0] for i in range(len(cache))]


class _Moments:
    """Sums from which a ridge regression onto the last layer, and the loss of any translator, are exact."""

    def __init__(self, d: int) -> None:
        self.n, self.scatter = 0, 0.0
        self.gram = torch.zeros(d + 1, d + 1, dtype=torch.float64)
        self.cross = torch.zeros(d + 1, d, dtype=torch.float64)

    def take(self, x: Tensor, last: Tensor) -> None:
        """Add positions: a layer's stream and the last layer's, both `(pos, d_model)`."""
        missing = (last - x).double()
        extended = torch.cat([x.double(), torch.ones_like(x[:, :1], dtype=torch.float64)], dim=1)
        self.n += len(x)
        self.gram += (extended.T @ extended).cpu()
        self.cross += (extended.T @ missing).cpu()
        self.scatter += float(missing.square().sum())

    def solve(self, ridge: float) -> Tensor:
        """`(d_model + 1, d_model)`: change and, last, bias, which is not penalised."""
        scale = ridge * self.gram.diagonal()[:-1].mean() / max(self.n, 1)
        penalty = torch.full((len(self.gram),), float(scale), dtype=torch.float64)
        penalty[-1] = 1e-9 * self.n
        return torch.linalg.solve(self.gram + penalty.diag(), self.cross)

    def loss(self, solution: Tensor) -> float:
        """Mean squared distance a position, summed over coordinates, that a translator leaves."""
        explained = 2 * (solution * self.cross).sum() - (solution * (self.gram @ solution)).sum()
        return (self.scatter - float(explained)) / max(self.n, 1)


class _Sample:
    """A uniform sample of positions in bounded memory (reservoir sampling)."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator, self.seen = generator, 0
        self._parts: list[Tensor] = []

    @property
    def kept(self) -> Tensor:
        """`(pos, layer, d_model)`."""
        if len(self._parts) > 1:
            self._parts = [torch.cat(self._parts)]
        return self._parts[0]

    def some(self, count: int) -> Tensor:
        """At most `count` of the kept positions."""
        if len(self.kept) <= count:
            return self.kept
        return self.kept[torch.randperm(len(self.kept), generator=self.generator)[:count]]

    def take(self, streams: Tensor) -> None:
        """Add positions `(pos, layer, d_model)`."""
        room = max(1, _KEPT_BYTES // (streams[0].numel() * streams.element_size()))
        fits = max(0, room - self.seen)
        if fits:
            self._parts.append(streams[:fits].clone())
        for i in range(fits, len(streams)):
            place = int(torch.randint(self.seen + i + 1, (1,), generator=self.generator))
            if place < room:
                self.kept[place] = streams[i]
        self.seen += len(streams)


class _Fitting:
    """What is gathered of each stack, and the training on it."""

    def __init__(self, model: Model, settings: TunedSettings) -> None:
        self.model, self.settings = model, settings
        self.main = next(iter(model.points.stacks))
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.moments: dict[str, list[tuple[_Moments, _Moments]]] = {}
        self.samples = (_Sample(self.generator), _Sample(self.generator))

    def take(self, stack: str, residuals: Sequence[Tensor], held_out: bool) -> None:
        """Add one recording's streams, one `(pos, d_model)` a layer."""
        d, last = residuals[-1].shape[-1], residuals[-1]
        moments = self.moments.setdefault(stack, [(_Moments(d), _Moments(d)) for _ in residuals[:-1]])
        for pair, residual in zip(moments, residuals, strict=False):
            pair[held_out].take(residual, last)
        if stack == self.main:
            self.samples[held_out].take(torch.stack(list(residuals), dim=1).float().cpu())

    def finish(self) -> TunedLens:
        """Solve and train everything that was gathered."""
        if not all(sample.seen for sample in self.samples):
            raise OptionError(
                "Too few items could be used: one must teach and one must measure.", "Give more."
            )
        stacks, measured = {}, {}
        for stack, pairs in self.moments.items():
            solutions = [pair[0].solve(self.settings.ridge) for pair in pairs]
            distances = {
                "mse_before": [
                    pair[1].loss(torch.zeros_like(s)) for pair, s in zip(pairs, solutions, strict=True)
                ],
                "mse_after": [pair[1].loss(s) for pair, s in zip(pairs, solutions, strict=True)],
            }
            maps = _translators(solutions)
            if stack == self.main:
                maps, measured[stack] = self._trained(maps)
            else:
                measured[stack] = {
                    "objective": "mean squared distance",
                    "positions": pairs[0][1].n,
                } | distances
            stacks[stack] = maps
        return TunedLens(stacks, fingerprint(self.model), self.settings, measured)

    def _trained(self, ridge: Translators) -> tuple[Translators, dict[str, Any]]:
        """Adam on the KL divergence, every layer by itself; a layer keeps what was best on the training sample."""
        plain = Translators(torch.zeros_like(ridge.change), torch.zeros_like(ridge.bias))
        seen, held = (sample.some(_MEASURED) for sample in self.samples)
        candidates = [plain, ridge]
        chosen = _best(candidates, [self._kl(maps, seen) for maps in candidates])
        tuned = self._descend(chosen, self.samples[0].kept) if self.settings.steps else chosen
        measured = {"objective": "KL divergence in nats", "positions": len(held)}
        for name, maps in {"kl_before": plain, "kl_ridge": ridge, "kl_after": tuned}.items():
            measured[name] = self._kl(maps, held)[:-1]
        return tuned, measured

    def _descend(self, start: Translators, streams: Tensor) -> Translators:
        layers, device = len(start.bias) - 1, self.model.device
        change = start.change.clone().to(device).requires_grad_()
        bias = start.bias.clone().to(device).requires_grad_()
        adam = torch.optim.Adam([change, bias], lr=self.settings.learning_rate)
        steps = self.settings.steps
        with track("Training the tuned lens", steps, "steps") as task:
            for step in range(steps):
                adam.param_groups[0]["lr"] = self.settings.learning_rate * (1 - step / steps)
                drawn = torch.randint(len(streams), (self.settings.batch,), generator=self.generator)
                rows, times = drawn.unique(return_counts=True)  # of a small sample many are drawn again
                batch, share = streams[rows].to(device), (times / len(drawn)).to(device)
                goal = self._log_p(batch[:, -1]).detach()
                change.grad = bias.grad = None
                for layer in range(layers):
                    x = batch[:, layer]
                    loss = _divergence(goal, self._log_p(x + x @ change[layer] + bias[layer])) @ share
                    loss.backward(inputs=[change, bias])
                adam.step()
                task.advance()
        return Translators(change.detach().cpu(), bias.detach().cpu())

    def _log_p(self, residual: Tensor) -> Tensor:
        return torch.log_softmax(self.model.unembed(residual.to(self.model.dtype)).float(), dim=-1)

    def _kl(self, maps: Translators, streams: Tensor) -> list[float]:
        """Mean KL divergence of each layer over a sample; the last layer's is zero."""
        total = torch.zeros(len(maps.bias), dtype=torch.float64)
        with torch.no_grad():
            for batch in streams.split(self.settings.batch):
                batch = batch.to(self.model.device)
                goal = self._log_p(batch[:, -1])
                for layer in range(len(total) - 1):
                    total[layer] += (
                        _divergence(goal, self._log_p(maps(layer, batch[:, layer]))).sum().double().cpu()
                    )
        return (total / len(streams)).tolist()


def _divergence(goal: Tensor, log_p: Tensor) -> Tensor:
    """KL divergence from `goal` to `log_p`, both log-probabilities `(pos, vocab)`, in nats."""
    return (goal.exp() * (goal - log_p)).sum(dim=-1)


def _translators(solutions: Sequence[Tensor]) -> Translators:
    """Solutions of all layers but the last, which is the identity."""
    stacked = torch.stack([*solutions, torch.zeros_like(solutions[-1])]).float()
    return Translators(stacked[:, :-1].contiguous(), stacked[:, -1].contiguous())


def _best(candidates: Sequence[Translators], losses: Sequence[Sequence[float]]) -> Translators:
    """For each layer the candidate with the lowest loss."""
    best = torch.tensor(losses).argmin(dim=0).tolist()
    return Translators(
        torch.stack([candidates[c].change[layer] for layer, c in enumerate(best)]),
        torch.stack([candidates[c].bias[layer] for layer, c in enumerate(best)]),
    )
