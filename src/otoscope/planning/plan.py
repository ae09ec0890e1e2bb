"""What a plan says: the stages of a command, and what each takes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Stage:
    """One part of a command.

    Attributes:
        name: What is done.
        seconds: Time.
        flops: Floating-point operations of matrix products, attention and convolutions.
        bytes: Memory that it takes beside program and weights.
    """

    name: str
    seconds: float
    flops: float
    bytes: float


@dataclass(frozen=True)
class Plan:
    """What a command takes.

    Attributes:
        command: Its name.
        model: The model's.
        dtype: Precision of the weights.
        parameters: Numbers in the weights, tied ones once.
        weight_bytes: Their memory.
        program_bytes: Memory of Python and its packages.
        stages: In order.
        assumptions: What the figures rest on, in sentences.
    """

    command: str
    model: str
    dtype: str
    parameters: int
    weight_bytes: float
    program_bytes: float
    stages: tuple[Stage, ...]
    assumptions: tuple[str, ...]

    @property
    def seconds(self) -> float:
        """Time of all stages."""
        return sum(stage.seconds for stage in self.stages)

    @property
    def flops(self) -> float:
        """Floating-point operations of all stages."""
        return sum(stage.flops for stage in self.stages)

    @property
    def peak_bytes(self) -> float:
        """Greatest memory of the process at one time."""
        return self.program_bytes + self.weight_bytes + max(stage.bytes for stage in self.stages)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self) | {"seconds": self.seconds, "flops": self.flops, "peak_bytes": self.peak_bytes}
