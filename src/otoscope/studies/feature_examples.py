"""What features are about: for each its strongest moments over a corpus, with sound, words and times, and what goes with it.

Everything about one feature is one line of `features.jsonl`; `offsets.npy` says where it begins, so that a reader takes one line
without the others.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from otoscope.corpora import Item, items_or_texts
from otoscope.dictionaries.harvesting import positions_of
from otoscope.dictionaries.loading import load_dictionary
from otoscope.dictionaries.places import Places
from otoscope.errors import OptionError
from otoscope.files import atomic_write
from otoscope.models.transcripts import DecodeOptions
from otoscope.models.whisper import SpeechModel
from otoscope.progress import track
from otoscope.studies.feature_judging import dictionary_places
from otoscope.versions import versions

if TYPE_CHECKING:
    from torch import Tensor

    from otoscope.dictionaries.base import Dictionary
    from otoscope.models.base import Model

LINES, OFFSETS, ABOUT = "features.jsonl", "offsets.npy", "examples.json"

MOMENTS = 12
"""Moments a feature, each of another recording or text."""

CONTEXT = 0.4
"""Seconds of sound before and after a moment that its snippet holds."""

_BINS = 24
"""Bins of a histogram, between nothing and the greatest activation."""

_MOST_VALUES, _FEWEST = 12, 5
"""A label of more values is not looked at; a value of fewer recordings is not either."""


@dataclass(frozen=True)
class Moment:
    """Where one vector of a recording or text stands.

    Attributes:
        start: Seconds into the recording; of a text, None.
        end: Likewise.
        before: Words or tokens before it.
        at: The word or token that is heard, or written, there.
        after: Words or tokens after it.
    """

    start: float | None
    end: float | None
    before: str
    at: str
    after: str


class _Best:
    """The strongest moment of every recording, for every feature of a layer: the best of these are kept."""

    def __init__(self, width: int) -> None:
        self.value = torch.full((MOMENTS, width), -torch.inf)
        self.item = torch.full((MOMENTS, width), -1)
        self.place = torch.full((MOMENTS, width), -1)
        self.count = torch.zeros(width, dtype=torch.int64)
        self.sum = torch.zeros(width, dtype=torch.float64)
        self.vectors = 0
        self.peaks: list[np.ndarray] = []

    def add(self, item: int, dense: Tensor) -> None:
        """Note one recording's activations `(n, feature)`."""
        peak, place = dense.max(dim=0)
        value = torch.cat([self.value, peak[None]])
        best = value.topk(MOMENTS, dim=0)
        items = torch.cat([self.item, torch.full_like(place, item)[None]])
        places = torch.cat([self.place, place[None]])
        self.value, self.item = best.values, items.gather(0, best.indices)
        self.place = places.gather(0, best.indices)
        self.count += (dense > 0).sum(dim=0)
        self.sum += dense.double().sum(dim=0)
        self.vectors += len(dense)
        self.peaks.append(peak.numpy().astype(np.float16))


def collect_examples(
    model: Model,
    folder: Path | str,
    data: Path | str,
    out: Path | str,
    *,
    point: str | None = None,
    language: str | None = None,
    batch: int | None = None,
) -> dict[str, Any]:
    """Collect the strongest moments of all features of a dictionary over a corpus.

    Args:
        model: The model.
        folder: The dictionary, or `neurons`, for which `point` is needed.
        data: Recordings, or texts for a language model.
        out: Folder for the result; what is there is replaced once all is done.
        point: Where the dictionary reads; None: as its folder says.
        language: Language of the recordings.
        batch: Recordings at once.

    Returns:
        What `examples.json` holds: counts, and where everything is.

    Raises:
        OptionError: The dictionary has no activations that can be ranked.
        OutputError: The folder cannot be written.
    """
    places = dictionary_places(model, Path(folder), point)
    dictionary = load_dictionary(folder, model, places.stack)
    corpus = items_or_texts(data)
    best = {layer: _Best(dictionary.size(layer)) for layer in places.layers}
    moments: list[list[Moment]] = []
    kept: list[Item] = []
    with track(
        "Collecting", len(corpus), "recordings" if isinstance(model, SpeechModel) else "texts"
    ) as task:
        options = DecodeOptions(language=language)
        for item, inputs, where in positions_of(model, corpus, places, batch or model.batch, options):
            if inputs is not None:
                for layer, name in zip(places.layers, places.inputs, strict=True):
                    best[layer].add(len(kept), _dense(dictionary, layer, torch.from_numpy(inputs[name])))
                kept.append(item)
                moments.append([Moment(*each) for each in where])
            task.advance(1)
    if not kept:
        raise OptionError("Nothing could be read.", "Name recordings or texts that can be.")
    return _write(model, dictionary, places, best, kept, moments, Path(out), data)


def _dense(dictionary: Dictionary, layer: int, x: Tensor) -> Tensor:
    with torch.no_grad():
        active = dictionary.encode(layer, x.float())
    dense = torch.zeros(len(x), dictionary.size(layer))
    dense[active.pos, active.feature] = active.activation.float()
    return dense


