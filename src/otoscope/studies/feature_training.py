"""From a corpus to a trained dictionary: divide, harvest, learn, judge on what was held out."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otoscope.corpora import Item, items_or_texts, write_manifest
from otoscope.corpora.joining import joined
from otoscope.corpora.splitting import split, without_texts
from otoscope.dictionaries.harvesting import Drawn, digest_of_items, harvest_places, heard_vectors
from otoscope.dictionaries.neurons import neurons_of
from otoscope.dictionaries.places import Places, places_of
from otoscope.dictionaries.scores import Reconstruction, reconstruction
from otoscope.dictionaries.training import parallel
from otoscope.dictionaries.training.buffer import Shards, ShuffleBuffer, Vectors, from_iterable
from otoscope.dictionaries.training.config import TrainConfig
from otoscope.dictionaries.training.trainer import train
from otoscope.errors import ManifestError
from otoscope.files import atomic_folder, atomic_write
from otoscope.models.transcripts import DecodeOptions
from otoscope.models.whisper import SpeechModel
from otoscope.showing import Shows
from otoscope.studies.feature_recipes import FeatureRecipe
from otoscope.text_values import object_in

if TYPE_CHECKING:
    from otoscope.dictionaries.base import Dictionary
    from otoscope.models.base import Model
    from otoscope.runs import ActivationStore

HELD_OUT, SCORES = "held_out.jsonl", "scores.json"

_MEMORY = 2**29
"""Bytes of vectors that are shuffled together."""

_STREAMED = 16
"""Batches of a stream that are shuffled together."""


@dataclass(frozen=True, eq=False)
class Learned(Shows):
    """A trained dictionary and how it does on what was held out.

    Attributes:
        dictionary: It.
        folder: Where it lies.
        config: How it was trained.
        scores: On the vectors that were held out.
        trained_on: Recordings or texts, and vectors (None where they were streamed).
        held_out: The same of those held out.
    """

    dictionary: Dictionary
    folder: Path
    config: TrainConfig
    scores: Reconstruction
    trained_on: dict[str, int | None]
    held_out: dict[str, int | None]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "folder": str(self.folder),
            **self.scores.to_dict(),
            "trained_on": self.trained_on,
            "held_out": self.held_out,
            "config": self.config.to_json(),
        }


def train_features(
    model: Model,
    data: Path | str | Sequence[Path | str],
    recipe: FeatureRecipe,
    out: Path | str,
    *,
    store: Path | str | None = None,
    exclude: Path | str | None = None,
    batch: int | None = None,
    stream: bool = False,
) -> Learned:
    """Learn a dictionary from a corpus, or go on with it.

    Several processes (`torchrun`) share the work: the first one harvests, each learns from its own shards.

    Args:
        model: The model.
        data: A manifest or folder, or several; texts for a language model.
        recipe: What to learn.
        out: The dictionary's folder.
        store: Where the vectors are kept; None: beside `out`, in `OUT-vectors`.
        exclude: A corpus that is to be judged by later: recordings with a text of it are neither learned from nor held out.
        batch: Recordings at once while harvesting.
        stream: Learn while the model listens, and keep the vectors that are held out alone: for corpora whose vectors no disk
            holds. Every epoch listens again, and a training that goes on first listens to where it was.

    Raises:
        ManifestError: The corpus cannot be read or divided.
        OptionError: The recipe does not fit the model, or the folder belongs to another training.
        TrainingError: Loss or gradient are not finite, or the vectors are too few.
    """
    out = Path(out)
    places = places_of(model, recipe.point)
    config = recipe.trained(places)
    kept = Path(store) if store is not None else out.with_name(f"{out.name}-vectors")
    with _processes():
        corpus = [
            item
            for path in ([data] if isinstance(data, Path | str) else data)
            for item in items_or_texts(path)
        ]
        if exclude is not None:
            corpus = without_texts(corpus, items_or_texts(exclude))
        parts = divided(corpus, recipe, recipe.division)
        neurons = neurons_of(model, places.stack) if config.start == "neurons" else None
        heard = _heard(model, parts["train"], recipe)
        harvested = {"test": (parts["test"], Drawn())} | ({} if stream else {"train": heard})
        stores = _harvested(model, harvested, places, recipe, kept, batch)
        names = _names(places)
        if stream:
            batches = _streamed(model, *heard, places, recipe, config, batch)
        else:
            batches = _batches(stores["train"], names, config)
        about = {
            "items": digest_of_items(heard[0]),
            "drawn": asdict(heard[1]),
            "language": recipe.language,
            "stream": [batch or model.batch] if stream else None,
        }
        dictionary = train(config, batches, out, model.device, neurons, about)
        scores = reconstruction(dictionary, places.layers, whole_shards(stores["test"], *names))
        learned = Learned(
            dictionary,
            out,
            config,
            scores,
            *(
                {"items": len(parts[part]), "vectors": _count(stores[part]) if part in stores else None}
                for part in ("train", "test")
            ),
        )
        if parallel.rank() == 0:
            write_manifest(parts["test"], out / HELD_OUT)
            _write_scores(learned, recipe)
    return learned


def divided(corpus: Sequence[Item], recipe: FeatureRecipe, seed: int) -> dict[str, list[Item]]:
    """The parts `train` and `test`; no group is in both.

    Raises:
        ManifestError: There are too few groups.
    """
    shares = {"train": 1 - recipe.held_out, "test": recipe.held_out}
    if recipe.group_by:
        parts = split(
            [replace(item, labels={"group": group_of(item, recipe.group_by)}) for item in corpus],
            shares,
            "group",
            seed=seed,
        )
    else:
        if len(corpus) < 2:
            raise ManifestError("One recording cannot be divided.", "Give a corpus of several.")
        order = list(range(len(corpus)))
        random.Random(seed).shuffle(order)
        held = set(order[: max(1, round(recipe.held_out * len(corpus)))])
        parts = ["test" if i in held else "train" for i in range(len(corpus))]
    return {name: [item for item, part in zip(corpus, parts, strict=True) if part == name] for name in shares}


def group_of(item: Item, labels: str) -> str:
    """The first of these labels that an item has, with its value, or the item's own name."""
    names = [name.strip() for name in labels.split(",")]
    found = next((f"{n}={item.labels[n]}" for n in names if item.labels.get(n) is not None), None)
    return found or f"{item.audio_filepath} {item.offset} {item.text}"


