"""The weights that are learned, and what they make of a batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn

from otoscope.dictionaries.training.gates import Before, Chosen, above, batch_top_k, jump, step, top_k
from otoscope.dictionaries.training.scaling import Units
from otoscope.dictionaries.training.sparse import Pattern, decode, pick, spread

if TYPE_CHECKING:
    from torch import Tensor

    from otoscope.dictionaries.training.config import TrainConfig


class Codes(NamedTuple):
    """The features of a layer that are on.

    Attributes:
        pattern: Which.
        values: `(n,)` activations; zero where an entry was chosen and is not above zero.
        l0: `()` features on at a position, on average; differentiable in the thresholds where they are learned.
    """

    pattern: Pattern
    values: Tensor
    l0: Tensor


class Neurons(NamedTuple):
    """The neurons of a plain MLP, as far as features can start from them.

    Attributes:
        w_in: `(neuron, d_in)` what they read.
        b_in: `(neuron,)`.
        w_out: `(neuron, d_out)` what they write.
    """

    w_in: Tensor
    b_in: Tensor
    w_out: Tensor


class LayerCoder(nn.Module):
    """The features that read at one layer.

    Args:
        config: The training.
        d_in: Width of what is read.
        d_out: Width of what is written.
        blocks: Blocks of `d_out` columns of its decoder, one for each layer that has decoder rows of its own.
        scaled: Layers that it writes to with a learned scale a feature; 0: no scales.
        generator: Of the initial weights.
    """

    def __init__(
        self,
        config: TrainConfig,
        d_in: int,
        d_out: int,
        blocks: int,
        scaled: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.config, self.d_out = config, d_out
        kind = getattr(torch, config.dtype)

        def rows(columns: int) -> Tensor:
            # Drawn in one precision whatever the training's, so that a seed means the same weights.
            drawn = torch.randn(config.width, columns, generator=generator, dtype=torch.float64)
            return (drawn / drawn.norm(dim=1, keepdim=True)).to(kind)

        self.w_enc = nn.Parameter(rows(d_in))
        self.b_enc = nn.Parameter(torch.zeros(config.width, dtype=kind))
        starts = {
            "encoder": lambda: self.w_enc.detach().clone(),
            "random": lambda: rows(blocks * d_out),
            "zeros": lambda: torch.zeros(config.width, blocks * d_out, dtype=kind),
        }
        self.w_dec = nn.Parameter(starts[config.starts_with]())
        self.b_dec = nn.Parameter(torch.zeros(d_out, dtype=kind))
        if config.kind == "skip":
            self.w_skip = nn.Parameter(torch.zeros(d_out, d_in, dtype=kind))
        if config.activation == "jumprelu":
            self.log_threshold = nn.Parameter(torch.zeros(config.width, dtype=kind))
        if scaled:  # a cross-layer transcoder starts as one transcoder a layer
            self.scale = nn.Parameter(torch.zeros(scaled, config.width, dtype=kind))
            self.scale.data[0] = 1.0
        for name, size in (("shift", d_in), ("scaled_by", d_in)):
            self.register_buffer(name, torch.full((size,), float(name == "scaled_by"), dtype=kind))
        self.register_buffer("gain", torch.ones((), dtype=kind))
        self.register_buffer("variance", torch.ones((), dtype=kind))
        self.register_buffer("running", torch.full((), -1.0, dtype=kind))
        self.register_buffer("silent", torch.zeros(config.width, dtype=torch.int64))

    shift: Tensor
    scaled_by: Tensor
    gain: Tensor
    variance: Tensor
    running: Tensor
    silent: Tensor

    @torch.no_grad()
    def start_from(self, units: Units, x: Tensor, y: Tensor, neurons: Neurons | None = None) -> None:
        """Take units, starting biases and starting thresholds from a sample of inputs `(n, d_in)` and targets `(n, d_out)`."""
        self.shift.copy_(units.shift)
        self.scaled_by.copy_(units.scale)
        self.gain.copy_(units.gain)
        self.variance.copy_(units.variance)
        self.b_dec.copy_(units.centre)
        self.b_enc.copy_(-(self.w_enc @ units.start.to(self.w_enc)))
        if neurons is not None:
            self._become(neurons, self.scaled_inputs(x))
        if self.config.activation == "jumprelu":
            wanted = self.config.start_l0 or self.config.k or self.config.width / 32
            z = torch.addmm(self.b_enc, self.scaled_inputs(x[:4096]), self.w_enc.T)
            rank = min(max(round(len(z) * (1 - wanted / self.config.width)), 1), len(z))
            # Between two of the sample: at one of them rounding would decide whether it is on.
            below, over = (z.kthvalue(at, dim=0).values for at in (rank, min(rank + 1, len(z))))
            self.log_threshold.copy_(((below + over) / 2).clamp_min(1e-3).log())
        if neurons is not None:
            self._leave_the_rest(self.scaled_inputs(x), y.to(self.gain) * self.gain)

    def _become(self, neurons: Neurons, x: Tensor) -> None:
        """Features that are the model's neurons, in the units of training.

        A neuron's reading direction is multiplied by the length of what it writes, which is divided by it: gates that count take
        those first that write most.
        """
        w_in, b_in, w_out = (part.to(self.w_enc) for part in neurons)
        count = min(len(w_in), self.config.width)
        rows = w_out * self.gain
        length = rows.norm(dim=1)
        chosen = length.topk(count).indices if count < len(w_in) else torch.arange(count)
        rows, length = rows[chosen], length[chosen].clamp_min(1e-12)
        self.w_dec[:count, : self.d_out] = rows / length[:, None]
        self.w_enc[:count] = w_in[chosen] / self.scaled_by * length[:, None]
        self.b_enc[:count] = (b_in[chosen] + w_in[chosen] @ self.shift) * length
        # The others are seldom among the strongest at first, and learn where they are.
        strong = (x @ self.w_enc[:count].T + self.b_enc[:count]).topk(min(self.config.k or 1, count), dim=1)
        among = strong.values[:, -1].clamp_min(0).median() / 2
        self.w_enc[count:] *= among / x.norm(dim=1).median().clamp_min(1e-12) * x.shape[1] ** 0.5
        self.b_enc[count:] = 0

    def _leave_the_rest(self, x: Tensor, y: Tensor) -> None:
        """What the features that stay on do not write goes to bias and skip."""
        kept = self.encode(x, int(self.config.k or 1))
        rest = y - decode(kept.values, self.w_dec[:, : self.d_out].contiguous(), kept.pattern)
        self.b_dec.copy_(rest.mean(dim=0))
        if self.config.kind == "skip":
            around, left = (x - x.mean(dim=0)).double(), (rest - self.b_dec).double()
            square = around.T @ around
            ridge = (
                1e-3
                * square.diagonal().mean()
                * torch.eye(len(square), dtype=square.dtype, device=square.device)
            )
            fitted = torch.linalg.solve(square + ridge, around.T @ left).T.to(self.w_skip)
            self.w_skip.copy_(fitted)
            self.b_dec.sub_(fitted @ x.mean(dim=0))

    def scaled_inputs(self, x: Tensor) -> Tensor:
        """Inputs `(n, d_in)` in the units of training."""
        return (x.to(self.shift) - self.shift) * self.scaled_by

    def before(self, x: Tensor, which: Tensor | None = None) -> Before:
        """Pre-activations of scaled inputs, of all features or of some."""
        if which is None:
            return Before(self.w_enc.detach(), self.b_enc.detach(), x)
        return Before(self.w_enc.detach()[which], self.b_enc.detach()[which], x)

    @property
    def threshold(self) -> Tensor:
        """Threshold of every feature `(feature,)`, or `()` for `batchtopk`; differentiable where it is learned."""
        return self.log_threshold.exp() if self.config.activation == "jumprelu" else self.running.clamp_min(0)

    def encode(self, x: Tensor, k: int) -> Codes:
        """The features that are on at scaled inputs `(n, d_in)` while training; `k` of them where the gate counts."""
        with torch.no_grad():
            pattern, z = self._chosen(self.before(x), k)
        values = pick(self.w_enc, self.b_enc, x, z, pattern)
        if self.config.activation == "jumprelu":
            threshold = spread(self.threshold, pattern)
            l0 = step(z, threshold, self.config.bandwidth).sum() / len(x)
            return Codes(pattern, jump(values, threshold, self.config.bandwidth), l0)
        values = values.relu()
        return Codes(pattern, values, (values.detach() > 0).sum() / len(x))

    def _chosen(self, before: Before, k: int) -> Chosen:
        if self.config.activation == "topk":
            return top_k(before, k)
        if self.config.activation == "batchtopk":
            return batch_top_k(before, k)
        # Those just below the threshold are off, and tell it where to go.
        return above(before, self.threshold - self.config.bandwidth / 2)

    @property
    def dead(self) -> Tensor:
        """Features `(m,)` without a sign of life for `dead_after` vectors."""
        return (self.silent >= self.config.dead_after).nonzero().flatten()


class Coder(nn.Module):
    """All layers of a dictionary.

    Args:
        config: The training.
        d_in: Width of what is read.
        d_out: Width of what is written.
    """

    def __init__(self, config: TrainConfig, d_in: int, d_out: int) -> None:
        super().__init__()
        self.config = config
        generator = torch.Generator().manual_seed(config.seed)
        count, crossing = len(config.layers), config.kind == "clt"
        self.coders = nn.ModuleList(
            LayerCoder(
                config,
                d_in,
                d_out,
                count - at if crossing and config.tying == "none" else 1,
                count - at if crossing and config.tying != "none" else 0,
                generator,
            )
            for at in range(count)
        )

    def __iter__(self) -> Iterator[LayerCoder]:
        yield from self.coders  # type: ignore[misc]

    def __getitem__(self, at: int) -> LayerCoder:
        return self.coders[at]  # type: ignore[return-value]

    def __len__(self) -> int:
        return len(self.coders)

    def written(self, at: int, codes: Codes) -> list[Tensor]:
        """What the features of layer number `at` write, into each of the layers that they write to: `(n, d_out)` each."""
        own, pattern, values = self[at], codes.pattern, codes.values
        if self.config.kind != "clt":
            return [decode(values, own.w_dec, pattern)]
        if self.config.tying == "none":  # one pass over rows that hold all layers
            return list(decode(values, own.w_dec, pattern).split(own.d_out, dim=1))
        return [
            decode(values * spread(own.scale[i], pattern), self.decoder(at, at + i), pattern)
            for i in range(len(self) - at)
        ]

    def decoder(self, at: int, out: int) -> Tensor:
        """Decoder rows `(feature, d_out)` from one layer to another, before a learned scale."""
        if self.config.tying == "target":
            return self[out].w_dec
        first = (
            (out - at) * self[at].d_out if self.config.kind == "clt" and self.config.tying == "none" else 0
        )
        return self[at].w_dec[:, first : first + self[at].d_out]

    def reconstruct(self, x: list[Tensor], codes: list[Codes]) -> list[Tensor]:
        """Reconstructions `(n, d_out)` of all layers, in the units of training, from scaled inputs and their codes."""
        total = [coder.b_dec.expand(len(x[at]), -1) for at, coder in enumerate(self)]
        for at, here in enumerate(codes):
            for i, part in enumerate(self.written(at, here)):
                total[at + i] = total[at + i] + part
        if self.config.kind == "skip":
            total = [y + x[at] @ self[at].w_skip.T for at, y in enumerate(total)]
        return total
