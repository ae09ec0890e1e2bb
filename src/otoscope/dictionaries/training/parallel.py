"""Several processes that learn one dictionary: everything they must agree on, and nothing when there is only one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer


def world() -> int:
    """Number of processes; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if world() > 1 else 0


def total(x: Tensor) -> Tensor:
    """Sum over the processes."""
    return _reduced(x, "SUM")


def mean(x: Tensor) -> Tensor:
    """Mean over the processes."""
    return _reduced(x, "SUM") / world() if world() > 1 else x


def greatest(x: Tensor) -> Tensor:
    """Elementwise maximum over the processes."""
    return _reduced(x, "MAX")


def _reduced(x: Tensor, way: str) -> Tensor:
    if world() == 1:
        return x
    x = x.detach().clone()
    dist.all_reduce(x, getattr(dist.ReduceOp, way))
    return x


def gathered(x: Tensor) -> Tensor:
    """The tensors of all processes, one shape, one after another along dimension 1."""
    if world() == 1:
        return x
    parts = [torch.empty_like(x) for _ in range(world())]
    dist.all_gather(parts, x.contiguous())
    return torch.cat(parts, dim=1)


def gathered_values(value: Any) -> list[Any]:
    """One plain value of each process."""
    if world() == 1:
        return [value]
    found: list[Any] = [None] * world()
    dist.all_gather_object(found, value)
    return found


def average_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Replace every gradient by its mean over the processes, all in one message."""
    if world() == 1:
        return
    grads = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([grad.flatten() for grad in grads])
    dist.all_reduce(flat)
    flat /= world()
    for grad, part in zip(grads, flat.split([grad.numel() for grad in grads]), strict=True):
        grad.copy_(part.view_as(grad))


def adam(parameters: Iterable[torch.nn.Parameter], sharded: bool, **options: Any) -> Optimizer:
    """Adam; `sharded` over several processes, each keeps the moments of its share of the parameters alone.

    That is stage 1 of Rajbhandari et al. 2020 (ZeRO): of the 16 bytes a weight that training holds, 8 are shared out.
    """
    parameters = list(parameters)
    if not sharded or world() == 1:
        return torch.optim.Adam(parameters, **options)
    from torch.distributed.optim import ZeroRedundancyOptimizer

    return ZeroRedundancyOptimizer(parameters, torch.optim.Adam, **options)


def moments_of(optimizer: Optimizer) -> list[dict[str, Tensor]]:
    """The state of every parameter, in their order; every process has to ask, and the first one gets it."""
    if hasattr(optimizer, "consolidate_state_dict"):
        optimizer.consolidate_state_dict(to=0)  # type: ignore[attr-defined]
        if rank():
            return []
    state = optimizer.state_dict()["state"]
    return [state[number] for number in sorted(state)]


def set_moments(optimizer: Optimizer, moments: list[dict[str, Tensor]]) -> None:
    """Put the state of every parameter back, in all processes."""
    told = optimizer.state_dict() if not hasattr(optimizer, "consolidate_state_dict") else None
    if told is None:
        count = len(moments)
        groups = [{key: value for key, value in optimizer.param_groups[0].items() if key != "params"}]
        told = {"param_groups": [groups[0] | {"params": list(range(count))}]}
    optimizer.load_state_dict({**told, "state": dict(enumerate(moments))})


def barrier() -> None:
    """Wait for the others."""
    if world() > 1:
        dist.barrier()
