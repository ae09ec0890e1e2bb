"""Does the model use a feature? Take it away, or scale it, and see what happens to what is written where it was on.

Every recording is heard again with the feature's part of what it writes scaled, everything else as it was, and the model's own
text is read with it: by how much does each token become more or less probable? Beside the feature stand others of its layer that
are on about as often and write about as much, at their own moments and at the feature's.

Which features to test can be screened: a gradient estimates at once, to first order, what taking away any of them would do.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from otoscope.corpora import Item, items_or_texts, joined
from otoscope.dictionaries.harvesting import CONTEXT
from otoscope.dictionaries.loading import load_dictionary
from otoscope.dictionaries.places import Places
from otoscope.dictionaries.splicing import Replacement, everywhere, from_position, spliced, within
from otoscope.errors import AudioError, ManifestError, OptionError
from otoscope.models.causal_lm import LanguageModel
from otoscope.models.decoding import DecoderSession
from otoscope.models.transcribing import frames_of, transcribe_all
from otoscope.models.transcripts import DecodeOptions, Transcript
from otoscope.models.whisper import SpeechModel
from otoscope.outcomes import bootstrap
from otoscope.progress import notice, track
from otoscope.studies.feature_judging import dictionary_places
from otoscope.versions import versions

if TYPE_CHECKING:
    from torch import Tensor

    from otoscope.dictionaries.base import Dictionary
    from otoscope.models.base import Model

_AROUND = 0.1
"""Seconds before and after a token within which a frame counts as its own."""

_LEAST_PLACES = 20
"""Places at which a feature must be on to be screened."""

_POOL = 5
"""From how many times as many similar features the controls are drawn."""


@dataclass(frozen=True)
class EffectOptions:
    """How to test a feature.

    Attributes:
        scale: What its activation is multiplied by: 0 takes it away, 2 doubles it.
        controls: Other features that are tested likewise.
        point: Where the dictionary reads; None: as its folder says.
        language: Language of the recordings; None: detected.
        batch: Recordings at once.
        seed: Of the controls and intervals.
    """

    scale: float = 0.0
    controls: int = 20
    point: str | None = None
    language: str | None = None
    batch: int | None = None
    seed: int = 0


@dataclass(eq=False)
class _Read:
    """One window or text, as the model has it.

    Attributes:
        clean: `(token,)` log-probability of each of its tokens.
        on: `(token, feature)` whether a feature is on at a token's own places.
        places: How many there are.
        count: `(feature,)` places at which it is on.
        sum: `(feature,)` of the sizes of its activations.
    """

    clean: np.ndarray
    on: np.ndarray
    places: int
    count: np.ndarray
    sum: np.ndarray

    @classmethod
    def of(cls, clean: np.ndarray, active: np.ndarray, spans: np.ndarray) -> _Read:
        """From activations `(place, feature)` and each token's places, first and one past the last."""
        on = active != 0
        before = np.concatenate([np.zeros((1, on.shape[1]), np.int32), np.cumsum(on, axis=0, dtype=np.int32)])
        first, end = np.minimum(spans, len(active)).T
        return cls(
            clean, before[end] > before[first], len(active), on.sum(axis=0), np.abs(active).sum(axis=0)
        )

    def at(self, feature: int) -> np.ndarray:
        """`(token,)` whether a feature is on at a token's own places."""
        return self.on[:, feature]


