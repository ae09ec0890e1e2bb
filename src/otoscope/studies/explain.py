"""`explain`: one clip, one document that says what the model heard, wrote, knew at each layer, and depended on.

The audio is read once, the encoder runs once and decoding happens once; each later stage takes what it needs from what was
captured.
"""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from otoscope.audio import Clip
from otoscope.documents.base import Array, Resource
from otoscope.documents.explain import (
    Ablation,
    Alignment,
    AudioInfo,
    Candidate,
    EncoderLensLayer,
    ExplainDoc,
    LensLayer,
    LensToken,
    LogitLens,
    ModelInfo,
    Timing,
    TokenInfo,
    TranscriptInfo,
    WordInfo,
)
from otoscope.documents.explain import Component as ComponentInfo
from otoscope.errors import ModelError, OptionError
from otoscope.lenses.encoder_lens import encoder_lens
from otoscope.lenses.listening import first_window, read_again, write
from otoscope.lenses.logit_lens import LensReading, logit_lens
from otoscope.models.decoding import Decoded, alignment_heads
from otoscope.models.hearing import Heard, listen
from otoscope.models.transcribing import alignment_of, check_source, frames_of
from otoscope.models.transcripts import DecodeOptions, Transcript
from otoscope.models.whisper import SpeechModel
from otoscope.outcomes import NO_SPEECH, error_rates, is_loop
from otoscope.patching.ablation import ablate
from otoscope.patching.components import components
from otoscope.patching.scene import Scene
from otoscope.progress import track
from otoscope.versions import versions

if TYPE_CHECKING:
    from torch import Tensor

_WAVE_BINS = 1200
_LENS_POSITIONS = 100

NOTES = (
    "Word times come from cross-attention of the alignment heads; attention is not proof of cause.",
    "The logit lens reads a layer as if it were the last; a layer may hold what the lens cannot read.",
    "Zeroing a component takes it off the distribution it was trained on, and other components may make up for it; "
    "random components also change tokens, so a large change alone does not make a component responsible.",
    "Ablations are teacher-forced: each token is judged given the written ones, not what would be written instead.",
)


@dataclass
class _Stopwatch:
    timings: list[Timing] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.timings.append(Timing(stage=name, seconds=round(time.perf_counter() - start, 3)))


def explain_clip(
    model: SpeechModel,
    source: Clip | Path | str,
    *,
    offset: float = 0.0,
    token: int | None = None,
    language: str | None = None,
    reference: str | None = None,
    batch: int | None = None,
    seed: int = 0,
) -> ExplainDoc:
    """Explain one clip.

    Args:
        model: A Whisper model.
        source: A clip or a path. Of a recording longer than one window, the window that begins at `offset` is explained.
        offset: Seconds into the recording.
        token: Index of the token to show first (0-based); None: the least certain one.
        language: Language code to force; None: detect (multilingual models).
        reference: What was said, if known: adds the word error rate.
        batch: Rows at once; None: `model.batch`.
        seed: Recorded; nothing here is random.

    Returns:
        The document; `otoscope.views.page.save_page` draws it, `to_json` writes its numbers.

    Raises:
        AudioError: The recording cannot be read.
        ModelError: The model is no Whisper model.
        OptionError: The token does not exist, or the language does not fit the model.
    """
    if not isinstance(model, SpeechModel):
        raise ModelError(
            f"{model.origin.name} does not transcribe speech by itself.",
            "Use a Whisper model, such as whisper-base.",
        )
    check_source(source)
    options = DecodeOptions(language=model.check_language(language), seed=seed)
    batch = batch or model.batch
    watch = _Stopwatch()
    with track("Explaining", 6, "stages") as task, torch.no_grad():
        with watch.stage("read the audio"):
            clip, whole = first_window(source, model.window_seconds, offset)
        with watch.stage("encode"):
            heard = listen(model, clip)
            task.advance()
        with watch.stage("decode"):
            transcript, decoded = write(model, clip, heard.encoded, options)
            _check_token(token, transcript)
            task.advance()
        tokens = torch.tensor([*decoded.prompt, *decoded.ids], device=model.device)
        with watch.stage("logit lens"):
            lens = _logit_lens(model, heard.encoded, tokens, len(decoded.prompt))
            task.advance()
        with watch.stage("encoder lens"):
            layers = _encoder_lens(model, heard, decoded, transcript, options)
            task.advance()
        with watch.stage("ablation"):
            ablation = _ablate(model, heard, tokens, len(decoded.prompt), batch)
            task.advance()
        with watch.stage("pictures"):
            parts = _pictures(model, clip, heard, decoded)
            task.advance()
    return ExplainDoc(
        title=f"{Path(clip.source or 'clip').name} · {model.origin.name}",
        model=ModelInfo(**{k: v for k, v in model.describe().items() if k != "device" and v != ""}),
        settings=transcript.settings.to_dict() | {"batch": batch, "device": str(model.device)},
        versions=versions(),
        seed=seed,
        audio=AudioInfo(
            file=Path(clip.source or "clip").name,
            duration=clip.duration,
            window_seconds=model.window_seconds,
            frame_seconds=model.frame_seconds,
            start=clip.start,
            recording_duration=whole,
        ),
        transcript=_transcript_info(transcript, reference, clip.start),
        logit_lens=lens,
        encoder_lens=layers,
        ablation=ablation,
        timings=watch.timings,
        notes=list(NOTES),
        cautions=[*_doubts(transcript), *_window_note(clip, whole)],
        selected_token=token,
        **parts,
    )


