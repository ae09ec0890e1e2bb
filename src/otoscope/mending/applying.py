"""Mending a model for the length of a block."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from otoscope.activations import Edit, HookFunction, HookPoint, Visit
from otoscope.errors import ModelError, OptionError
from otoscope.mending.breaker import Trigger, stopping
from otoscope.mending.features import gated_features
from otoscope.mending.repair import Repair
from otoscope.models.whisper import SpeechModel, require_speech
from otoscope.monitors.monitor import Monitor
from otoscope.monitors.reading import EVERY
from otoscope.monitors.watching import Watch

if TYPE_CHECKING:
    from torch import Tensor

    from otoscope.models.base import Model


@contextmanager
def repaired(model: Model, repair: Repair, trigger: Trigger | None = None) -> Iterator[Model]:
    """The model, mended inside the block; after it, whatever happened, every weight and hook is as it was, bit for bit.

    Transcripts made inside say in their facts about the model which repair was in force.

    Args:
        model: The model that the repair was made for.
        repair: The repair.
        trigger: Tells which rows are in alarm, for a repair that acts in alarm alone.

    Raises:
        OptionError: The repair is for another model, or waits for an alarm that nobody gives.
        ModelError: It has a loop breaker, and the model is no speech recogniser.
    """
    repair.require_fit(model)
    if repair.when == "alarm" and trigger is None:
        raise OptionError(
            f"The repair {repair.name} acts in alarm alone, and nothing raises one.",
            "Give a trigger (a monitor), or make it act always.",
        )
    trigger = trigger if repair.when == "alarm" else None
    before = model.mended
    with ExitStack() as stack:
        stack.enter_context(swapped(model, repair.weights))
        if trigger is None:
            stack.enter_context(model.editing(repair.edits))
        else:
            stack.enter_context(model.hooks(_gated(model, repair.edits, trigger)))
        for gate in repair.features:
            stack.enter_context(gated_features(model, gate, trigger))
        if repair.may_be_empty:
            stack.enter_context(emptiable(_speech_model(model)))
        if repair.breaker:
            breaker, speech = repair.breaker, _speech_model(model)
            stack.enter_context(model.filtering(lambda prompt: breaker.filter(speech, prompt, trigger)))
        if repair.stop and trigger is not None:
            stop = stopping(_speech_model(model), trigger)
            stack.enter_context(model.filtering(lambda _: stop))
        model.mended = repair.name if before is None else f"{before}+{repair.name}"
        try:
            yield model
        finally:
            model.mended = before


@contextmanager
def mended(model: Model, repair: Repair, monitor: Monitor | None = None) -> Iterator[Watch | None]:
    """The model, mended inside the block, with a monitor for a repair that waits for alarms.

    Args:
        model: The model that the repair was made for.
        repair: The repair.
        monitor: What raises alarms; None: the one that comes with otoscope.

    Yields:
        For a repair that waits for alarms the watch: the watcher of `transcribe_all`, or to be entered with `over`. Else None.

    Raises:
        OptionError: The repair is for another model, or needs a monitor and none comes with otoscope.
        ModelError: The monitor is for another model, or the repair needs one and the model is no speech recogniser.
    """
    if repair.when == "always":
        with repaired(model, repair):
            yield None
        return
    speech = require_speech(model)
    monitor = monitor or Monitor.shipped(speech)
    monitor = monitor if repair.false_alarms is None else monitor.at(repair.false_alarms)
    # A text of two words is over before a block of steps is full, and what is to be ended must be ended in time.
    watch = Watch(monitor, speech, keeping=False, every=1 if repair.stop else EVERY)
    with repaired(model, repair, watch):
        yield watch


def _speech_model(model: Model) -> SpeechModel:
    if not isinstance(model, SpeechModel):
        raise ModelError(f"{model.origin.name} decodes elsewhere.", "Loop breakers work with Whisper models.")
    return model


@contextmanager
def emptiable(model: SpeechModel) -> Iterator[None]:
    """The end token may be the first inside the block, in otoscope's decoding and in Hugging Face's `generate`."""
    config = model.hf.generation_config
    before = getattr(config, "begin_suppress_tokens", None)
    config.begin_suppress_tokens = [token for token in before or () if token != model.end_token]  # type: ignore[union-attr]
    try:
        yield
    finally:
        config.begin_suppress_tokens = before  # type: ignore[union-attr]


@contextmanager
def swapped(model: Model, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """New values in place of parameters, by Hugging Face's names; after the block the old tensors themselves are back.

    Raises:
        OptionError: The model has no such parameter, or one of another shape.
    """
    parameters = dict(model.hf.named_parameters())
    for name, value in weights.items():
        if name not in parameters or parameters[name].shape != value.shape:
            raise OptionError(
                f"The model has no parameter {name} of shape {tuple(value.shape)}.",
                "Name the model that the repair was made for.",
            )
    before = {name: parameters[name].data for name in weights}
    try:
        for name, value in weights.items():
            parameters[name].data = value.to(parameters[name].data)
        yield
    finally:
        for name, data in before.items():
            parameters[name].data = data


def weakened(model: Model, repair: Repair, strength: float) -> Repair:
    """A repair whose weights go only part of the way from the model's own (WiSE-FT, arXiv 2109.01903).

    Args:
        model: The model that the repair was made for, unmended.
        repair: The repair; edits and breaker stay as they are.
        strength: 0 leaves the model's own weights, 1 the repair's.
    """
    repair.require_fit(model)
    own = {name: model.hf.get_parameter(name).detach() for name in repair.weights}
    weights = {
        name: torch.lerp(own[name], value.to(own[name]), strength) for name, value in repair.weights.items()
    }
    return replace(repair, weights=weights, made={"strength": strength, "start": dict(repair.made)})


def _gated(model: Model, edits: Sequence[Edit], trigger: Trigger) -> list[tuple[str, HookFunction]]:
    """Hooks that apply each edit to the rows that are in alarm."""
    return [(edit.point, _in_alarm(edit, model.points[edit.point], trigger)) for edit in edits]


def _in_alarm(edit: Edit, point: HookPoint, trigger: Trigger) -> HookFunction:
    if point.axis("batch") is None:
        raise OptionError(f"{point.name} has no rows, so an alarm cannot choose any.", "Edit another point.")

    def act(x: Tensor, visit: Visit) -> Tensor | None:
        rows = range(x.shape[0]) if visit.rows is None else visit.rows
        on = tuple(row for row in rows if trigger.alarmed(row))
        return replace(edit, rows=on)(x, point, visit) if on else None

    return act