def feature_effect(
    model: Model,
    folder: Path | str,
    data: Path | str,
    layer: int,
    feature: int,
    options: EffectOptions | None = None,
) -> dict[str, Any]:
    """Test whether the model uses a feature.

    Args:
        model: The model.
        folder: The dictionary.
        data: Recordings (short ones are heard joined into windows), or texts for a language model.
        layer: Layer, from 0.
        feature: Feature, from 0.
        options: How.

    Returns:
        JSON-ready. `at`: the mean change of log-probability, in nats, of tokens where the feature is on, with an interval over
        windows; `elsewhere`: of all others; `controls`: what each control changes at its own moments, and at these; `p_own` and
        `p_these`: how often a control's change there is at least as far from zero, the feature's own counted. At its own moments
        a control may be as much in use; that this feature is the one in use here shows at these.

    Raises:
        OptionError: There is no such feature, or it is never on.
        ManifestError: There is nothing to read.
    """
    options = options or EffectOptions()
    places = dictionary_places(model, Path(folder), options.point)
    dictionary = load_dictionary(folder, model, places.stack)
    if layer not in places.layers or not 0 <= feature < dictionary.size(layer):
        raise OptionError(
            f"There is no feature {feature} of layer {layer}.", f"Choose of layers {list(places.layers)}."
        )
    patient = _patient(model, dictionary, places, layer, items_or_texts(data), options)
    reads = patient.reads()
    tokens = sum(int(read.at(feature).sum()) for read in reads)
    if not tokens:
        raise OptionError(
            f"Feature {feature} of layer {layer} is on at no token of this corpus.",
            "Choose another, or another corpus.",
        )
    chosen = [feature, *_similar(dictionary, reads, layer, feature, options)]
    changes: dict[int, list[np.ndarray]] = {}
    with track("Scaling features", len(chosen) * len(reads), "readings") as task:
        for one in chosen:
            changes[one] = [
                patient.logprobs(n, patient.scaling(one, options.scale)) - read.clean
                for n, read in enumerate(reads)
            ]
            task.advance(len(reads))
    own = _mean_at(reads, changes[feature], feature)
    others = [_mean_at(reads, changes[one], one) for one in chosen[1:]]
    others = [value for value in others if np.isfinite(value)]
    here = [_mean_at(reads, changes[one], feature) for one in chosen[1:]]
    sums = np.array(
        [[c[r.at(feature)].sum(), r.at(feature).sum()] for r, c in zip(reads, changes[feature], strict=True)]
    )
    elsewhere = np.concatenate([c[~r.at(feature)] for r, c in zip(reads, changes[feature], strict=True)])
    low, high = bootstrap(lambda rows: float(rows[:, 0].sum() / rows[:, 1].sum()), sums, seed=options.seed)
    return {
        "layer": layer,
        "feature": feature,
        "scale": options.scale,
        "at": {"change": own, "ci_low": low, "ci_high": high, "tokens": tokens},
        "elsewhere": {
            "change": float(elsewhere.mean()) if len(elsewhere) else None,
            "tokens": len(elsewhere),
        },
        "controls": {
            "features": chosen[1:],
            "at_their_own": others,
            "at_these": here,
            "mean_at_their_own": float(np.mean(others)) if others else None,
            "mean_at_these": float(np.mean(here)) if here else None,
        },
        "p_own": _rarity(own, others),
        "p_these": _rarity(own, here),
        "windows": len(reads),
        "examples": patient.examples(reads, changes[feature], feature),
        "places": places.to_dict(),
        "model": model.describe(),
        "seed": options.seed,
        "versions": versions(),
    }


def screen_features(
    model: Model, folder: Path | str, data: Path | str, count: int, options: EffectOptions | None = None
) -> list[dict[str, Any]]:
    """Features that, to first order, matter most for what is written: which of them to test on other recordings.

    The change of the text's log-probability when a feature is scaled by s is about `(s - 1)` times the sum over places of
    `a (w . g)`, with the activation `a`, the write vector `w` and the gradient `g` of the log-probability (attribution patching,
    Nanda 2023). They are ranked by what is left of that change after two standard errors over the windows, so that a few strong
    moments do not win. It is an estimate alone: test it.

    Args:
        model: The model.
        folder: The dictionary.
        data: Recordings or texts; not those that are tested on.
        count: How many.
        options: Scale, place, language and batch.

    Returns:
        One dict a feature, the most important first: `layer`, `feature`, `estimate` (nats over all its places), `error` (its
        standard error over windows) and `places`.
    """
    options = options or EffectOptions()
    places = dictionary_places(model, Path(folder), options.point)
    dictionary = load_dictionary(folder, model, places.stack)
    patient = _patient(model, dictionary, places, None, items_or_texts(data), options)
    found: dict[int, list[np.ndarray]] = {layer: [] for layer in places.layers}
    with track("Screening", len(patient), "windows or texts") as task:
        for number in range(len(patient)):
            for layer, told in patient.estimates(number, options.scale).items():
                found[layer].append(told)
            task.advance(1)
    scored = []
    for layer, windows in found.items():
        changes, on = np.stack(windows, axis=1)  # (window, feature) each
        total, error = changes.sum(axis=0), changes.std(axis=0) * np.sqrt(len(changes))
        counts = on.sum(axis=0)
        for feature in np.flatnonzero(counts >= _LEAST_PLACES).tolist():
            told = {"estimate": float(total[feature]), "error": float(error[feature])}
            certain = abs(told["estimate"]) - 2 * told["error"]
            scored.append(
                (certain, {"layer": layer, "feature": feature, **told, "places": int(counts[feature])})
            )
    scored.sort(key=lambda one: -one[0])
    return [told for _, told in scored[:count]]


