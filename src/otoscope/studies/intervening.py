"""`intervene`: change the sound, components or features of a model, and see what it writes instead.

Any perturbation moves a small model, so the same change is also made at random other places: other spans of the same length,
other components of the same kind, other active features of the same layer.
"""

from __future__ import annotations

import time
from difflib import SequenceMatcher
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from otoscope.audio import Clip
from otoscope.documents.base import Array
from otoscope.documents.explain import ModelInfo
from otoscope.documents.intervention import (
    ControlRun,
    Intervention,
    Outcome,
    WordChange,
    command_line,
    python_line,
)
from otoscope.lenses.listening import first_window
from otoscope.models.transcribing import check_source
from otoscope.models.transcripts import DecodeOptions
from otoscope.models.whisper import require_speech
from otoscope.progress import track
from otoscope.studies.prompt_lab import PromptLab
from otoscope.studies.random_places import elsewhere
from otoscope.studies.speech_lab import SpeechLab

if TYPE_CHECKING:
    from otoscope.models.base import Model
    from otoscope.studies.lab import Lab, Run

NOTES = (
    "Any change takes a model off what it was trained on: read the difference beside the control, not alone.",
    "Changes of log-probability are teacher-forced: the model is given the tokens that were written before.",
)
OF_SOUND = "The spectrogram is scaled by its loudest place, so that silencing it moves the rest as well."
OF_PROMPT = "The continuation is greedy: of each step's tokens the most probable one."

TOKENS = 12
"""Tokens that a prompt is continued by, unless others are asked for."""

_NAMED = 60
"""Characters of a prompt that name its outcome."""

_USUAL = {"offset": 0.0, "language": None, "controls": 5, "seed": 0, "tokens": TOKENS}
"""Values that need not be said."""


def intervene(
    model: Model,
    source: Clip | Path | str,
    intervention: Intervention,
    *,
    offset: float = 0.0,
    language: str | None = None,
    controls: int = 5,
    seed: int = 0,
) -> Outcome:
    """Write a clip twice, as it is and under an intervention, and compare.

    Args:
        model: A Whisper model.
        source: A clip or a path. Of a recording longer than one window, the window that begins at `offset` is heard.
        intervention: What is changed; its times count from the start of the window.
        offset: Seconds into the recording.
        language: Language code to force; None: detect (multilingual models).
        controls: How often the same is done at random other places; fewer where there are not so many.
        seed: Of these places.

    Returns:
        The document: texts, lenses and risks before and after, the words that differ, and the controls.

    Raises:
        AudioError: The recording cannot be read.
        ModelError: The model is no Whisper model.
        OptionError: A component, feature or span does not exist.
        DictionaryError: A dictionary cannot be read, or is of another model.
    """
    speech = require_speech(model)
    check_source(source)
    options = DecodeOptions(language=speech.check_language(language), seed=seed)
    clip, _ = first_window(source, speech.window_seconds, offset)
    name = clip.source or "clip.wav"
    told = {
        "title": f"{Path(name).name} · {speech.origin.name} · changed",
        "file": Path(name).name,
        "offset": clip.start,
        "duration": clip.duration,
        "model": ModelInfo(**{k: v for k, v in speech.describe().items() if k != "device" and v != ""}),
        "notes": [NOTES[0], OF_SOUND, *NOTES[1:]],
    }
    how = {"offset": clip.start, "language": language, "controls": controls, "seed": seed}
    return _compared(SpeechLab(speech, clip, options), name, intervention, how, told)


def intervene_prompt(
    model: Model,
    prompt: str,
    intervention: Intervention,
    *,
    tokens: int = TOKENS,
    controls: int = 5,
    seed: int = 0,
) -> Outcome:
    """Let a language model continue a prompt twice, as it is and under an intervention, and compare.

    Args:
        model: A language model.
        prompt: What it continues.
        intervention: What is changed; positions count the prompt's tokens from 0, and go on with those that are written.
        tokens: Tokens written at most.
        controls: How often the same is done at random other places; fewer where there are not so many.
        seed: Of these places.

    Returns:
        The document: continuations, next tokens and lenses before and after, the words that differ, and the controls.

    Raises:
        ModelError: The model is no language model, or has no tokenizer.
        OptionError: The prompt is empty or too long, or a component, feature or position does not exist.
        DictionaryError: A dictionary cannot be read, or is of another model.
    """
    lab = PromptLab(model, prompt, tokens)
    described = model.describe()
    heads = int(getattr(model.config, "num_attention_heads", 1))
    told = {
        "title": f"{' '.join(prompt.split())[:_NAMED]} · {model.origin.name} · changed",
        "prompt": prompt,
        "model": ModelInfo(
            **{k: v for k, v in described.items() if k != "device" and v != ""},
            encoder_layers=0,
            decoder_layers=lab.layers,
            heads=heads,
        ),
        "notes": [*NOTES, OF_PROMPT],
    }
    how = {"tokens": tokens, "controls": controls, "seed": seed}
    return _compared(lab, prompt, intervention, how, told)


def _compared(
    lab: Lab, source: str, intervention: Intervention, how: dict[str, Any], told: dict[str, Any]
) -> Outcome:
    """Both texts, and the same change elsewhere.

    Args:
        lab: The model and what it is given.
        source: The recording's path, or the prompt.
        intervention: What is changed.
        how: The other arguments.
        told: Further fields of the outcome.
    """
    began, controls, seed = time.perf_counter(), how["controls"], how["seed"]
    plan = lab.plan(intervention)  # refuses what does not exist before anything runs
    with torch.no_grad(), track("Intervening", 2 + controls, "runs") as task:
        before = lab.run(lab.plan(Intervention()))
        task.advance()
        after = lab.run(plan)
        change = (after.forced(before) - before.forced(before)).numpy()
        task.advance()
        runs: list[ControlRun] = []
        for other in elsewhere(lab, intervention, before, controls, seed):
            runs.append(_control(lab, other, before))
            task.advance()
        sides = before.told(), after.told()
        following = lab.next_tokens(before, after) if isinstance(lab, PromptLab) else []  # type: ignore[arg-type]
    unusual = {name: value for name, value in how.items() if value != _USUAL[name]}
    again = (lab.model.origin.name, source, intervention, unusual)
    of_prompt = "prompt" in told
    return Outcome(
        **told,
        next_tokens=following,
        intervention=intervention,
        before=sides[0],
        after=sides[1],
        words=word_changes(before.text, after.text),
        change=Array.pack(change),
        size=_mean_size(change),
        controls=runs,
        seed=seed,
        python=python_line(*again, of_prompt=of_prompt),
        command=command_line(*again, of_prompt=of_prompt),
        seconds=round(time.perf_counter() - began, 3),
    )


def _control(lab: Lab, other: Intervention, before: Run) -> ControlRun:
    run = lab.run(lab.plan(other))
    change = run.forced(before) - before.forced(before)
    return ControlRun(
        intervention=other,
        text=run.text,
        changed=run.text != before.text,
        size=_mean_size(change.numpy()),
    )


def _mean_size(change: np.ndarray) -> float:
    return float(np.abs(change).mean()) if change.size else 0.0


def word_changes(before: str, after: str) -> list[WordChange]:
    """Runs of words that stayed, or were replaced, added or taken away."""
    ops = {"equal": "same", "replace": "replaced", "insert": "added", "delete": "removed"}
    old, new = before.split(), after.split()
    return [
        WordChange(op=ops[op], before=" ".join(old[i0:i1]), after=" ".join(new[j0:j1]))  # type: ignore[arg-type]
        for op, i0, i1, j0, j1 in SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
    ]
