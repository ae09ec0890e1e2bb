"""A small recurrent head: a gated recurrent unit over the steps of a text, run step by step without a framework's overhead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

HIDDEN = 24
"""Units."""

MEMBERS = 3
"""Groups of units that are fitted from different starts; their logits are averaged, which varies less than one of them."""

EPOCHS, BATCH, RATE, DECAY, DROPOUT = 60, 32, 3e-3, 1e-3, 0.2


@dataclass(frozen=True, eq=False)
class Recurrent:
    """A gated recurrent unit and a linear reading of it, in PyTorch's layout and order (reset, update, new).

    Attributes:
        mean: Of the inputs, `(input,)`.
        scale: Their standard deviation, `(input,)`.
        w_in: `(3 * hidden, input)`.
        w_hidden: `(3 * hidden, hidden)`.
        b_in: `(3 * hidden,)`.
        b_hidden: `(3 * hidden,)`.
        w_out: `(target, hidden)`.
        b_out: `(target,)`.
    """

    mean: np.ndarray
    scale: np.ndarray
    w_in: np.ndarray
    w_hidden: np.ndarray
    b_in: np.ndarray
    b_hidden: np.ndarray
    w_out: np.ndarray
    b_out: np.ndarray

    @property
    def hidden(self) -> int:
        """Units."""
        return self.w_hidden.shape[1]

    def start(self) -> np.ndarray:
        """The state before the first step, `(hidden,)`."""
        return np.zeros(self.hidden)

    def advance(self, state: np.ndarray, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Some new steps.

        Args:
            state: `(hidden,)`.
            inputs: `(step, input)`, as they are.

        Returns:
            The new state, and logits `(step, target)`.
        """
        n = self.hidden
        gates = np.clip((inputs - self.mean) / self.scale, -_FAR, _FAR) @ self.w_in.T + self.b_in
        states = np.empty((len(inputs), n))
        for i, gate in enumerate(gates):
            own = self.w_hidden @ state + self.b_hidden
            opened = 0.5 * (1 + np.tanh(0.5 * (gate[: 2 * n] + own[: 2 * n])))
            new = np.tanh(gate[2 * n :] + opened[:n] * own[2 * n :])
            state = new + opened[n:] * (state - new)
            states[i] = state
        return state, states @ self.w_out.T + self.b_out

    def tensors(self) -> dict[str, np.ndarray]:
        """By name, to be stored in float32."""
        return {name: np.ascontiguousarray(value, np.float32) for name, value in vars(self).items()}

    @classmethod
    def of(cls, tensors: Mapping[str, np.ndarray]) -> Recurrent:
        """From stored tensors."""
        return cls(**{name: np.asarray(tensors[name], np.float64) for name in cls.__dataclass_fields__})


_UNKNOWN = 1e4
"""A logit below all others."""

_FAR = 6.0
"""Standard deviations at which an input is cut off: what lies further out was never learned from."""


def fit_recurrent(
    inputs: Sequence[np.ndarray], targets: Sequence[np.ndarray], weights: np.ndarray, seed: int = 0
) -> Recurrent:
    """Fit a head by the cross-entropy of every step, and by that of each text's highest step, on which alarms hang.

    Each text counts as much as any other, however long it is, times its own weight.

    Args:
        inputs: `(step, input)` of each text.
        targets: 1, 0, or NaN for steps that tell nothing, `(step, target)` of each text.
        weights: `(text, target)`.
        seed: Of the start, the order and the dropout.
    """
    every = np.concatenate(inputs)
    mean, scale = every.mean(axis=0), every.std(axis=0) + 1e-6
    longest = max(map(len, inputs))
    x = torch.zeros(len(inputs), longest, every.shape[1])
    y = torch.full((len(inputs), longest, targets[0].shape[1]), torch.nan)
    for i, (steps, wanted) in enumerate(zip(inputs, targets, strict=True)):
        x[i, : len(steps)] = torch.from_numpy(np.clip((steps - mean) / scale, -_FAR, _FAR)).float()
        y[i, : len(steps)] = torch.from_numpy(wanted).float()
    told = ~y.isnan()
    share = told / told.sum(dim=1, keepdim=True).clamp_min(1) * torch.from_numpy(weights).float()[:, None]
    members = []
    with torch.random.fork_rng(devices=[]):
        for member in range(MEMBERS):
            torch.manual_seed(MEMBERS * seed + member)
            unit = torch.nn.GRU(every.shape[1], HIDDEN, batch_first=True)
            out = torch.nn.Linear(HIDDEN, y.shape[2])
            _train(unit, out, x, torch.nan_to_num(y), share)
            parameters = (*unit.parameters(), *out.parameters())  # in the order of the attributes
            arrays = [parameter.detach().double().numpy() for parameter in parameters]
            members.append(Recurrent(mean, scale, *arrays))
    return joined(members)


def joined(members: Sequence[Recurrent]) -> Recurrent:
    """Several heads of the same inputs as one, whose logits are the mean of theirs."""
    count, n = len(members), members[0].hidden

    def by_gate(name: str) -> np.ndarray:
        """Rows (gate, member, unit), as the gates of all members lie side by side: `(3 * count * n, ...)`."""
        stacked = np.stack([getattr(member, name) for member in members])
        split = stacked.reshape(count, 3, n, *stacked.shape[2:])
        return split.swapaxes(0, 1).reshape(3 * count * n, *stacked.shape[2:])

    w_hidden = np.zeros((3, count, n, count, n))
    for i, member in enumerate(members):
        w_hidden[:, i, :, i] = member.w_hidden.reshape(3, n, n)
    return Recurrent(
        members[0].mean,
        members[0].scale,
        by_gate("w_in"),
        w_hidden.reshape(3 * count * n, count * n),
        by_gate("b_in"),
        by_gate("b_hidden"),
        np.concatenate([member.w_out for member in members], axis=1) / count,
        np.mean([member.b_out for member in members], axis=0),
    )


def _train(
    unit: torch.nn.GRU, out: torch.nn.Linear, x: torch.Tensor, y: torch.Tensor, share: torch.Tensor
) -> None:
    parameters = [*unit.parameters(), *out.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=RATE, weight_decay=DECAY)
    steps = EPOCHS * -(-len(x) // BATCH)
    cross_entropy = torch.nn.functional.binary_cross_entropy_with_logits
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(x)).split(BATCH):
            kept = share[rows].sum(dim=(0, 2)).nonzero()
            length = int(kept.max()) + 1 if len(kept) else 1
            states, _ = unit(torch.dropout(x[rows, :length], DROPOUT, train=True))
            logits, due, share_of = out(states), y[rows, :length], share[rows, :length]
            unknown = share_of == 0
            whole = share_of.sum(dim=1)
            loss = cross_entropy(logits, due, share_of, reduction="sum")
            highest = logits.masked_fill(unknown, -_UNKNOWN).amax(dim=1).clamp_min(-_UNKNOWN / 2)
            loss += cross_entropy(highest, due.masked_fill(unknown, 0).amax(dim=1), whole, reduction="sum")
            loss /= len(rows)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            schedule.step()
