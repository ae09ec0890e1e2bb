"""What is explained: logits of tokens, or any direction, at any position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from otoscope.circuits.adjoint import Seeds, final_seeds, stream_seeds
from otoscope.errors import GraphError, OptionError

if TYPE_CHECKING:
    from torch import Tensor

    from otoscope.circuits.tape import Tape
    from otoscope.models.base import Model


@dataclass(frozen=True, eq=False)
class Target:
    """One thing to explain.

    Attributes:
        label: What it is called.
        pos: Position that it is read at.
        weight: Its share of the graph's influence; of a token, its probability.
        direction: `(d,)`: read by it after the final norm, or, with a layer, in the stream before that layer.
        layer: Layer, or None for after the final norm.
        token: Token id, if it is a token's logit (counted from the mean over the vocabulary).
        constant: Added to the reading.
        against: Token whose logit is taken off, if it is a contrast of two.
    """

    label: str
    pos: int
    weight: float
    direction: Tensor
    layer: int | None = None
    token: int | None = None
    constant: float = 0.0
    against: int | None = None


def choose_targets(
    model: Model, tape: Tape, spec: str | int | Target | Sequence[str | int | Target]
) -> list[Target]:
    """Targets by what a person calls them, at the last position.

    Args:
        model: The model.
        tape: The prompt's forward pass.
        spec: `top`; a token's text or id; a `Target`; or several.

    Raises:
        OptionError: A text is no single token, or an id or position does not exist.
    """
    several = [spec] if isinstance(spec, (str, int, Target)) else list(spec)
    if not several:
        raise OptionError("There is no target.", "Name a token, or `top` for the most probable one.")
    return [_target(model, tape, each) for each in several]


def _target(model: Model, tape: Tape, each: str | int | Target) -> Target:
    if isinstance(each, Target):
        if not 0 <= each.pos < len(tape):
            raise OptionError(
                f"The target {each.label!r} is at position {each.pos}, the prompt has {len(tape)}.",
                f"Choose 0 to {len(tape) - 1}.",
            )
        return each
    if each == "top":
        return token_target(model, tape, int(tape.logits[-1].argmax()))
    return token_target(model, tape, each if isinstance(each, int) else _token_of(model, tape, str(each)))


def _token_of(model: Model, tape: Tape, text: str) -> int:
    """The token that a text names, with or without a space before it, whichever the model finds likelier."""
    if model.tokenizer is None:
        raise OptionError(
            f"{model.origin.name} has no tokenizer for the target {text!r}.", "Give a token id."
        )
    spelled = {
        spelling: model.tokenizer(spelling, add_special_tokens=False)["input_ids"]
        for spelling in (text, f" {text}")
    }
    unknown = getattr(model.tokenizer, "unk_token_id", None)
    single = [ids[0] for ids in spelled.values() if len(ids) == 1 and ids[0] != unknown]
    if not single:
        pieces = [model.tokenizer.decode([i]) for i in spelled[text]]
        raise OptionError(
            f"The target {text!r} is no single token of {model.origin.name}; it is written as {pieces}.",
            "Name one of its tokens, or `top` for the most probable one.",
        )
    return max(single, key=lambda token: float(tape.logits[-1, token]))


def token_target(model: Model, tape: Tape, token: int, pos: int | None = None) -> Target:
    """The logit of a token, counted from the mean over the vocabulary, before a final softcap.

    Args:
        model: The model.
        tape: The prompt's forward pass.
        token: Its id.
        pos: Position that predicts it; None: the last.

    Raises:
        OptionError: There is no such token or position.
    """
    unembedding = tape.wiring.unembedding
    weight: Tensor = unembedding.weight.detach()  # type: ignore[assignment,union-attr]
    if not 0 <= token < len(weight):
        raise OptionError(f"There is no token {token}.", f"Choose 0 to {len(weight) - 1}.")
    bias: Tensor | None = getattr(unembedding, "bias", None)
    constant = 0.0 if bias is None else float(bias.detach()[token] - bias.detach().mean())
    at = len(tape) - 1 if pos is None else pos
    if not 0 <= at < len(tape):
        raise OptionError(f"There is no position {at}.", f"Choose 0 to {len(tape) - 1}.")
    probability = float(tape.logits[at].double().softmax(-1)[token])
    label = repr(token) if model.tokenizer is None else model.tokenizer.decode([token])
    return Target(label, at, probability, weight[token] - weight.mean(dim=0), None, token, constant)


def contrast_target(model: Model, tape: Tape, token: int, other: int | None, pos: int) -> Target:
    """The logit of one token less that of another, or less the mean over the vocabulary.

    Raises:
        OptionError: There is no such token, or both are the same.
    """
    a = token_target(model, tape, token, pos)
    if other is None:
        return a
    if token == other:
        raise OptionError("A token cannot be compared with itself.", "Compare with another.")
    b = token_target(model, tape, other, pos)
    label, direction = f"{a.label} rather than {b.label.strip()}", a.direction - b.direction
    return Target(label, pos, a.weight, direction, None, token, a.constant - b.constant, other)


def probable_targets(model: Model, tape: Tape, most: int = 10, probability: float = 0.95) -> list[Target]:
    """The most probable tokens: the fewest, and at most `most`, that together reach a probability (circuit-tracer's choice)."""
    best = tape.logits[-1].double().softmax(-1).topk(min(most, tape.logits.shape[-1]))
    count = int((best.values.cumsum(0) < probability).sum()) + 1
    return [token_target(model, tape, int(token)) for token in best.indices[:count]]


def target_seeds(tape: Tape, targets: Sequence[Target]) -> Seeds:
    """Targets for the sweep, in order."""
    return Seeds.join([_seed(tape, target) for target in targets])


def _seed(tape: Tape, target: Target) -> Seeds:
    pos, direction = torch.tensor([target.pos]), target.direction[None].to(tape.embed)
    if direction.shape[1] != tape.embed.shape[1]:
        raise GraphError(
            f"The direction of the target {target.label!r} has {direction.shape[1]} dimensions, "
            f"the stream {tape.embed.shape[1]}.",
            "Give a direction of the model's own width.",
        )
    if target.layer is not None:
        return stream_seeds(tape, target.layer, pos, direction)
    return final_seeds(tape, pos, direction, direction.new_tensor([target.constant]))


def target_values(targets: Sequence[Target], final: Tensor) -> Tensor:
    """What targets read off the output of the final norm `(..., pos, d)`: `(..., target)`.

    Raises:
        GraphError: A target reads at a layer.
    """
    if any(target.layer is not None for target in targets):
        raise GraphError(
            "A target inside the stack has no logit.", "Ask for tokens or directions after the final norm."
        )
    values = [final[..., t.pos, :] @ t.direction.to(final) + t.constant for t in targets]
    return torch.stack(values, dim=-1)
