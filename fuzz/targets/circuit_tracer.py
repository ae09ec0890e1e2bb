"""circuit-tracer's dictionaries: YAML and safetensors."""

from __future__ import annotations

from pathlib import Path

from fuzz.small_dictionaries import cross_layer, files_of, transcoders, use
from otoscope.dictionaries.formats.circuit_tracer import save_circuit_tracer

FILES = (
    "config.yaml", "layer_0.safetensors", "layer_1.safetensors", "W_enc_0.safetensors", "W_dec_0.safetensors",
    "W_enc_1.safetensors", "W_dec_1.safetensors",
)  # fmt: skip


def seeds() -> list[tuple[bytes, ...]]:
    """Transcoders of each activation."""
    made = [files_of(lambda folder, one=one: save_circuit_tracer(one, folder, "m"), FILES[:3]) for one in
            (transcoders(), transcoders("topk"))]  # fmt: skip
    crossing = files_of(
        lambda folder: save_circuit_tracer(cross_layer(), folder, "m"), (FILES[0], *FILES[3:])
    )
    return [*made, (crossing[0], made[0][1], made[0][2], *crossing[1:])]


def parse(folder: Path) -> None:
    """See `use`."""
    use(folder)
