"""How close the candidates of a layer are to the token that was written, in sound and in meaning.

"Beyond Transcription" (arXiv 2508.15882), section on the logit lens, reports both for the five best candidates; it names
neither phonemiser nor embedding. Here phonemes come from espeak-ng, and meaning from static word embeddings (WordLlama, the
extra `semantic`) or else from the model's own unembedding. The result says which was used.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from otoscope.audio import espeak
from otoscope.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from otoscope.lenses.logit_lens import LensReading
    from otoscope.models.base import Model

Meaning = Literal["wordllama", "unembedding"]

_ESPEAK_NAMES = {"zh": "cmn", "no": "nb"}  # where espeak-ng has another code than Whisper


@dataclass(frozen=True, eq=False)
class Closeness:
    """Candidates against the written token, averaged over a layer's candidates; float64.

    A token or candidate is compared as its text by itself, blanks stripped, so a piece of a word counts as that piece.
    Candidates without a letter or digit are left out; NaN where the written token has none, or no candidate has.

    Attributes:
        phoneme_error: `(layer, token)` phoneme edits over phonemes of the written token: 0 is the same sound, and a longer
            candidate can exceed 1. NaN without espeak-ng, or where it cannot speak the language.
        cosine: `(layer, token)` cosine similarity of the embeddings.
        settings: Which phonemiser and which embedding were used, and how many candidates.
    """

    phoneme_error: Tensor
    cosine: Tensor
    settings: dict[str, str | int | None]


class ClosenessMeter:
    """Measures closeness; every string is phonemised and embedded once for as long as the meter lives.

    Args:
        model: The model, with a tokenizer.
        language: Whose rules of pronunciation to use.
        meaning: Which embedding; None: WordLlama where it is installed.

    Raises:
        OptionError: The model has no tokenizer, or the embedding asked for is not installed.
    """

    def __init__(self, model: Model, language: str = "en", meaning: Meaning | None = None) -> None:
        if model.tokenizer is None:
            raise OptionError(
                "This model has no tokenizer, so its tokens have no text.", "Load one that has."
            )
        if meaning == "wordllama" and _wordllama_folder() is None:
            raise OptionError(
                "WordLlama is not installed.", "Install it: `pip install 'otoscope[semantic]'`."
            )
        self.model = model
        self.meaning: Meaning = meaning or ("wordllama" if _wordllama_folder() else "unembedding")
        self.voice = _voice_of(language)
        self._texts: dict[int, str] = {}
        self._phonemes: dict[str, list[str]] = {}
        self._errors: dict[tuple[str, str], float] = {}
        self._vectors: dict[str | int, np.ndarray] = {}

    def __call__(self, reading: LensReading, written: Sequence[int] | Tensor) -> Closeness:
        """Compare the candidates of a reading with the written tokens `(token,)`."""
        layers, tokens, k = reading.top_ids.shape
        values = np.full((2, layers, tokens), np.nan)
        for t, final in enumerate(map(int, written)):
            for layer in range(layers):
                values[:, layer, t] = self._of(reading.top_ids[layer, t].tolist(), final)
        settings: dict[str, str | int | None] = {
            "candidates": k,
            "phonemes": f"espeak-ng {self.voice}" if self.voice else None,
            "embedding": EMBEDDINGS[self.meaning],
        }
        return Closeness(torch.from_numpy(values[0]), torch.from_numpy(values[1]), settings)

    def _of(self, candidates: Sequence[int], final: int) -> tuple[float, float]:
        there = [i for i in candidates if self._text(i)]
        if not self._text(final) or not there:
            return float("nan"), float("nan")
        cosines = [float(self._vector(i) @ self._vector(final)) for i in there]
        errors = (
            [self._error(self._text(i), self._text(final)) for i in there] if self.voice else [float("nan")]
        )
        return float(np.mean(errors)), float(np.mean(cosines))

    def _text(self, token: int) -> str:
        """Text of a token, or nothing if it holds no letter and no digit."""
        if token not in self._texts:
            special = token in self.model.tokenizer.all_special_ids
            text = "" if special else self.model.tokenizer.decode([token]).strip()
            self._texts[token] = text if any(map(str.isalnum, text)) else ""
        return self._texts[token]

    def _error(self, text: str, final: str) -> float:
        if (text, final) not in self._errors:
            self._errors[text, final] = phoneme_error(self._sounds(text), self._sounds(final))
        return self._errors[text, final]

    def _sounds(self, text: str) -> list[str]:
        if text not in self._phonemes:
            spelled = espeak.phonemes(text, str(self.voice), stress=False, separator="_")
            self._phonemes[text] = [sound for sound in spelled.replace(" ", "_").split("_") if sound]
        return self._phonemes[text]

    def _vector(self, token: int) -> np.ndarray:
        key = self._text(token) if self.meaning == "wordllama" else token
        if key not in self._vectors:
            raw = _wordllama_vector(key) if isinstance(key, str) else self._unembedded(key)
            self._vectors[key] = raw / max(float(np.linalg.norm(raw)), 1e-12)
        return self._vectors[key]

    def _unembedded(self, token: int) -> np.ndarray:
        return (self._rows[token].double() - self._mean_row).cpu().numpy()

    @cached_property
    def _rows(self) -> Tensor:
        return self.model.hf.get_output_embeddings().weight.detach()  # type: ignore[union-attr,return-value]

    @cached_property
    def _mean_row(self) -> Tensor:
        """Shared by all rows; with it in place every pair would look alike."""
        return self._rows.mean(dim=0, dtype=torch.float64)


EMBEDDINGS: dict[Meaning, str] = {
    "wordllama": "WordLlama l2_supercat 256",
    "unembedding": "the model's unembedding, centred over the vocabulary",
}
"""What results call the embeddings."""


def phoneme_error(candidate: Sequence[str], final: Sequence[str]) -> float:
    """Edits that turn one phoneme sequence into the other, over the length of `final`; NaN if that is empty."""
    import jiwer

    if not final:
        return float("nan")
    return float(jiwer.wer(" ".join(final), " ".join(candidate)))


def _voice_of(language: str) -> str | None:
    """espeak-ng's code of a language, or None where it is not installed or cannot speak it."""
    if not espeak.available():
        return None
    code = _ESPEAK_NAMES.get(language, language)
    return code if code in espeak.accents() else None


