"""Repairs for other programs: a Transformers checkpoint, a CTranslate2 model for faster-whisper, and a check that texts agree."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from otoscope.activations import Edit
from otoscope.audio import Clip
from otoscope.errors import ModelError, OptionError
from otoscope.files import atomic_folder, atomic_write
from otoscope.mending.applying import emptiable, repaired, swapped
from otoscope.mending.baking import Baked, bake
from otoscope.mending.repair import Repair, facts_of, require_empty
from otoscope.models.decoding import batches
from otoscope.models.loading import load_model
from otoscope.models.transcribing import transcribe_all
from otoscope.models.transcripts import DecodeOptions, Transcript
from otoscope.models.whisper import SpeechModel
from otoscope.outcomes import Rate, is_loop
from otoscope.progress import track
from otoscope.showing import Shows
from otoscope.text_values import object_in
from otoscope.versions import versions

MEND = "mend"
"""Folder inside of an exported checkpoint that holds what could not be baked."""

RECORD = "otoscope_export.json"
"""File inside of an export that says what it was made of."""

PROCESSOR = "mended.py"

_PROCESSOR_TEXT = '''"""Transcribes with what could not be baked into the weights beside this file: {what}.

    python {file} recording.wav [...]
"""

import sys
from pathlib import Path

import otoscope as oto
from otoscope.mending.applying import repaired, swapped
from otoscope.mending.repair import load_repair

here = Path(__file__).parent


def transcribe(*recordings):
    """The text of each recording."""
    model = oto.load_model(here)
    with repaired(model, load_repair(here / "{folder}")):
        return [transcript.text for transcript in oto.transcribe_all(model, recordings)]


if __name__ == "__main__":
    print(*transcribe(*sys.argv[1:]), sep="\\n")
'''


@dataclass(frozen=True)
class Exported(Shows):
    """What was written.

    Attributes:
        folder: The checkpoint.
        baked: Names of the parameters that differ from the model's.
        left: What could not be baked, in words, with the reason; `mended.py` in the folder applies it.
    """

    folder: Path
    baked: tuple[str, ...]
    left: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"folder": str(self.folder), "baked": list(self.baked), "left": list(self.left)}


def export_transformers(model: SpeechModel, repair: Repair, folder: Path | str) -> Exported:
    """Write the mended model as a Transformers checkpoint: safetensors, configurations, tokenizer, feature extractor.

    What cannot be baked (see `otoscope.mending.baking`), and the loop breaker, go into a repair beside it, with a small program
    that applies it. A folder that already holds this very export is kept as it is, so that a command that was killed on its way
    can be given again.

    Args:
        model: The model that the repair was made for.
        repair: The repair.
        folder: A new or empty folder.

    Raises:
        OptionError: The repair is for another model, or waits for alarms.
        ModelError: The model is no Whisper model, or has no processor.
        OutputError: The folder holds files or cannot be written.
    """
    if model.processor is None:
        raise ModelError(
            f"{model.origin.name} has no tokenizer.", "Export a model that was loaded, not built."
        )
    if repair.when == "alarm":
        raise OptionError(
            f"{repair.name} waits for alarms, and other programs have no monitor.",
            "Export a repair that always acts; use this one with --mend, or with HallucinationMonitor.",
        )
    source = made_of(repair)
    if done := require_export_place(folder, source):
        return Exported(Path(folder), tuple(done["baked"]), tuple(done["left"]))
    baked = bake(model, repair)
    with atomic_folder(folder) as place:
        with swapped(model, baked.weights), emptiable(model) if repair.may_be_empty else nullcontext():
            model.hf.save_pretrained(place)
        model.processor.save_pretrained(place)
        model.processor.feature_extractor.save_pretrained(place)  # where other programs look for it
        left = _save_rest(place, repair, baked)
        _record(place, {"made_of": source, "baked": sorted(baked.weights), "left": list(left)})
    return Exported(Path(folder), tuple(sorted(baked.weights)), left)


def made_of(repair: Repair, precision: str | None = None) -> dict[str, str]:
    """What an export is made of: the repair's digest (which holds the model's), the version, the precision of CTranslate2's."""
    told = {"repair": repair.digest(), "otoscope": versions()["otoscope"]}
    return told | ({"precision": precision} if precision else {})


def require_export_place(folder: Path | str, source: Mapping[str, str]) -> dict[str, Any] | None:
    """Refuse a folder that holds anything but a finished export of just this; give what that export's record says.

    Raises:
        OutputError: It holds something else.
    """
    try:
        record = object_in(Path(folder) / RECORD)
    except (OSError, ValueError):
        record = {}
    if record.get("made_of") == source:  # a folder appears as a whole, so what has its record is finished
        return record
    require_empty(folder)
    return None


