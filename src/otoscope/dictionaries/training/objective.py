"""What training makes small: the share of the targets' variance that is missed, and what keeps features sparse and alive."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from otoscope.dictionaries.training import parallel
from otoscope.dictionaries.training.gates import Before, top_k
from otoscope.dictionaries.training.modules import Coder, Codes, LayerCoder
from otoscope.dictionaries.training.sparse import Pattern, pick

if TYPE_CHECKING:
    from torch import Tensor


class Objective(NamedTuple):
    """A batch judged.

    Attributes:
        loss: `()`, what is differentiated.
        missed: `(layer,)` mean squared error over the variance of the targets; 1 explains nothing.
        l0: `(layer,)` features on at a position.
        dead: `(layer,)` dead features.
        aux: `()` the auxiliary loss, before its coefficient.
        codes: Of every layer.
    """

    loss: Tensor
    missed: Tensor
    l0: Tensor
    dead: Tensor
    aux: Tensor
    codes: list[Codes]


def judge(coder: Coder, inputs: Tensor, targets: Tensor, step: int) -> Objective:
    """The objective of a batch.

    Args:
        coder: What is learned.
        inputs: `(layer, n, d_in)`, as the model has them.
        targets: `(layer, n, d_out)`.
        step: Number of the step, for the course of sparsity.
    """
    config = coder.config
    x = [own.scaled_inputs(inputs[at]) for at, own in enumerate(coder)]
    y = [targets[at].to(own.gain) * own.gain for at, own in enumerate(coder)]
    codes = [own.encode(x[at], config.k_at(step)) for at, own in enumerate(coder)]
    errors = [y[at] - found for at, found in enumerate(coder.reconstruct(x, codes))]
    missed = torch.stack([_share(error, own) for error, own in zip(errors, coder, strict=True)])
    loss, l0 = missed.mean(), torch.stack([here.l0 for here in codes])
    if config.activation == "jumprelu":
        # With a target the penalty is its relative distance squared: of two coefficients, the one that needs no search.
        penalty = (parallel_l0(l0) / config.k - 1).square() if config.k else l0
        loss = loss + config.sparsity_at(step) * penalty.mean()
    dead = [own.dead for own in coder]
    aux = loss.new_zeros(())
    if config.aux and any(len(those) for those in dead):
        some = slice(None, None, config.aux_every)
        residuals = [error.detach()[some] for error in errors]
        parts = [
            revival(coder, at, x[at][some], residuals[at:], those)
            for at, those in enumerate(dead)
            if len(those)
        ]
        aux = torch.stack(parts).sum() / len(coder)
        loss = loss + config.aux * aux
    counts = missed.new_tensor([len(those) for those in dead])
    return Objective(loss, missed.detach(), l0.detach(), counts, aux.detach(), codes)


def parallel_l0(l0: Tensor) -> Tensor:
    """L0 over all processes, with the gradient of this one's."""
    return l0 + (parallel.mean(l0.detach()) - l0.detach())


def _share(error: Tensor, own: LayerCoder) -> Tensor:
    return error.square().sum(dim=1).mean() / own.variance


def revival(coder: Coder, at: int, x: Tensor, residuals: list[Tensor], dead: Tensor) -> Tensor:
    """The auxiliary loss of a layer's dead features.

    Those with the largest pre-activations reconstruct what the living miss (Gao et al. 2024, appendix A.2). A feature below
    its threshold at every input of the batch would learn nothing from that; it is drawn to the input that is nearest to it.

    Args:
        coder: What is learned.
        at: Number of the layer.
        x: Its scaled inputs `(n, d_in)`.
        residuals: What is missed of each layer from this one on, `(n, d_out)`.
        dead: `(m,)` its dead features.
    """
    own, config = coder[at], coder.config
    with torch.no_grad():
        before = own.before(x, dead)
        chosen, best = top_k(before, config.aux_k_for(x.shape[1]))
        pattern = Pattern(chosen.pos, dead[chosen.feature], len(x), config.width)
    values = pick(own.w_enc, own.b_enc, x, best, pattern).relu()
    parts = coder.written(at, Codes(pattern, values, values.new_zeros(())))
    shares = [
        _share(residual - part, coder[at + i])
        for i, (residual, part) in enumerate(zip(residuals, parts, strict=False))
    ]
    return torch.stack(shares).mean() + _pull(own, x, before, dead)


def _pull(own: LayerCoder, x: Tensor, before: Before, dead: Tensor) -> Tensor:
    """How far below their thresholds dead features stay even at the input that is nearest to them, on average."""
    with torch.no_grad():
        threshold = own.threshold.expand(own.config.width)[dead]
        highest, pos = _nearest(before)
        everywhere = parallel.greatest(highest)
        # The process that has the nearest input draws for all; gradients are averaged afterwards.
        short = ((everywhere <= threshold) & (highest == everywhere)).nonzero().flatten()
        short = short[pos[short].argsort(stable=True)]
        pattern = Pattern(pos[short], dead[short], len(x), own.config.width)
        missing = threshold[short]
    reached = pick(own.w_enc, own.b_enc, x, highest[short], pattern)
    return parallel.world() * (missing - reached).sum() / len(dead)


def _nearest(before: Before) -> tuple[Tensor, Tensor]:
    """For each feature `(m,)` its highest pre-activation and the position that has it."""
    found = [z.max(dim=0) for z in before.blocks()]
    highest, block = torch.stack([values for values, _ in found]).max(dim=0)
    pos = torch.stack([where for _, where in found]).gather(0, block[None])[0]
    return highest, pos + block * before.rows
