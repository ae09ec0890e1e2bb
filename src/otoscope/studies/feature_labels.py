"""How well single features tell what is known of a sound: of whole recordings (who speaks, what noise) and of places (which word,
which phoneme).

A feature is chosen for a label on one half of the recordings and judged on the other half, by the area under the ROC curve of
its activation. Beside it stand the best neuron and the best random feature, chosen likewise, and the best feature for labels that
were dealt out anew. High areas are no proof that a feature means its label: they say that it is there to be read from it alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from otoscope.outcomes import bootstrap

if TYPE_CHECKING:
    from otoscope.corpora import Item
    from otoscope.dictionaries.base import Dictionary
    from otoscope.dictionaries.harvesting import Where

MOST_PLACES = 8000
"""Places that are looked at, drawn from all."""

_FEWEST, _MOST_VALUES, _MOST_LABELS = 5, 40, 40
_FEWEST_PLACES = 30

_WHENCE = ("licence", "recipe", "package", "file", "source")
"""Labels that say where a recording comes from, and nothing of its sound."""

Dense = Callable[[int, int], np.ndarray]
"""From a layer and an item's number, activations `(n, feature)` at all its places."""


@dataclass(frozen=True, eq=False)
class Labelled:
    """What is known of some rows.

    Attributes:
        kind: `recording`, or what is known of a place: `word`, `token` or `phoneme`.
        values: By label, `(row,)` values as text; "" where nothing is known.
        group: `(row,)` number of the recording.
        place: `(row,)` place in the recording; None: the whole of it.
        block: `(row,)` what is never on both halves, such as a recording with its disturbed copies; None: the recording.
    """

    kind: str
    values: Mapping[str, np.ndarray]
    group: np.ndarray
    place: np.ndarray | None = None
    block: np.ndarray | None = None

    @property
    def blocks(self) -> np.ndarray:
        """`(row,)` numbers of the blocks, from 0."""
        return np.unique(self.group if self.block is None else self.block, return_inverse=True)[1]


def label_values(items: Sequence[Item]) -> dict[str, np.ndarray]:
    """Labels of few values, by name `(item,)`, as text; "" where an item has none."""
    names = Counter(
        name
        for item in items
        for name, value in item.labels.items()
        if isinstance(value, (str, bool)) and name not in _WHENCE
    )
    found = {}
    for name in names:
        values = np.array([str(item.labels.get(name, "")) for item in items])
        counts = Counter(values.tolist())
        if len([v for v, n in counts.items() if v and n >= _FEWEST]) >= 2 and len(counts) <= _MOST_VALUES:
            found[name] = values
    return found


def labels_of_recordings(items: Sequence[Item], blocks: Sequence[str] | None = None) -> Labelled:
    """What the manifest says of whole recordings.

    Args:
        items: The recordings.
        blocks: Of each, what is never on both halves.
    """
    block = None if blocks is None else np.array(blocks, dtype=object).astype(str)
    return Labelled("recording", label_values(items), np.arange(len(items)), block=block)


def labels_of_places(
    items: Sequence[Item], where: Sequence[Sequence[Where]], seed: int, blocks: Sequence[str] | None = None
) -> list[Labelled]:
    """What is said or written at places, drawn from all: the commonest words, and phonemes where they are known.

    Args:
        items: The recordings or texts.
        where: Of each, what stands at every place; see `positions_of`.
        seed: Of the draw.
        blocks: Of each recording, what is never on both halves.
    """
    from otoscope.corpora.phonemes import phonemes_of

    group = np.concatenate([np.full(len(w), i) for i, w in enumerate(where)]).astype(int)
    place = np.concatenate([np.arange(len(w)) for w in where]).astype(int)
    words = np.array([plain(at) for w in where for _, _, _, at, _ in w], dtype=object)
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.permutation(len(group))[:MOST_PLACES])
    timed = bool(where) and any(w and w[0][0] is not None for w in where)
    block = None if blocks is None else np.array(blocks, dtype=object).astype(str)[group[chosen]]
    found = [Labelled("word", {"word": words[chosen]}, group[chosen], place[chosen], block)]
    if timed:
        said = {i: phonemes_of(item) for i, item in enumerate(items)}
        phones = np.array(
            [_at(said[g], where[g][p]) for g, p in zip(group[chosen], place[chosen], strict=True)],
            dtype=object,
        )
        if (phones != "").any():
            found.append(Labelled("phoneme", {"phoneme": phones}, group[chosen], place[chosen], block))
    return found


