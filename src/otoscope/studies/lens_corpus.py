"""`lens` over a corpus: what the layers know on average, with intervals over recordings."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from otoscope.corpora import Item
from otoscope.documents.card import card_of
from otoscope.errors import AudioError
from otoscope.figures.curves import lens_curves
from otoscope.figures.style import Saved
from otoscope.outcomes import OutputType, Rate, bootstrap
from otoscope.progress import track
from otoscope.showing import Shows
from otoscope.studies.lens import NOTES, Lens, Reader, rounded
from otoscope.studies.transcription import Skipped

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(eq=False)
class CorpusLens(Shows):
    """What the layers of a model know over a corpus; grows recording by recording and keeps sums alone.

    Attributes:
        record: Model, settings, versions and seed.
        recordings: How many were read.
        skipped: Those that could not be read.
    """

    record: Mapping[str, Any]
    recordings: int = 0
    skipped: list[Skipped] = field(default_factory=list)
    _sums: list[dict[str, np.ndarray]] = field(default_factory=list, repr=False)
    _types: list[Counter] = field(default_factory=list, repr=False)

    def add(self, lens: Lens) -> None:
        """Count one recording in."""
        self.recordings += 1
        self._sums.append(_layer_sums(lens))
        for layer in lens.encoder:
            if layer.layer == len(self._types):
                self._types.append(Counter())
            self._types[layer.layer][layer.type] += 1

    def card(self) -> dict[str, Any]:
        """The summary's numbers, layer by layer."""
        return card_of("Lens over a corpus", self.summary()).model_dump()

    def summary(self) -> dict[str, Any]:
        """JSON-ready: by layer means over tokens with 95 % intervals over recordings, and encoder types with Wilson intervals."""
        tokens = int(sum(sums["p_final"][1, 0] for sums in self._sums))
        layers = len(self._sums[0]["p_final"][0]) if self._sums else 0
        return {
            "recordings": self.recordings,
            "tokens": tokens,
            "layers": [self._summed(layer) for layer in range(layers)] if tokens else [],
            "encoder": [
                {
                    "layer": i,
                    "types": {str(kind): Rate(types[kind], types.total()).to_dict() for kind in OutputType},
                }
                | {"unknown": types[None]}
                for i, types in enumerate(self._types)
            ],
        }

    def plot(self, path: Saved = None, *, dark: bool = False) -> Figure:
        """Draw means by layer with their intervals for a paper; see `otoscope.figures`.

        Args:
            path: Also write it there, as .png, .svg or .pdf.
            dark: On a dark ground.

        Raises:
            OutputError: The file cannot be written.
        """
        return lens_curves("", self.summary(), str(self.record["model"]), path=path, dark=dark)

    def _summed(self, layer: int) -> dict[str, Any]:
        out: dict[str, Any] = {"layer": layer}
        for name in self._sums[0]:
            sums = np.array([each[name][:, layer] for each in self._sums])
            out[name] = _mean_with_interval(sums[:, 0], sums[:, 1], int(self.record["seed"]))
        return out


def _layer_sums(lens: Lens) -> dict[str, np.ndarray]:
    """For each measure `(2, layer)`: its sum over the tokens that have it, and how many those are."""
    layers = len(lens.reading.p_final)
    saturation = np.array([math.inf if s is None else s for s in lens.reading.saturation])
    values = {
        "p_final": lens.reading.p_final.double().numpy(),
        "saturated": (saturation[None] <= np.arange(layers)[:, None]).astype(float),
    }
    if lens.closeness:
        values |= {
            "phoneme_error": lens.closeness.phoneme_error.numpy(),
            "cosine": lens.closeness.cosine.numpy(),
        }
    return {name: np.stack([np.nansum(v, axis=1), np.isfinite(v).sum(axis=1)]) for name, v in values.items()}


def _mean_with_interval(sums: np.ndarray, counts: np.ndarray, seed: int) -> dict[str, Any]:
    """Mean over tokens; whole recordings are drawn for the interval, because their tokens resemble each other."""
    if not counts.sum():
        return {"mean": None, "ci_low": None, "ci_high": None, "n": 0}
    low, high = bootstrap(lambda s, n: s.sum() / n.sum(), sums, counts, seed=seed)
    mean = rounded(sums.sum() / counts.sum())
    return {"mean": mean, "ci_low": rounded(low), "ci_high": rounded(high), "n": int(counts.sum())}


def lens_corpus(reader: Reader, items: Sequence[Item], file: IO[bytes] | None = None) -> CorpusLens:
    """Read recordings one at a time; those that cannot be read are named and skipped.

    Args:
        reader: Model and settings.
        items: The recordings; of those longer than a window, the first window.
        file: Gets the JSON, each recording's reading as soon as it is there, so that memory stays bounded.

    Raises:
        AudioError: None of them can be read.
    """
    corpus = CorpusLens(reader.record())
    put = file.write if file else (lambda _: None)
    put(b'{"items": [')
    errors = []
    with track("Reading the layers", len(items), "recordings") as task:
        for item in items:
            try:
                lens = reader.recording(item)
            except AudioError as error:
                errors.append(error)
                corpus.skipped.append(Skipped(item.audio_filepath, error.reason, error.remedy))
            else:
                put((b",\n" if corpus.recordings else b"\n") + _encoded(_described(item) | lens.readings()))
                corpus.add(lens)
            task.advance()
    if not corpus.recordings:
        raise _none_readable(errors)
    rest = {
        "summary": corpus.summary(),
        "skipped": [asdict(s) for s in corpus.skipped],
        "notes": NOTES,
        **corpus.record,
    }
    put(b"\n],\n" + _encoded(rest)[1:] + b"\n")
    return corpus


def _described(item: Item) -> dict[str, Any]:
    known: dict[str, Any] = {"audio_filepath": item.audio_filepath}
    if item.offset:
        known["offset"] = item.offset
    return known if item.text is None else known | {"reference": item.text}


def _encoded(data: Any) -> bytes:
    # File names need not be Unicode: "backslashreplace" writes their unpaired surrogates as JSON spells them.
    return json.dumps(data, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace")


def _none_readable(errors: Sequence[AudioError]) -> AudioError:
    if not errors:
        return AudioError("There are no recordings.", "Name at least one.")
    return AudioError(
        f"None of the {len(errors)} recordings can be read; the first: {errors[0].reason}", errors[0].remedy
    )