# Meaning -----------------------------------------------------------------------------------------------------------------


def _wordllama_folder() -> Path | None:
    """Where WordLlama's files are, if it is installed; the package itself is not imported (it reconfigures logging)."""
    spec = find_spec("wordllama")
    folder = (
        Path(next(iter(spec.submodule_search_locations)))
        if spec and spec.submodule_search_locations
        else None
    )
    return folder if folder and (folder / _WEIGHTS).is_file() and (folder / _TOKENIZER).is_file() else None


_WEIGHTS = Path("weights", "l2_supercat_256.safetensors")
_TOKENIZER = Path("tokenizers", "l2_supercat_tokenizer_config.json")


@cache
def _wordllama() -> tuple[np.ndarray, object]:
    """Embedding table and tokenizer from the installed wheel.

    WordLlama's own loader looks for the tokenizer in a folder that does not exist and then asks a hub for it.
    """
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer

    folder = _wordllama_folder()
    if folder is None:
        raise OptionError("WordLlama is not installed.", "Install it: `pip install 'otoscope[semantic]'`.")
    return load_file(folder / _WEIGHTS)["embedding.weight"], Tokenizer.from_file(str(folder / _TOKENIZER))


def _wordllama_vector(text: str) -> np.ndarray:
    table, tokenizer = _wordllama()
    ids = tokenizer.encode(text, add_special_tokens=False).ids  # type: ignore[attr-defined]
    return table[ids].astype(np.float64).mean(axis=0) if ids else np.zeros(table.shape[1])