def _at(phonemes: Sequence[tuple[float, float, str]] | None, where: Where) -> str:
    begin, end = where[0], where[1]
    if phonemes is None or begin is None or end is None or end - begin > 0.1:
        return ""  # a token lasts for several phonemes
    middle = (begin + end) / 2
    return next((spelled for start, stop, spelled in phonemes if start <= middle < stop), "")


def plain(word: str) -> str:
    """A word as words are counted: without spaces, quotes and marks around it, in small letters."""
    return word.strip().strip(".,;:!?\"'()[]").casefold()


def told_apart(
    labelled: Labelled, systems: Mapping[str, tuple[Dense, Sequence[int]]], seed: int = 0
) -> list[dict[str, Any]]:
    """For every value of every label how well the best feature tells its rows from the others.

    Args:
        labelled: The rows.
        systems: By name, activations and the layers that they have; the first is the one that is judged.
        seed: Of the halves, the shuffle and the intervals.

    Returns:
        One entry a value: `label`, `value`, `n` (rows that have it), and of each system `layer`, `feature` and `auc`, which is
        that of the other half, with `ci_low` and `ci_high` (over blocks) and `shuffled` for the first system.
    """
    rng = np.random.default_rng(seed)
    blocks = labelled.blocks
    count = int(blocks.max()) + 1 if len(blocks) else 0
    first_half = np.isin(blocks, rng.permutation(count)[: count // 2])
    wanted = _values(labelled, [first_half, ~first_half])
    found = [{"label": name, "value": value, "n": int(mine.sum())} for name, value, mine in wanted]
    if not wanted:
        return []
    dealt = _dealt(labelled, rng)
    for number, (system, (dense, layers)) in enumerate(systems.items()):
        best: list[tuple[float, int, int, np.ndarray] | None] = [None] * len(wanted)
        chance: list[tuple[float, np.ndarray] | None] = [None] * len(wanted)
        for layer in layers:
            x = _rows(dense, layer, labelled)
            ranks = _ranked(x[first_half])
            for i, (_, _, mine) in enumerate(wanted):
                auc = _areas(ranks, mine[first_half])
                top = int(np.abs(auc - 0.5).argmax())
                if best[i] is None or abs(auc[top] - 0.5) > abs(best[i][0] - 0.5):  # type: ignore[index]
                    best[i] = (float(auc[top]), layer, top, x[:, top].copy())
                if number == 0:
                    luck = _areas(ranks, mine[dealt][first_half])
                    lucky = int(np.abs(luck - 0.5).argmax())
                    if chance[i] is None or abs(luck[lucky] - 0.5) > abs(chance[i][0] - 0.5):  # type: ignore[index]
                        chance[i] = (float(luck[lucky]), x[:, lucky].copy())
        for i, (_, _, mine) in enumerate(wanted):
            area, layer, feature, scores = best[i]  # type: ignore[misc]
            told: dict[str, Any] = {"layer": layer, "feature": feature}
            told["auc"] = _other_half(area, scores, mine, ~first_half)
            if number == 0:
                sign = 1 if area >= 0.5 else -1
                low, high = bootstrap(
                    _area, sign * scores[~first_half], mine[~first_half], groups=blocks[~first_half],
                    resamples=200, seed=seed,
                )  # fmt: skip
                luck, lucky_scores = chance[i]  # type: ignore[misc]
                told |= {"ci_low": low, "ci_high": high}
                told["shuffled"] = _other_half(luck, lucky_scores, mine[dealt], ~first_half)
            found[i][system] = told
    return found


def summary(found: Sequence[Mapping[str, Any]], systems: Sequence[str]) -> dict[str, Any]:
    """Means over the values of a kind of label."""
    if not found:
        return {"values": 0}
    told = {name: float(np.mean([entry[name]["auc"] for entry in found])) for name in systems}
    return {
        "values": len(found),
        **told,
        "shuffled": float(np.mean([entry[systems[0]]["shuffled"] for entry in found])),
    }


def _values(labelled: Labelled, parts: Sequence[np.ndarray]) -> list[tuple[str, str, np.ndarray]]:
    """Labels and values with rows enough in each of some parts, those of most rows first."""
    fewest = _FEWEST if labelled.place is None else _FEWEST_PLACES
    found = []
    for name, values in labelled.values.items():
        known = values != ""
        for value, _ in Counter(values[known].tolist()).most_common():
            mine = values == value
            enough = all(min((mine & part).sum(), (~mine & part).sum()) >= fewest for part in parts)
            if enough:
                found.append((name, value, mine))
    return sorted(found, key=lambda entry: -int(entry[2].sum()))[:_MOST_LABELS]


def _dealt(labelled: Labelled, rng: np.random.Generator) -> np.ndarray:
    """Rows whose labels each row gets instead, far along the corpus: neighbours stay neighbours, as rows resemble each other."""
    n = len(labelled.group)
    return (np.arange(n) + int(rng.integers(n // 4, 3 * n // 4 + 1))) % max(n, 1)


def _rows(dense: Dense, layer: int, labelled: Labelled) -> np.ndarray:
    """Activations `(row, feature)`: at each place, or the greatest of each recording."""
    if labelled.place is None:
        return np.stack([dense(layer, int(g)).max(axis=0, initial=0) for g in labelled.group]).astype(
            np.float32
        )
    return np.concatenate(
        [dense(layer, int(g))[labelled.place[labelled.group == g]] for g in np.unique(labelled.group)]
    ).astype(np.float32)


def _ranked(x: np.ndarray) -> np.ndarray:
    """Ranks `(row, feature)` of each column, from 1, ties sharing their mean rank."""
    from scipy.stats import rankdata

    out = np.empty(x.shape, dtype=np.float32)
    for at in range(0, x.shape[1], 512):
        out[:, at : at + 512] = rankdata(x[:, at : at + 512], axis=0)
    return out


def _areas(ranks: np.ndarray, mine: np.ndarray) -> np.ndarray:
    """Area under the curve of every column (Mann and Whitney's U over the pairs)."""
    ones, zeros = int(mine.sum()), int((~mine).sum())
    if not ones or not zeros:
        return np.full(ranks.shape[1], 0.5)
    total = ranks[mine].sum(axis=0, dtype=np.float64)
    return (total - ones * (ones + 1) / 2) / (ones * zeros)


def _area(scores: np.ndarray, mine: np.ndarray) -> float:
    if mine.all() or not mine.any():
        return float("nan")
    return float(_areas(_ranked(scores[:, None]), mine)[0])


def _other_half(area: float, scores: np.ndarray, mine: np.ndarray, half: np.ndarray) -> float:
    """On the other half, in the direction that the first one showed."""
    found = _area(scores[half], mine[half])
    return found if area >= 0.5 else 1 - found


# Signs that features are split or absorbed --------------------------------------------------------------------------------


def splitting(
    dictionary: Dictionary, labelled: Labelled, dense: Dense, layers: Sequence[int]
) -> dict[str, Any]:
    """Signs that one thing is spread over several features, for the values of a label of places.

    `split`: how much the F1 of the best feature being on grows when the five best are taken together. `absorbed`: of the places
    of the label at which that feature is off, the share at which another one is on that writes alike (cosine of at least 0.3):
    the other may have taken its work over. Both are signs, no proof; see Chanin et al. 2024, "A is for absorption".

    Returns:
        `split` and `absorbed`, means over values and layers, how many, and `twins`: of each layer's features the share that has
        another one writing almost alike (cosine above 0.9).
    """
    gains, absorbed = [], []
    for layer in layers:
        rows = torch.nn.functional.normalize(dictionary.decoder(layer, layer, None).float(), dim=1)
        on = _rows(dense, layer, labelled) > 0
        for _, _, mine in _values(labelled, [np.ones(len(labelled.group), dtype=bool)])[:20]:
            if not (~mine).any():
                continue
            true = on[mine].sum(axis=0)
            f1 = 2 * true / np.maximum(on.sum(axis=0) + mine.sum(), 1)
            order = np.argsort(-f1)[:5]
            best, together = f1[order[0]], f1[order[0]]
            union = on[:, order[0]].copy()
            for feature in order[1:]:
                wider = union | on[:, feature]
                score = 2 * (wider & mine).sum() / max(wider.sum() + mine.sum(), 1)
                if score > together:
                    union, together = wider, score
            gains.append(float(together - best))
            missed = mine & ~on[:, order[0]]
            alike = (rows @ rows[int(order[0])]).numpy() >= 0.3
            alike[order[0]] = False
            if missed.any():
                absorbed.append(float(on[missed][:, alike].any(axis=1).mean()) if alike.any() else 0.0)
    twins = []
    for layer in layers:
        rows = torch.nn.functional.normalize(dictionary.decoder(layer, layer, None).float(), dim=1)
        nearest = torch.cat(
            [
                (rows[at : at + 1024] @ rows.T - _own(at, len(rows))).max(dim=1).values
                for at in range(0, len(rows), 1024)
            ]
        )
        twins.append(float((nearest > 0.9).float().mean()))
    return {
        "split": float(np.mean(gains)) if gains else None,
        "absorbed": float(np.mean(absorbed)) if absorbed else None,
        "values": len(gains),
        "twins": twins,
    }


def _own(at: int, width: int) -> torch.Tensor:
    """2 where a row of a block meets itself."""
    found = torch.zeros(min(1024, width - at), width)
    found[torch.arange(len(found)), at + torch.arange(len(found))] = 2.0
    return found


def stability(dictionary: Dictionary, others: Sequence[Dictionary], layers: Sequence[int]) -> dict[str, Any]:
    """How many features other trainings (of other seeds) found as well.

    Of each feature the cosine of what it writes, and of where it reads, with the nearest feature of another dictionary. `shared`
    is the share with both above 0.7; `chance` the mean nearest cosine of as many random directions.

    Returns:
        Means over layers and other dictionaries: `writes`, `reads`, `shared`, `chance`, and how many were compared.
    """
    writes, reads, shared, chance = [], [], [], []
    generator = torch.Generator().manual_seed(0)
    for layer in layers:
        mine = _directions(dictionary, layer)
        for other in others:
            theirs = _directions(other, layer)
            w, at = _nearest(mine[0], theirs[0])
            r = (mine[1] * theirs[1][at]).sum(dim=1)
            writes.append(float(w.mean()))
            reads.append(float(r.mean()))
            shared.append(float(((w > 0.7) & (r > 0.7)).float().mean()))
            luck = torch.nn.functional.normalize(torch.randn(theirs[0].shape, generator=generator), dim=1)
            chance.append(float(_nearest(mine[0], luck)[0].mean()))
    told = {"writes": writes, "reads": reads, "shared": shared, "chance": chance}
    return {name: float(np.mean(values)) for name, values in told.items()} | {"compared": len(others)}


def _directions(dictionary: Dictionary, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
    rows = dictionary.decoder(layer, layer, None).float()
    encoder = dictionary.readings(layer)[0].weight.float()
    return tuple(torch.nn.functional.normalize(x, dim=1) for x in (rows, encoder))  # type: ignore[return-value]


def _nearest(mine: torch.Tensor, theirs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    found = [(mine[at : at + 1024] @ theirs.T).max(dim=1) for at in range(0, len(mine), 1024)]
    return torch.cat([f.values for f in found]), torch.cat([f.indices for f in found])
