"""Tracing: from a prompt to the graph of what made the model write its next token.

The full matrix has as many rows as there are active features. Only those are computed that matter: first the targets' rows,
then, again and again, the rows of the features with most influence so far (Ameisen et al. 2025, incremental selection).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from otoscope.circuits.adjoint import Seeds, Sweep, feature_seeds
from otoscope.circuits.graph import (
    BIAS,
    ERROR,
    FEATURE,
    NONE,
    POSITION,
    TARGET,
    TOKEN,
    AttributionGraph,
    Nodes,
    TargetInfo,
)
from otoscope.circuits.influence import LEAST
from otoscope.circuits.sources import Sources, find_sources
from otoscope.circuits.tape import Tape, record
from otoscope.circuits.targets import Target, choose_targets, target_seeds
from otoscope.dictionaries.neurons import NeuronBasis
from otoscope.errors import ModelError, OptionError
from otoscope.models.causal_lm import LanguageModel
from otoscope.progress import track
from otoscope.versions import versions

if TYPE_CHECKING:
    from torch import Tensor

    from otoscope.dictionaries.base import Dictionary
    from otoscope.models.base import Model

_STORE = 2**29
"""Bytes that the rows kept while features are chosen may take."""

_BATCH = 2**27
"""Bytes that the full rows of one batch may take."""

_KEPT = 0.15
"""Share of a dense row's entries above its mean, in the neuron bases measured: an estimate of what a row takes."""


@dataclass(frozen=True)
class TraceSettings:
    """How to trace.

    Attributes:
        nodes: Features to expand.
        update: Features expanded before influence is computed again.
        batch: Targets swept at once; None: as many as fit, at most 256. Without influence on the result.
        conventions: `exact`, or `circuit-tracer`, which zeroes features and errors at position 0, has no nodes for biases and
            positions, and leaves what is in no node out of the normalisers.
    """

    nodes: int = 1000
    update: int = 128
    batch: int | None = None
    conventions: Literal["exact", "circuit-tracer"] = "exact"

    def __post_init__(self) -> None:
        for name in ("nodes", "update"):
            if getattr(self, name) < 1:
                raise OptionError(f"{name}={getattr(self, name)} is too few.", "Choose at least 1.")


