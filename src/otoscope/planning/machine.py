"""What this machine does in a second: measured once, kept in the cache for as long as nothing it depends on changes.

Times are those of the processor, not of the clock on the wall, so that other programs that run meanwhile do not count.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from otoscope.files import atomic_write
from otoscope.models.cache import cache_dir
from otoscope.progress import notice
from otoscope.versions import versions

_FILE = "machine.json"
_DTYPES = {
    torch.float64: "float64",
    torch.float32: "float32",
    torch.float16: "float16",
    torch.bfloat16: "bfloat16",
}


@dataclass(frozen=True)
class Machine:
    """Rates of one machine.

    Attributes:
        flops: Floating-point operations a second of a large matrix product, by the name of the precision.
        attention: The same of fused attention over the frames of a window.
        bandwidth: Bytes a second that a large elementwise operation reads and writes.
        hashing: Bytes a second of a SHA-256.
        call: Seconds that one operation of a model takes however small it is.
        start: Seconds until Python has imported what a command needs.
        start_bytes: Memory of that process.
    """

    flops: dict[str, float]
    attention: dict[str, float]
    bandwidth: float
    hashing: float
    call: float
    start: float
    start_bytes: float

    def rate(self, dtype: torch.dtype) -> float:
        """Floating-point operations a second in a precision."""
        return self.flops[_DTYPES.get(dtype, "float32")]

    def attending(self, dtype: torch.dtype) -> float:
        """Floating-point operations a second of fused attention in a precision."""
        return self.attention[_DTYPES.get(dtype, "float32")]


def measured() -> Machine:
    """This machine's rates; the first time it takes some seconds to find them."""
    conditions = _conditions()
    path = cache_dir() / _FILE
    kept = _kept(path, conditions)
    if kept is not None:
        return kept
    notice("Measuring this machine, once: some ten seconds.")
    machine = _measure()
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        json.dump({"conditions": conditions, "machine": asdict(machine)}, file, indent=1)
    return machine


def _conditions() -> dict[str, Any]:
    """What the rates depend on."""
    return {
        "processor": platform.processor() or platform.machine(),
        "node": platform.node(),
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "measuring": 1,
    }


def _kept(path: Any, conditions: dict[str, Any]) -> Machine | None:
    try:
        told = json.loads(path.read_text("utf-8"))
        return Machine(**told["machine"]) if told["conditions"] == conditions else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _measure() -> Machine:
    start, start_bytes = _starting()
    machine = Machine(
        flops={name: _product(dtype) for dtype, name in _DTYPES.items()},
        attention={name: _attention(dtype) for dtype, name in _DTYPES.items()},
        bandwidth=_bandwidth(),
        hashing=_hashing(),
        call=0.0,
        start=start,
        start_bytes=start_bytes,
    )
    return replace(machine, call=_calling(machine))


def _least(work: Callable[[], Any]) -> float:
    """The shortest time of one run, of at least three."""
    work()
    best, spent, runs = float("inf"), 0.0, 0
    while spent < 0.25 or runs < 3:
        began = time.thread_time()
        work()
        took = time.thread_time() - began
        best, spent, runs = min(best, took), spent + took, runs + 1
    return best


def _product(dtype: torch.dtype) -> float:
    """Rate of a matrix product with the shape of an MLP over the frames of a window."""
    rows, inner, columns = 1500, 512, 2048
    x, w = torch.randn(rows, inner).to(dtype), torch.randn(columns, inner).to(dtype)
    return 2.0 * rows * inner * columns / _least(lambda: torch.nn.functional.linear(x, w))


def _attention(dtype: torch.dtype) -> float:
    heads, frames, width = 2, 1500, 64
    q, k, v = (torch.randn(1, heads, frames, width).to(dtype) for _ in range(3))
    took = _least(lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v))
    return 4.0 * heads * frames * frames * width / took


def _bandwidth() -> float:
    """Bytes a second of the activation function, which is the dearest of what is elementwise."""
    x = torch.randn(1500, 2048)
    return 2.0 * x.numel() * x.element_size() / _least(lambda: torch.nn.functional.gelu(x))


def _hashing() -> float:
    block = bytes(2**24)
    return len(block) / _least(lambda: hashlib.sha256(block).digest())


def _calling(machine: Machine) -> float:
    """Seconds a call, from one token after another of a decoder so small that nothing else takes time."""
    from otoscope.models.families import random_model
    from otoscope.planning.rehearsal import Rehearsal

    small = random_model("whisper", attention="sdpa")
    tokens, heard = torch.zeros(1, 8, dtype=torch.long), torch.zeros(1, 50, small.config.d_model)
    feed = {"encoder_outputs": (heard,), "decoder_input_ids": tokens}
    with torch.no_grad():
        took = _least(lambda: small.forward(feed))
        small.hf.to(device=torch.device("meta"))  # type: ignore[call-arg]
        feed = {"encoder_outputs": (heard.to("meta"),), "decoder_input_ids": tokens.to("meta")}
        with Rehearsal(machine) as rehearsal:
            small.forward(feed)
    return max(took - rehearsal.cost.seconds, 0.0) / rehearsal.cost.calls


_STARTING = """
import otoscope.models.transcribing, otoscope.studies.explain, otoscope.cli.app, transformers
transformers.WhisperForConditionalGeneration, transformers.WhisperProcessor
try:
    print(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
except OSError:
    print(0)  # a system that does not tell the memory of a process
"""


def _starting() -> tuple[float, float]:
    before = _of_children()
    command = [sys.executable, "-c", _STARTING]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=dict(os.environ))
    told = float(done.stdout) * 1024
    return _of_children() - before, told or 6e8


def _of_children() -> float:
    """Seconds of the processor that finished children of this process took."""
    times = os.times()
    return times.children_user + times.children_system


UNMEASURED = Machine(
    dict.fromkeys(_DTYPES.values(), 1e11), dict.fromkeys(_DTYPES.values(), 5e10), 1e10, 1e9, 1e-5, 5.0, 5e8
)
"""A machine whose times mean nothing, for plans of which the memory alone is asked."""
