"""A language model and a prompt on which interventions are tried: what it continues with, and what it expects next."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from otoscope.documents.explain import TokenInfo, TranscriptInfo
from otoscope.documents.intervention import NextToken, Written
from otoscope.errors import ModelError, OptionError
from otoscope.models.causal_lm import LanguageModel
from otoscope.patching.texts import write_texts
from otoscope.studies.explain_parts import lens_of
from otoscope.studies.lab import Lab, Plan, Run

if TYPE_CHECKING:
    from torch import Tensor

    from otoscope.documents.intervention import Intervention
    from otoscope.models.base import Model

_LIKELY = 6
"""Tokens of either side that are listed as the next one."""


class PromptRun(Run):
    """A continuation that was written under a plan; `logits` is `(1 + token, vocab)`: after the prompt, and each token."""

    lab: PromptLab

    def __init__(self, lab: PromptLab, plan: Plan, ids: list[int]) -> None:
        super().__init__(lab, plan)
        self.ids = ids
        with self.lab.under(plan), self.lab.model.capturing(["blocks.*.hook_resid_post"]) as cache:
            self.logits = self.lab.logits(ids)
        first = len(lab.prompt) - 1
        self._stream = [
            cache[f"blocks.{i}.hook_resid_post"][0, first : first + len(ids)] for i in range(lab.layers)
        ]

    @property
    def text(self) -> str:
        """The continuation."""
        return self.lab.spell(self.ids)

    def forced(self, written: PromptRun) -> Tensor:
        """See `Run.forced`."""
        with self.lab.under(self.plan):
            logits = self.logits if written.ids == self.ids else self.lab.logits(written.ids)
        ids = torch.tensor(written.ids, dtype=torch.long, device=logits.device)
        return logits[: len(ids)].log_softmax(-1).gather(-1, ids[:, None])[:, 0].cpu()

    def replay(self, stack: str) -> None:
        """See `Run.replay`."""
        self.lab.logits(self.ids)

    def told(self) -> Written:
        """See `Run.told`; there is no sound, and nothing has a time."""
        logp = self.logits.log_softmax(-1)
        entropy = -(logp.exp() * logp).nan_to_num().sum(-1)
        tokens = [
            TokenInfo(
                index=i,
                id=token,
                text=self.lab.spell([token]),
                p=float(logp[i, token].exp()),
                logprob=float(logp[i, token]),
                entropy=float(entropy[i]),
            )
            for i, token in enumerate(self.ids)
        ]
        written = torch.tensor(self.ids, dtype=torch.long, device=self.logits.device)
        return Written(
            transcript=TranscriptInfo(text=self.text, tokens=tokens, words=[]),
            logit_lens=lens_of(self.lab.model, self._stream, written),
        )


class PromptLab(Lab):
    """A language model and a prompt.

    Args:
        model: The model.
        prompt: What it continues.
        tokens: Tokens that it writes at most.

    Raises:
        ModelError: The model is no language model, or has no tokenizer.
        OptionError: The prompt is empty, or prompt and continuation are longer than the context.
    """

    model: LanguageModel

    def __init__(self, model: Model, prompt: str, tokens: int) -> None:
        if not isinstance(model, LanguageModel):
            raise ModelError(
                f"{model.origin.name} reads no prompt alone.", "Use a language model such as smollm2-135m."
            )
        if model.tokenizer is None:
            raise ModelError(
                f"{model.origin.name} has no tokenizer.", "Open it with its tokenizer beside its weights."
            )
        if tokens < 1:
            raise OptionError(f"{tokens} tokens cannot be written.", "Write at least 1.")
        super().__init__(model)
        self.inputs, self.tokens = model.inputs(prompt), tokens
        self.prompt: list[int] = self.inputs["input_ids"][0].tolist()
        model.inputs(
            torch.zeros(1, len(self.prompt) + tokens, dtype=torch.long)
        )  # refuses what is too long together
        self.layers = int(model.config.num_hidden_layers)

    def plan(self, intervention: Intervention) -> Plan:
        """See `Lab.plan`.

        Raises:
            OptionError: It silences sound, or names what the model does not have.
        """
        if intervention.silence:
            raise OptionError(
                "A prompt has no sound to silence.", "Zero or scale components, or change features."
            )
        late = [
            p
            for change in intervention.changes()
            for p in change.positions
            if p >= len(self.prompt) + self.tokens
        ]
        if late:
            raise OptionError(
                f"Position {late[0]} is never reached: the prompt has {len(self.prompt)} tokens, {self.tokens} are written.",
                f"Choose 0 to {len(self.prompt) + self.tokens - 1}.",
            )
        return super().plan(intervention)

    def run(self, plan: Plan) -> PromptRun:
        """Continue the prompt under a plan, greedily."""
        with self.under(plan):
            (ids,) = write_texts(self.model, self.inputs, [None], self.tokens)
        return PromptRun(self, plan, ids)

    def logits(self, ids: list[int]) -> Tensor:
        """`(1 + token, vocab)`, float32: what follows the prompt, and each of some tokens behind it."""
        every = torch.tensor([[*self.prompt, *ids]], device=self.model.device)
        return self.model.forward(every).logits[0, len(self.prompt) - 1 :].float()

    def spell(self, ids: list[int]) -> str:
        """The text of tokens."""
        return self.model.tokenizer.decode(ids)

    def next_tokens(self, before: PromptRun, after: PromptRun) -> list[NextToken]:
        """The most probable tokens after the prompt on either side, the likeliest before first."""
        old, new = before.logits[0].softmax(-1), after.logits[0].softmax(-1)
        likely = {int(i) for p in (old, new) for i in p.topk(min(_LIKELY, len(p))).indices}
        order = sorted(likely, key=lambda i: -float(old[i]))
        return [
            NextToken(id=i, text=self.spell([i]), before=float(old[i]), after=float(new[i])) for i in order
        ]
