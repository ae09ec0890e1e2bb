"""How good a dictionary is: what it reconstructs, and what the model loses when it goes on with the reconstruction.

Judged on recordings or texts that were not learned from, beside the model's own neurons (as many of them as the dictionary has
features on) and beside random features whose write vectors were fitted. Frames of padding and positions of the prompt are left
out of everything, as they are in training.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from otoscope.corpora import Item, items_or_texts
from otoscope.dictionaries.controls import FewNeurons, random_dictionary
from otoscope.dictionaries.harvesting import (
    CONTEXT,
    Where,
    digest_of_items,
    harvest_places,
    tokens_around,
    words_around,
)
from otoscope.dictionaries.loading import NEURONS, load_dictionary
from otoscope.dictionaries.neurons import NeuronBasis
from otoscope.dictionaries.places import Places, places_of
from otoscope.dictionaries.scores import Reconstruction, reconstruction
from otoscope.dictionaries.splicing import (
    Kept,
    Replacement,
    Splicer,
    everywhere,
    from_position,
    reconstructing,
    spliced,
    within,
    zeroing,
)
from otoscope.errors import DictionaryError, ManifestError, OptionError
from otoscope.files import atomic_write, remove_abandoned, remove_folder
from otoscope.models.cache import cache_dir
from otoscope.models.causal_lm import LanguageModel
from otoscope.models.decoding import DecoderSession, batches, prompts_for
from otoscope.models.transcribing import frames_of, transcribe_all
from otoscope.models.transcripts import DecodeOptions, Transcript
from otoscope.models.whisper import SpeechModel
from otoscope.outcomes import bootstrap, error_rates
from otoscope.progress import notice, track
from otoscope.runs import Run
from otoscope.studies.feature_labels import (
    Dense,
    labels_of_places,
    labels_of_recordings,
    splitting,
    stability,
    summary,
    told_apart,
)
from otoscope.studies.feature_training import SCORES, group_of, whole_shards
from otoscope.text_values import object_in
from otoscope.versions import versions

if TYPE_CHECKING:
    from otoscope.dictionaries.base import Dictionary
    from otoscope.dictionaries.training.buffer import Vectors
    from otoscope.models.base import Model
    from otoscope.runs import ActivationStore

JUDGED = "judged.json"
"""What was found last, beside the dictionary."""

_KEPT = 3 * 24 * 3600
"""Seconds for which a judgement that was stopped is kept."""

_CALIBRATION = 4096
"""Vectors from which the random dictionary's write vectors are fitted."""

Fresh = Callable[[], Replacement]


@dataclass(frozen=True)
class JudgeOptions:
    """What to judge by.

    Attributes:
        point: Where the dictionary reads; None: as its folder says.
        language: Language of the recordings; None: as each item says, or detected.
        controls: Whether to judge neurons and random features, too.
        labels: Whether to ask how well single features tell what is known of the sound.
        others: Dictionaries of other trainings of the same place, for how stable the features are.
        seed: Of the random features and the intervals.
        batch: Recordings at once.
    """

    point: str | None = None
    language: str | None = None
    controls: bool = True
    labels: bool = True
    others: tuple[Path, ...] = ()
    seed: int = 0
    batch: int | None = None


