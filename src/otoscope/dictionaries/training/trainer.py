"""The loop: batches in, a dictionary out; whatever stops it, the next call goes on.

A folder of a training holds `run.json` (the whole configuration), `loss.jsonl` (the record), the last checkpoint while it is
under way, and at its end the dictionary in the project's own format.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from otoscope.dictionaries.formats.own import HEADER, load_own, save_dictionary
from otoscope.dictionaries.training import parallel
from otoscope.dictionaries.training.buffer import Vectors
from otoscope.dictionaries.training.checkpoints import Checkpoints
from otoscope.dictionaries.training.folding import fold
from otoscope.dictionaries.training.modules import Coder, Neurons
from otoscope.dictionaries.training.objective import Objective, judge
from otoscope.dictionaries.training.scaling import measure_units
from otoscope.errors import OptionError, OtoscopeError, TrainingError
from otoscope.files import atomic_write, output_error
from otoscope.progress import track
from otoscope.runs.run import Run

if TYPE_CHECKING:
    from torch import Tensor

    from otoscope.dictionaries.cross_layer import CrossLayerTranscoder
    from otoscope.dictionaries.training.config import TrainConfig
    from otoscope.dictionaries.transcoder import TranscoderSet

KIND = "dictionary"
"""What the run of a training is called in its `run.json`."""

RECORD = "loss.jsonl"


def train(
    config: TrainConfig,
    data: Iterable[Vectors],
    folder: Path | str,
    device: torch.device | str = "cpu",
    neurons: Callable[[int], Neurons] | None = None,
    about: Mapping[str, Any] | None = None,
) -> TranscoderSet | CrossLayerTranscoder:
    """Learn a dictionary, or go on learning it, and write it into a folder.

    With a process group of `torch.distributed`, every process calls this with data of its own and the same folder: gradients are
    averaged, so all batches must have one size. With `batchtopk` each process shares out the budget of its own vectors.

    Args:
        config: What is trained, and how.
        data: Batches. If it has `state` and `restore`, as `ShuffleBuffer` has, a resumed training goes to its place at once;
            otherwise it passes over the batches that were used.
        folder: Made if it is not there.
        device: Where to compute.
        neurons: From a layer its neurons, for a training that starts from them.
        about: What the data are, JSON-ready: a training goes on with the same alone.

    Returns:
        The dictionary as it is read back.

    Raises:
        OptionError: The folder is of another training, or the vectors do not fit the configuration.
        OutputError: The folder cannot be written, or another process trains in it.
        TrainingError: The data ended early, or loss or gradient are not finite.
    """
    folder = Path(folder)
    settings = config.to_json() | ({} if about is None else {"data": dict(about)})
    with _opened(folder, settings):
        if not (folder / HEADER).exists():
            Trainer(config, data, folder, device, neurons).run()
        parallel.barrier()
    return load_own(folder, getattr(torch, config.dtype))


@contextmanager
def _opened(folder: Path, settings: Mapping[str, Any]) -> Iterator[None]:
    """The folder, held by the first process for all; what it is refused, all are refused."""
    problem: OtoscopeError | None = None
    with ExitStack() as stack:
        if parallel.rank() == 0:
            try:
                stack.enter_context(Run.opened(folder, KIND, settings))
            except OtoscopeError as error:
                problem = error
        told = parallel.gathered_values(problem and (problem.reason, problem.remedy))[0]
        if problem:
            raise problem
        if told:
            raise TrainingError(*told)
        yield


class Trainer:
    """One training under way; see `train`.

    Attributes:
        coder: What is learned.
        step: Steps that are done.
    """

    def __init__(
        self,
        config: TrainConfig,
        data: Iterable[Vectors],
        folder: Path,
        device: torch.device | str = "cpu",
        neurons: Callable[[int], Neurons] | None = None,
    ) -> None:
        self.config, self.folder, self.device = config, folder, torch.device(device)
        self.checkpoints = Checkpoints(folder)
        self.data = _Feed(data, config)
        first = self.data.first()
        inputs, targets = self._placed(first[0])
        self.coder = Coder(config, inputs.shape[2], targets.shape[2]).to(self.device)
        self.optimizer = parallel.adam(
            self.coder.parameters(), config.shard, lr=config.peak_lr, betas=config.betas, eps=config.eps, fused=True
        )  # fmt: skip
        self.step = 0
        told = self.checkpoints.last()
        if told is None:
            self._calibrate(first, self._starting(neurons))
        else:
            self._resume(told)
        if parallel.rank() == 0:
            _cut(self.folder / RECORD, self.step)

    def _starting(self, neurons: Callable[[int], Neurons] | None) -> list[Neurons | None]:
        if self.config.start == "random":
            return [None] * len(self.config.layers)
        if neurons is None:
            raise OptionError(
                "There are no neurons to start from.", "Give those of the model, or start at random."
            )
        return [Neurons(*(part.to(self.device) for part in neurons(n))) for n in self.config.layers]

    def _calibrate(self, sample: list[Vectors], starts: Sequence[Neurons | None]) -> None:
        """Units and starting biases from the first batches, of all processes."""
        pairs = [self._placed(vectors) for vectors in sample]
        x, y = (parallel.gathered(torch.cat(parts, dim=1)) for parts in zip(*pairs, strict=True))
        for at, own in enumerate(self.coder):
            own.start_from(measure_units(x[at], y[at], self.config), x[at], y[at], starts[at])

    def _resume(self, told: dict[str, Any]) -> None:
        if len(told["data"]) != parallel.world():
            raise OptionError(
                f"{self.folder} was begun with {len(told['data'])} processes, not with {parallel.world()}.",
                "Go on with as many, or begin in another folder.",
            )
        self.checkpoints.restore(told, self.coder, self.optimizer)
        self.step = told["step"]
        self.data.go_to(self.step, told["data"][parallel.rank()])

    def run(self) -> None:
        """All steps that are left, then the dictionary."""
        config = self.config
        with track("Training", config.steps, "steps") as task:
            task.advance(self.step)
            while self.step < config.steps:
                told = self.update(self._next())
                if self.step % config.record_every == 0 or self.step == config.steps:
                    self._record(told)
                if config.checkpoint_every and self.step % config.checkpoint_every == 0:
                    self._checkpoint()
                task.advance()
        if parallel.rank() == 0:
            save_dictionary(fold(self.coder), self.folder)
            self.checkpoints.remove()

    def _next(self) -> Vectors:
        vectors = next(self.data, None)
        ended = parallel.greatest(torch.tensor(float(vectors is None), device=self.device))
        if vectors is None or ended:  # if one process has no more, none waits for it
            raise TrainingError(
                f"The data ended at step {self.step} of {self.config.steps}.",
                "Give more data or more epochs, or train fewer steps.",
            )
        return vectors

    def update(self, vectors: Vectors) -> dict[str, Any]:
        """One step.

        Returns:
            The line of the record.

        Raises:
            TrainingError: Loss or gradient are not finite; nothing has changed then.
        """
        inputs, targets = self._placed(vectors)
        rate = self.config.lr_at(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        found = judge(self.coder, inputs, targets, self.step)
        found.loss.backward()
        numbers = parallel.mean(
            torch.cat([found.missed, found.l0, found.aux[None], found.loss.detach()[None]])
        )
        missed, l0, (aux, loss) = numbers.split([len(self.coder), len(self.coder), 2])
        self._require_finite_loss(missed, loss, inputs, targets)
        parallel.average_gradients(self.coder.parameters())
        self._tame_gradients()
        self.optimizer.step()
        self._hold_norms()
        self._watch(found, inputs.shape[1] * parallel.world())
        self.step += 1
        return self._line(rate, loss, missed, l0, found.dead, aux)

    def _placed(self, vectors: Vectors) -> tuple[Tensor, Tensor]:
        """Inputs and targets `(layer, n, d)` of a batch."""
        inputs = self._layered(vectors.inputs)
        targets = inputs if vectors.targets is None else self._layered(vectors.targets)
        expected, shapes = len(self.config.layers), (tuple(inputs.shape), tuple(targets.shape))
        if shapes[0] != shapes[1] or shapes[0][0] != expected:
            raise OptionError(
                f"A batch has the shapes {shapes[0]} and {shapes[1]} (layer, vector, width) for {expected} layers.",
                "Give one input and one target of one width for every layer of the configuration.",
            )
        if shapes[0][1] * parallel.world() != self.config.batch or shapes[0][1] != shapes[1][1]:
            raise OptionError(
                f"A batch of {shapes[0][1]} inputs and {shapes[1][1]} targets is not what the configuration says: "
                f"{self.config.batch} over {parallel.world()} processes.",
                "Give batches of that size, or change the configuration.",
            )
        return inputs, targets

    def _layered(self, x: Tensor) -> Tensor:
        return (x[None] if x.dim() == 2 else x).to(self.device)

    # Safety ----------------------------------------------------------------------------------------------------------

    def _require_finite_loss(self, missed: Tensor, loss: Tensor, inputs: Tensor, targets: Tensor) -> None:
        if torch.isfinite(loss) and torch.isfinite(missed).all():
            return
        at = int((~torch.isfinite(missed)).to(torch.int8).argmax())
        given = torch.isfinite(inputs[at]).all() and torch.isfinite(targets[at]).all()
        self._stop("The loss" if given else "The loss, as the vectors of this batch are not,", at)

    def _tame_gradients(self) -> None:
        """Refuse what is not finite, keep to the norms that are held, clip."""
        named = [(name, p.grad) for name, p in self.coder.named_parameters() if p.grad is not None]
        norms = torch.stack(torch._foreach_norm([grad for _, grad in named]))
        if not torch.isfinite(norms).all():
            name = named[int((~torch.isfinite(norms)).to(torch.int8).argmax())][0]
            _, at, parameter = name.split(".")
            self._stop(f"The gradient of {parameter}", int(at))
        if self.config.unit_decoder:
            for own in self.coder:
                grad = own.w_dec.grad
                if grad is not None:  # along a row nothing can change
                    grad -= (grad * own.w_dec.detach()).sum(dim=1, keepdim=True) * own.w_dec.detach()
        if self.config.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.coder.parameters(), self.config.clip)

    def _stop(self, what: str, at: int) -> None:
        told = self.checkpoints.last()
        last = (
            f"the last good checkpoint is that of step {told['step']}" if told else "there is no checkpoint"
        )
        raise TrainingError(
            f"{what} is not finite at step {self.step} in layer {self.config.layers[at]}; {last}.",
            "Look for vectors that are not finite or huge, or begin anew with a smaller learning rate.",
        )

    @torch.no_grad()
    def _hold_norms(self) -> None:
        if self.config.unit_decoder:
            for own in self.coder:
                own.w_dec.div_(own.w_dec.norm(dim=1, keepdim=True))

    @torch.no_grad()
    def _watch(self, found: Objective, count: int) -> None:
        """Keep account of signs of life and of the running threshold."""
        for own, codes in zip(self.coder, found.codes, strict=True):
            fired = parallel.greatest(codes.pattern.fired(codes.values.detach()).to(torch.int32)) > 0
            own.silent += count
            own.silent[fired] = 0
            if self.config.activation == "batchtopk":
                least = codes.values.detach().min() if len(codes.values) else own.threshold
                least = parallel.mean(least)
                first = own.running < 0
                kept = 0.0 if first else self.config.threshold_momentum
                own.running.copy_(kept * own.running + (1 - kept) * least)

    # Record ----------------------------------------------------------------------------------------------------------

    def _line(
        self, rate: float, loss: Tensor, missed: Tensor, l0: Tensor, dead: Tensor, aux: Tensor
    ) -> dict[str, Any]:
        """One line of the record; explained variance is of the variance that the first batches had."""
        line = {
            "step": self.step,
            "loss": float(loss),
            "explained_variance": 1 - float(missed.mean()),
            "l0": float(l0.mean()),
            "dead": int(dead.sum()),
            "aux": float(aux),
            "lr": rate,
        }
        if len(self.coder) > 1:
            line["layers"] = [
                {"layer": layer, "explained_variance": 1 - float(m), "l0": float(n), "dead": int(d)}
                for layer, m, n, d in zip(self.config.layers, missed, l0, dead, strict=True)
            ]
        return line

    def _record(self, line: dict[str, Any]) -> None:
        if parallel.rank() == 0:
            path = self.folder / RECORD
            try:
                with path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
            except OSError as error:
                raise output_error(path, error) from error

    def _checkpoint(self) -> None:
        data = parallel.gathered_values(self.data.state())
        moments = parallel.moments_of(self.optimizer)
        if parallel.rank() == 0:
            self.checkpoints.save(self.step, self.coder, moments, data)
        parallel.barrier()


class _Feed:
    """The data with a place in it, whether it can tell its own or not."""

    def __init__(self, data: Iterable[Vectors], config: TrainConfig) -> None:
        self._data, self._config = data, config
        self._knows = hasattr(data, "state") and hasattr(data, "restore")
        self._batches = iter(data)

    def __iter__(self) -> _Feed:
        return self

    def __next__(self) -> Vectors:
        return next(self._batches)

    def first(self) -> list[Vectors]:
        """The batches to calibrate with; they are trained on as well."""
        start = self.state()
        here = -(-self._config.batch // parallel.world())
        needed = -(-self._config.calibration // (here * parallel.world()))
        sample = list(islice(self._batches, needed))
        if not sample:
            raise OptionError("There are no vectors to learn from.", "Give data of at least one batch.")
        if start is not None:
            self._data.restore(start)  # type: ignore[attr-defined]
        else:
            self._batches = chain(sample, self._batches)
        return sample

    def state(self) -> Any:
        """Its own account of its place, or None."""
        return self._data.state() if self._knows else None  # type: ignore[attr-defined]

    def go_to(self, step: int, state: Any) -> None:
        """To the place after so many steps."""
        if state is not None and self._knows:
            self._data.restore(state)  # type: ignore[attr-defined]
        else:
            next(islice(self._batches, step, step), None)


def _cut(path: Path, step: int) -> None:
    """Leave out of the record what came after a step, and a line that was cut off."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (ValueError, KeyError, TypeError):
            break
    with atomic_write(path) as file:
        file.writelines(kept)
