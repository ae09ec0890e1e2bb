"""circuit-tracer's `.pt` files, which are pickles: no case may run anything."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch

from otoscope.circuits.pt import read_pt

FILES = ("graph.pt",)


def saved(**changes: object) -> bytes:
    """A small graph as circuit-tracer saves it, in its older form, which needs no class of its own."""
    told = {
        "input_string": "the cat", "adjacency_matrix": torch.ones(9, 9), "active_features": torch.tensor([[0, 0, 5], [1, 1, 7]]),
        "selected_features": torch.arange(2), "activation_values": torch.ones(2), "logit_targets": torch.tensor([4]),
        "logit_probabilities": torch.tensor([0.5]), "vocab_size": 97, "input_tokens": torch.tensor([3, 9]), "scan": "scan",
    } | changes  # fmt: skip
    file = io.BytesIO()
    torch.save(told, file)
    return file.getvalue()


def seeds() -> list[tuple[bytes]]:
    """One graph: two features, two layers of errors at two positions, two tokens, one target."""
    return [(saved(),), (saved(adjacency_matrix=torch.eye(9)),)]


def parse(folder: Path) -> None:
    """Read it; its rows sum to their values."""
    graph = read_pt(folder / FILES[0])
    assert len(graph.names) == len(graph.nodes)
    assert np.array_equal(np.isnan(graph.values), np.isnan(np.asarray(graph.matrix.sum(axis=1)).ravel()))
