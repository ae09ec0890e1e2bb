"""Fine-tuning heads of the decoder's self-attention and nothing else (Calm-Whisper, arXiv 2505.12969, section 3).

The slices of the query, key, value and output projections that belong to the chosen heads are parameters of their own, so the
optimiser sees nothing else, and everything else is the same bit for bit afterwards, whatever optimiser it is. The encoder is
frozen, and what it gives was computed once.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import cross_entropy

from otoscope.activations import Edit, HookFunction, Visit
from otoscope.errors import OptionError, TrainingError
from otoscope.mending.applying import swapped
from otoscope.mending.lessons import Lesson
from otoscope.mending.repair import Repair
from otoscope.models.decoding import batches
from otoscope.progress import notice, track

if TYPE_CHECKING:
    from torch import Tensor

    from otoscope.models.whisper import SpeechModel

Head = tuple[int, int]
"""Layer and head, both from 0."""

_IGNORED = -100
_STAYED = 0.01


@dataclass(frozen=True)
class TuneOptions:
    """How heads are tuned.

    Attributes:
        heads: Layers and heads, from 0.
        optimizer: Name of a class of `torch.optim`, in small letters.
        lr: Learning rate.
        epochs: How often every lesson is given.
        batch: Lessons a step.
        seed: Of their order.
    """

    heads: tuple[Head, ...]
    optimizer: str = "adamw"
    lr: float = 3e-4
    epochs: int = 4
    batch: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.lr) and self.lr > 0) or self.epochs < 1 or self.batch < 1:
            raise OptionError(
                f"A learning rate of {self.lr}, {self.epochs} epochs and batches of {self.batch} teach nothing.",
                "Give numbers above 0.",
            )


def parse_heads(text: str, model: SpeechModel) -> tuple[Head, ...]:
    """Heads of the decoder from `L5H3,L4H1`, or `H1,H6` for a head of that index in every layer; all counted from 0.

    Raises:
        OptionError: A name is wrong, or there is no such layer or head.
    """
    layers, heads = model.config.decoder_layers, model.config.decoder_attention_heads
    found: dict[Head, None] = {}
    for name in filter(None, (part.strip().upper() for part in text.split(","))):
        match = re.fullmatch(r"(?:D?L(\d+))?H(\d+)", name)
        chosen = [(int(match[1]), int(match[2]))] if match and match[1] else []
        if match and not match[1]:
            chosen = [(layer, int(match[2])) for layer in range(layers)]
        if not chosen or any(layer >= layers or head >= heads for layer, head in chosen):
            raise OptionError(
                f"The decoder has no head {name!r}.",
                f"Write L5H3, or H3 for every layer; there are {layers} layers of {heads} heads, counted from 0.",
            )
        found |= dict.fromkeys(chosen)
    if not found:
        raise OptionError("No head is named.", "Write L5H3, or H3 for every layer.")
    return tuple(found)


def tune_heads(
    model: SpeechModel, lessons: Sequence[Lesson], options: TuneOptions, name: str = "tuned"
) -> Repair:
    """Fine-tune heads on lessons. The loss of a lesson is the mean cross-entropy of its target's tokens.

    Args:
        model: The recogniser; it is as it was afterwards.
        lessons: What it is taught.
        options: How.
        name: Of the repair.

    Returns:
        A repair of changed weights; `made` has the loss of every epoch.

    Raises:
        OptionError: There are no lessons, or there is no such optimiser for these weights.
        TrainingError: The loss is not finite.
    """
    slices = _Slices.of(model, options.heads)
    notice(f"{len(options.heads)} heads, {slices.size:,} numbers to learn.")

    def backward(some: Sequence[Lesson]) -> float:
        slices.write(model)
        loss = _loss(model, some)
        loss.backward()
        slices.take_gradients(model)
        return loss.item()

    with swapped(model, slices.copies), _only(model, slices.names):
        losses = _train(lessons, options, slices.leaves, backward)
        slices.write(model)
        weights = {name: model.hf.get_parameter(name).detach().clone() for name in slices.names}
    made = _made("tuned heads", lessons, options, losses)
    return Repair.of(model, name, weights=weights, may_be_empty=_teaches_silence(lessons), made=made)


def learn_gates(
    model: SpeechModel,
    lessons: Sequence[Lesson],
    options: TuneOptions,
    name: str = "gates",
    sparsity: float = 0.01,
) -> Repair:
    """Learn one factor for each head's output, where nothing but a gate is to change.

    Args:
        model: The recogniser; it is as it was afterwards.
        lessons: What it is taught.
        options: How; a learning rate of 0.01 to 0.1 fits.
        name: Of the repair.
        sparsity: Weight of the sum of the gates' distances from 1, so that few heads are gated.

    Returns:
        A repair of edits that scale heads; heads whose factor stayed within 0.01 of 1 are left out.

    Raises:
        OptionError: There are no lessons, or there is no such optimiser.
        TrainingError: The loss is not finite.
    """
    heads = sorted(set(options.heads))
    gates = torch.ones(len(heads), device=model.device, dtype=model.dtype, requires_grad=True)
    by_layer: dict[int, list[int]] = {}
    for i, (layer, _) in enumerate(heads):
        by_layer.setdefault(layer, []).append(i)
    hooks = [(_z(layer), _gate(gates, own, [heads[i][1] for i in own])) for layer, own in by_layer.items()]

    def backward(some: Sequence[Lesson]) -> float:
        gates.grad = None
        loss = _loss(model, some) + sparsity * (gates - 1).abs().sum()
        loss.backward()
        return loss.item()

    with _only(model, ()), model.hooks(hooks):
        losses = _train(lessons, options, [gates], backward)
    found = zip(heads, gates.tolist(), strict=True)
    edits = tuple(
        Edit.scale(_z(layer), factor, heads=head)
        for (layer, head), factor in found
        if abs(factor - 1) > _STAYED
    )
    made = _made("learned gates", lessons, options, losses)
    return Repair.of(model, name, edits=edits, may_be_empty=_teaches_silence(lessons), made=made)


def _teaches_silence(lessons: Sequence[Lesson]) -> bool:
    return any(len(lesson.target) == 1 for lesson in lessons)


def _z(layer: int) -> str:
    return f"decoder_blocks.{layer}.self_attn.hook_z"


def _gate(gates: Tensor, own: list[int], heads: list[int]) -> HookFunction:
    def scale(z: Tensor, _visit: Visit) -> Tensor:
        factors = torch.ones(z.shape[2], device=z.device, dtype=z.dtype)
        return z * factors.index_copy(0, torch.tensor(heads, device=z.device), gates[own])[:, None]

    return scale


def _made(how: str, lessons: Sequence[Lesson], options: TuneOptions, losses: list[float]) -> dict[str, Any]:
    kinds = ("sound", "speech", "repeat", "untold")
    counts = {kind: sum(lesson.kind == kind for lesson in lessons) for kind in kinds}
    return {"how": how, **asdict(options), "losses": losses, "lessons": counts}


def _train(
    lessons: Sequence[Lesson],
    options: TuneOptions,
    leaves: Sequence[Tensor],
    backward: Callable[[Sequence[Lesson]], float],
) -> list[float]:
    """Mean loss of every epoch.

    Args:
        lessons: What is taught.
        options: How.
        leaves: What is learnt.
        backward: Puts the gradients of some lessons' loss into the leaves and gives the loss.
    """
    if not lessons:
        raise OptionError(
            "There is nothing to learn from.", "Give sounds without speech, and speech that is got right."
        )
    notice(f"{len(lessons)} lessons, {math.ceil(len(lessons) / options.batch) * options.epochs} steps.")
    optimiser = _optimiser(options, leaves)
    draw = torch.Generator().manual_seed(options.seed)
    losses = []
    with track("Tuning", len(lessons) * options.epochs, "lessons") as task, torch.enable_grad():
        for _ in range(options.epochs):
            total = 0.0
            order = torch.randperm(len(lessons), generator=draw).tolist()
            for chunk in batches(order, options.batch):
                total += len(chunk) * _step(optimiser, [lessons[i] for i in chunk], backward)
                task.advance(len(chunk))
            losses.append(total / len(lessons))
    return losses


def _step(
    optimiser: torch.optim.Optimizer,
    lessons: Sequence[Lesson],
    backward: Callable[[Sequence[Lesson]], float],
) -> float:
    seen: list[float] = []

    def loss_of() -> float:
        seen.append(backward(lessons))
        if not math.isfinite(seen[-1]):
            raise TrainingError(f"The loss is {seen[-1]}.", "Lower the learning rate with --lr.")
        return seen[-1]

    optimiser.step(loss_of)
    return seen[0]


def _rows(model: SpeechModel, lessons: Sequence[Lesson]) -> tuple[Tensor, Tensor]:
    """Tokens that are given `(row, pos)`, and the token that ought to follow each; -100 where none is asked for."""
    rows = [[*lesson.prompt, *lesson.target] for lesson in lessons]
    longest = max(map(len, rows)) - 1
    tokens = torch.full((len(rows), longest), model.end_token)
    labels = torch.full((len(rows), longest), _IGNORED)
    for i, (row, lesson) in enumerate(zip(rows, lessons, strict=True)):
        tokens[i, : len(row) - 1] = torch.tensor(row[:-1])
        begin = len(lesson.prompt) - 1
        labels[i, begin : len(row) - 1] = torch.tensor(lesson.target)
    return tokens.to(model.device), labels.to(model.device)


def _loss(model: SpeechModel, lessons: Sequence[Lesson]) -> Tensor:
    """Mean over lessons of the mean over their target's tokens."""
    tokens, labels = _rows(model, lessons)
    heard = torch.stack([lesson.heard.encoded for lesson in lessons]).to(model.device, model.dtype)
    decoder: Any = model.hf.model.decoder  # type: ignore[union-attr]
    states = decoder(input_ids=tokens, encoder_hidden_states=heard, use_cache=False).last_hidden_state
    asked = labels != _IGNORED
    each = cross_entropy(model.hf.proj_out(states[asked]), labels[asked], reduction="none")  # type: ignore[operator]
    share = asked / asked.sum(dim=1, keepdim=True) / len(labels)
    return (each * share[asked]).sum()


