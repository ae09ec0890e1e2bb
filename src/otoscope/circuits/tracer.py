"""Tracing: from a prompt to the graph of what made the model write its next token.

The full matrix has as many rows as there are active features. Only those are computed that matter: first the targets' rows,
then, again and again, the rows of the features with most influence so far (Ameisen et al. 2025, incremental selection).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
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
from otoscope.machine import free_memory
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
        text: The prompt, where it was given as text: its tokens, one by one, need not spell it again.

    Raises:
        OptionError: The prompt is empty or longer than the context.
        ModelError: This kind of model cannot be traced, or its weights are not finite.
        DictionaryError: The dictionary is of another model.
    """

    text: str | None = None

    def __init__(
        self,
        model: Model,
        prompt: str | Tensor | Sequence[int],
        dictionary: Dictionary | None = None,
        settings: TraceSettings | None = None,
    ) -> None:
        self.model, self.settings = model, settings or TraceSettings()
        self.text = prompt if isinstance(prompt, str) else None
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
        made = copy(self)  # a graph keeps the targets that it was made for
        made.targets = self.targets = tuple(chosen)
        with torch.no_grad():
            return made._assembled(made._expand(chosen), chosen)

    def forward(self, rows: int) -> Tensor:
        """Run the traced stack on so many copies of the prompt, hooks and all: the last norm's output `(row, pos, d)`."""
        inputs = self.model.inputs(self.ids.expand(rows, -1))  # type: ignore[attr-defined]
        return self.model.hf.base_model(**inputs, use_cache=False).last_hidden_state

    # Sound -----------------------------------------------------------------------------------------------------------

    @property
    def is_text(self) -> Tensor:
        """`(pos,)` 1 where a token enters, 0 where sound does."""
        return self.tape.embed.new_ones(len(self.tape))

    def sound_of(self, rows: Tensor) -> Tensor:
        """`(n, segment)`: of full rows what is given of the sound, by segment; no segments where nothing is heard."""
        frames = self.sources.frames
        return rows[:, frames.first : self.sources.biases] if frames else rows[:, :0]

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

    def _expand(self, targets: list[Target]) -> Store:
        """Rows of the targets and of the most influential features."""
        s = self.settings
        wanted = min(s.nodes, self.sources.features)
        store = Store(self._expandable(), self._floor(wanted), np.array([abs(t.weight) for t in targets]))
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
        return store

    def _expandable(self) -> np.ndarray:
        """`(column,)` whether a column is a feature, which can be a row as well."""
        return np.arange(self.sources.columns) < self.sources.features

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
        whole = self._entries(rows) * itemsize
        return 0.0 if whole <= _STORE else max(1.0, _KEPT * whole / _STORE)

    def _entries(self, rows: int) -> int:
        """Entries of so many full rows."""
        return rows * self.sources.columns

    def _refuse_too_much(self, positions: int) -> None:
        """Estimate what the rows take before anything runs."""
        itemsize = 4 if self.model.dtype != torch.float64 else 8
        features = positions * sum(self.dictionary.size(layer) for layer in range(self.dictionary.layers))
        nodes = min(self.settings.nodes, features)
        edges = nodes * (nodes + positions * (self.dictionary.layers + 2)) * (itemsize + 4)
        needed = min(edges, _STORE + edges) + features * itemsize
        free = free_memory()
        if needed > free:
            raise OptionError(
                f"A graph of {nodes} features of {positions} positions takes about {needed / 1e9:.1f} GB, "
                f"{free / 1e9:.1f} GB are free.",
                "Take fewer features (--nodes), or a shorter prompt.",
            )

    # The graph -------------------------------------------------------------------------------------------------------

    def _assembled(self, store: Store, targets: list[Target]) -> AttributionGraph:
        columns = np.array(store.columns, dtype=np.int64)
        order = np.argsort(columns, kind="stable")
        rows = np.concatenate([order + len(targets), np.arange(len(targets))])  # features, then targets
        shown = np.concatenate([columns[order], np.union1d(store.others(), self._always())])
        nodes = Nodes.join([self.described(shown), self._target_nodes(targets)])
        node_of = np.full(len(store.expandable), NONE, dtype=np.int64)
        node_of[shown] = np.arange(len(shown))
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
                TargetInfo(
                    t.label, t.pos, t.weight, t.token, None if t.token is None else t.weight, t.against
                )
                for t in targets
            ),
            tokens=tuple(self._token_texts()),
            record=self._record(store),
            tracer=self,
        )

    def _always(self) -> np.ndarray:
        """Columns that are nodes whether or not anything reads them: the tokens."""
        return np.arange(self.sources.tokens, self.sources.tokens + len(self.tape))

    def described(self, columns: np.ndarray) -> Nodes:
        """The nodes of columns, features first."""
        s, index = self.sources, torch.from_numpy(columns[columns < self.sources.features])
        layer, pos, feature = (x.tolist() for x in s.entries(index))
        found = zip([FEATURE] * len(layer), layer, pos, feature, strict=True)
        features = Nodes.of_rows(list(found), self.tape.stream, s.activation[index].double().numpy())
        rows = [self._other(column) for column in columns[columns >= s.features].tolist()]
        return Nodes.join([features, Nodes.of_rows(rows, self.tape.stream)])

    def _other(self, column: int) -> tuple[int, int, int, int]:
        """Kind, layer, position and feature of a column that is no feature."""
        s, count = self.sources, len(self.tape)
        if column < s.tokens:
            return (ERROR, *divmod(column - s.features, count), NONE)
        if column < s.tokens + count:
            return (TOKEN, NONE, column - s.tokens, int(self.ids[column - s.tokens]))
        if column < (s.frames.first if s.frames else s.biases):
            return (POSITION, NONE, column - s.tokens - count, NONE)
        return (BIAS, column - s.biases, NONE, NONE)

    def _target_nodes(self, targets: list[Target]) -> Nodes:
        rows = [
            (
                TARGET,
                self.tape.layers if t.layer is None else t.layer,
                t.pos,
                NONE if t.token is None else t.token,
            )
            for t in targets
        ]
        return Nodes.of_rows(rows, self.tape.stream)

    def _token_texts(self) -> list[str]:
        if self.model.tokenizer is None:
            return [f"<{int(i)}>" for i in self.ids]
        return [self.model.tokenizer.decode([int(i)]) for i in self.ids]

    def _record(self, store: Store) -> dict[str, Any]:
        return {
            "prompt": "".join(self._token_texts()) if self.text is None else self.text,
            "ids": self.ids.tolist(),
            "model": self.model.describe()
            | {"layers": self.tape.layers, "vocab": self.tape.logits.shape[-1]},
            "dictionary": self.dictionary.describe(),
            "settings": asdict(self.settings),
            "active_features": self.sources.features,
            "floor": store.floor,
            "versions": versions(),
        }