def _heard(model: Model, part: Sequence[Item], recipe: FeatureRecipe) -> tuple[list[Item], Drawn]:
    """What is heard of the part that is learned from: recordings alone and joined; and the transcripts that are drawn."""
    drawn = Drawn(recipe.drawn, recipe.temperature)
    if not recipe.joined or not isinstance(model, SpeechModel):
        return list(part), drawn
    alone = random.Random(recipe.division).sample(part, round(recipe.alone * len(part)))
    return [*alone, *joined(part, model.window_seconds, recipe.joined, recipe.division)], drawn


def _harvested(
    model: Model,
    parts: Mapping[str, tuple[Sequence[Item], Drawn]],
    places: Places,
    recipe: FeatureRecipe,
    kept: Path,
    batch: int | None,
) -> dict[str, ActivationStore]:
    from otoscope.runs import ActivationStore

    if parallel.rank() == 0:
        for name, (items, drawn) in parts.items():
            harvest_places(
                model, items, places, kept / name, batch=batch, dtype=recipe.precision,  # type: ignore[arg-type]
                options=DecodeOptions(language=recipe.language), drawn=drawn,
            )  # fmt: skip
    parallel.barrier()
    return {name: ActivationStore.read_from(kept / name) for name in parts}


def _streamed(
    model: Model,
    items: Sequence[Item],
    drawn: Drawn,
    places: Places,
    recipe: FeatureRecipe,
    config: TrainConfig,
    batch: int | None,
) -> ShuffleBuffer:
    """Batches of this process from the model as it listens to its part of the corpus, in another order every epoch."""
    mine = items[parallel.rank() :: parallel.world()]
    options = DecodeOptions(language=recipe.language)

    def endless() -> Iterator[Vectors]:
        for epoch in count():
            order, empty = random.Random(config.seed * 1_000_003 + epoch).sample(mine, len(mine)), True
            for vectors in heard_vectors(model, order, places, batch=batch, options=options, drawn=drawn):
                empty = False
                yield vectors
            if empty:
                raise ManifestError(
                    "A process heard nothing at all in its part of the corpus.",
                    "Give recordings or texts that can be read, at least one a process.",
                )

    width = sum((model.points[name].width or 0) * 4 for name in (*places.inputs, *(places.targets or ())))
    share = config.batch // parallel.world()
    capacity = max(share, min(_MEMORY // max(width, 1), _STREAMED * share))
    return ShuffleBuffer(from_iterable(endless), batch=share, capacity=capacity, seed=config.seed)


def _names(places: Places) -> tuple[list[str], list[str] | None]:
    inputs = [f"input.{layer}" for layer in places.layers]
    return inputs, None if places.targets is None else [f"target.{layer}" for layer in places.layers]


def _batches(
    store: ActivationStore, names: tuple[list[str], list[str] | None], config: TrainConfig
) -> ShuffleBuffer:
    """Batches of this process, shuffled, without end."""
    inputs, targets = names
    files = store.files[parallel.rank() :: parallel.world()]
    source = Shards(files, inputs, targets, seed=config.seed)
    width = sum(source.widths) * len(inputs) * 4
    share = config.batch // parallel.world()
    there = _count(store) // parallel.world()
    capacity = max(share, min(_MEMORY // max(width, 1), max(there, share)))
    return ShuffleBuffer(source, batch=share, capacity=capacity, seed=config.seed)


def whole_shards(
    store: ActivationStore, inputs: Sequence[str], targets: Sequence[str] | None
) -> Iterator[Vectors]:
    """All vectors of a store once, a shard at a time, in the order of its rows."""
    yield from Shards(store.files, inputs, targets).in_order()


def _count(store: ActivationStore) -> int:
    return sum(store.index["vectors"].tolist()) if len(store.index) else 0


def _write_scores(learned: Learned, recipe: FeatureRecipe) -> None:
    import json

    from otoscope.versions import versions

    told = {name: value for name, value in learned.to_dict().items() if name != "folder"} | {
        "recipe": asdict(recipe) | {"config": dict(recipe.config)},
        "versions": versions(),
    }
    with atomic_write(learned.folder / SCORES) as file:
        json.dump(told, file, indent=1, default=str)


@contextmanager
def _processes() -> Iterator[None]:
    """Join the other processes where `torchrun` started several."""
    import torch
    import torch.distributed as dist

    several = int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized()
    if not several:
        yield
        return
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
        dist.barrier()
    finally:
        dist.destroy_process_group()


def export_features(model: Model, folder: Path | str, out: Path | str, form: str) -> None:
    """Write a dictionary as another program reads it.

    Args:
        model: The model it is of.
        folder: The dictionary.
        out: A new folder.
        form: `circuit-tracer` or `sae-lens`.

    Raises:
        DictionaryError: The format has no words for the dictionary.
        OutputError: The folder holds something already.
    """
    from otoscope.dictionaries.cross_layer import CrossLayerTranscoder
    from otoscope.dictionaries.formats.circuit_tracer import save_circuit_tracer
    from otoscope.dictionaries.formats.sae_lens import save_sae_lens
    from otoscope.dictionaries.loading import load_dictionary
    from otoscope.dictionaries.transcoder import TranscoderSet
    from otoscope.errors import DictionaryError, OutputError

    folder, out = Path(folder), Path(out)
    if out.exists() and any(out.iterdir()):
        raise OutputError(f"{out} holds something already.", "Choose a new folder.")
    dictionary = load_dictionary(folder, model, _stack_of(folder))
    with atomic_folder(out) as begun:
        if form == "circuit-tracer" and isinstance(dictionary, TranscoderSet | CrossLayerTranscoder):
            save_circuit_tracer(dictionary, begun, model.origin.name)
        elif form == "sae-lens" and isinstance(dictionary, TranscoderSet):
            save_sae_lens(dictionary, begun, model.origin.name, _point_of(folder))
        else:
            raise DictionaryError(f"{form} has no such dictionaries.", "Export transcoders.")


def _point_of(folder: Path) -> str | None:
    try:
        return str(object_in(folder / SCORES)["recipe"]["point"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _stack_of(folder: Path) -> str | None:
    point = _point_of(folder)
    return {"encoder_blocks": "encoder", "decoder_blocks": "decoder"}.get((point or "").partition(".")[0])
