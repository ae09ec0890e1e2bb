"""The loop breaker: while a text goes round in circles, the token that would go on with the loop is not written.

It looks at the written tokens alone and changes nothing as long as they do not end in a loop, and nothing any more once they do
not. So it costs ordinary speech nothing, and what is really said several times is left alone below the threshold. It differs
from `no_repeat_ngram_size`, which forbids an n-gram everywhere in a text: here only what stands there again and again without a
gap counts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch

from otoscope.errors import OptionError

if TYPE_CHECKING:
    from torch import Tensor

    from otoscope.models.base import LogitFilter
    from otoscope.models.whisper import SpeechModel


class Trigger(Protocol):
    """Tells which rows are in alarm, step by step; a monitor is one."""

    def alarmed(self, row: int) -> bool:
        """Whether this row (as it was numbered when decoding began) is in alarm at the step that is being computed."""
        ...


@dataclass(frozen=True)
class Breaker:
    """When a text counts as looping, and what is done about it.

    An n-gram of tokens loops when its copies follow each other without a gap, at least `copies` of them, and together take at
    least `tokens` tokens: of short n-grams more copies are needed than of long ones.

    Attributes:
        copies: Copies at least.
        tokens: Tokens that the copies take together at least.
        longest: Longest n-gram that is looked for.
        action: `end` writes the end token; `forbid` leaves the model any token but the one that would go on with the loop.
    """

    copies: int = 3
    tokens: int = 8
    longest: int = 64
    action: Literal["end", "forbid"] = "end"

    def __post_init__(self) -> None:
        if self.copies < 2 or self.tokens < 2 or self.longest < 1 or self.action not in ("end", "forbid"):
            raise OptionError(
                f"A loop breaker of {self.copies} copies, {self.tokens} tokens and action {self.action!r} cannot work.",
                "Give at least 2 copies and 2 tokens, a longest n-gram of at least 1, and the action end or forbid.",
            )

    def going_on(self, ids: Sequence[int]) -> set[int]:
        """The tokens that would go on with a loop in which `ids` end; none while they do not.

        Args:
            ids: The written tokens.
        """
        found = set()
        for n in range(1, min(self.longest, len(ids) // 2) + 1):
            length = n * max(self.copies, math.ceil(self.tokens / n))
            if length <= len(ids) and list(ids[-length:-n]) == list(ids[n - length :]):
                found.add(int(ids[-n]))
        return found

    def filter(self, model: SpeechModel, prompt: int, trigger: Trigger | None = None) -> LogitFilter:
        """The breaker as a logit filter of one decoding.

        Args:
            model: Whose end and timestamp tokens count; timestamps are no text.
            prompt: Length of the prompt, which is not looked at.
            trigger: Acts on rows in alarm alone; None: on all.
        """
        end, stamps = model.end_token, model.no_timestamps_token

        def stop_loops(tokens: Tensor, logits: Tensor) -> Tensor:
            rows = model.row_numbers or range(len(tokens))
            out = logits
            for i, (row, written) in enumerate(zip(rows, tokens[:, prompt:].tolist(), strict=True)):
                text = [token for token in written if token < stamps]
                if end in written or not (loop := self.going_on(text)):
                    continue
                if trigger is None or trigger.alarmed(row):
                    out = logits.clone() if out is logits else out
                    self._act(out[i], loop, end)
            return out

        return stop_loops

    def _act(self, logits: Tensor, loop: set[int], end: int) -> None:
        if self.action == "forbid":
            logits[list(loop)] = -torch.inf
        else:
            _end(logits, end)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; `Breaker(**values)` gives it back."""
        return asdict(self)


def stopping(model: SpeechModel, trigger: Trigger) -> LogitFilter:
    """A logit filter that ends the text of every row in alarm, be it before the first token, whatever is suppressed there."""

    def stop(tokens: Tensor, logits: Tensor) -> Tensor:
        rows = model.row_numbers or range(len(tokens))
        on = [i for i, row in enumerate(rows) if trigger.alarmed(row)]
        if not on:
            return logits
        out = logits.clone()
        for i in on:
            _end(out[i], model.end_token)
        return out

    return stop


def _end(logits: Tensor, end: int) -> None:
    """Leave the end token alone, in place."""
    ending = logits[end].clone() if torch.isfinite(logits[end]) else torch.zeros_like(logits[end])
    logits.fill_(-torch.inf)
    logits[end] = ending