def evaluate_features(
    model: Model, folder: Path | str, data: Path | str, options: JudgeOptions | None = None
) -> dict[str, Any]:
    """Judge a dictionary.

    Args:
        model: The model it is of.
        folder: The dictionary.
        data: Recordings with their texts, or texts for a language model; none that were learned from.
        options: How.

    Returns:
        JSON-ready: `explained_variance`, `l0`, `dead`, `dense`, `loss` (clean, spliced, zeroed), `loss_recovered`, for recordings
        `wer` and `wer_spliced` with intervals, `layers`, and the same of the controls; `told_apart` and `splitting` (see
        `otoscope.studies.feature_labels`), and `stability` where there are other dictionaries.

    Raises:
        DictionaryError: The dictionary is of another model, or does not say where it reads.
        ManifestError: There is nothing to judge by.
    """
    options, folder = options or JudgeOptions(), Path(folder)
    places = dictionary_places(model, folder, options.point)
    dictionary = load_dictionary(folder, model, places.stack)
    corpus = items_or_texts(data)
    with _UnderWay.opened(model, folder, dictionary, corpus, options) as under_way:
        store = harvest_places(
            model, corpus, places, under_way.folder / "vectors", batch=options.batch,
            options=DecodeOptions(language=options.language),
        )  # fmt: skip
        names = [f"input.{layer}" for layer in places.layers]
        targets = None if places.targets is None else [f"target.{layer}" for layer in places.layers]

        def scored(judged: Dictionary, skip: int = 0) -> Reconstruction:
            return reconstruction(judged, places.layers, _after(whole_shards(store, names, targets), skip))

        found = {"dictionary": (dictionary, scored(dictionary))}
        if options.controls:
            fitted = min(_CALIBRATION, found["dictionary"][1].vectors // 2)
            controls = _controls(
                model, places, dictionary, found["dictionary"][1], store, fitted, options.seed
            )
            for name, control in controls.items():
                # Not on what its write vectors were fitted to.
                found[name] = (control, scored(control, fitted if name == "random" else 0))
        judge = _judge_of(model, corpus, places, options)
        clean = under_way.once("clean", lambda: judge(None))
        told_apart = {}
        if options.labels:
            systems = {name: one for name, (one, _) in found.items()}
            told_apart = under_way.once(
                "labels", lambda: _told_apart(model, folder, corpus, places, systems, store, clean, options)
            )
        told = {
            name: {**scores.to_dict(), **under_way.once(name, partial(judge, reconstructing(one)))}
            for name, (one, scores) in found.items()
        }
        zero = under_way.once("zero", lambda: judge(lambda: zeroing()))
    for each in told.values():
        lost = zero["loss"] - clean["loss"]
        each["loss_recovered"] = (zero["loss"] - each["loss"]) / lost if lost else None
    own = told.pop("dictionary")
    result = {
        **{
            ("wer_spliced" if key == "wer" else "loss_spliced" if key == "loss" else key): v
            for key, v in own.items()
        },
        "loss": clean["loss"],
        "loss_zeroed": zero["loss"],
        **({"wer": clean["wer"], "wer_zeroed": zero["wer"]} if "wer" in clean else {}),
        **({"wer_difference": _difference(clean, own, options.seed)} if "wer" in clean else {}),
        "controls": told,
        **told_apart,
        **({"stability": _stability(model, dictionary, places, options.others)} if options.others else {}),
        "items": len(corpus),
        "places": places.to_dict(),
        "dictionary": dictionary.describe(),
        "model": model.describe(),
        "versions": versions(),
    }
    return _told_plainly(result)


def keep_judgement(folder: Path | str, told: Mapping[str, Any]) -> None:
    """Keep a judgement beside the dictionary that it is of, for its model card; nothing where that is of another program.

    Raises:
        OutputError: The folder cannot be written.
    """
    folder = Path(folder)
    if (folder / SCORES).is_file():
        with atomic_write(folder / JUDGED) as file:
            json.dump(told, file, indent=1, default=str)


def dictionary_places(model: Model, folder: Path, point: str | None) -> Places:
    """Where a dictionary reads: as asked, or as its folder says.

    Raises:
        DictionaryError: There is no such folder, or it does not say.
        OptionError: There is no such place.
    """
    if not folder.exists() and str(folder) != NEURONS:
        raise DictionaryError(
            f"There is no dictionary {folder}.",
            "Name the folder of one, such as `otoscope features train` writes.",
        )
    if point is None:
        try:
            point = object_in(folder / SCORES)["recipe"]["point"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DictionaryError(
                f"{folder} does not say where it reads.",
                "Name the place, such as --point decoder_blocks.*.mlp.",
            ) from error
    return places_of(model, str(point))


@dataclass(frozen=True)
class _UnderWay:
    """What was found so far, in the cache: a judgement that was stopped goes on; gone once all is done.

    Attributes:
        folder: Where it lies.
    """

    folder: Path

    @classmethod
    @contextmanager
    def opened(
        cls, model: Model, folder: Path, dictionary: Dictionary, corpus: Sequence[Item], options: JudgeOptions
    ) -> Iterator[_UnderWay]:
        """One for all that the judgement depends on."""
        files = sorted(folder.glob("*.safetensors"))
        settings = {
            "model": {**model.describe(), "source": None},
            "weights": model.weights_digest(),
            "dictionary": dictionary.describe(),
            "files": [[f.name, f.stat().st_size, f.stat().st_mtime_ns] for f in files],
            "items": digest_of_items(corpus),
            "labels": [[item.language, sorted(item.labels.items())] for item in corpus],
            "options": [options.point, options.language, options.controls, options.seed],
        }
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()
        place = cache_dir() / "judging" / digest[:24]
        _sweep(place.parent)
        with Run.opened(place / "parts", "judging", {"of": digest}):
            yield cls(place)
            remove_folder(place)

    def once(self, name: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What the work gives, now or when it was done before."""
        path = self.folder / "parts" / f"{name}.json"
        if path.is_file():
            return object_in(path)
        found = work()
        with atomic_write(path, "wb") as file:
            file.write(json.dumps(found).encode("utf-8", "backslashreplace"))
        return found


def _sweep(folder: Path) -> None:
    """Remove judgements that nobody went on with for three days: their vectors are large."""
    remove_abandoned(folder)
    for old in folder.glob("*/parts/run.json"):
        # The clock may have been set, and a judgement may take long: none that is under way is touched.
        if time.time() - old.stat().st_mtime > _KEPT:
            with Run.kept_free(old.parent) as free:
                if free:
                    remove_folder(old.parents[1])


def _stability(
    model: Model, dictionary: Dictionary, places: Places, others: Sequence[Path]
) -> dict[str, Any]:
    loaded = [load_dictionary(folder, model, places.stack) for folder in others]
    for folder, other in zip(others, loaded, strict=True):
        sizes = [[d.size(layer) for layer in places.layers] for d in (dictionary, other)]
        if sizes[0] != sizes[1]:
            raise DictionaryError(
                f"{folder} has {sizes[1]} features, the dictionary {sizes[0]}.",
                "Compare trainings of one width.",
            )
    return stability(dictionary, loaded, places.layers)


def _group_by(folder: Path) -> str:
    """Labels by which the dictionary's corpus was divided; "" where nobody said."""
    try:
        return str(object_in(folder / SCORES)["recipe"]["group_by"] or "")
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _told_apart(
    model: Model,
    folder: Path,
    corpus: Sequence[Item],
    places: Places,
    systems: Mapping[str, Dictionary],
    store: ActivationStore,
    clean: Mapping[str, Any],
    options: JudgeOptions,
) -> dict[str, Any]:
    """How well single features tell labels, and signs of splitting."""
    index = store.index
    numbers, counts = index["item"].tolist(), index["vectors"].tolist()
    starts = np.concatenate([[0], np.cumsum(counts)])
    items = [corpus[number] for number in numbers]
    where = _where(model, corpus, clean)
    # Another language than the manifest's may have been heard while harvesting: places that do not agree are passed over.
    around = [
        (where[n] + [(None, None, "", "", "")] * count)[:count]
        for n, count in zip(numbers, counts, strict=True)
    ]

    def dense_of(dictionary: Dictionary) -> Dense:
        @lru_cache(maxsize=1)
        def inputs(layer: int) -> np.ndarray:
            return store.read(f"input.{layer}")

        def dense(layer: int, item: int) -> np.ndarray:
            x = torch.from_numpy(inputs(layer)[starts[item] : starts[item + 1]]).float()
            with torch.no_grad():
                active = dictionary.encode(layer, x)
            found = np.zeros((len(x), dictionary.size(layer)), dtype=np.float32)
            found[active.pos.numpy(), active.feature.numpy()] = active.activation.float().numpy()
            return found

        return dense

    every = {
        "dictionary": systems["dictionary"],
        **({"neurons": NeuronBasis(model, stream=places.stack)} if "neurons" in systems else {}),
        **({"random": systems["random"]} if "random" in systems else {}),
    }
    judged = {name: (dense_of(one), places.layers) for name, one in every.items()}
    blocks = [group_of(item, _group_by(folder)) for item in items]
    kinds = [labels_of_recordings(items, blocks), *labels_of_places(items, around, options.seed, blocks)]
    found, told = {}, {}
    with track("Asking for labels", len(kinds), "kinds of label") as task:
        for labelled in kinds:
            entries = told_apart(labelled, judged, options.seed)
            if entries:
                found[labelled.kind] = summary(entries, list(judged)) | {"each": entries}
            if labelled.place is not None and entries:
                told[labelled.kind] = splitting(
                    systems["dictionary"], labelled, judged["dictionary"][0], places.layers
                )
            task.advance()
    return {"told_apart": found, "splitting": told}


def _where(model: Model, corpus: Sequence[Item], clean: Mapping[str, Any]) -> list[list[Where]]:
    """What stands at every place of every item; nothing for recordings that were not transcribed."""
    if isinstance(model, LanguageModel):
        return [tokens_around(model, item) for item in corpus]
    found = iter(clean["_where"])
    return [[tuple(each) for each in next(found)] if item.text else [] for item in corpus]


def _controls(
    model: Model,
    places: Places,
    dictionary: Dictionary,
    scores: Reconstruction,
    store: Any,
    fitted: int,
    seed: int,
) -> dict[str, Dictionary]:
    few = {layer.layer: max(1, round(layer.l0)) for layer in scores.layers}

    def calibration(layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.from_numpy(store.read(f"input.{layer}")[:fitted]).float()
        target = "input" if places.targets is None else "target"
        return x, torch.from_numpy(store.read(f"{target}.{layer}")[:fitted]).float()

    widths = [dictionary.size(layer) for layer in places.layers]
    k = [few[n] for n in places.layers]
    found: dict[str, Dictionary] = {"random": random_dictionary(places, widths, k, calibration, seed)}
    if places.targets is not None:
        counts = [few.get(layer, 1) for layer in range(places.model_layers)]
        found["neurons"] = FewNeurons(model, counts, places.stack)
    return found


def _after(data: Iterable[Vectors], skip: int) -> Iterator[Vectors]:
    """All vectors but the first ones."""
    for vectors in data:
        count = vectors.inputs.shape[1]
        if skip < count:
            yield vectors.rows(slice(skip, None))
        skip = max(skip - count, 0)


# Loss and WER ------------------------------------------------------------------------------------------------------------


def _judge_of(
    model: Model, corpus: Sequence[Item], places: Places, options: JudgeOptions
) -> Callable[[Fresh | None], dict[str, Any]]:
    if isinstance(model, SpeechModel):
        spoken = [item for item in corpus if item.text]
        if not spoken:
            raise ManifestError("No recording has a text to judge by.", "Add the texts to the manifest.")
        if len(spoken) < len(corpus):
            notice(f"{len(corpus) - len(spoken)} recordings without a text are left out of loss and WER.")
        return lambda fresh: _heard(model, spoken, places, options, fresh)
    if isinstance(model, LanguageModel):
        return lambda fresh: _read(model, corpus, places, fresh)
    raise OptionError(f"{model.origin.name} cannot be judged.", "Use Whisper or a language model.")


def _heard(
    model: SpeechModel, spoken: Sequence[Item], places: Places, options: JudgeOptions, fresh: Fresh | None
) -> dict[str, Any]:
    languages = [options.language or item.language for item in spoken]
    if not model.is_multilingual:
        languages = ["en"] * len(spoken)
    prompt = len(model.prompt("en"))
    watcher = None if fresh is None else Splicer(model, places, fresh, prompt)
    written = list(
        transcribe_all(
            model, spoken, DecodeOptions(), batch=options.batch, keep_going=True, watcher=watcher, languages=languages
        )
    )  # fmt: skip
    texts = [t.text if isinstance(t, Transcript) else "" for t in written]
    references = [str(item.text) for item in spoken]
    language = options.language or spoken[0].language or "en"
    rates = error_rates(references, texts, language)
    each = [error_rates([r], [t], language) for r, t in zip(references, texts, strict=True)]
    errors = [e.insertions + e.deletions + e.substitutions for e in each]
    return {
        "wer": rates.wer,
        "wer_interval": rates.wer_interval,
        "loss": _forced(model, spoken, places, options, fresh, languages),
        "_where": [] if fresh else [words_around(model, t, places.stack) for t in written],
        "_errors": errors,
        "_words": [e.reference_words for e in each],
    }


def _forced(
    model: SpeechModel,
    spoken: Sequence[Item],
    places: Places,
    options: JudgeOptions,
    fresh: Fresh | None,
    languages: Sequence[str | None],
) -> float:
    """Cross-entropy of the reference text, in nats a token, teacher-forced on each recording's first window."""
    total, count = 0.0, 0
    pairs = list(zip(spoken, languages, strict=True))
    with track("Judging", len(pairs), "recordings") as task:
        for chunk in batches(pairs, options.batch or model.batch):
            clips = [next(item.windows(model.window_seconds)) for item, _ in chunk]
            prompts = prompts_for(model, [language or "en" for _, language in chunk], DecodeOptions())
            first, limit = prompts.shape[1], model.max_positions - 1
            ids = [
                model.tokenizer(f" {str(item.text).strip()}", add_special_tokens=False)["input_ids"][: limit - first]
                for item, _ in chunk
            ]  # fmt: skip
            longest = max(map(len, ids))
            tokens = torch.full((len(chunk), first + longest), model.end_token, device=model.device)
            tokens[:, :first] = prompts
            for row, text in zip(tokens, ids, strict=True):
                row[first : first + len(text)] = torch.tensor(text, device=model.device)
            heard = places.stack == "encoder"
            where = within([frames_of(model, clip) for clip in clips]) if heard else from_position(first)
            with torch.no_grad(), _splicing(model, places, fresh, where):
                logits = DecoderSession(model, model.encode(model.features(clips))).step(tokens)
            logprobs = logits.float().log_softmax(dim=-1)
            for row, text in enumerate(ids):
                wanted = torch.tensor([*text, model.end_token], device=model.device)
                states = torch.arange(first - 1, first + len(text), device=model.device)
                total -= float(logprobs[row, states, wanted].sum())
                count += len(wanted)
            task.advance(len(chunk))
    return total / count


def _read(
    model: LanguageModel, corpus: Sequence[Item], places: Places, fresh: Fresh | None
) -> dict[str, Any]:
    """Cross-entropy of the next token, in nats."""
    total, count = 0.0, 0
    start = [model.tokenizer.bos_token_id] if model.tokenizer.bos_token_id is not None else []
    pieces = [
        ids[at : at + CONTEXT]
        for item in corpus
        for ids in [model.tokenizer(item.text or "", add_special_tokens=False)["input_ids"]]
        for at in range(0, len(ids), CONTEXT)
    ]
    pieces = [ids for ids in pieces if len(ids) + len(start) > 1]
    if not pieces:
        raise ManifestError("The texts are empty.", "Give texts of several tokens.")
    with track("Judging", len(pieces), "pieces of text") as task:
        for ids in pieces:
            tokens = torch.tensor([[*start, *ids]], device=model.device)
            where = from_position(len(start)) if start else everywhere
            with torch.no_grad(), _splicing(model, places, fresh, where):
                logits = model.forward(tokens).logits
            logprobs = logits[0, :-1].float().log_softmax(dim=-1)
            total -= float(logprobs.gather(1, tokens[0, 1:, None]).sum())
            count += tokens.shape[1] - 1
            task.advance(1)
    return {"loss": total / count}


def _splicing(model: Model, places: Places, fresh: Fresh | None, where: Kept) -> AbstractContextManager[None]:
    return nullcontext() if fresh is None else spliced(model, places, fresh(), where)


def _difference(clean: dict[str, Any], own: dict[str, Any], seed: int) -> dict[str, Any]:
    """The change of the WER, with an interval over recordings, each beside itself."""
    before, after, words = (
        np.array(x, dtype=float) for x in (clean["_errors"], own["_errors"], own["_words"])
    )

    def change(a: np.ndarray, b: np.ndarray, w: np.ndarray) -> float:
        return float((b.sum() - a.sum()) / max(w.sum(), 1.0))

    low, high = bootstrap(change, before, after, words, seed=seed)
    return {"change": change(before, after, words), "ci_low": low, "ci_high": high, "n": len(words)}


def _told_plainly(result: dict[str, Any]) -> dict[str, Any]:
    """A result without what only intervals needed."""
    return {
        key: _told_plainly(value) if isinstance(value, dict) else value
        for key, value in result.items()
        if not key.startswith("_")
    }
