"""`explain`: one clip, one document that says what the model heard, wrote, knew at each layer, and depended on.

The audio is read once, the encoder runs once and decoding happens once; each later stage takes what it needs from what was
captured.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from otoscope.audio import Clip
from otoscope.circuits.speech import Heard as Spoke
from otoscope.circuits.speech import SpeechSettings, trace_speech
from otoscope.documents.audio import AudioInfo
from otoscope.documents.base import Array
from otoscope.documents.bench import HeadAttention, Risk
from otoscope.documents.explain import (
    Ablation,
    Circuit,
    Control,
    EncoderLensLayer,
    ExplainDoc,
    LogitLens,
    ModelInfo,
    Timing,
)
from otoscope.documents.explain import Component as ComponentInfo
from otoscope.documents.explain_words import in_words, left_out
from otoscope.errors import GraphError, ModelError, OptionError
from otoscope.lenses.encoder_lens import encoder_lens
from otoscope.lenses.listening import first_window, read_again, write
from otoscope.models.decoding import Decoded
from otoscope.models.hearing import Heard, listen
from otoscope.models.transcribing import check_source, frames_of
from otoscope.models.transcripts import DecodeOptions, Transcript
from otoscope.models.whisper import SpeechModel
from otoscope.monitors.monitor import Monitor, Watch
from otoscope.monitors.verdicts import TARGETS
from otoscope.outcomes import NO_SPEECH, is_loop, output_type
from otoscope.patching.ablation import ablate, attention_blocks, take_random
from otoscope.patching.components import components
from otoscope.patching.scene import Scene
from otoscope.progress import track
from otoscope.studies.explain_parts import lens_of, transcript_info
from otoscope.studies.explain_pictures import head_attention, pictures
from otoscope.studies.explain_sound import Listening, Told, sound_accounts
from otoscope.studies.graph_page import graph_data
from otoscope.versions import versions

if TYPE_CHECKING:
    from torch import Tensor

    from otoscope.dictionaries.base import Dictionary
    from otoscope.progress import Task

_LENS_POSITIONS = 100
_DRAWS = 2
"""Random subspaces that the heads of an attention block are compared with."""

_ROWS = 3
"""Features of the encoder that are drawn, where nobody asked for others."""

NOTES = (
    "Word times come from cross-attention of the alignment heads; attention is not proof of cause.",
    "The logit lens reads a layer as if it were the last; a layer may hold what the lens cannot read.",
    "Zeroing a component takes it off the distribution it was trained on, and other components may make up for it; "
    "random components also change tokens, so a large change alone does not make a component responsible.",
    "Ablations are teacher-forced: each token is judged given the written ones, not what would be written instead.",
)


@dataclass(frozen=True)
class Stages:
    """Which of the dearer stages run.

    Attributes:
        encoder_lens: The decoder writes from every layer of the encoder.
        ablation: Every block and head is zeroed.
        controls: Random subspaces beside the zeroed heads.
        accounts: The account of every token, and with it the sound that carried it.
        circuits: Tokens whose circuit is traced; the one in alarm and those asked for come first.
        circuit_nodes: Features of each circuit.
    """

    encoder_lens: bool = True
    ablation: bool = True
    controls: bool = True
    accounts: bool = True
    circuits: int = 1
    circuit_nodes: int = 150


@dataclass
class _Stopwatch:
    """Times stages."""

    task: Task
    timings: list[Timing] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        with track(name.capitalize()):
            yield
        self.timings.append(Timing(stage=name, seconds=round(time.perf_counter() - start, 3)))
        self.task.advance()


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
    monitor: Monitor | Literal["shipped"] | None = "shipped",
    features: Sequence[tuple[int, int]] = (),
    dictionary: Dictionary | None = None,
    dictionary_name: str = "neurons",
    stages: Stages | None = None,
) -> ExplainDoc:
    """Explain one clip.

    Args:
        model: A Whisper model.
        source: A clip or a path. Of a recording longer than one window, the window that begins at `offset` is explained.
        offset: Seconds into the recording.
        token: Index of the token to show first and to trace (0-based); None: the least certain one.
        language: Language code to force; None: detect (multilingual models).
        reference: What was said, if known: adds the word error rate.
        batch: Rows at once; None: `model.batch`.
        seed: Of the random subspaces that zeroed heads are compared with.
        monitor: What watches while the text is written; None: nothing; `shipped`: the one that comes with otoscope, if one does.
        features: Layer and number (0-based) of features of the encoder to draw under the sound; empty: those of its last layer
            that said most for the first traced token.
        dictionary: They are its; None: the encoder's own neurons.
        dictionary_name: What it is called.
        stages: What is computed; None: everything.

    Returns:
        The document; `otoscope.views.page.save_page` draws it, `to_json` writes its numbers.

    Raises:
        AudioError: The recording cannot be read.
        DictionaryError: The dictionary is of another model, or does not read at the encoder's MLPs.
        ModelError: The model is no Whisper model, or the monitor is of another.
        OptionError: A token or feature does not exist, or the language does not fit the model.
    """
    if not isinstance(model, SpeechModel):
        raise ModelError(
            f"{model.origin.name} does not transcribe speech by itself.",
            "Use a Whisper model, such as whisper-base.",
        )
    check_source(source)
    options = DecodeOptions(language=model.check_language(language), seed=seed)
    stages, batch = stages or Stages(), batch or model.batch
    skipped: list[str] = []
    watch = _watch(model, monitor, skipped)
    listening = Listening.of(model, dictionary, dictionary_name, features)
    with track("Explaining", 10, "stages") as task, torch.no_grad():
        clock = _Stopwatch(task)
        with clock.stage("read the audio"):
            clip, whole = first_window(source, model.window_seconds, offset)
        with clock.stage("encode"), model.capturing(listening.points.values()) as inputs:
            heard = listen(model, clip)
        with clock.stage("decode"), watch.over([clip]) if watch else nullcontext():
            transcript, decoded = write(model, clip, heard.encoded, options)
            _check_token(token, transcript)
        risk = None if watch is None else _risk(watch)
        tokens = torch.tensor([*decoded.prompt, *decoded.ids], device=model.device)
        with clock.stage("logit lens"):
            lens, heads = _read_decoder(model, clip, heard.encoded, tokens, len(decoded.prompt))
        with clock.stage("encoder lens"):
            layers = _encoder_lens(model, heard, decoded, transcript, options) if stages.encoder_lens else []
        with clock.stage("ablation"):
            ablation = _ablate(model, heard, tokens, len(decoded.prompt), batch, stages, seed)
        with clock.stage("sound of each token"):
            told = _told(model, clip, heard, transcript, stages, skipped)
        with clock.stage("circuits"):
            wanted = _wanted(transcript, risk, token, stages.circuits)
            said = Spoke(clip, transcript, heard.features, transcript.prompt, whole, heard.encoded)
            circuits = _circuits(model, said, wanted, stages, told, skipped)
        with clock.stage("features"):
            first = next(iter(wanted), None)
            rows = listening.rows(model, heard, inputs, frames_of(model, clip), told, first, _ROWS)
        with clock.stage("pictures"):
            parts = pictures(model, clip, heard, decoded)
    doc = ExplainDoc(
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
        transcript=transcript_info(transcript, reference, clip.start),
        logit_lens=lens,
        encoder_lens=layers,
        ablation=ablation,
        timings=clock.timings,
        notes=list(NOTES),
        cautions=[*_doubts(transcript), *_window_note(clip, whole)],
        selected_token=token if token is not None else next(iter(wanted), None),
        head_attention=heads,
        accounts=told and told.accounts,
        risk=risk,
        feature_rows=rows,
        circuits=circuits,
        **parts,
    )
    return doc.model_copy(update={"in_words": in_words(doc), "left_out": left_out(doc, skipped)})


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


def _watch(
    model: SpeechModel, monitor: Monitor | Literal["shipped"] | None, skipped: list[str]
) -> Watch | None:
    """What watches the text; where nothing can, the reason joins `skipped`."""
    if monitor is None:
        skipped.append("The risk of each token was not asked for.")
        return None
    if isinstance(monitor, Monitor):
        return Watch(monitor, model)
    try:
        return Watch(Monitor.shipped(model), model)
    except OptionError as error:
        skipped.append(f"The risk of each token is missing: {error.reason} {error.remedy}")
        return None


def _risk(watch: Watch) -> Risk | None:
    progress = watch.newest.get(0)
    if progress is None or not progress.risks:
        return None
    return Risk(
        monitor=f"monitor of {watch.monitor.model['name']}",
        steps=progress.risks,
        parts={name: [part[i] for part in progress.parts] for i, name in enumerate(TARGETS)},
        threshold=watch.monitor.threshold,
        false_alarm_rate=watch.monitor.false_alarm_rate,
        alarm=progress.alarm,
    )


def _wanted(
    transcript: Transcript, risk: Risk | None, token: int | None, count: int
) -> dict[int, Literal["alarm", "asked for", "least certain"]]:
    """Tokens to trace and why: the one in alarm, the one that was asked for, then those of the least certain words."""
    wanted: dict[int, Literal["alarm", "asked for", "least certain"]] = {}
    written = transcript.tokens
    if risk is not None and risk.alarm is not None and risk.alarm < len(written):
        wanted[risk.alarm] = "alarm"
    if token is not None:
        wanted.setdefault(token, "asked for")
    for word in sorted(transcript.words, key=lambda word: word.probability):
        if len(wanted) >= max(count, 1):
            break
        least = min(range(word.first_token, word.last_token + 1), key=lambda i: written[i].logprob)
        wanted.setdefault(least, "least certain")
    return wanted


def _told(
    model: SpeechModel, clip: Clip, heard: Heard, transcript: Transcript, stages: Stages, skipped: list[str]
) -> Told | None:
    """The account of every token, where it can be made."""
    if not stages.accounts:
        skipped.append("Which sound carried each token was not asked for.")
    if not stages.accounts or not transcript.tokens:
        return None
    try:
        return sound_accounts(model, clip, heard, transcript)
    except (GraphError, ModelError, OptionError) as error:
        skipped.append(f"Which sound carried each token cannot be told: {error.reason} {error.remedy}")
        return None


def _circuits(
    model: SpeechModel,
    said: Spoke,
    wanted: dict[int, Literal["alarm", "asked for", "least certain"]],
    stages: Stages,
    told: Told | None,
    skipped: list[str],
) -> list[Circuit]:
    """The circuits of the wanted tokens."""
    if not stages.circuits or not wanted:
        skipped.append("No circuit was asked for (--circuits).")
        return []
    if told is None:  # what cannot be accounted for cannot be traced either
        skipped.append("No circuit was traced, for the same reason.")
        return []
    settings = SpeechSettings(nodes=stages.circuit_nodes)
    return [
        Circuit(token=token, why=why, graph=graph_data(trace_speech(model, said, token, settings=settings)))
        for token, why in wanted.items()
    ]


def _read_decoder(
    model: SpeechModel, clip: Clip, encoded: Tensor, tokens: Tensor, prompt: int
) -> tuple[LogitLens, HeadAttention | None]:
    """What each layer would have written, and where each head looked: both from one pass over the whole text."""
    layers = model.config.decoder_layers
    if len(tokens) == prompt:
        return LogitLens(layers=layers, tokens=[]), None
    points = ["decoder_blocks.*.hook_resid_post", "decoder_blocks.*.cross_attn.hook_pattern"]
    cache = read_again(model, encoded, tokens, prompt, points)
    residuals = [cache[f"decoder_blocks.{i}.hook_resid_post"][0] for i in range(layers)]
    patterns = [cache[f"decoder_blocks.{i}.cross_attn.hook_pattern"][0] for i in range(layers)]
    heads = head_attention(patterns, frames_of(model, clip), model.frame_seconds)
    return lens_of(model, residuals, tokens[prompt:]), heads


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
        EncoderLensLayer(
            layer=i,
            text=text,
            is_final_text=text == transcript.text,
            type=output_type(text, reference=transcript.text, language=transcript.language),
        )
        for i, text in enumerate(texts)
    ]


def _ablate(
    model: SpeechModel, heard: Heard, tokens: Tensor, prompt: int, batch: int, stages: Stages, seed: int
) -> Ablation:
    chosen = [*components(model, "decoder"), *components(model, "encoder")] if stages.ablation else []
    listed = [
        ComponentInfo(id=c.id, label=c.label, stack=c.stack, layer=c.layer, part=c.part, head=c.head)  # type: ignore[arg-type]
        for c in chosen
    ]
    if len(tokens) == prompt or not chosen:
        nothing = np.zeros((len(listed), len(tokens) - prompt), np.float32)
        return Ablation(components=listed, change=Array.pack(nothing, dtype="f32"))
    scene = Scene.heard(model, heard.encoded, tokens, heard.audio)
    base = scene.logprobs([()], prompt).cpu()
    change = ablate(scene, chosen, prompt, batch) - base
    blocks = attention_blocks(chosen) if stages.controls else []
    random = take_random(scene, blocks, prompt, batch, _DRAWS, seed) - base
    return Ablation(
        components=listed,
        change=Array.pack(change.numpy(), dtype="f32"),
        controls=[
            Control(stack=c.stack, layer=c.layer, part=c.part)  # type: ignore[arg-type]
            for c in blocks
            for _ in range(_DRAWS)
        ],
        control_change=Array.pack(random.numpy(), dtype="f32") if blocks else None,
    )
