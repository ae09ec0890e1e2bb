"""circuit-tracer's graph files (`.pt`), read without running what they may hold.

They are pickles. PyTorch's restricted reader takes tensors and plain values, and the two classes of circuit-tracer that a
graph needs become empty stand-ins; anything else in the file is refused.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch

from otoscope.circuits.graph import ERROR, FEATURE, NONE, TARGET, TOKEN, AttributionGraph, Nodes, TargetInfo
from otoscope.errors import GraphError


class _StandIn:
    """Holds the state of a pickled object, and does nothing."""

    args: tuple = ()

    def __new__(cls, *args: Any, **_kwargs: Any) -> _StandIn:
        made = super().__new__(cls)
        made.args = args
        return made

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.__dict__.update(state)


class _Config(_StandIn):
    pass


class _Logit(_StandIn):
    pass


_ALLOWED = [
    (_Config, "circuit_tracer.utils.tl_nnsight_mapping.UnifiedConfig"),
    (_Config, "transformer_lens.HookedTransformerConfig.HookedTransformerConfig"),
    (_Config, "transformer_lens.config.HookedTransformerConfig.HookedTransformerConfig"),
    (_Logit, "circuit_tracer.attribution.targets.LogitTarget"),
]


def read_pt(path: Path | str) -> AttributionGraph:
    """Read a graph that circuit-tracer saved.

    Raises:
        GraphError: It cannot be read, or holds more than a graph.
    """
    try:
        with torch.serialization.safe_globals(_ALLOWED):
            told = torch.load(path, map_location="cpu", weights_only=True)
        return _graph(told)
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0][:200]
        raise GraphError(
            f"{path} holds more than a graph, or is no graph: {reason}", "Get it from whom you trust."
        ) from error
    except (
        OSError,
        RuntimeError,
        EOFError,
        KeyError,
        TypeError,
        ValueError,
        IndexError,
        AttributeError,
    ) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise GraphError(
            f"{path} is no graph of circuit-tracer: {reason}.", "Check that the file is whole."
        ) from error


def _graph(told: dict[str, Any]) -> AttributionGraph:
    matrix = told["adjacency_matrix"].double().numpy()
    ids = [int(i) for i in told["input_tokens"]]
    chosen = told["selected_features"].long()
    features = told["active_features"].long()[chosen].numpy()
    activations = told["activation_values"].double()
    activation = (
        activations[chosen] if len(activations) == len(told["active_features"]) else activations
    ).numpy()
    logits = _logits(told["logit_targets"])
    probabilities = [float(p) for p in told["logit_probabilities"]]
    nodes = _nodes(features, activation, ids, logits, matrix.shape[0])
    rows = np.concatenate([nodes.of(FEATURE), nodes.of(TARGET)])
    indptr, indices, weights = _sparse(matrix[rows])
    values = matrix[rows].sum(axis=1)
    targets = tuple(
        TargetInfo(text, len(ids) - 1, p, token, p)
        for (text, token), p in zip(logits, probabilities, strict=True)
    )
    name = getattr(told.get("cfg"), "model_name", None)
    zeros = np.zeros(len(rows))
    record = {
        "prompt": str(told.get("input_string", "")),
        "ids": ids,
        "model": {"name": str(name or told.get("scan") or told.get("scan_name") or "unknown")},
        "dictionary": {"kind": str(told.get("scan_name") or told.get("scan") or "unknown")},
        "settings": {"conventions": "circuit-tracer"},
    }
    tokens = tuple(f"<{i}>" for i in ids)  # the file holds no texts of single tokens
    return AttributionGraph(nodes, indptr, indices, weights, zeros, zeros, values, targets, tokens, record)


def _logits(found: Any) -> list[tuple[str, int]]:
    """Text and id of every target; older files hold ids alone."""
    if isinstance(found, torch.Tensor):
        return [(f"<{int(i)}>", int(i)) for i in found]
    pairs = []
    for each in found:
        if isinstance(each, _StandIn):
            each = each.args or (each.__dict__["token_str"], each.__dict__["vocab_idx"])
        pairs.append((str(each[0]), int(each[1])))
    return pairs


def _nodes(
    features: np.ndarray, activation: np.ndarray, ids: list[int], logits: list[tuple[str, int]], total: int
) -> Nodes:
    positions = len(ids)
    layers, rest = divmod(total - len(features) - positions - len(logits), positions)
    if rest or layers < 0:
        raise ValueError(
            f"{total} nodes are not features, errors, {positions} tokens and {len(logits)} logits"
        )
    errors = [(ERROR, layer, pos, NONE) for layer in range(layers) for pos in range(positions)]
    table = [(FEATURE, *(int(x) for x in row)) for row in features]
    table += errors
    table += [(TOKEN, NONE, pos, token) for pos, token in enumerate(ids)]
    table += [(TARGET, layers, positions - 1, token) for _, token in logits]
    kind, layer, pos, feature = np.array(table, dtype=np.int64).T
    values = np.full(total, np.nan)
    values[: len(features)] = activation
    return Nodes(
        kind.astype(np.int8), layer.astype(np.int32), pos.astype(np.int32), feature, values, ("text",) * total
    )


def _sparse(matrix: np.ndarray) -> tuple[np.ndarray, ...]:
    from scipy.sparse import csr_matrix

    sparse = csr_matrix(matrix)
    return sparse.indptr.astype(np.int64), sparse.indices.astype(np.int64), sparse.data