# Writing -----------------------------------------------------------------------------------------------------------------


def _write(
    model: Model,
    dictionary: Dictionary,
    places: Places,
    best: Mapping[int, _Best],
    kept: Sequence[Item],
    moments: Sequence[Sequence[Moment]],
    out: Path,
    data: Path | str,
) -> dict[str, Any]:
    out.mkdir(parents=True, exist_ok=True)
    labels = _labels(kept)
    offsets: dict[int, list[int]] = {}
    at = 0
    total = sum(dictionary.size(layer) for layer in places.layers)
    with atomic_write(out / LINES, "wb") as file, track("Writing", total, "features") as task:
        for layer in places.layers:
            offsets[layer] = []
            near, written = _neighbours(dictionary, layer), _Writes(model, dictionary, places, layer)
            peaks = np.stack(best[layer].peaks)
            for feature in range(dictionary.size(layer)):
                told = _told(layer, feature, best[layer], kept, moments)
                told["enrichment"] = _enrichment(peaks[:, feature], labels)
                told["neighbours"] = near(feature)
                told |= written(feature)
                told["label"] = short_label(told)
                line = (json.dumps(told, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")
                offsets[layer].append(at)
                file.write(line)
                at += len(line)
                task.advance(1)
    table = np.concatenate(
        [np.stack([np.full(len(o), n), np.arange(len(o)), np.array(o)], 1) for n, o in offsets.items()]
    )
    with atomic_write(out / OFFSETS, "wb") as file:
        np.save(file, table.astype(np.int64), allow_pickle=False)
    about = {
        "corpus": str(data),
        "items": len(kept),
        "vectors": int(next(iter(best.values())).vectors),
        "places": places.to_dict(),
        "dictionary": dictionary.describe(),
        "model": model.describe(),
        "features": len(table),
        "dead": int(sum((b.count == 0).sum() for b in best.values())),
        "versions": versions(),
    }
    with atomic_write(out / ABOUT) as file:
        json.dump(about, file, indent=1)
    return about


def _told(
    layer: int, feature: int, best: _Best, kept: Sequence[Item], moments: Sequence[Sequence[Moment]]
) -> dict[str, Any]:
    values = best.value[:, feature]
    examples = []
    for rank in range(int((values > 0).sum())):
        item, place = int(best.item[rank, feature]), int(best.place[rank, feature])
        moment, source = moments[item][place], kept[item]
        examples.append(
            {
                "recording": source.audio_filepath or None,
                "activation": round(float(values[rank]), 4),
                "start": moment.start,
                "end": moment.end,
                "before": moment.before,
                "at": moment.at,
                "after": moment.after,
            }
        )
    peaks = np.array([p[feature] for p in best.peaks], dtype=np.float64)
    top = float(max(peaks.max(), 0.0))
    counts, edges = np.histogram(peaks[peaks > 0], bins=_BINS, range=(0.0, top or 1.0))
    count = int(best.count[feature])
    return {
        "layer": layer,
        "feature": feature,
        "density": count / best.vectors,
        "mean": float(best.sum[feature]) / count if count else 0.0,
        "max": top,
        "peaks": {
            "counts": counts.tolist(),
            "up_to": round(float(edges[-1]), 4),
            "silent": int((peaks <= 0).sum()),
        },
        "quantiles": [round(float(q), 4) for q in np.quantile(peaks, (0.5, 0.9, 0.99))],
        "examples": examples,
    }


class _Writes:
    """Tokens that the features of a layer of the writing stack promote directly."""

    def __init__(self, model: Model, dictionary: Dictionary, places: Places, layer: int) -> None:
        from otoscope.models.wiring import stack_wiring

        wiring = stack_wiring(model)
        self._scores: Tensor | None = None
        self._spell = model.tokenizer
        if wiring.stream != places.stack or wiring.unembedding is None or self._spell is None:
            return
        rows = dictionary.decoder(layer, layer, None).float()
        gain = getattr(wiring.final_norm, "weight", None)
        rows = rows if gain is None else (rows - rows.mean(dim=1, keepdim=True)) * gain.detach().float()
        self._rows = rows
        self._unembed: Tensor = wiring.unembedding.weight.detach().float()  # type: ignore[assignment,union-attr]
        self._unembed = self._unembed - self._unembed.mean(dim=0)
        self._scores = rows

    def __call__(self, feature: int, count: int = 8) -> dict[str, Any]:
        if self._scores is None:
            return {}
        scores = self._unembed @ self._rows[feature]
        told = {}
        for name, sign in (("promotes", 1), ("suppresses", -1)):
            best = (sign * scores).topk(count)
            told[name] = [
                [self._spell.decode([int(i)]), round(sign * float(v), 4)]
                for i, v in zip(best.indices, best.values, strict=True)
            ]
        return told


def _neighbours(dictionary: Dictionary, layer: int) -> Any:
    """For each feature those of its layer that write most alike."""
    rows = dictionary.decoder(layer, layer, None).float()
    rows = rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-12)

    def near(feature: int, count: int = 5) -> list[list[float]]:
        cosine = rows @ rows[feature]
        cosine[feature] = -torch.inf
        best = cosine.topk(min(count, len(rows) - 1))
        return [[int(i), round(float(v), 4)] for i, v in zip(best.indices, best.values, strict=True)]

    return near


# Enrichment --------------------------------------------------------------------------------------------------------------


def _labels(kept: Sequence[Item]) -> dict[str, np.ndarray]:
    """Labels of few values, one a recording."""
    names = Counter(
        name for item in kept for name, value in item.labels.items() if isinstance(value, (str, bool))
    )
    found = {}
    for name in names:
        values = np.array([str(item.labels.get(name, "")) for item in kept])
        counts = Counter(values.tolist())
        if len([v for v, n in counts.items() if v and n >= _FEWEST]) >= 2 and len(counts) <= _MOST_VALUES:
            found[name] = values
    return found


def _enrichment(peaks: np.ndarray, labels: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """How well a feature's peaks tell recordings with a value of a label from the others: AUC, and that of shuffled labels."""
    from scipy.stats import rankdata

    found, ranks = [], rankdata(peaks)
    rng = np.random.default_rng(0)
    for name, values in labels.items():
        shuffled = rng.permutation(values)
        for value in sorted(set(values.tolist()) - {""}):
            mine = values == value
            if not _FEWEST <= mine.sum() <= len(mine) - _FEWEST:
                continue
            found.append(
                {
                    "label": name,
                    "value": value,
                    "auc": round(_auc(ranks, mine), 4),
                    "shuffled": round(_auc(ranks, shuffled == value), 4),
                    "n": int(mine.sum()),
                }
            )
    return sorted(found, key=lambda e: -abs(e["auc"] - 0.5))[:5]


def _auc(ranks: np.ndarray, mine: np.ndarray) -> float:
    ones, zeros = int(mine.sum()), int((~mine).sum())
    return float((ranks[mine].sum() - ones * (ones + 1) / 2) / (ones * zeros))


def short_label(told: Mapping[str, Any]) -> str:
    """A few words from statistics alone: the word that most of its moments share, a label that it tells, or what it promotes."""
    words = Counter(_plain(e["at"]) for e in told["examples"])
    words.pop("", None)
    count = len(told["examples"])
    if not count:
        return "never active"
    word, times = words.most_common(1)[0] if words else ("", 0)
    if times >= max(3, count // 2):
        return f"“{word}” ({times} of {count})"
    best = told["enrichment"][0] if told["enrichment"] else None
    if best and abs(best["auc"] - 0.5) > 0.35 and abs(best["auc"] - 0.5) > 3 * abs(best["shuffled"] - 0.5):
        return f"{best['label']} {'is' if best['auc'] > 0.5 else 'is not'} {best['value']} (AUC {best['auc']:.2f})"
    if told.get("promotes"):
        return "writes " + ", ".join(repr(token) for token, _ in told["promotes"][:3])
    return "unlabelled"


def _plain(word: str) -> str:
    return word.strip().strip(".,;:!?\"'()[]").casefold()


# Reading -----------------------------------------------------------------------------------------------------------------


class Examples:
    """Collected examples, read one feature at a time.

    Args:
        folder: Where they lie.

    Raises:
        OptionError: There are none, or they are damaged.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        try:
            self.about = json.loads((self.folder / ABOUT).read_text("utf-8"))
            self._table = np.load(self.folder / OFFSETS, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise OptionError(
                f"{folder} holds no examples of features.", "Make them with `otoscope features examples`."
            ) from error

    def __len__(self) -> int:
        return len(self._table)

    def read(self, layer: int, feature: int) -> dict[str, Any]:
        """All that is known of one feature.

        Raises:
            OptionError: There is no such feature.
        """
        row = np.flatnonzero((self._table[:, 0] == layer) & (self._table[:, 1] == feature))
        if not len(row):
            layers = sorted(set(self._table[:, 0].tolist()))
            raise OptionError(
                f"There is no feature {feature} of layer {layer}.",
                f"Layers {layers} have {int((self._table[:, 0] == layers[0]).sum())} each.",
            )
        with (self.folder / LINES).open("rb") as file:
            file.seek(int(self._table[row[0], 2]))
            return json.loads(file.readline())

    def __iter__(self) -> Iterator[dict[str, Any]]:
        with (self.folder / LINES).open("rb") as file:
            yield from (json.loads(line) for line in file)

    def strongest(self, count: int, *, least: float = 0.0005, most: float = 0.05) -> Iterable[dict[str, Any]]:
        """Features that are active seldom but not never, those with the clearest label first."""
        found = [f for f in self if least <= f["density"] <= most and len(f["examples"]) >= MOMENTS // 2]
        return sorted(found, key=_clearness, reverse=True)[:count]


def _clearness(told: Mapping[str, Any]) -> float:
    words = Counter(_plain(e["at"]) for e in told["examples"])
    words.pop("", None)
    shared = words.most_common(1)[0][1] / len(told["examples"]) if words else 0.0
    label = max((2 * abs(e["auc"] - 0.5) for e in told["enrichment"]), default=0.0)
    return max(shared, label)