def _rarity(own: float, others: Sequence[float]) -> float:
    """How often a change is at least as far from zero, its own counted."""
    return (1 + sum(abs(value) >= abs(own) for value in others)) / (1 + len(others))


def _mean_at(reads: Sequence[_Read], changes: Sequence[np.ndarray], feature: int) -> float:
    at = [change[read.at(feature)] for read, change in zip(reads, changes, strict=True)]
    found = np.concatenate(at)
    return float(found.mean()) if len(found) else float("nan")


def _similar(
    dictionary: Dictionary, reads: Sequence[_Read], layer: int, feature: int, options: EffectOptions
) -> list[int]:
    """Features that are on about as often and write about as much, by rank of both."""
    count = np.sum([read.count for read in reads], axis=0)
    total = np.sum([read.sum for read in reads], axis=0)
    length = dictionary.decoder(layer, layer, None).float().norm(dim=1).numpy()
    density = count / sum(read.places for read in reads)
    written = total * length / np.maximum(count, 1)
    there = density > 0
    there[feature] = False
    distance = np.abs(np.log((density + 1e-9) / (density[feature] + 1e-9)))
    distance += np.abs(np.log((written + 1e-9) / (written[feature] + 1e-9)))
    order = np.argsort(np.where(there, distance, np.inf))[: _POOL * options.controls]
    order = order[there[order]]
    drawn = np.random.default_rng(options.seed).permutation(len(order))[: options.controls]
    return [int(i) for i in order[np.sort(drawn)]]


# Patients ----------------------------------------------------------------------------------------------------------------


def _patient(
    model: Model,
    dictionary: Dictionary,
    places: Places,
    layer: int | None,
    corpus: Sequence[Item],
    options: EffectOptions,
) -> _Listener | _Reader:
    """A model that reads the corpus, with one layer of features, or with all."""
    if isinstance(model, SpeechModel):
        return _Listener(model, dictionary, places, layer, corpus, options)
    if isinstance(model, LanguageModel):
        return _Reader(model, dictionary, places, layer, corpus)
    raise OptionError(
        f"Features of {model.origin.name} cannot be tested.", "Use Whisper or a language model."
    )