def _optimiser(options: TuneOptions, leaves: Sequence[Tensor]) -> torch.optim.Optimizer:
    known = {
        name.lower(): kind
        for name, kind in vars(torch.optim).items()
        if isinstance(kind, type)
        and issubclass(kind, torch.optim.Optimizer)
        and kind is not torch.optim.Optimizer
    }
    if options.optimizer.lower() not in known:
        raise OptionError(
            f"torch has no optimiser {options.optimizer!r}.", f"Choose one of: {', '.join(sorted(known))}."
        )
    try:
        return known[options.optimizer.lower()](leaves, lr=options.lr)  # type: ignore[call-arg]
    except (ValueError, TypeError) as error:
        raise OptionError(f"{options.optimizer} cannot be used here: {error}.", "Take adamw.") from error


@contextmanager
def _only(model: SpeechModel, names: Sequence[str]) -> Iterator[None]:
    """Gradients for these parameters alone; afterwards everything is as it was."""
    before = {name: p.requires_grad for name, p in model.hf.named_parameters()}
    try:
        for name, parameter in model.hf.named_parameters():
            parameter.requires_grad_(name in names)
        yield
    finally:
        for name, parameter in model.hf.named_parameters():
            parameter.requires_grad_(before[name])
            if name in names:
                parameter.grad = None