class Tracer:
    """One prompt's tape, features and sweep.

    Args:
        model: A language model in float32 or float64.
        prompt: Text, or token ids `(pos,)`.
        dictionary: Features; None: the model's own neurons.
        settings: How to trace.

    Attributes:
        tape: The forward pass.
        sources: What writes into the stream.
        sweep: Makes rows.
        targets: What the last graph was made for.

    Raises:
        OptionError: The prompt is empty or longer than the context.
        ModelError: This kind of model cannot be traced, or its weights are not finite.
        DictionaryError: The dictionary is of another model.
    """

    def __init__(
        self,
        model: Model,
        prompt: str | Tensor | Sequence[int],
        dictionary: Dictionary | None = None,
        settings: TraceSettings | None = None,
    ) -> None:
        self.model, self.settings = model, settings or TraceSettings()
        ids = prompt_ids(model, prompt)
        self.dictionary = dictionary or NeuronBasis(model)
        self.dictionary.check(model)
        self._refuse_too_much(len(ids))
        plain = self.settings.conventions == "circuit-tracer"
        with torch.no_grad():
            self.tape: Tape = record(model, ids)
            self.sources: Sources = find_sources(self.tape, self.dictionary, first_position=not plain)
        self.sweep = Sweep(self.tape, self.dictionary, self.sources)
        self.ids = ids
        self.targets: tuple[Target, ...] = ()

    def graph(self, targets: str | int | Target | Sequence[str | int | Target] = "top") -> AttributionGraph:
        """Trace targets.

        Args:
            targets: `top`, a token's text or id, a `Target`, or several.

        Raises:
            OptionError: A target does not exist.
        """
        chosen = choose_targets(self.model, self.tape, targets)
        self.targets = tuple(chosen)
        with torch.no_grad():
            store, columns = self._expand(chosen)
        return self._assembled(store, columns, chosen)

    # Choosing and computing rows -------------------------------------------------------------------------------------

    def rows(self, seeds: Seeds, out: Tensor | None = None) -> Tensor:
        """Full rows `(n, column)`, under the chosen conventions."""
        rows = self.sweep.rows(seeds, out)
        if self.settings.conventions == "circuit-tracer":
            s = self.sources
            rows[:, s.biases :] = 0
            if s.positions is not None:
                rows[:, s.positions : s.biases] = 0
        return rows

    def _expand(self, targets: list[Target]) -> tuple[_Store, np.ndarray]:
        """Rows of the targets and of the most influential features; the columns of those, in the order of their rows."""
        s = self.settings
        wanted = min(s.nodes, self.sources.features)
        store = _Store(self.sources, self._floor(wanted), np.array([t.weight for t in targets]))
        out = self.tape.embed.new_empty(self._batch(), self.sources.columns)
        with track("Tracing", wanted, "features") as task:
            for at in range(0, len(targets), len(out)):
                store.add(self.rows(target_seeds(self.tape, targets[at : at + len(out)]), out))
            while len(store.columns) < wanted:
                best = store.most_influential(min(s.update, wanted - len(store.columns)))
                for columns in self._batches(best, len(out)):
                    seeds = feature_seeds(self.tape, self.dictionary, self.sources, columns)
                    store.add(self.rows(seeds, out), columns)
                    task.advance(len(columns))
        return store, np.array(store.columns, dtype=np.int64)

    def _batches(self, columns: Tensor, size: int) -> Iterator[Tensor]:
        """Features near in position together, so that no batch sweeps positions in vain."""
        layer, pos, _ = self.sources.entries(columns)
        order = np.lexsort((columns.numpy(), -layer.numpy(), -pos.numpy()))
        yield from columns[torch.from_numpy(order.copy())].split(size)

    # Memory ----------------------------------------------------------------------------------------------------------

    def _batch(self) -> int:
        if self.settings.batch:
            return self.settings.batch
        return max(1, min(256, _BATCH // (self.sources.columns * self.tape.embed.element_size())))

    def _floor(self, rows: int) -> float:
        """Entries below this many times their row's mean are not kept while features are chosen; 0 keeps all."""
        itemsize = self.tape.embed.element_size() + 4
        whole = rows * self.sources.columns * itemsize
        return 0.0 if whole <= _STORE else max(1.0, _KEPT * whole / _STORE)

    def _refuse_too_much(self, positions: int) -> None:
        """Estimate what the rows take before anything runs."""
        itemsize = 4 if self.model.dtype != torch.float64 else 8
        features = positions * sum(self.dictionary.size(layer) for layer in range(self.dictionary.layers))
        nodes = min(self.settings.nodes, features)
        edges = nodes * (nodes + positions * (self.dictionary.layers + 2)) * (itemsize + 4)
        needed = min(edges, _STORE + edges) + features * itemsize
        free = _free_memory()
        if needed > free:
            raise OptionError(
                f"A graph of {nodes} features of {positions} positions takes about {needed / 1e9:.1f} GB, "
                f"{free / 1e9:.1f} GB are free.",
                "Take fewer features (--nodes), or a shorter prompt.",
            )

    # The graph -------------------------------------------------------------------------------------------------------

    def _assembled(self, store: _Store, columns: np.ndarray, targets: list[Target]) -> AttributionGraph:
        order = np.argsort(columns, kind="stable")
        rows = np.concatenate([order + len(targets), np.arange(len(targets))])  # features, then targets
        node_of, nodes = self._nodes(columns[order], store, targets)
        indptr, indices, weights, kept, kept_mass = store.restricted(rows, node_of)
        rest, mass = store.total[rows] - kept, np.maximum(store.mass[rows] - kept_mass, 0.0)
        # Rounding of the sums must not pass for a rest where everything was kept.
        noise = 1e-5 if weights.dtype == np.float32 else 1e-12
        full = mass <= noise * store.mass[rows]
        rest[full], mass[full] = 0.0, 0.0
        return AttributionGraph(
            nodes=nodes,
            indptr=indptr,
            indices=indices,
            weights=weights,
            rest=rest,
            rest_mass=mass,
            values=store.total[rows],
            targets=tuple(
                TargetInfo(t.label, t.pos, t.weight, t.token, None if t.token is None else t.weight)
                for t in targets
            ),
            tokens=tuple(self._token_texts()),
            record=self._record(store),
            tracer=self,
        )

    def _nodes(self, features: np.ndarray, store: _Store, targets: list[Target]) -> tuple[np.ndarray, Nodes]:
        """The node of every column (-1: none), and the table of nodes."""
        s, positions = self.sources, len(self.tape)
        seen = store.seen()
        others = np.flatnonzero(seen[s.features :]) + s.features
        tokens = np.arange(s.tokens, s.tokens + positions)
        others = np.union1d(others, tokens)
        columns = np.concatenate([features, others])
        node_of = np.full(s.columns, NONE, dtype=np.int64)
        node_of[columns] = np.arange(len(columns))
        described = [self._feature_table(features), self._other_table(others), self._target_table(targets)]
        kind, layer, pos, feature, activation = (
            np.concatenate(parts) for parts in zip(*described, strict=True)
        )
        stream = (self.tape.stream,) * len(kind)
        return node_of, Nodes(
            kind.astype(np.int8),
            layer.astype(np.int32),
            pos.astype(np.int32),
            feature.astype(np.int64),
            activation,
            stream,
        )

    def _feature_table(self, columns: np.ndarray) -> tuple[np.ndarray, ...]:
        index = torch.from_numpy(columns)
        layer, pos, feature = (x.numpy() for x in self.sources.entries(index))
        activation = self.sources.activation[index].double().numpy()
        return np.full(len(columns), FEATURE), layer, pos, feature, activation

    def _other_table(self, columns: np.ndarray) -> tuple[np.ndarray, ...]:
        s, count = self.sources, len(self.tape)
        ids = self.ids.numpy()
        rows = []
        for column in columns.tolist():
            if column < s.tokens:
                layer, pos = divmod(column - s.features, count)
                rows.append((ERROR, layer, pos, NONE))
            elif column < s.tokens + count:
                rows.append((TOKEN, NONE, column - s.tokens, ids[column - s.tokens]))
            elif column < s.biases:
                rows.append((POSITION, NONE, column - s.tokens - count, NONE))
            else:
                rows.append((BIAS, column - s.biases, NONE, NONE))
        table = np.array(rows, dtype=np.int64).reshape(-1, 4).T
        return (*table, np.full(len(columns), np.nan))

    def _target_table(self, targets: list[Target]) -> tuple[np.ndarray, ...]:
        layers = [self.tape.layers if t.layer is None else t.layer for t in targets]
        tokens = [NONE if t.token is None else t.token for t in targets]
        n = len(targets)
        return (
            np.full(n, TARGET),
            np.array(layers),
            np.array([t.pos for t in targets]),
            np.array(tokens),
            np.full(n, np.nan),
        )

    def _token_texts(self) -> list[str]:
        if self.model.tokenizer is None:
            return [f"<{int(i)}>" for i in self.ids]
        return [self.model.tokenizer.decode([int(i)]) for i in self.ids]

    def _record(self, store: _Store) -> dict[str, Any]:
        return {
            "prompt": "".join(self._token_texts()),
            "ids": self.ids.tolist(),
            "model": self.model.describe()
            | {"layers": self.tape.layers, "vocab": self.tape.logits.shape[-1]},
            "dictionary": self.dictionary.describe(),
            "settings": asdict(self.settings),
            "active_features": self.sources.features,
            "floor": store.floor,
            "versions": versions(),
        }


class _Store:
    """Rows computed so far, as sparse blocks over all columns."""

    def __init__(self, sources: Sources, floor: float, weights: np.ndarray) -> None:
        self.sources, self.floor = sources, floor
        self.columns: list[int] = []
        self.total, self.mass = np.zeros(0), np.zeros(0)
        self._weights = weights
        self._rows: list[tuple[np.ndarray, np.ndarray]] = []
        self._open = np.ones(sources.features, bool)

    def add(self, rows: Tensor, columns: Tensor | None = None) -> None:
        """Keep the entries of full rows that are not too small."""
        total, mass = (
            rows.sum(dim=1).double().numpy(),
            torch.linalg.vector_norm(rows, 1, dim=1).double().numpy(),
        )
        for row, least in zip(rows.numpy(), self.floor * mass / rows.shape[1], strict=True):
            kept = np.flatnonzero(np.abs(row) > least)
            self._rows.append((kept.astype(np.int32), row[kept]))
        self.total, self.mass = np.concatenate([self.total, total]), np.concatenate([self.mass, mass])
        if columns is not None:
            self.columns += columns.tolist()
            self._open[columns.numpy()] = False

    def most_influential(self, count: int) -> Tensor:
        """The features, not yet expanded, with most influence so far."""
        influence = self._influence()[: self.sources.features]
        influence[~self._open] = -1.0
        best = (
            np.argsort(-influence, kind="stable") if count >= len(influence) else _largest(influence, count)
        )
        return torch.from_numpy(best[:count].copy())

    def _influence(self) -> np.ndarray:
        """Influence of all columns, from the rows so far."""
        through = np.concatenate([self._weights, self._influence_of_rows()])
        total = np.zeros(self.sources.columns)
        for (indices, values), weight, mass in zip(
            self._rows, through, np.maximum(self.mass, LEAST), strict=True
        ):
            if weight:
                total[indices] += np.abs(values) * (weight / mass)
        return total

    def _influence_of_rows(self) -> np.ndarray:
        """Influence of the expanded features, each over all paths through the others."""
        from scipy.sparse import csr_matrix

        if not self.columns:
            return np.zeros(0)
        slot = np.full(self.sources.columns, NONE, dtype=np.int32)
        slot[self.columns] = np.arange(len(self.columns))
        indptr, cols, data = [0], [], []
        for (indices, values), mass in zip(self._rows, np.maximum(self.mass, LEAST), strict=True):
            at = slot[indices]
            inside = at >= 0
            cols.append(at[inside])
            data.append(np.abs(values[inside]) / mass)
            indptr.append(indptr[-1] + len(cols[-1]))
        shares = csr_matrix(
            (np.concatenate(data), np.concatenate(cols), indptr), shape=(len(self._rows), len(self.columns))
        )
        first = len(self._weights)
        reached = self._weights @ shares[:first]
        total = reached.copy()
        below = shares[first:]
        while reached.any():
            reached = reached @ below
            total += reached
        return total

    def seen(self) -> np.ndarray:
        """`(column,)` whether any row has an entry there."""
        seen = np.zeros(self.sources.columns, bool)
        for indices, _ in self._rows:
            seen[indices] = True
        return seen

    def restricted(self, rows: np.ndarray, node_of: np.ndarray) -> tuple[np.ndarray, ...]:
        """CSR of some rows over nodes, and the signed and absolute sum of what it holds."""
        indptr, indices, weights = np.zeros(len(rows) + 1, dtype=np.int64), [], []
        kept, mass = np.zeros(len(rows)), np.zeros(len(rows))
        for i, row in enumerate(rows):
            columns, values = self._rows[row]
            inside = node_of[columns] >= 0
            indices.append(node_of[columns[inside]])
            weights.append(values[inside])
            indptr[i + 1] = indptr[i] + len(weights[-1])
            kept[i], mass[i] = weights[-1].sum(dtype=np.float64), np.abs(weights[-1]).sum(dtype=np.float64)
        return indptr, np.concatenate(indices), np.concatenate(weights), kept, mass


def _largest(values: np.ndarray, count: int) -> np.ndarray:
    """Indices of the largest values in descending order; among equals, the first."""
    least = np.partition(values, len(values) - count)[len(values) - count]
    there = np.flatnonzero(values >= least)
    return there[np.argsort(-values[there], kind="stable")][:count]


def prompt_ids(model: Model, prompt: str | Tensor | Sequence[int]) -> Tensor:
    """Token ids `(pos,)` of a prompt.

    Raises:
        OptionError: It is empty or longer than the context.
        ModelError: The model is no language model, or has no tokenizer for a text.
    """
    if not isinstance(model, LanguageModel):
        raise ModelError(
            f"{model.origin.name} is no language model.", "Trace a language model such as smollm2-135m."
        )
    if isinstance(prompt, str):
        if model.tokenizer is None:
            raise ModelError(f"{model.origin.name} has no tokenizer.", "Give token ids.")
        prompt = model.tokenizer(prompt)["input_ids"]
    ids = torch.as_tensor(prompt, dtype=torch.long).cpu()
    if ids.dim() != 1 or not len(ids):
        raise OptionError("The prompt is empty.", "Give at least one token of text.")
    model.inputs(ids[None])  # refuses one that is longer than the context
    vocabulary = int(model.config.vocab_size)
    if int(ids.min()) < 0 or int(ids.max()) >= vocabulary:
        raise OptionError(
            "The prompt holds an id that is no token.", f"Choose ids from 0 to {vocabulary - 1}."
        )
    return ids


def trace(
    model: Model,
    prompt: str | Tensor | Sequence[int],
    targets: str | int | Target | Sequence[str | int | Target] = "top",
    *,
    dictionary: Dictionary | None = None,
    settings: TraceSettings | None = None,
) -> AttributionGraph:
    """Which features made a model write what it wrote.

    Args:
        model: A language model in float32 or float64.
        prompt: Text, or token ids `(pos,)`.
        targets: `top`, a token's text or id, a `Target`, or several.
        dictionary: Features; None: the model's own neurons.
        settings: How to trace.

    Returns:
        The graph; every row sums to its target.

    Raises:
        OptionError: The prompt or a target cannot be used, or the graph would not fit into memory.
        ModelError: This kind of model cannot be traced, or its weights are not finite.
        DictionaryError: The dictionary is of another model.
    """
    return Tracer(model, prompt, dictionary, settings).graph(targets)


def _free_memory() -> float:
    """Bytes of memory that are free now; unlimited where the system does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:  # noqa: PTH123 - not a file of anybody's
            return next(float(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        pages = os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
        return float(pages * os.sysconf("SC_PAGE_SIZE")) if pages else float("inf")