class _Patient(ABC):
    """A model whose feature is scaled."""

    def __init__(self, model: Model, dictionary: Dictionary, places: Places, layer: int | None) -> None:
        self.model, self.dictionary, self.places = model, dictionary, places
        if layer is not None:
            at = places.layers.index(layer)
            self.places = Places(
                places.stack, (layer,), (places.inputs[at],), places.targets and (places.targets[at],),
                places.reads, places.writes, places.model_layers,
            )  # fmt: skip

    def scaling(self, feature: int, scale: float) -> Replacement:
        """What stands there when a feature's part is scaled and the rest stays."""
        (layer,) = self.places.layers
        row = self.dictionary.decoder(layer, layer, torch.tensor([feature]))[0].float()

        def scaled(layer: int, x: Tensor, y: Tensor) -> Tensor:
            return y + (scale - 1) * self._dense(layer, x)[:, feature, None].to(y.device) * row.to(y.device)

        return scaled

    def noting(self, kept: list[Tensor]) -> Replacement:
        """Nothing changed; activations noted."""

        def note(layer: int, x: Tensor, y: Tensor) -> Tensor:
            kept.append(self._dense(layer, x).cpu())
            return y

        return note

    def estimates(self, number: int, scale: float) -> dict[int, np.ndarray]:
        """By layer, `(2, feature)`: the first-order change of a text's log-probability, and the places at which it is on."""
        met: dict[int, tuple[Tensor, Tensor]] = {}

        def wait(layer: int, x: Tensor, y: Tensor) -> Tensor:
            offset = torch.zeros_like(y, requires_grad=True)
            met[layer] = self._dense(layer, x.detach()), offset
            return y + offset

        told = self.told(number, wait).sum()
        gradients = torch.autograd.grad(told, [offset for _, offset in met.values()])
        out = {}
        for (layer, (dense, _)), gradient in zip(met.items(), gradients, strict=True):
            rows = self.dictionary.decoder(layer, layer, None).float().to(gradient.device)
            changes = (scale - 1) * (dense * (gradient.float() @ rows.T)).sum(dim=0)
            out[layer] = torch.stack([changes, (dense != 0).sum(dim=0).float()]).double().cpu().numpy()
        return out

    @abstractmethod
    def told(self, number: int, replace: Replacement) -> Tensor:
        """`(token,)` log-probability of each token of a window or text, with something else in a place."""

    def logprobs(self, number: int, replace: Replacement) -> np.ndarray:
        """The same without a gradient."""
        with torch.no_grad():
            return self.told(number, replace).cpu().numpy()

    def _dense(self, layer: int, x: Tensor) -> Tensor:
        active = self.dictionary.encode(layer, x.float())
        dense = x.new_zeros(len(x), self.dictionary.size(layer), dtype=torch.float32)
        dense[active.pos, active.feature] = active.activation.float()
        return dense


class _Listener(_Patient):
    """A recogniser and its windows, each with the text that it writes."""

    model: SpeechModel

    def __init__(
        self,
        model: SpeechModel,
        dictionary: Dictionary,
        places: Places,
        layer: int | None,
        corpus: Sequence[Item],
        options: EffectOptions,
    ) -> None:
        super().__init__(model, dictionary, places, layer)
        short = [i for i in corpus if i.duration is not None and i.duration <= model.window_seconds]
        windows: list[Item] = [
            *joined(short, model.window_seconds, seed=options.seed),
            *(i for i in corpus if i not in short),
        ]
        self.windows: list[tuple[Tensor, int, Transcript]] = []
        given = DecodeOptions(language=options.language)
        transcripts = transcribe_all(model, windows, given, batch=options.batch, keep_going=True)
        for item, transcript in zip(windows, transcripts, strict=True):
            if isinstance(transcript, AudioError) or not self._ids(transcript):
                continue
            try:
                clip = next(item.windows(model.window_seconds))
            except AudioError:
                continue
            self.windows.append((model.features([clip]), frames_of(model, clip), transcript))
        if not self.windows:
            raise ManifestError("Nothing is heard in these recordings.", "Name recordings of speech.")
        notice(f"{len(self.windows)} windows hold {sum(len(t.ids) for *_, t in self.windows):,} tokens.")

    def reads(self) -> list[_Read]:
        """All windows as they are."""
        found = []
        for number in range(len(self.windows)):
            kept: list[Tensor] = []
            clean = self.logprobs(number, self.noting(kept))
            found.append(_Read.of(clean, torch.cat(kept).numpy(), self._spans(number)))
        return found

    def __len__(self) -> int:
        return len(self.windows)

    def told(self, number: int, replace: Replacement) -> Tensor:
        """`(token,)` of a window."""
        features, frames, transcript = self.windows[number]
        prompt = self.model.prompt(transcript.language)
        ids = [*prompt, *self._ids(transcript)]
        heard = self.places.stack == "encoder"
        where = within([frames]) if heard else from_position(len(prompt))
        tokens = torch.tensor([ids], device=self.model.device)
        with spliced(self.model, self.places, replace, where):
            logits = DecoderSession(self.model, self.model.encode(features)).step(tokens)
        logprobs = logits[0, len(prompt) - 1 : -1].float().log_softmax(dim=-1)
        return logprobs.gather(1, tokens[0, len(prompt) :, None])[:, 0]

    @staticmethod
    def _ids(transcript: Transcript) -> list[int]:
        """Of the first window."""
        if not transcript.segments:
            return []
        first = transcript.segments[0]
        return transcript.ids[first.first_token : first.end_token]

    def _spans(self, number: int) -> np.ndarray:
        transcript = self.windows[number][2]
        tokens = transcript.tokens[: len(self._ids(transcript))]
        if self.places.stack == "encoder":
            step = self.model.frame_seconds
            return np.array(
                [
                    [max(0, round((t.start - _AROUND) / step)), round((t.end + _AROUND) / step) + 1]
                    for t in tokens
                ]
            )
        # At a token's position the next one is written; the first one's is in the prompt, which stays as it is.
        return np.array([[max(i - 1, 0), i] for i in range(len(tokens))])

    def examples(
        self, reads: Sequence[_Read], changes: Sequence[np.ndarray], feature: int
    ) -> list[dict[str, Any]]:
        """Tokens that change most where the feature is on."""
        found = [
            {"text": token.text, "start": token.start, "window": number, "change": float(change[i])}
            for number, (read, change) in enumerate(zip(reads, changes, strict=True))
            for i, token in enumerate(self.windows[number][2].tokens[: len(change)])
            if read.at(feature)[i]
        ]
        return sorted(found, key=lambda e: -abs(e["change"]))[:12]