@dataclass(frozen=True, eq=False)
class _Slices:
    """The heads' parts of their layers' parameters, as parameters of their own.

    Attributes:
        names: The parameters, by Hugging Face's names.
        indices: Which part of each: rows of queries, keys and values, columns of the output projection.
        leaves: The parts.
        copies: Copies of the whole parameters, to be written into.
    """

    names: list[str]
    indices: list[tuple]
    leaves: list[Tensor]
    copies: dict[str, Tensor]

    @classmethod
    def of(cls, model: SpeechModel, heads: Sequence[Head]) -> _Slices:
        size = model.config.d_model // model.config.decoder_attention_heads
        by_layer: dict[int, list[int]] = {}
        for layer, head in sorted(set(heads)):
            by_layer.setdefault(layer, []).extend(range(head * size, (head + 1) * size))
        names, indices = [], []
        for layer, places in by_layer.items():
            prefix = f"model.decoder.layers.{layer}.self_attn"
            rows = (torch.tensor(places, device=model.device),)
            for part in ("q_proj.weight", "q_proj.bias", "k_proj.weight", "v_proj.weight", "v_proj.bias"):
                names.append(f"{prefix}.{part}")
                indices.append(rows)
            names.append(f"{prefix}.out_proj.weight")
            indices.append((slice(None), *rows))
        copies = {name: model.hf.get_parameter(name).detach().clone() for name in names}
        leaves = [
            copies[name][index].clone().requires_grad_() for name, index in zip(names, indices, strict=True)
        ]
        return cls(names, indices, leaves, copies)

    @property
    def size(self) -> int:
        """How many numbers are learnt."""
        return sum(leaf.numel() for leaf in self.leaves)

    @torch.no_grad()
    def write(self, model: SpeechModel) -> None:
        """Put the parts into the model's parameters."""
        for name, index, leaf in zip(self.names, self.indices, self.leaves, strict=True):
            model.hf.get_parameter(name).data[index] = leaf.detach()

    def take_gradients(self, model: SpeechModel) -> None:
        """Move the parameters' gradients to the parts."""
        for name, index, leaf in zip(self.names, self.indices, self.leaves, strict=True):
            parameter = model.hf.get_parameter(name)
            assert parameter.grad is not None
            leaf.grad = parameter.grad[index].clone()
            parameter.grad = None
