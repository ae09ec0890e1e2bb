"""Writing under patches with models of one stream: language models and Qwen2-Audio, many changes as rows of one batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from otoscope.errors import OptionError
from otoscope.models.decoding import cache_name
from otoscope.patching.changes import Change, Patcher

if TYPE_CHECKING:
    from torch import Tensor

    from otoscope.models.base import Model


def write_texts(
    model: Model,
    inputs: dict[str, Any],
    changes: Sequence[Change | None],
    max_tokens: int,
    elsewhere: dict[str, Any] | None = None,
) -> list[list[int]]:
    """Continue one input greedily under each of several changes, in one batch.

    A change of the audio tower is made when the tower runs, with the prompt; one of the text stack at every step.

    Args:
        model: A language model or Qwen2-Audio.
        inputs: One row of Transformers inputs.
        changes: The change of each row, or None.
        max_tokens: Tokens written at most.
        elsewhere: Inputs of the reference, of the same length: of another text, or of the same with another sound.

    Returns:
        The tokens of each row, without the end token.

    Raises:
        OptionError: The reference has another length.
    """
    patcher = Patcher(model, changes, inputs["input_ids"].shape[1])
    if patcher.reference.is_heard and elsewhere is None:
        raise OptionError("The reference has no inputs.", "Give the inputs that the second copy reads.")
    if elsewhere is not None and elsewhere["input_ids"].shape != inputs["input_ids"].shape:
        raise OptionError(
            "The reference is not as long as the input, so that positions do not match.",
            "Use a reference of the same length.",
        )
    hooks = [hook for stack in model.points.stacks for hook in patcher.hooks(stack)]
    with torch.no_grad(), model.hooks(hooks):
        copies = [_Copy(model, inputs, len(changes))]
        if elsewhere is not None:
            copies.insert(0, _Copy(model, elsewhere, len(changes)))
        return _greedy(model, copies, patcher, max_tokens)


class _Copy:
    """A model with its cache, as rows of one input."""

    def __init__(self, model: Model, inputs: dict[str, Any], rows: int) -> None:
        self.model = model
        self.feed = {name: value.expand(rows, *value.shape[1:]) for name, value in inputs.items()}
        self.mask = self.feed.get("attention_mask", torch.ones_like(self.feed["input_ids"]))
        self.cache: Any = None

    def step(self, tokens: Tensor | None) -> Tensor:
        """Logits `(row, vocab)` after the prompt (None) or after one more token `(row, 1)`."""
        if tokens is None:
            feed = dict(self.feed)
        else:
            self.mask = torch.cat([self.mask, torch.ones_like(tokens)], dim=1)
            feed = {
                "input_ids": tokens,
                "attention_mask": self.mask,
                cache_name(type(self.model.hf)): self.cache,
            }
        out = self.model.hf(use_cache=True, **feed)
        self.cache = getattr(out, cache_name(type(self.model.hf)))
        return out.logits[:, -1]


def _greedy(model: Model, copies: list[_Copy], patcher: Patcher, max_tokens: int) -> list[list[int]]:
    ends = torch.tensor(model.end_tokens, dtype=torch.long, device=model.device)
    written: list[Tensor] = []
    tokens: Tensor | None = None
    finished = torch.zeros(len(copies[-1].feed["input_ids"]), dtype=torch.bool, device=model.device)
    while len(written) < max_tokens and not bool(finished.all()):
        for copy in copies[:-1]:
            with patcher.listening():
                copy.step(tokens)
        chosen = copies[-1].step(tokens).argmax(dim=-1)
        written.append(chosen)
        finished |= torch.isin(chosen, ends)
        tokens = chosen[:, None]
    rows = torch.stack(written, dim=1).tolist() if written else [[] for _ in range(len(finished))]
    return [model.until_end(row) for row in rows]