# Stages ------------------------------------------------------------------------------------------------------------------


def _window_note(clip: Clip, whole: float) -> list[str]:
    if whole - clip.duration < 0.05:
        return []
    end = clip.start + clip.duration
    line = f"Only {clip.start:.2f} to {end:.2f} s of {whole:.2f} s are explained; a window ends at a quiet place."
    return [line if whole - end < 0.05 else f"{line} The next begins with --offset {end:.2f}."]


def _doubts(transcript: Transcript) -> list[str]:
    """Signs, by Whisper's own thresholds, that the text is not what was said."""
    doubts = []
    if transcript.no_speech_prob > NO_SPEECH:
        doubts.append(
            f"Probably there is no speech here (no-speech probability {transcript.no_speech_prob:.2f})."
        )
    if is_loop(transcript.text, language=transcript.language):
        doubts.append(f"The text repeats itself (compression ratio {transcript.compression_ratio:.1f}).")
    if not transcript.segments[0].finished:
        doubts.append("The model ran out of positions before it ended the text.")
    return doubts


def _check_token(token: int | None, transcript: Transcript) -> None:
    if token is not None and not 0 <= token < len(transcript.tokens):
        last = len(transcript.tokens) - 1
        remedy = (
            f"Choose 0 to {last} (tokens are counted from 0)."
            if last >= 0
            else "Leave --token out: nothing was written."
        )
        raise OptionError(f"Token {token} does not exist.", remedy)


def _logit_lens(model: SpeechModel, encoded: Tensor, tokens: Tensor, prompt: int) -> LogitLens:
    layers = model.config.decoder_layers
    if len(tokens) == prompt:
        return LogitLens(layers=layers, tokens=[])
    cache = read_again(model, encoded, tokens, prompt, ["decoder_blocks.*.hook_resid_post"])
    residuals = [cache[f"decoder_blocks.{i}.hook_resid_post"][0] for i in range(layers)]
    reading = logit_lens(model, residuals, tokens[prompt:])
    return LogitLens(
        layers=layers, tokens=[_lens_token(model, reading, i) for i in range(len(tokens) - prompt)]
    )


def _lens_token(model: SpeechModel, reading: LensReading, token: int) -> LensToken:
    def layer_of(layer: int) -> LensLayer:
        ids, p = reading.top_ids[layer, token].tolist(), reading.top_p[layer, token].tolist()
        return LensLayer(
            layer=layer,
            top=[Candidate(id=i, text=model.tokenizer.decode([i]), p=q) for i, q in zip(ids, p, strict=True)],
            p_final=float(reading.p_final[layer, token]),
            rank_final=int(reading.rank_final[layer, token]),
            entropy=float(reading.entropy[layer, token]),
        )

    layers = [layer_of(layer) for layer in range(len(reading.top_ids))]
    return LensToken(index=token, saturation_layer=reading.saturation[token], layers=layers)