def _record(place: Path, told: dict[str, Any]) -> None:
    with atomic_write(place / RECORD) as file:
        json.dump(told, file, indent=1)


def _save_rest(place: Path, repair: Repair, baked: Baked) -> tuple[str, ...]:
    """What cannot be baked as a repair of the exported checkpoint, and the program that applies it."""
    edits = tuple(left.change for left in baked.left if isinstance(left.change, Edit))
    told = [str(left) for left in baked.left]
    if repair.breaker:
        told.append("the loop breaker: it looks at the written text")
    if repair.stop:
        told.append("the end at an alarm: the weights know no monitor")
    if not told:
        return ()
    exported = load_model(place, "cpu")
    rest = replace(repair, model=facts_of(exported), edits=edits, weights={}, may_be_empty=False)
    rest.save(place / MEND)
    text = _PROCESSOR_TEXT.format(what="; ".join(told), file=PROCESSOR, folder=MEND)
    with atomic_write(place / PROCESSOR) as file:
        file.write(text)
    return tuple(told)


# CTranslate2 ------------------------------------------------------------------------------------------------------------

_COPIED = ("tokenizer.json", "preprocessor_config.json")
PRECISIONS = (
    "float32",
    "float16",
    "bfloat16",
    "int8",
    "int8_float32",
    "int8_float16",
    "int8_bfloat16",
    "int16",
)


