"""`lens`: what each layer knows, of one recording, of a prompt, or of a corpus with intervals.

One pass a recording: it is encoded once and decoded once, one teacher-forced pass is read by the logit lens, closeness and
attribution, and the encoder lens decodes all layers as one batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from otoscope.audio import Clip
from otoscope.corpora import Item
from otoscope.errors import ModelError, OptionError
from otoscope.figures.heat_map import lens_figure
from otoscope.figures.style import Saved
from otoscope.lenses.attribution import DirectAttribution, attribution_points, direct_attribution
from otoscope.lenses.closeness import Closeness, ClosenessMeter
from otoscope.lenses.encoder_lens import audio_encoder_lens, bounded_encoder_lens, room_of
from otoscope.lenses.listening import first_window, read_again, window_note, write
from otoscope.lenses.logit_lens import CAVEAT, LensReading, logit_lens
from otoscope.models.causal_lm import LanguageModel
from otoscope.models.decoding import batches
from otoscope.models.hearing import listen
from otoscope.models.qwen2_audio import AudioLanguageModel
from otoscope.models.transcripts import DecodeOptions
from otoscope.models.whisper import SpeechModel
from otoscope.outcomes import OutputType, output_type
from otoscope.showing import Shows
from otoscope.versions import versions

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from otoscope.activations import ActivationCache
    from otoscope.lenses.tuned_lens import TunedLens
    from otoscope.models.base import Model

INSTRUCTION = "<|audio_bos|><|AUDIO|><|audio_eos|>Transcribe the speech."
"""What Qwen2-Audio is asked, unless a prompt is given."""

NOTES = (
    CAVEAT,
    "Probabilities are of the unfiltered distribution: decoding may have suppressed its most probable token.",
)

_DIGITS = 6


@dataclass(frozen=True)
class LensSettings:
    """What to read.

    Attributes:
        language: Language to decode in; None: detect. Candidates are pronounced in it, too.
        top: Candidates a layer.
        closeness: Also measure how close candidates are in sound and meaning.
        attribution: Also split each token's logit into parts.
        encoder: Also let the decoder write from every encoder layer.
        max_tokens: Tokens that an encoder layer writes at most; None: 100, or twice the transcript if that is more.
        batch: Encoder layers decoded at once; None: all. Of a large model each takes about half a gigabyte.
        prompt: What an audio language model is asked.
        seed: Of the bootstrap intervals of a corpus; the readings have nothing random.
    """

    language: str | None = None
    top: int = 5
    closeness: bool = False
    attribution: bool = False
    encoder: bool = True
    max_tokens: int | None = None
    batch: int | None = None
    prompt: str = INSTRUCTION
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("top", "max_tokens", "batch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise OptionError(f"{name} is {value}.", "Give 1 or more.")


@dataclass(frozen=True)
class EncoderLayer:
    """What was written from one encoder layer; `type` is None where nothing tells what was said."""

    layer: int
    text: str
    type: OutputType | None


@dataclass(frozen=True, eq=False)
class Lens(Shows):
    """The reading of one recording or prompt; layers and tokens are counted from 0.

    Attributes:
        source: Path of the recording, or None.
        text: What was written; of a prompt, the prompt.
        ids: Written tokens; of a prompt, the token predicted after each of its positions.
        texts: Text of every token that occurs, by id.
        after: Of a prompt, the text of the token at each position; else None.
        reading: The logit lens.
        closeness: Of the candidates, if asked for.
        attribution: Of the logits, if asked for.
        encoder: What was written from each encoder layer.
        typed_against: What the encoder's texts were compared with: `reference` or `transcript`.
        start: Where the window begins, in seconds.
        duration: Its length in seconds; None without sound.
        recording_duration: Length of the whole recording in seconds.
        record: Model, settings, versions and seed.
    """

    source: str | None
    text: str
    ids: tuple[int, ...]
    texts: Mapping[int, str]
    after: tuple[str, ...] | None
    reading: LensReading
    closeness: Closeness | None
    attribution: DirectAttribution | None
    encoder: tuple[EncoderLayer, ...]
    typed_against: str | None
    start: float
    duration: float | None
    recording_duration: float | None
    record: Mapping[str, Any]

    def cautions(self) -> list[str]:
        """What a reader must know about the window."""
        if self.duration is None:
            return []
        return window_note(self.start, self.duration, self.recording_duration or 0.0, "read")

    def to_dict(self) -> dict[str, Any]:
        """The reading and its record, JSON-ready."""
        return self.readings() | {"notes": [*self.cautions(), *NOTES]} | dict(self.record)

    def plot(self, path: Saved = None, *, dark: bool = False) -> Figure:
        """Draw the logit lens for a paper; see `otoscope.figures`.

        Args:
            path: Also write it there, as .png, .svg or .pdf.
            dark: On a dark ground.

        Raises:
            OutputError: The file cannot be written.
            OptionError: No token was written.
        """
        title = f"{self.source or 'prompt'} · {self.record['model']}"
        return lens_figure(self.to_dict()["tokens"], title, path=path, dark=dark)

    def readings(self) -> dict[str, Any]:
        """The reading alone, JSON-ready."""
        tokens = [self._token(i) for i in range(len(self.ids))]
        encoder = [asdict(layer) for layer in self.encoder]
        out: dict[str, Any] = {"text": self.text, "tokens": tokens, "encoder": encoder}
        if self.typed_against:
            out["encoder_typed_against"] = self.typed_against
        if self.closeness:
            out["closeness"] = self.closeness.settings
        if self.duration is not None:
            out |= {"start": round(self.start, 3), "duration": round(self.duration, 3)}
            out["recording_duration"] = round(self.recording_duration or self.duration, 3)
        return out

    def _token(self, i: int) -> dict[str, Any]:
        layers = [self._layer(i, layer) for layer in range(len(self.reading.p_final))]
        told: dict[str, Any] = {"token": i, "id": self.ids[i], "text": self.texts[self.ids[i]]}
        told |= {"saturation_layer": self.reading.saturation[i], "layers": layers}
        if self.after is not None:
            told["after"] = self.after[i]
        if self.attribution:
            told["attribution"] = _attributed(self.attribution, i)
        return told

    def _layer(self, i: int, layer: int) -> dict[str, Any]:
        told = self.reading.at(layer, i, self.texts.__getitem__)
        told["top"] = [one | {"p": rounded(one["p"])} for one in told["top"]]
        told |= {name: rounded(told[name]) for name in ("p_final", "entropy")}
        if self.closeness:
            told["phoneme_error"] = rounded(self.closeness.phoneme_error[layer, i])
            told["cosine"] = rounded(self.closeness.cosine[layer, i])
        return told


def _attributed(attribution: DirectAttribution, i: int) -> dict[str, Any]:
    """One token's logit and its parts, rounded; heads are `(layer, head)`."""
    values = attribution.component[:, i].tolist()
    heads = {part: _rounded_all(by_head[:, :, i].tolist()) for part, by_head in attribution.heads.items()}
    return {
        "logit": rounded(attribution.logits[i]),
        "components": {
            name: rounded(value) for name, value in zip(attribution.components, values, strict=True)
        },
        "layers": _rounded_all(attribution.layer[:, i].tolist()),
        "heads": heads,
    }


