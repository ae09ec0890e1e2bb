"""Zero ablation, teacher-forced: how much each written token depends on each attention block, head and MLP.

A component's output is set to zero at every position and the written tokens are given to the decoder; what is measured is the
change of each token's log-probability. Many components ride in one batch, one a row. The encoder output is shared by all
decoder components, and an encoder component reuses everything below its layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from otoscope.activations import Edit
from otoscope.models.decoding import DecoderSession, batches
from otoscope.progress import Task, track

if TYPE_CHECKING:
    from torch import Tensor

    from otoscope.models.whisper import SpeechModel

Stack = Literal["decoder", "encoder"]
Part = Literal["self_attn", "cross_attn", "mlp", "attn"]

_POSITIONS = 32
"""Positions unembedded at once: the logits of a whole looping transcript for every row would be gigabytes."""

_OUT = {
    "self_attn": "hook_attn_out",
    "attn": "hook_attn_out",
    "cross_attn": "hook_cross_attn_out",
    "mlp": "hook_mlp_out",
}
_WORDS = {"self_attn": "self-attn", "attn": "attn", "cross_attn": "cross-attn", "mlp": "MLP"}


@dataclass(frozen=True)
class Component:
    """An attention block, one of its heads, or an MLP; layer and head are 0-based."""

    stack: Stack
    layer: int
    part: Part
    head: int | None = None

    @property
    def id(self) -> str:
        """`decoder_blocks.2.cross_attn`."""
        return f"{self.stack}_blocks.{self.layer}.{self.part}"

    @property
    def label(self) -> str:
        """`DL2 cross-attn`, `EL0H3 attn`."""
        head = "" if self.head is None else f"H{self.head}"
        return f"{self.stack[0].upper()}L{self.layer}{head} {_WORDS[self.part]}"

    def zeroed(self, row: int) -> Edit:
        """The edit that zeroes it for one batch row: a head's `hook_z`, or the whole block's contribution to the stream."""
        if self.head is not None:
            return Edit.zero(f"{self.id}.hook_z", rows=(row,), heads=(self.head,))
        return Edit.zero(f"{self.stack}_blocks.{self.layer}.{_OUT[self.part]}", rows=(row,))


def components(model: SpeechModel, stack: Stack) -> list[Component]:
    """Every attention block, MLP and single head of a stack, layer by layer."""
    config = model.config
    layers, heads, attentions = (
        (config.decoder_layers, config.decoder_attention_heads, ("self_attn", "cross_attn"))
        if stack == "decoder"
        else (config.encoder_layers, config.encoder_attention_heads, ("attn",))
    )
    return [
        Component(stack, layer, part, head)
        for layer in range(layers)
        for part, head in [
            *((part, None) for part in (*attentions, "mlp")),
            *((part, head) for part in attentions for head in range(heads)),
        ]
    ]  # type: ignore[misc]


def token_logprobs(session: DecoderSession, tokens: Tensor, prompt: int) -> Tensor:
    """Log-probability of each token after the prompt.

    Args:
        session: A fresh session of as many rows as wanted.
        tokens: Prompt and written tokens `(pos,)`, the same for every row.
        prompt: Length of the prompt.

    Returns:
        `(row, token)`, float32.
    """
    rows = tokens[:-1].expand(len(session.rows), -1)
    normed = session.read(rows)[:, prompt - 1 :]
    written = tokens[prompt:].expand(len(rows), -1)[..., None]
    parts = zip(normed.split(_POSITIONS, dim=1), written.split(_POSITIONS, dim=1), strict=True)
    return torch.cat([_logprobs(session.logits(part), ids) for part, ids in parts], dim=1)


def _logprobs(logits: Tensor, ids: Tensor) -> Tensor:
    logits = logits.float()
    return (logits.gather(2, ids) - logits.logsumexp(dim=2, keepdim=True))[..., 0]


def ablate_decoder(
    model: SpeechModel, encoded: Tensor, tokens: Tensor, prompt: int, chosen: Sequence[Component], batch: int
) -> Tensor:
    """Log-probability of every token with each decoder component zeroed.

    Args:
        model: The recogniser.
        encoded: Encoder output of one clip `(1, frame, d_model)`.
        tokens: Prompt and written tokens `(pos,)`.
        prompt: Length of the prompt.
        chosen: Decoder components.
        batch: Components at once.

    Returns:
        `(component, token)`, float32, on the CPU.
    """
    out = []
    with torch.no_grad(), track("Zeroing decoder components", len(chosen), "components") as task:
        for chunk in batches(chosen, batch):
            session = DecoderSession(model, encoded, clip_of_row=[0] * len(chunk))
            with model.editing(*(component.zeroed(row) for row, component in enumerate(chunk))):
                out.append(token_logprobs(session, tokens, prompt).cpu())
            task.advance(len(chunk))
    return torch.cat(out)


def ablate_encoder(
    model: SpeechModel,
    residuals: Sequence[Tensor],
    tokens: Tensor,
    prompt: int,
    chosen: Sequence[Component],
    batch: int,
) -> Tensor:
    """Log-probability of every token with each encoder component zeroed.

    Args:
        model: The recogniser.
        residuals: `hook_resid_pre` of every encoder layer for one clip, `(1, frame, d_model)`; what lies below a component's
            layer is not computed again.
        tokens: Prompt and written tokens `(pos,)`.
        prompt: Length of the prompt.
        chosen: Encoder components.
        batch: Components at once.

    Returns:
        `(component, token)`, float32, on the CPU, in the order of `chosen`.
    """
    out: dict[Component, Tensor] = {}
    with torch.no_grad(), track("Zeroing encoder components", len(chosen), "components") as task:
        for chunk, encoded in _edited_encodings(model, residuals, chosen, batch, task):
            logprobs = token_logprobs(DecoderSession(model, encoded), tokens, prompt).cpu()
            out |= dict(zip(chunk, logprobs, strict=True))
    return torch.stack([out[component] for component in chosen])


def _edited_encodings(
    model: SpeechModel, residuals: Sequence[Tensor], chosen: Sequence[Component], batch: int, task: Task
) -> Iterator[tuple[list[Component], Tensor]]:
    """Encoder outputs `(component, frame, d_model)`, all components of a chunk in one layer."""
    encoder = model.hf.model.encoder  # type: ignore[union-attr]
    for start, residual in enumerate(residuals):
        of_layer = [component for component in chosen if component.layer == start]
        for chunk in batches(of_layer, batch):
            hidden = residual.expand(len(chunk), -1, -1)
            with model.editing(*(component.zeroed(row) for row, component in enumerate(chunk))):
                for layer in encoder.layers[start:]:  # type: ignore[index,union-attr]
                    hidden = layer(hidden, None)
            yield chunk, encoder.layer_norm(hidden)  # type: ignore[operator,union-attr]
            task.advance(len(chunk))