def _required(name: str) -> Any:
    """A package of the extra `ct2`.

    Raises:
        OptionError: It is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise OptionError(
            f"{name} is not installed.", "Install it with `pip install otoscope[ct2]`."
        ) from error


def export_ctranslate2(checkpoint: Path | str, folder: Path | str, precision: str = "float32") -> Path:
    """Convert an exported checkpoint with CTranslate2's own converter, for faster-whisper. What was not baked is not in it.

    A folder that already holds this very conversion is kept as it is.

    Args:
        checkpoint: A folder that `export_transformers` wrote.
        folder: A new or empty folder.
        precision: Of the weights; `float32` changes none.

    Raises:
        OptionError: ctranslate2 is not installed, or there is no such precision.
        OutputError: The folder holds files or cannot be written.
    """
    converters = _required("ctranslate2.converters")
    checkpoint = Path(checkpoint)
    if precision not in PRECISIONS:
        raise OptionError(f"There is no precision {precision!r}.", f"Choose one of: {', '.join(PRECISIONS)}.")
    source = object_in(checkpoint / RECORD)["made_of"] | {"precision": precision}
    if require_export_place(folder, source):
        return Path(folder)
    with atomic_folder(folder) as place:
        converter = converters.TransformersConverter(str(checkpoint), copy_files=list(_COPIED))
        # Beside the lock and not over it: the converter makes its folder itself, and one made anew would be nobody's.
        made = Path(converter.convert(str(place / "converted"), quantization=precision))
        for path in sorted(made.iterdir()):
            path.replace(place / path.name)
        made.rmdir()
        _record(place, {"made_of": source})
    return Path(folder)


# Do they write the same? -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Parity(Shows):
    """Whether another program writes what the mended model writes.

    Attributes:
        name: The program.
        texts: Its texts, one a recording.
        expected: The mended model's, without what was not baked.
    """

    name: str
    texts: tuple[str, ...]
    expected: tuple[str, ...]

    @property
    def same(self) -> Rate:
        """Share of recordings with the same text, up to spaces at its ends."""
        return Rate.of([a == b for a, b in zip(self.texts, self.expected, strict=True)])

    @property
    def loops(self) -> int:
        """How many of the mended model's texts loop, so that a loop breaker would have something to do."""
        return sum(is_loop(text) for text in self.expected)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: the rate, how many texts loop, and the texts that differ."""
        pairs = enumerate(zip(self.expected, self.texts, strict=True))
        different = [{"recording": i, "expected": a, "found": b} for i, (a, b) in pairs if a != b]
        return {
            "program": self.name,
            "same": self.same.to_dict(),
            "loops": self.loops,
            "different": different,
        }


def check_exports(
    model: SpeechModel,
    repair: Repair,
    clips: Sequence[Clip],
    checkpoint: Path | str,
    converted: Path | str | None = None,
    *,
    max_tokens: int = 224,
    batch: int | None = None,
) -> list[Parity]:
    """Transcribe clips in the mended model and in what was exported, under the same options.

    Greedy, without timestamps, fallback, voice detection or earlier text, with the checkpoint's suppress lists; the language is
    the one that the mended model decoded in. What was not baked, the loop breaker among it, is left out on both sides.

    Args:
        model: The model that the repair was made for.
        repair: The repair.
        clips: Of at most one window each.
        checkpoint: The exported Transformers checkpoint; it is run by Transformers' own `generate`.
        converted: The CTranslate2 model, which is run by faster-whisper; None: it is left out.
        max_tokens: Tokens written at most.
        batch: Clips at once.
    """
    options = DecodeOptions(max_positions=min(model.max_positions, len(model.prompt()) + max_tokens))
    left = [change.change for change in bake(model, repair).left]
    edits = tuple(edit for edit in repair.edits if not any(edit is other for other in left))
    weighed = replace(
        repair, breaker=None, features=(), edits=edits, when="always", stop=False, false_alarms=None
    )
    with repaired(model, weighed):
        transcripts = [
            t for t in transcribe_all(model, clips, options, batch=batch) if isinstance(t, Transcript)
        ]
    expected = tuple(t.text for t in transcripts)
    languages = [t.language for t in transcripts]
    texts = _transformers_texts(model, checkpoint, clips, languages, max_tokens, batch or model.batch)
    found = [Parity("transformers", tuple(texts), expected)]
    if converted is not None:
        texts = _faster_whisper_texts(model, converted, clips, languages, max_tokens)
        found.append(Parity("faster-whisper", tuple(texts), expected))
    return found


def _transformers_texts(
    model: SpeechModel,
    checkpoint: Path | str,
    clips: Sequence[Clip],
    languages: Sequence[str],
    max_tokens: int,
    batch: int,
) -> list[str]:
    """Texts by plain Transformers."""
    from transformers import WhisperForConditionalGeneration, WhisperProcessor

    hf = WhisperForConditionalGeneration.from_pretrained(checkpoint, dtype=model.dtype, local_files_only=True)
    processor = WhisperProcessor.from_pretrained(checkpoint, local_files_only=True)
    texts = []
    with track("Transcribing with Transformers", len(clips), "clips") as task:
        for chunk in batches(zip(clips, languages, strict=True), batch):
            sounds = [clip.samples for clip, _ in chunk]
            features = processor.feature_extractor(sounds, sampling_rate=16000, return_tensors="pt")
            asked: dict[str, Any] = {"max_new_tokens": max_tokens, "return_timestamps": False}
            if model.is_multilingual:
                asked |= {"language": [language for _, language in chunk], "task": "transcribe"}
            with torch.no_grad():
                ids = hf.generate(features["input_features"].to(hf.dtype), **asked)  # type: ignore[operator]
            texts += [text.strip() for text in processor.batch_decode(ids, skip_special_tokens=True)]
            task.advance(len(chunk))
    return texts


def _faster_whisper_texts(
    model: SpeechModel,
    converted: Path | str,
    clips: Sequence[Clip],
    languages: Sequence[str],
    max_tokens: int,
) -> list[str]:
    """Texts by faster-whisper.

    It is given whole windows: a shorter sound it would fill up with zeros in the spectrogram, which is not the spectrogram of
    silence that Whisper is trained on, so that any model writes other texts there.
    """
    window = round(16000 * model.window_seconds)
    whisper = _required("faster_whisper").WhisperModel(
        str(converted),
        device="cpu",
        compute_type="float32",
        cpu_threads=torch.get_num_threads(),
        local_files_only=True,
    )
    # CTranslate2 writes half of the length that it is allowed, as OpenAI's own decoding does.
    most = 2 * min(max_tokens, model.max_positions // 2) - len(model.prompt())
    never = list(getattr(model.hf.generation_config, "suppress_tokens", None) or [])
    texts = []
    with track("Transcribing with faster-whisper", len(clips), "clips") as task:
        for clip, language in zip(clips, languages, strict=True):
            whole = np.pad(clip.samples, (0, window - len(clip.samples)))
            segments, _ = whisper.transcribe(
                whole, language=language, beam_size=1, temperature=0.0, compression_ratio_threshold=None,
                log_prob_threshold=None, no_speech_threshold=None, condition_on_previous_text=False,
                without_timestamps=True, vad_filter=False, suppress_tokens=never, max_new_tokens=most,
            )  # fmt: skip
            texts.append("".join(segment.text for segment in segments).strip())
            task.advance()
    return texts
