"""GGUF files: the head, walked through by otoscope and then by the reader that is let loose on what passed."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

import gguf
import numpy as np

from otoscope.models.gguf_head import check_head

FILES = ("model.gguf",)


def _written(**more: object) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / FILES[0]
        writer = gguf.GGUFWriter(path, "llama")
        writer.add_block_count(1)
        writer.add_context_length(8)
        writer.add_layer_norm_rms_eps(1e-5)
        writer.add_token_list(["<unk>", "a", "b"])
        writer.add_token_types([3, 1, 1])
        for name, value in more.items():
            writer.add_array(name, value)  # pyright: ignore[reportArgumentType]
        for name in ("token_embd", "blk.0.attn_q"):
            writer.add_tensor(f"{name}.weight", np.ones((3, 4), np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path.read_bytes()


def seeds() -> list[tuple[bytes]]:
    """Two small heads, one with arrays of numbers."""
    return [(_written(),), (_written(ids=[1, 2, 3], scores=[0.5, 1.5]),)]


def parse(folder: Path) -> None:
    """Walk through the head; what passes is read in bounded time, whatever is then found wrong with it."""
    check_head(folder / FILES[0])
    with contextlib.suppress(Exception):
        gguf.GGUFReader(folder / FILES[0])
