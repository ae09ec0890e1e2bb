"""The logit lens of a decoder or a language model.

Each layer's residual stream goes through the final norm and the unembedding (nostalgebraist 2020; for speech "Beyond
Transcription", section on the logit lens). At the last layer this is the model's own output.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from otoscope.models.base import Model

CAVEAT = "The logit lens reads a layer as if it were the last; a layer may hold what the lens cannot read."
"""What every result of the lens says."""

_ROWS = 64
"""Rows unembedded at once, of whatever layers: the unembedding is read from memory once for all of them. With more rows a block
of logits is so large that its memory is fetched from the system anew each time; those of all layers would be gigabytes."""

_BLOCK = 64
"""Tokens of which the most probable one is looked for first."""


@dataclass(frozen=True, eq=False)
class LensReading:
    """The lens at every layer for every token; layers are counted from 0.

    Attributes:
        top_ids: `(layer, token, k)` most probable token ids.
        top_p: `(layer, token, k)` their probabilities.
        p_final: `(layer, token)` probability of the token that was written.
        rank_final: `(layer, token)` how many tokens are more probable than it; 0 is the top.
        entropy: `(layer, token)` in nats.
        saturation: For each token the first layer from which on the written token stays on top; None if it is not on top at
            the last layer (decoding suppressed what was).
    """

    top_ids: Tensor
    top_p: Tensor
    p_final: Tensor
    rank_final: Tensor
    entropy: Tensor
    saturation: tuple[int | None, ...]

    def at(self, layer: int, token: int, text_of: Callable[[int], str]) -> dict[str, Any]:
        """One layer's reading of one token by the names that documents and JSON have for it; `text_of` gives a token's text."""
        ids, p = self.top_ids[layer, token].tolist(), self.top_p[layer, token].tolist()
        return {
            "layer": layer,
            "top": [{"id": i, "text": text_of(i), "p": q} for i, q in zip(ids, p, strict=True)],
            "p_final": float(self.p_final[layer, token]),
            "rank_final": int(self.rank_final[layer, token]),
            "entropy": float(self.entropy[layer, token]),
        }


def logit_lens(model: Model, residuals: Sequence[Tensor], written: Tensor, k: int = 5) -> LensReading:
    """Read every layer as if it were the last.

    Args:
        model: The model.
        residuals: One `hook_resid_post` a layer, `(token, d_model)`: row i is the position that wrote token i.
        written: Ids of the written tokens `(token,)`.
        k: Candidates kept a layer.

    Returns:
        The reading, on the CPU. Probabilities are of the unfiltered distribution.
    """
    rows, targets = torch.cat(list(residuals)), written.repeat(len(residuals))
    with torch.no_grad():
        read = [
            _read(model.unembed(part), of, k)
            for part, of in zip(rows.split(_ROWS), targets.split(_ROWS), strict=True)
        ]
    shape = (len(residuals), len(written))
    ids, p, p_final, ranks, entropies = (
        torch.cat(part).unflatten(0, shape).cpu() for part in zip(*read, strict=True)
    )
    return LensReading(ids, p, p_final, ranks, entropies, saturation_layers(ids[:, :, 0] == written.cpu()))


def _read(logits: Tensor, written: Tensor, k: int) -> tuple[Tensor, ...]:
    """Top ids and their probabilities, probability and rank of the written token, and entropy of each row of logits."""
    half = logits.dtype in (torch.float16, torch.bfloat16)
    logp = torch.log_softmax(logits.float() if half else logits, dim=-1)
    final = logp.gather(1, written[:, None])
    top_p, top_ids = _top(logp, min(k, logp.shape[-1]))
    scratch = torch.empty_like(logp)
    # Ones and zeros as numbers of the same kind: counting booleans takes thrice as long.
    rank = torch.gt(logp, final, out=scratch).sum(dim=-1).long()
    p = torch.exp(logp, out=scratch)
    # A logit of minus infinity adds nothing: 0 times the least number, and not 0 times infinity.
    entropy = -torch.linalg.vecdot(p, logp.clamp_min_(torch.finfo(logp.dtype).min))
    return top_ids, top_p.exp(), final[:, 0].exp(), rank, entropy


def _top(logp: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k greatest of each row and where they are, as `topk` says it, in a sixth of its time.

    They lie in the k blocks with the greatest maxima; what is left over at the end is looked through as well.
    """
    rows, vocab = logp.shape
    whole = vocab - vocab % _BLOCK
    blocks = logp[:, :whole].unflatten(1, (-1, _BLOCK))
    if blocks.shape[1] <= k:
        found = logp.topk(k, dim=-1)
        return found.values, found.indices
    chosen = blocks.amax(dim=-1).topk(k, dim=-1).indices  # (row, k)
    inside = blocks.gather(1, chosen[:, :, None].expand(-1, -1, _BLOCK)).flatten(1)
    places = (chosen[:, :, None] * _BLOCK + torch.arange(_BLOCK, device=logp.device)).flatten(1)
    left = torch.arange(whole, vocab, device=logp.device).expand(rows, -1)
    found = torch.cat([inside, logp[:, whole:]], dim=1).topk(k, dim=-1)
    return found.values, torch.cat([places, left], dim=1).gather(1, found.indices)


def saturation_layers(on_top: Tensor) -> tuple[int | None, ...]:
    """First layer from which on a token stays on top.

    Args:
        on_top: `(layer, token)`, whether the written token is the most probable.
    """
    stays = on_top.flip(0).cumprod(dim=0).flip(0).bool()  # on top here and at every later layer
    return tuple(int(column.nonzero()[0]) if column.any() else None for column in stays.T)
