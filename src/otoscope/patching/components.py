"""What can be patched: attention blocks, single heads, MLPs and residual streams."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from otoscope.activations import Edit
from otoscope.errors import OptionError

if TYPE_CHECKING:
    from otoscope.models.base import Model

Stack = Literal["decoder", "encoder", "text", "audio_encoder"]
Part = Literal["self_attn", "cross_attn", "attn", "mlp", "resid"]
PARTS: tuple[Part, ...] = get_args(Part)

_PREFIX = {
    "decoder": "decoder_blocks",
    "encoder": "encoder_blocks",
    "text": "blocks",
    "audio_encoder": "audio_encoder.blocks",
}
_LETTER = {"decoder": "D", "encoder": "E", "text": "", "audio_encoder": "A"}
_OUT = {
    "self_attn": "hook_attn_out",
    "attn": "hook_attn_out",
    "cross_attn": "hook_cross_attn_out",
    "mlp": "hook_mlp_out",
    "resid": "hook_resid_post",
}
_WORDS = {
    "self_attn": "self-attn",
    "attn": "attn",
    "cross_attn": "cross-attn",
    "mlp": "MLP",
    "resid": "residual",
}


@dataclass(frozen=True)
class Component:
    """An attention block, one of its heads, an MLP or the residual stream after a layer; layer and head are 0-based."""

    stack: Stack
    layer: int
    part: Part
    head: int | None = None

    @property
    def id(self) -> str:
        """`decoder_blocks.2.cross_attn`; the head is told apart."""
        return f"{_PREFIX[self.stack]}.{self.layer}.{self.part}"

    @property
    def label(self) -> str:
        """`DL2 cross-attn`, `EL0H3 attn`."""
        head = "" if self.head is None else f"H{self.head}"
        return f"{_LETTER[self.stack]}L{self.layer}{head} {_WORDS[self.part]}"

    @property
    def kind(self) -> str:
        """`head`, `block` or `residual`: what it is fair to compare it with."""
        return "head" if self.head is not None else "residual" if self.part == "resid" else "block"

    @property
    def point(self) -> str:
        """Where its output is met: a head's `hook_z`, or the whole block's contribution to the stream."""
        if self.head is not None:
            return f"{self.id}.hook_z"
        return f"{_PREFIX[self.stack]}.{self.layer}.{_OUT[self.part]}"

    def where(self) -> dict[str, Any]:
        """The place of an `Edit` at `point`."""
        return {} if self.head is None else {"heads": (self.head,)}

    def zeroed(self) -> Edit:
        """The edit that zeroes it."""
        return Edit.zero(self.point, **self.where())

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: `component` (its id) and `head`."""
        return {"component": self.id, "head": self.head}


def main_stack(model: Model) -> Stack:
    """The stack that writes: `decoder` or `text`."""
    return next(iter(model.points.stacks))  # type: ignore[return-value]


def attention_parts(stack: Stack) -> tuple[Part, ...]:
    """Attention blocks of a layer of this stack."""
    return ("self_attn", "cross_attn") if stack == "decoder" else ("attn",)


def components(
    model: Model,
    stack: Stack | None = None,
    parts: Iterable[str] | None = None,
) -> list[Component]:
    """Components of a stack, layer by layer: whole attention blocks, MLPs and residual streams, and single heads.

    Args:
        model: The model.
        stack: One of its stacks; None: the one that writes.
        parts: Of `self_attn`, `cross_attn`, `mlp` and `resid`; None: all but `resid`. In a stack with one attention `self_attn`
            and `attn` are the same.

    Raises:
        OptionError: The model has no such stack, or there is no such part in it.
    """
    stack = stack or main_stack(model)
    if stack not in model.points.stacks:
        raise OptionError(
            f"{model.origin.name} has no stack {stack!r}.", f"Choose of: {', '.join(model.points.stacks)}."
        )
    chosen = _parts(stack, parts)
    return [
        Component(stack, layer, part, head)
        for layer in range(_layers(model, stack))
        for part, head in [
            *((part, None) for part in chosen),
            *((p, h) for p in chosen if p in attention_parts(stack) for h in range(_heads(model, stack))),
        ]
    ]


def _parts(stack: Stack, parts: Iterable[str] | None) -> list[Part]:
    known = (*attention_parts(stack), "mlp", "resid")
    if parts is None:
        return list(known[:-1])  # type: ignore[return-value]
    alias = {"self_attn": "attn"} if "attn" in known else {"attn": "self_attn"}
    wanted = [alias.get(part, part) for part in parts]
    wrong = [part for part in wanted if part not in known]
    if wrong:
        raise OptionError(f"The {stack} has no component {wrong[0]!r}.", f"Choose of: {', '.join(known)}.")
    return [part for part in known if part in wanted]  # type: ignore[misc]


def _layers(model: Model, stack: Stack) -> int:
    return 1 + max(
        point.layer for point in model.points.values() if point.stack == stack and point.layer is not None
    )


def _heads(model: Model, stack: Stack) -> int:
    z = f"{_PREFIX[stack]}.0.{attention_parts(stack)[0]}.hook_z"
    return model.points[z].heads or 1


def chosen_components(
    model: Model, stacks: Sequence[Stack], parts: Sequence[str] | None, heads: bool
) -> list[Component]:
    """Single heads, or whole blocks, of several stacks; parts that a stack does not have are left out there.

    With `heads`, parts that have none (MLPs, residual streams) are whole where they are named, and left out where no part is.

    Raises:
        OptionError: No stack has one of the parts.
    """
    found: list[Component] = []
    for stack in stacks:
        if stack not in model.points.stacks:
            components(model, stack)  # says what is wrong
        known = {*attention_parts(stack), "self_attn", "attn", "mlp", "resid"}
        here = None if parts is None else [part for part in parts if part in known]
        if here is None or here:
            every = components(model, stack, here)
            found += [
                c
                for c in every
                if (c.head is not None) == (heads and (parts is None or c.part in attention_parts(stack)))
            ]
    missing = [part for part in parts or () if part not in PARTS]
    if missing or not found:
        raise OptionError(
            f"There is no component {next(iter(missing or parts or ()), '')!r} in {', '.join(stacks)}.",
            f"Choose of: {', '.join(PARTS)}.",
        )
    return found
