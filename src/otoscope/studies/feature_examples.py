"""What features are about: for each its strongest moments over a corpus, with sound, words and times, and what goes with it.

Everything about one feature is one line of `features.jsonl`; `offsets.npy` says where it begins, so that a reader takes one line
without the others.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from otoscope.corpora import Item, items_or_texts
from otoscope.corpora.phonemes import phonemes_of
from otoscope.dictionaries.harvesting import SHARD, digest_of_items, positions_of
from otoscope.dictionaries.loading import load_dictionary
from otoscope.dictionaries.places import Places
from otoscope.errors import OptionError, OutputError
from otoscope.files import atomic_folder, atomic_write, remove_folder
from otoscope.models.transcripts import DecodeOptions
from otoscope.models.whisper import SpeechModel
from otoscope.progress import track
from otoscope.runs import ActivationStore, Run, computed
from otoscope.runs.notes import Notes
from otoscope.studies.feature_judging import dictionary_places
from otoscope.studies.feature_labels import label_values, plain
from otoscope.text_values import object_in
from otoscope.versions import versions

if TYPE_CHECKING:
    import pandas as pd
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

_FEWEST = 5
"""A value of fewer recordings is not looked at."""

_A_PHONEME = 0.1
"""Seconds that a moment may last to be one of a phoneme: frames do, written tokens do not."""

_UNDER_WAY = "moments"
"""Folder of what was found so far; gone once all is done."""


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
        out: Folder for the result; what is there is replaced once all is done, and what was begun goes on.
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
    stamps = _stamps(Path(folder))
    dictionary = _dictionary(model, folder, places.stack, str(stamps))
    corpus = items_or_texts(data)
    options = DecodeOptions(language=language)
    out = Path(out)
    _refuse_other_names(out, stamps)
    settings = {
        "model": {k: v for k, v in model.describe().items() if k not in ("device", "source")},
        "weights": model.weights_digest(),
        "dictionary": dictionary.describe(),
        "files": stamps,
        "places": places.to_dict(),
        "items": digest_of_items(corpus),
        "language": language,
        "shard": SHARD,
    }
    unit = "recordings" if isinstance(model, SpeechModel) else "texts"
    with Run.opened(out / _UNDER_WAY, "activations", settings) as run:
        store = ActivationStore(run)
        missing = [n for n in range(-(-len(corpus) // SHARD)) if not store.has(n)]
        with track("Collecting", len(corpus), unit) as task:
            task.advance(len(corpus) - sum(len(corpus[n * SHARD : (n + 1) * SHARD]) for n in missing))
            job = partial(_shard, model, str(folder), places, corpus, batch or model.batch, options)
            for number, shard in computed(job, missing):
                store.append(number, *shard)
                task.advance(len(corpus[number * SHARD : (number + 1) * SHARD]))
    found = _Found(ActivationStore.read_from(out / _UNDER_WAY), places.layers, corpus)
    with atomic_folder(out, last=ABOUT) as begun:
        about = _write(model, dictionary, places, found, begun, data, stamps)
    remove_folder(out / _UNDER_WAY)
    return about


@lru_cache(maxsize=1)
def _dictionary(model: Model, folder: Path | str, stack: str, stamps: str) -> Dictionary:
    """The dictionary, once a process; `stamps` tells it from another one that was put in its place."""
    return load_dictionary(folder, model, stack)


def _refuse_other_names(out: Path, stamps: list[list[Any]]) -> None:
    """Names that people gave stay with the features that they were given to."""
    if not (out / ABOUT).is_file() or not Notes(out).read():
        return
    if Examples(out).about.get("files") != stamps:
        raise OutputError(
            f"{out} holds names of features of another dictionary.", "Choose another folder for this one."
        )


def _stamps(folder: Path) -> list[list[Any]]:
    """Size and time of a dictionary's weights: another training in the same folder is another dictionary."""
    files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    return [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]