class Store:
    """Rows computed so far, as sparse blocks over all columns. Small entries of features are dropped, of other columns none.

    Args:
        expandable: `(column,)` whether a column is a feature, which can be a row as well.
        floor: Entries of features below this many times their row's mean are not kept.
        weights: Of the targets, whose rows come first.
    """

    def __init__(self, expandable: np.ndarray, floor: float, weights: np.ndarray) -> None:
        self.expandable, self.floor = expandable, floor
        self.columns: list[int] = []
        self.total, self.mass = np.zeros(0), np.zeros(0)
        self._weights = weights
        self._rows: list[tuple[np.ndarray, np.ndarray]] = []
        self._open = expandable.copy()

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, rows: Tensor, columns: Tensor | None = None, first: int = 0) -> None:
        """Keep full rows, whose entries begin at column `first`; `columns` are those of the features that they are of."""
        total, mass = (
            rows.sum(dim=1).double().numpy(),
            torch.linalg.vector_norm(rows, 1, dim=1).double().numpy(),
        )
        self._rows += [self._sparse(row, each, first) for row, each in zip(rows.numpy(), mass, strict=True)]
        self.total, self.mass = np.concatenate([self.total, total]), np.concatenate([self.mass, mass])
        if columns is not None:
            self.columns += columns.tolist()
            self._open[columns.numpy()] = False

    def opened(self, row: int, closed: slice, entries: np.ndarray, first: int) -> None:
        """Put what is behind some columns of a row in their place: entries that begin at column `first`, of the same sum."""
        indices, values = self._rows[row]
        stays = (indices < closed.start) | (indices >= closed.stop)
        self.mass[row] += float(np.abs(entries).sum()) - float(np.abs(values[~stays]).sum())
        more = self._sparse(entries, float(np.abs(entries).sum()), first)
        self._rows[row] = (
            np.concatenate([indices[stays], more[0]]),
            np.concatenate([values[stays], more[1]]),
        )

    def _sparse(self, row: np.ndarray, mass: float, first: int) -> tuple[np.ndarray, np.ndarray]:
        there = np.abs(row)
        small = there <= self.floor * mass / len(row)
        kept = np.flatnonzero(~small | (~self.expandable[first : first + len(row)] & (there > 0)))
        return (kept + first).astype(np.int32), row[kept]

    def through(self, among: slice) -> np.ndarray:
        """`(row,)` influence that reaches some columns by each row."""
        reached = np.concatenate([self._weights, self._influence_of_rows()])
        found = np.zeros(len(self))
        for i, (indices, values) in enumerate(self._rows):
            inside = (indices >= among.start) & (indices < among.stop)
            found[i] = reached[i] * np.abs(values[inside]).sum() / max(self.mass[i], LEAST)
        return found

    def most_influential(self, count: int, first: int = 0) -> Tensor:
        """The features, not yet expanded and from column `first` on, with most influence so far."""
        influence, there = self.influence(), self._open.copy()
        there[:first] = False
        influence[~there] = -1.0
        best = (
            np.argsort(-influence, kind="stable") if count >= len(influence) else _largest(influence, count)
        )
        return torch.from_numpy(best[: min(count, int(there.sum()))].copy())

    def influence(self) -> np.ndarray:
        """Influence of all columns, from the rows so far."""
        through = np.concatenate([self._weights, self._influence_of_rows()])
        total = np.zeros(len(self.expandable))
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
        slot = np.full(len(self.expandable), NONE, dtype=np.int32)
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

    def others(self) -> np.ndarray:
        """Columns of no features that any row has an entry in."""
        seen = np.zeros(len(self.expandable), bool)
        for indices, _ in self._rows:
            seen[indices] = True
        return np.flatnonzero(seen & ~self.expandable)

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
