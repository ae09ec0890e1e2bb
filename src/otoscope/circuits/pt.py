"""circuit-tracer's graph files (`.pt`), read without running what they may hold.

They are pickles. PyTorch's restricted reader takes tensors and plain values, and the two classes of circuit-tracer that a
graph needs become empty stand-ins; anything else in the file is refused.
"""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from otoscope.circuits.graph import ERROR, FEATURE, NONE, TARGET, TOKEN, AttributionGraph, Nodes, TargetInfo
from otoscope.circuits.whole import require_whole
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
        _require_stored(Path(path))
        with torch.serialization.safe_globals(_ALLOWED):
            told = torch.load(path, map_location="cpu", weights_only=True)
        return require_whole(_graph(_plain(told)))
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0][:200]
        raise GraphError(
            f"{path} holds more than a graph, or is no graph: {reason}", "Get it from whom you trust."
        ) from error
    except Exception as error:  # a damaged pickle surfaces as whatever its instructions stumbled over
        if isinstance(error, MemoryError):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise GraphError(
            f"{path} is no graph of circuit-tracer: {reason}.", "Check that the file is whole."
        ) from error


def _require_stored(path: Path) -> None:
    """Refuse what PyTorch does not write, an archive that is packed among it: a few bytes may unpack to any number.

    Raises:
        ValueError: It is such a file.
        zipfile.BadZipFile: It is no archive.
    """
    with zipfile.ZipFile(path) as archive:
        packed = any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist())
        size = sum(member.file_size for member in archive.infolist())
    if packed or size > path.stat().st_size:
        raise ValueError("its archive is packed, and PyTorch's never is")


def _plain(told: Any) -> dict[str, Any]:
    """What the file holds, if it is a table whose tensors have all their numbers in the file.

    Raises:
        ValueError: It is none, or a tensor repeats a few numbers over a shape without end.
    """
    if not isinstance(told, dict):
        raise ValueError("it holds no table")
    for name, value in told.items():
        if isinstance(value, torch.Tensor) and (
            value.layout != torch.strided
            or value.numel() * value.element_size() > value.untyped_storage().nbytes()
        ):
            raise ValueError(f"{str(name)[:40]} has a shape that its numbers do not fill")
    return told


def _text(value: Any, usual: str = "") -> str:
    """A text of the file; what else stands there is not spelled, as it may be of any size."""
    return value if isinstance(value, str) else usual


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
    rows = nodes.expanded
    indptr, indices, weights = _sparse(matrix[rows])
    values = matrix[rows].sum(axis=1)
    targets = tuple(
        TargetInfo(text, len(ids) - 1, p, token, p)
        for (text, token), p in zip(logits, probabilities, strict=True)
    )
    name = getattr(told.get("cfg"), "model_name", None)
    scans = (told.get("scan"), told.get("scan_name"))
    zeros = np.zeros(len(rows))
    record = {
        "prompt": _text(told.get("input_string")),
        "ids": ids,
        "model": {"name": next(filter(None, map(_text, (name, *scans))), "unknown")},
        "dictionary": {"kind": next(filter(None, map(_text, reversed(scans))), "unknown")},
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
        pairs.append((_text(each[0]), int(each[1])))
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
    table = [(FEATURE, int(layer), int(pos), int(feature)) for layer, pos, feature in features]
    table += errors
    table += [(TOKEN, NONE, pos, token) for pos, token in enumerate(ids)]
    table += [(TARGET, layers, positions - 1, token) for _, token in logits]
    values = np.full(total, np.nan)
    values[: len(features)] = activation
    return Nodes.of_rows(table, "text", values)


def _sparse(matrix: np.ndarray) -> tuple[np.ndarray, ...]:
    from scipy.sparse import csr_matrix

    sparse = csr_matrix(matrix)
    return sparse.indptr.astype(np.int64), sparse.indices.astype(np.int64), sparse.data
