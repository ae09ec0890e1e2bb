"""Running code on tensors that have shapes and no numbers, and counting what it would take.

Nothing here knows a model: whatever runs on the meta device inside `Rehearsal` is counted, operation by operation. An operation
takes the time of computing (its floating-point operations over the machine's rate), of moving what it reads and writes (over the
machine's bandwidth; in an attention the longer of the two), and what any call takes beside.
"""

from __future__ import annotations

import math
import weakref
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

if TYPE_CHECKING:
    from torch import Tensor

    from otoscope.planning.machine import Machine


@dataclass(frozen=True)
class Cost:
    """What some work takes.

    Attributes:
        flops: Floating-point operations of matrix products, attention and convolutions.
        moved: Bytes read and written.
        calls: Operations.
        seconds: Time on the machine that was asked.
        peak: Bytes that were held at once, beside what was given.
    """

    flops: float = 0.0
    moved: float = 0.0
    calls: float = 0.0
    seconds: float = 0.0
    peak: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        """One after the other: the peak is the greater."""
        sums = {f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)}
        return Cost(**sums | {"peak": max(self.peak, other.peak)})

    def __mul__(self, times: float) -> Cost:
        """So many times, one after the other: the peak stays."""
        return Cost(**{f.name: getattr(self, f.name) * times for f in fields(self)} | {"peak": self.peak})

    def holding(self, held: float) -> Cost:
        """While so many bytes are held beside."""
        return replace(self, peak=self.peak + held)


class Rehearsal(TorchDispatchMode):
    """Counts what runs inside the block.

    Args:
        machine: Whose rates turn counts into seconds.
    """

    def __init__(self, machine: Machine) -> None:
        super().__init__()
        self.machine = machine
        self._flops = self._moved = self._calls = self._seconds = 0.0
        self._live = self._peak = 0
        self._seen: set[int] = set()
        self._attention = _Fused(self)

    @property
    def cost(self) -> Cost:
        """What was counted so far."""
        return Cost(self._flops, self._moved, self._calls, self._seconds, self._peak)

    def __enter__(self) -> Rehearsal:
        self._attention.__enter__()
        return super().__enter__()

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self._attention.__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        for x in given:
            self._know(x)
        out = (
            _answer(args[0]) if func is torch.ops.aten._local_scalar_dense.default else func(*args, **kwargs)
        )
        made = [x for x in tree_leaves(out) if isinstance(x, torch.Tensor)]
        fresh = [x for x in made if self._hold(x)]
        counter = flop_registry.get(func._overloadpacket)
        flops = float(counter(*args, **kwargs, out_val=out)) if counter else 0.0
        written = fresh or (made if func._schema.is_mutable else [])
        if flops or written:  # a view takes a call and nothing else
            self.count(flops, _bytes(given) + _bytes(written), _dtype(made))
        else:
            self.count(0.0, 0.0, None)
        return out

    def count(self, flops: float, moved: float, dtype: torch.dtype | None) -> None:
        """Add one operation."""
        m = self.machine
        busy = (flops / m.rate(dtype) if flops and dtype else 0.0) + moved / m.bandwidth
        self._add(flops, moved, busy)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, out: Tensor) -> None:
        """Add one fused attention, which reaches a rate of its own; rows that share keys read them again."""
        flops = 2.0 * math.prod(q.shape[:-1]) * k.shape[-2] * (q.shape[-1] + v.shape[-1])
        moved = float(sum(x.numel() * x.element_size() for x in (q, k, v, out)))
        m = self.machine
        self._add(flops, moved, max(flops / m.attending(q.dtype), moved / m.bandwidth))

    def _add(self, flops: float, moved: float, busy: float) -> None:
        self._flops += flops
        self._moved += moved
        self._calls += 1
        self._seconds += self.machine.call + busy

    def _know(self, x: Tensor) -> None:
        """Let what was there before the rehearsal take no memory of it."""
        storage = x.untyped_storage()
        if storage._cdata not in self._seen:
            self._seen.add(storage._cdata)
            weakref.finalize(storage, self._seen.discard, storage._cdata)

    def _hold(self, x: Tensor) -> bool:
        """Count a storage that is new for as long as it lives; whether it is."""
        storage = x.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._seen:
            return False
        self._seen.add(key)
        self._live += size
        self._peak = max(self._peak, self._live)
        weakref.finalize(storage, self._let_go, key, size)
        return True

    def _let_go(self, key: int, size: int) -> None:
        self._live -= size
        self._seen.discard(key)


def _answer(x: Tensor) -> bool | int:
    """What a question about numbers that are not there is answered: yes (a mask hides nothing, a value is finite), or 0."""
    return True if x.dtype == torch.bool else 0


class _Fused(TorchFunctionMode):
    """Attention as the processor has it: no scores in memory. On the meta device torch would write them out."""

    def __init__(self, rehearsal: Rehearsal) -> None:
        super().__init__()
        self._rehearsal = rehearsal

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.nn.functional.scaled_dot_product_attention and args[0].device.type == "meta":
            q, k, v = args[:3]
            out = q.new_empty(*q.shape[:-1], v.shape[-1])
            self._rehearsal.attend(q, k, v, out)
            return out
        return func(*args, **(kwargs or {}))


def _bytes(tensors: list[Tensor]) -> float:
    """What is read or written of them; an expanded tensor has fewer numbers than its shape."""
    return float(sum(min(x.numel() * x.element_size(), x.untyped_storage().nbytes()) for x in tensors))


def _dtype(tensors: list[Tensor]) -> torch.dtype:
    return next((x.dtype for x in tensors if x.is_floating_point()), torch.float32)