def rounded(value: Any) -> float | None:
    """To the digits that JSON gets; None for what is not finite."""
    number = float(value)
    return round(number, _DIGITS) if math.isfinite(number) else None


def _rounded_all(values: Any) -> Any:
    return [_rounded_all(v) for v in values] if isinstance(values, list) else rounded(values)


class Reader:
    """Reads recordings and prompts with one model and one setting; what candidates sound like and mean is kept between them.

    Args:
        model: A Whisper model, Qwen2-Audio or a language model.
        settings: What to read.
        tuned: Translators to read through.

    Raises:
        OptionError: The language does not fit the model, or closeness is asked of a model without a tokenizer.
    """

    def __init__(
        self, model: Model, settings: LensSettings | None = None, tuned: TunedLens | None = None
    ) -> None:
        self.model, self.tuned = model, tuned
        settings = settings or LensSettings()
        if isinstance(model, SpeechModel):
            settings = replace(settings, language=model.check_language(settings.language))
        self.settings = settings
        self._meters: dict[str, ClosenessMeter] = {}
        if settings.closeness:
            self._meter(settings.language or "en")  # refuse before any work
        self._texts: dict[int, str] = {}
        self.stack, self.prefix = next(iter(model.points.stacks.items()))

    def recording(
        self, source: Clip | Path | str | Item, *, offset: float = 0.0, reference: str | None = None
    ) -> Lens:
        """Read one recording; of a longer one, the window that begins at `offset`.

        Args:
            source: A clip, a path or a manifest item, whose text is its reference.
            offset: Seconds into the recording; an item has its own.
            reference: What is said, if known.

        Raises:
            AudioError: It cannot be read.
            ModelError: The model does not listen.
        """
        if isinstance(source, Item) and reference is None:
            reference = source.text
        with torch.no_grad():
            if isinstance(self.model, SpeechModel):
                return self._whisper(self.model, source, offset, reference)
            if isinstance(self.model, AudioLanguageModel):
                clip, whole = first_window(source, offset=offset)  # its extractor, too, takes 30 s
                inputs = self.model.inputs([clip], self.settings.prompt)
                return self.audio_inputs(inputs, clip=clip, whole=whole, reference=reference)
        raise ModelError(
            f"{self.model.origin.name} does not listen.",
            "Use a Whisper model, or give it a text with --prompt.",
        )

    def prompt(self, text: str | Tensor) -> Lens:
        """Read what a language model predicts after each token of a text (or of ids `(pos,)`).

        Raises:
            ModelError: The model is no language model.
            OptionError: The text is empty or longer than the context.
        """
        if not isinstance(self.model, LanguageModel):
            raise ModelError(f"{self.model.origin.name} reads no prompt alone.", "Use a language model.")
        inputs = self.model.inputs(text)
        output, cache = self.model.run_with_cache(inputs, self._points())
        ids = inputs["input_ids"][0].tolist()
        after = tuple(self._text(i) for i in ids)
        whole = text if isinstance(text, str) else "".join(after)
        return self._lens(output.logits[0].argmax(dim=-1), cache, "en", text=whole, after=after)

    def audio_inputs(
        self,
        inputs: Mapping[str, Tensor],
        *,
        clip: Clip | None = None,
        whole: float | None = None,
        reference: str | None = None,
    ) -> Lens:
        """Read Qwen2-Audio on Transformers inputs of one recording; see `recording`."""
        model = self.model
        if not isinstance(model, AudioLanguageModel):
            raise ModelError(f"{model.origin.name} takes no audio in its prompt.", "Use Qwen2-Audio.")
        tower = "audio_encoder.blocks.*.hook_resid_post"
        # Of each step the last position is kept: it is the one that writes.
        with model.capturing(tower) as heard, model.capturing(self._points(), pos_slice=-1) as cache:
            out = model.generate(**inputs, do_sample=False, num_beams=1, max_new_tokens=self._room(0))
        written = out[0, inputs["input_ids"].shape[1] :]
        ids = written[: len(model.until_end(written.tolist()))]
        text = self._join(ids.tolist())
        layers = []
        if self.settings.encoder:
            room = self._room(len(ids))
            for some in batches(heard.values(), self.settings.batch or len(heard)):
                rows = audio_encoder_lens(model, some, inputs, max_new_tokens=room)
                layers += [self._join(row) for row in rows]
        facts: dict[str, Any] = {"text": text, "layers": layers, "reference": reference}
        return self._lens(ids, cache, self.settings.language or "en", clip=clip, whole=whole, **facts)

    def _whisper(
        self, model: SpeechModel, source: Clip | Path | str | Item, offset: float, reference: str | None
    ) -> Lens:
        clip, whole = first_window(source, model.window_seconds, offset)
        heard = listen(model, clip)
        options = DecodeOptions(language=self.settings.language)
        transcript, decoded = write(model, clip, heard.encoded, options)
        written = torch.tensor(decoded.ids, dtype=torch.long, device=model.device)
        cache, layers = None, []
        if decoded.ids:
            tokens = torch.cat([torch.tensor(decoded.prompt, device=model.device), written])
            cache = read_again(model, heard.encoded, tokens, len(decoded.prompt), self._points())
        if self.settings.encoder:
            residuals = self._translated(heard.resid_post, "encoder")
            room, batch = self.settings.max_tokens, self.settings.batch
            rows = bounded_encoder_lens(model, residuals, decoded, options, room=room, batch=batch)
            layers = [self._join(ids) for ids in rows]
        facts: dict[str, Any] = {"text": transcript.text, "layers": layers, "reference": reference}
        return self._lens(written, cache, transcript.language, clip=clip, whole=whole, **facts)

    def _lens(
        self,
        ids: Tensor,
        cache: ActivationCache | None,
        language: str,
        *,
        text: str,
        after: tuple[str, ...] | None = None,
        layers: Sequence[str] = (),
        reference: str | None = None,
        clip: Clip | None = None,
        whole: float | None = None,
    ) -> Lens:
        reading = _nothing(self._layers) if cache is None else self._read(cache, ids)
        close = self._meter(language)(reading, ids) if self.settings.closeness else None
        parts = None
        if self.settings.attribution and cache is not None:
            parts = direct_attribution(self.model, cache, ids, positions=slice(len(ids)))
        known = {int(i) for i in reading.top_ids.flatten()} | set(ids.tolist())
        judged = text if reference is None else reference
        return Lens(
            source=clip.source if clip else None,
            text=text,
            ids=tuple(ids.tolist()),
            texts={i: self._text(i) for i in known},
            after=after,
            reading=reading,
            closeness=close,
            attribution=parts,
            encoder=tuple(
                EncoderLayer(i, written, output_type(written, reference=judged, language=language))
                for i, written in enumerate(layers)
            ),
            typed_against=("transcript" if reference is None else "reference") if layers else None,
            start=clip.start if clip else 0.0,
            duration=clip.duration if clip else None,
            recording_duration=whole,
            record=self.record(),
        )

    def record(self) -> dict[str, Any]:
        """Model, settings, versions and seed, as every result states them."""
        tuned = (
            None if self.tuned is None else {"stacks": list(self.tuned.stacks)} | asdict(self.tuned.settings)
        )
        settings = asdict(self.settings) | {"tuned": tuned, "device": str(self.model.device)}
        if not isinstance(self.model, AudioLanguageModel):
            del settings["prompt"]
        details = {"model": self.model.origin.name, "model_details": self.model.describe()}
        return details | {"settings": settings, "versions": versions(), "seed": self.settings.seed}

    @property
    def _layers(self) -> int:
        return len(self.model.hf.get_submodule(self.model.points.layers[self.stack]))  # type: ignore[arg-type]

    def _points(self) -> list[str]:
        streams = f"{self.prefix}.*.hook_resid_post"
        return [streams, *(attribution_points(self.model) if self.settings.attribution else ())]

    def _room(self, written: int) -> int:
        return self.settings.max_tokens or room_of(written)

    def _read(self, cache: ActivationCache, ids: Tensor) -> LensReading:
        names = (f"{self.prefix}.{layer}.hook_resid_post" for layer in range(self._layers))
        residuals = [cache[name][0, : len(ids)] for name in names]
        return logit_lens(self.model, self._translated(residuals, self.stack), ids, self.settings.top)

    def _translated(self, residuals: Sequence[Tensor], stack: str) -> list[Tensor]:
        return list(residuals) if self.tuned is None else self.tuned.apply(residuals, stack)

    def _meter(self, language: str) -> ClosenessMeter:
        if language not in self._meters:
            self._meters[language] = ClosenessMeter(self.model, language)
        return self._meters[language]

    def _text(self, token: int) -> str:
        """Text of a token; one that has none (a timestamp), or whose model has no tokenizer, shows its id."""
        if token not in self._texts:
            tokenizer = self.model.tokenizer
            self._texts[token] = ("" if tokenizer is None else tokenizer.decode([token])) or f"<{token}>"
        return self._texts[token]

    def _join(self, ids: Sequence[int]) -> str:
        if self.model.tokenizer is None:
            return "".join(map(self._text, ids))
        return self.model.tokenizer.decode(ids, skip_special_tokens=True).strip()


def _nothing(layers: int) -> LensReading:
    """The reading of an empty transcript."""
    floats, ints = torch.zeros(layers, 0), torch.zeros(layers, 0, dtype=torch.long)
    none = torch.zeros(layers, 0, 0)
    return LensReading(none.long(), none, floats, ints, floats, ())