class _Reader(_Patient):
    """A language model and pieces of texts."""

    model: LanguageModel

    def __init__(
        self,
        model: LanguageModel,
        dictionary: Dictionary,
        places: Places,
        layer: int | None,
        corpus: Sequence[Item],
    ) -> None:
        super().__init__(model, dictionary, places, layer)
        start = [model.tokenizer.bos_token_id] if model.tokenizer.bos_token_id is not None else []
        self.first = len(start)
        pieces = [
            ids[at : at + CONTEXT]
            for item in corpus
            for ids in [model.tokenizer(item.text or "", add_special_tokens=False)["input_ids"]]
            for at in range(0, len(ids), CONTEXT)
        ]
        self.pieces = [[*start, *ids] for ids in pieces if len(ids) > 1]
        if not self.pieces:
            raise ManifestError("The texts are empty.", "Give texts of several tokens.")

    def reads(self) -> list[_Read]:
        """All pieces as they are."""
        found = []
        for number, ids in enumerate(self.pieces):
            kept: list[Tensor] = []
            clean = self.logprobs(number, self.noting(kept))
            spans = np.array(
                [[max(i - 1 - self.first, 0), max(i - self.first, 0)] for i in range(1, len(ids))]
            )
            found.append(_Read.of(clean, torch.cat(kept).numpy(), spans))
        return found

    def __len__(self) -> int:
        return len(self.pieces)

    def told(self, number: int, replace: Replacement) -> Tensor:
        """`(token,)` of a piece, without its first token."""
        tokens = torch.tensor([self.pieces[number]], device=self.model.device)
        where = from_position(self.first) if self.first else everywhere
        with spliced(self.model, self.places, replace, where):
            logits = self.model.forward(tokens).logits
        return logits[0, :-1].float().log_softmax(dim=-1).gather(1, tokens[0, 1:, None])[:, 0]

    def examples(
        self, reads: Sequence[_Read], changes: Sequence[np.ndarray], feature: int
    ) -> list[dict[str, Any]]:
        """Tokens that change most where the feature is on."""
        found = [
            {
                "text": self.model.tokenizer.decode([self.pieces[number][i + 1]]),
                "start": None,
                "window": number,
                "change": float(change[i]),
            }
            for number, (read, change) in enumerate(zip(reads, changes, strict=True))
            for i in np.flatnonzero(read.at(feature)).tolist()
        ]
        return sorted(found, key=lambda e: -abs(e["change"]))[:12]
