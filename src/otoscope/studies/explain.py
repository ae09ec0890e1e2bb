"""`explain`: one clip, one document that says what the model heard, wrote, knew at each layer, and depended on.

The audio is read once, the encoder runs once and decoding happens once; each later stage takes what it needs from what was
captured.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from otoscope.audio import Clip
from otoscope.circuits.heard import Heard as Spoke
from otoscope.documents.audio import AudioInfo
from otoscope.documents.bench import Risk
from otoscope.documents.explain import ExplainDoc, ModelInfo, Timing
from otoscope.documents.explain_words import in_words, left_out
from otoscope.errors import GraphError, ModelError, OptionError
from otoscope.lenses.listening import first_window, window_note, write
from otoscope.lenses.logit_lens import CAVEAT
from otoscope.models.hearing import Heard, listen
from otoscope.models.transcribing import check_source, frames_of
from otoscope.models.transcripts import DecodeOptions, Transcript
from otoscope.models.whisper import SpeechModel
from otoscope.monitors.monitor import Monitor
from otoscope.monitors.verdicts import TARGETS
from otoscope.monitors.watching import Watch
from otoscope.outcomes import NO_SPEECH, is_loop
from otoscope.progress import track
from otoscope.studies.explain_ablation import ablation_of, no_ablation
from otoscope.studies.explain_circuits import circuits_of, tokens_to_trace, why_no_circuit
from otoscope.studies.explain_lenses import read_decoder, read_encoder
from otoscope.studies.explain_parts import transcript_info
from otoscope.studies.explain_pictures import pictures
from otoscope.studies.explain_sound import Listening, Told, sound_accounts
from otoscope.versions import versions

if TYPE_CHECKING:
    from otoscope.dictionaries.base import Dictionary
    from otoscope.progress import Task

_ROWS = 3
"""Features of the encoder that are drawn, where nobody asked for others."""

NOTES = (
    "Word times come from cross-attention of the alignment heads; attention is not proof of cause.",
    CAVEAT,
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
        prompt = len(decoded.prompt)
        with clock.stage("logit lens"):
            lens, heads = read_decoder(model, clip, heard.encoded, tokens, prompt)
        with clock.stage("encoder lens"):
            layers = read_encoder(model, heard, decoded, transcript, options) if stages.encoder_lens else []
        with clock.stage("ablation"):
            how = {"controls": stages.controls, "seed": seed}
            ablation = (
                ablation_of(model, heard, tokens, prompt, batch, **how)
                if stages.ablation
                else no_ablation(len(tokens) - prompt)
            )
        with clock.stage("sound of each token"):
            told = _told(model, clip, heard, transcript, stages, skipped)
        with clock.stage("circuits"):
            wanted = tokens_to_trace(transcript, risk, token, stages.circuits)
            missing = why_no_circuit(bool(wanted), stages.circuits > 0, told is not None)
            skipped += [missing] if missing else []
            said = Spoke(clip, transcript, heard.features, transcript.prompt, whole, heard.encoded)
            circuits = [] if missing else circuits_of(model, said, wanted, stages.circuit_nodes)
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
        cautions=[*_doubts(transcript), *window_note(clip.start, clip.duration, whole, "explained")],
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
        alarm_token=progress.alarm_token,
    )


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