def _shard(
    model: Model,
    folder: str,
    places: Places,
    corpus: Sequence[Item],
    batch: int,
    options: DecodeOptions,
    number: int,
) -> tuple[dict[str, np.ndarray], pd.DataFrame]:
    """Of each recording of a shard the peak of every feature and its place; counts and sums over all of them."""
    import pandas as pd

    dictionary = _dictionary(model, folder, places.stack, str(_stamps(Path(folder))))
    part = corpus[number * SHARD : (number + 1) * SHARD]
    rows: dict[str, list[Tensor]] = {}
    lines = []
    for item, inputs, where in positions_of(model, part, places, batch, options):
        name = item.audio_filepath.encode("utf-8", "backslashreplace").decode()
        line = {"item": number * SHARD + len(lines), "audio_filepath": name, "vectors": 0}
        unread = None if inputs is not None and len(where) else "It cannot be read, or nothing is in it."
        lines.append(line | {"where": json.dumps(where), "reason": unread, "remedy": None})
        if inputs is None or unread:
            continue
        for layer, name in zip(places.layers, places.inputs, strict=True):
            dense = _dense(dictionary, layer, torch.from_numpy(inputs[name]))
            peak, place = dense.max(dim=0)
            lines[-1]["vectors"] = len(dense)
            for what, value in (
                ("peak", peak), ("place", place.to(torch.int32)),
                ("count", (dense > 0).sum(dim=0)), ("sum", dense.double().sum(dim=0)),
            ):  # fmt: skip
                rows.setdefault(f"{what}.{layer}", []).append(value)
    tensors = {
        name: (
            torch.stack(values) if name.startswith(("peak", "place")) else torch.stack(values).sum(0)[None]
        ).numpy()
        for name, values in rows.items()
    }
    return tensors, pd.DataFrame(lines).astype({"reason": "object", "remedy": "object"})


def _dense(dictionary: Dictionary, layer: int, x: Tensor) -> Tensor:
    with torch.no_grad():
        active = dictionary.encode(layer, x.float())
    dense = torch.zeros(len(x), dictionary.size(layer))
    dense[active.pos, active.feature] = active.activation.float()
    return dense


class _Found:
    """What the shards hold, put together.

    Attributes:
        items: The recordings or texts that could be read.
        numbers: Their numbers in the corpus, from 0.
        moments: Of each, what stands at its places.
        vectors: Places of all of them.
        peak: By layer `(item, feature)`.
        best: By layer, values and items of the strongest moments, `(moment, feature)` each.
        count: By layer `(feature,)` places at which it is on.
        sum: By layer `(feature,)` of its activations.
    """

    def __init__(self, store: ActivationStore, layers: Sequence[int], corpus: Sequence[Item]) -> None:
        index = store.index
        if not len(index):
            raise OptionError("Nothing could be read.", "Name recordings or texts that can be.")
        self.numbers: list[int] = index["item"].tolist()
        self.items = [corpus[i] for i in self.numbers]
        self.moments = [[Moment(*each) for each in json.loads(w)] for w in index["where"].tolist()]
        self.vectors = sum(index["vectors"].tolist())
        self.peak = {n: store.read(f"peak.{n}") for n in layers}
        self.place = {n: store.read(f"place.{n}") for n in layers}
        self.count = {n: store.read(f"count.{n}").sum(axis=0) for n in layers}
        self.sum = {n: store.read(f"sum.{n}").sum(axis=0) for n in layers}
        self.best = {
            n: torch.from_numpy(self.peak[n]).topk(min(MOMENTS, len(self.items)), dim=0) for n in layers
        }
        self._phonemes: dict[int, Any] = {}

    def phoneme(self, item: int, moment: Moment) -> str | None:
        """Which one is said in the middle of a moment, where that is known."""
        if moment.start is None or moment.end is None or moment.end - moment.start > _A_PHONEME:
            return None
        if item not in self._phonemes:
            self._phonemes[item] = phonemes_of(self.items[item]) or ()
        middle = (moment.start + moment.end) / 2
        return next((spelled for start, end, spelled in self._phonemes[item] if start <= middle < end), None)


# Writing -----------------------------------------------------------------------------------------------------------------