def _encoder_lens(
    model: SpeechModel, heard: Heard, decoded: Decoded, transcript: Transcript, options: DecodeOptions
) -> list[EncoderLensLayer]:
    """Early layers repeat themselves to the last position, so they get about twice the room that the transcript took."""
    prompt, written = len(decoded.prompt), len(decoded.ids)
    room = prompt + max(_LENS_POSITIONS, 2 * written)
    bounded = replace(options, max_positions=min(room, model.max_positions))
    texts = [
        model.tokenizer.decode(layer.ids, skip_special_tokens=True).strip()
        for layer in encoder_lens(model, heard.resid_post, decoded.prompt, bounded)
    ]
    return [
        EncoderLensLayer(layer=i, text=text, is_final_text=text == transcript.text)
        for i, text in enumerate(texts)
    ]


def _ablate(model: SpeechModel, heard: Heard, tokens: Tensor, prompt: int, batch: int) -> Ablation:
    decoder, encoder = components(model, "decoder"), components(model, "encoder")
    listed = [
        ComponentInfo(id=c.id, label=c.label, stack=c.stack, layer=c.layer, part=c.part, head=c.head)  # type: ignore[arg-type]
        for c in [*decoder, *encoder]
    ]
    if len(tokens) == prompt:
        return Ablation(
            components=listed, change=Array.pack(np.zeros((len(listed), 0), np.float32), dtype="f32")
        )
    scene = Scene.heard(model, heard.encoded, tokens, heard.audio)
    base = scene.logprobs([()], prompt).cpu()
    change = (ablate(scene, [*decoder, *encoder], prompt, batch) - base).numpy()
    return Ablation(components=listed, change=Array.pack(change, dtype="f32"))


# The document ------------------------------------------------------------------------------------------------------------


def _transcript_info(transcript: Transcript, reference: str | None, offset: float) -> TranscriptInfo:
    """What the document says of the transcript; its times count from the start of the window."""
    wer = None
    if reference is not None:
        wer = error_rates([reference], [transcript.text], transcript.language).wer
    return TranscriptInfo(
        text=transcript.text,
        language=transcript.language,
        tokens=[
            TokenInfo(
                index=i,
                id=t.id,
                text=t.text,
                p=t.p,
                logprob=t.logprob,
                entropy=t.entropy,
                start=t.start - offset,
                end=t.end - offset,
            )
            for i, t in enumerate(transcript.tokens)
        ],
        words=[
            WordInfo(
                text=w.text,
                start=w.start - offset,
                end=w.end - offset,
                p=w.probability,
                first_token=w.first_token,
                last_token=w.last_token,
            )
            for w in transcript.words
        ],
        no_speech_prob=transcript.no_speech_prob,
        avg_logprob=transcript.avg_logprob,
        compression_ratio=transcript.compression_ratio,
        reference=reference,
        wer=wer,
    )


def _pictures(model: SpeechModel, clip: Clip, heard: Heard, decoded: Decoded) -> dict:
    frames = frames_of(model, clip)
    matrix = np.zeros((0, frames), np.float32)
    if decoded.ids:
        matrix = alignment_of(model, clip, decoded)[:, : len(decoded.ids)].mean(dim=0).cpu().numpy()
    return {
        "waveform": Array.pack(_min_max(clip.samples), dtype="f16"),
        "mel": Array.pack(heard.features[0, :, : 2 * frames].float().cpu().numpy(), dtype="u8"),
        "alignment": Alignment(
            heads=alignment_heads(model), matrix=Array.pack(matrix, dtype="u8" if matrix.size else "f32")
        ),
        "resources": {"audio": Resource(media_type="audio/wav", data=_wav(clip))},
    }


def _min_max(samples: np.ndarray) -> np.ndarray:
    """Minimum and maximum of each of at most 1,200 bins, `(2, bin)`."""
    edges = np.linspace(0, len(samples), min(_WAVE_BINS, len(samples)) + 1).astype(int)[:-1]
    return np.stack([np.minimum.reduceat(samples, edges), np.maximum.reduceat(samples, edges)])


def _wav(clip: Clip) -> str:
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, np.clip(clip.samples, -1, 1), clip.sampling_rate, format="WAV", subtype="PCM_16")
    return base64.b64encode(buffer.getvalue()).decode()