def _write(
    model: Model,
    dictionary: Dictionary,
    places: Places,
    found: _Found,
    out: Path,
    data: Path | str,
    stamps: list[list[Any]],
) -> dict[str, Any]:
    labels = label_values(found.items)
    offsets: dict[int, list[int]] = {}
    at = 0
    total = sum(dictionary.size(layer) for layer in places.layers)
    with atomic_write(out / LINES, "wb") as file, track("Writing", total, "features") as task:
        for layer in places.layers:
            offsets[layer] = []
            near, written = _neighbours(dictionary, layer), _Writes(model, dictionary, places, layer)
            peaks = found.peak[layer].astype(np.float64)
            for feature in range(dictionary.size(layer)):
                told = _told(layer, feature, found)
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
        "items": len(found.items),
        "vectors": found.vectors,
        "places": places.to_dict(),
        "dictionary": dictionary.describe(),
        "files": stamps,
        "model": model.describe(),
        "features": len(table),
        "dead": int(sum((count == 0).sum() for count in found.count.values())),
        "versions": versions(),
    }
    with atomic_write(out / ABOUT) as file:
        json.dump(about, file, indent=1)
    return about


def _told(layer: int, feature: int, found: _Found) -> dict[str, Any]:
    best = found.best[layer]
    values = best.values[:, feature]
    examples = []
    for rank in range(int((values > 0).sum())):
        item = int(best.indices[rank, feature])
        moment = found.moments[item][int(found.place[layer][item, feature])]
        phoneme = found.phoneme(item, moment)
        examples.append(
            {
                "item": found.numbers[item],
                "recording": found.items[item].audio_filepath or None,
                "activation": round(float(values[rank]), 4),
                "start": moment.start,
                "end": moment.end,
                "before": moment.before,
                "at": moment.at,
                "after": moment.after,
                **({"phoneme": phoneme} if phoneme else {}),
            }
        )
    peaks = found.peak[layer][:, feature].astype(np.float64)
    top = float(max(peaks.max(), 0.0))
    counts, edges = np.histogram(peaks[peaks > 0], bins=_BINS, range=(0.0, top or 1.0))
    count = int(found.count[layer][feature])
    return {
        "layer": layer,
        "feature": feature,
        "density": count / found.vectors,
        "mean": float(found.sum[layer][feature]) / count if count else 0.0,
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
    words = Counter(plain(e["at"]) for e in told["examples"])
    words.pop("", None)
    phonemes = Counter(e["phoneme"] for e in told["examples"] if e.get("phoneme"))
    count = len(told["examples"])
    if not count:
        return "never active"
    word, times = words.most_common(1)[0] if words else ("", 0)
    if times >= max(3, count // 2):
        return f"“{word}” ({times} of {count})"
    spelled, times = phonemes.most_common(1)[0] if phonemes else ("", 0)
    if times >= max(3, count // 2):
        return f"/{spelled}/ ({times} of {count})"
    best = told["enrichment"][0] if told["enrichment"] else None
    if best and abs(best["auc"] - 0.5) > 0.35 and abs(best["auc"] - 0.5) > 3 * abs(best["shuffled"] - 0.5):
        return f"{best['label']} {'is' if best['auc'] > 0.5 else 'is not'} {best['value']} (AUC {best['auc']:.2f})"
    if told.get("promotes"):
        return "writes " + ", ".join(repr(token) for token, _ in told["promotes"][:3])
    return "unlabelled"


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
            self.about = object_in(self.folder / ABOUT)
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
        """Features whose label is clearest, those first that are active seldom and in several recordings."""
        found = [f for f in self if f["examples"]]

        def rank(told: dict[str, Any]) -> tuple[bool, float]:
            usual = least <= told["density"] <= most and len(told["examples"]) >= MOMENTS // 2
            return usual, _clearness(told)

        return sorted(found, key=rank, reverse=True)[:count]


def _clearness(told: Mapping[str, Any]) -> float:
    words = Counter(plain(e["at"]) for e in told["examples"])
    words.pop("", None)
    phonemes = Counter(e["phoneme"] for e in told["examples"] if e.get("phoneme"))
    shared = max(
        (c.most_common(1)[0][1] / len(told["examples"]) for c in (words, phonemes) if c), default=0.0
    )
    label = max((2 * abs(e["auc"] - 0.5) for e in told["enrichment"]), default=0.0)
    return max(shared, label)
