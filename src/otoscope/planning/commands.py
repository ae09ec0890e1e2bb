"""What the long commands do, as stages made of pieces: one function a command."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from otoscope.audio import info
from otoscope.audio.samples import NAMES, sample
from otoscope.circuits.speech_tracing import SpeechSettings
from otoscope.errors import ModelError, OptionError
from otoscope.models.whisper import SpeechModel
from otoscope.patching.sweeping import SweepOptions
from otoscope.planning.jobs import Job
from otoscope.planning.pieces import WINDOW, Pieces, pieces_of
from otoscope.planning.plan import Plan, Stage
from otoscope.planning.rehearsal import Cost
from otoscope.planning.tracing import swept, traced
from otoscope.wording import counted

if TYPE_CHECKING:
    from otoscope.models.base import Model
    from otoscope.planning.machine import Machine

_LOOP = 224
"""Tokens that a patched text is written to at most (`otoscope patch --max-tokens`)."""

Parts = dict[str, Cost]


def _transcribe(job: Job) -> Parts:
    p, rounds = job.pieces, job.windows / job.rows
    return {
        "hear": p.hear(job.rows) * rounds,
        "write": p.write(job.rows, job.tokens, own=True) * rounds,
    }


def _monitor(job: Job) -> Parts:
    written = _transcribe(job)
    return written | {"watch": written["write"] * _WATCHING}


def _lens(job: Job) -> Parts:
    p = job.pieces
    layers = p.layers(p.writes)
    kept = p.layers(p.hears) * p.frames * p.width(p.hears) * p.itemsize if p.hears else 0
    parts = {
        "hear": p.hear(1).holding(kept),
        "write": p.write(1, job.tokens).holding(kept),
        "logit lens": (p.read(1, job.length) + p.unembed(job.tokens) * layers).holding(kept),
    }
    if p.hears:
        room = max(100, 2 * job.tokens)
        parts["encoder lens"] = p.write(p.layers(p.hears), room, own=True).holding(kept)
    return parts


def _explain(job: Job) -> Parts:
    p = job.pieces
    decoder, encoder = p.layers(p.writes), p.layers("encoder")
    kept = encoder * p.frames * p.width("encoder") * p.itemsize
    rows = min(job.batch, 16)
    later = (decoder * (2 * (1 + p.heads(p.writes)) + 1) + 4 * decoder) * (decoder + 1) / (2 * decoder)
    heard = encoder * (2 + p.heads("encoder")) + 2 * encoder
    ablation = p.read(rows, job.length) * (later / rows)
    ablation += p.hear(rows) * (heard / rows * (encoder + 1) / (2 * encoder))
    ablation += p.read(rows, job.length, 0, True) * (heard / rows)
    parts = _lens(job) | {"ablation": ablation.holding(kept)}
    if p.itemsize >= 4:  # half precision is too coarse to account for tokens
        parts["sound of each token"] = swept(job, job.tokens, through=True).holding(kept)
        parts["circuit"] = traced(job, 150).holding(kept)
    return parts


def _patch(job: Job) -> Parts:
    p = job.pieces
    blocks = 3 if p.writes == "decoder" else 2
    texts = 2 * blocks * p.layers(p.writes)  # and a random direction beside each
    rows = min(job.batch, texts)
    patched = p.write(rows, _LOOP) * (texts / rows)
    return {
        "hear": p.hear(1) * job.windows,
        "write": p.write(1, _LOOP) * job.windows,
        "write again": (patched * job.windows).holding(_passed(p)),
        "price": _priced(job),
    }


def _passed(p: Pieces) -> float:
    """Bytes of an encoder's pass that is kept layer by layer, so that edited rows can begin at any of them."""
    return float((p.layers(p.hears) + 1) * p.frames * p.width(p.hears) * p.itemsize) if p.hears else 0.0


def _priced(job: Job) -> Cost:
    """The shipped recordings are written untouched and under each winner."""
    p = job.pieces
    clips, seconds = len(NAMES), sum(info(sample(name)).duration or 0.0 for name in NAMES)
    rows = min(job.batch, clips)
    tokens = Job(p, seconds, rows, recordings=clips).tokens
    written = p.write(rows, tokens, own=p.hears is not None) * (clips / rows)
    return p.hear(1) * clips + (written * (1 + SweepOptions().winners)).holding(rows * _passed(p))


def _trace(job: Job) -> Parts:
    p = job.pieces
    if p.itemsize < 4:
        raise OptionError("Half precision is too coarse to trace in.", "Plan it with --dtype float32.")
    return {
        "hear": p.hear(1),
        "write": p.write(1, job.tokens),
        "trace": traced(job, job.units),
    }


def _probe(job: Job) -> Parts:
    p = job.pieces
    stack = p.hears or p.writes
    if p.hears:
        once = p.hear(job.rows)
    else:
        once = p.read(job.rows, job.length)
    layers, width = p.layers(stack), p.width(stack)
    pooled = 4.0 * 2 * job.windows * layers * p.frames * width
    fits = layers * 5 * (1 + 5 + 1)  # folds, shuffled labels, mel statistics
    work = 40.0 * 4 * job.windows * width * fits
    return {
        "hear": once * (job.windows / job.rows),
        "pool": Cost(0, pooled, 0, pooled / p.machine.bandwidth, 4.0 * job.rows * p.frames * width),
        "probes": Cost(
            work, 0, 0, work / p.machine.rate(p.model.dtype) + 0.01 * fits, 8.0 * job.windows * layers * width
        ),
    }


def _features(job: Job) -> Parts:
    p = job.pieces
    stack, steps, width, batch = p.hears or p.writes, job.units, 4096, 2048
    d = p.width(stack)
    heard = p.hear(job.rows) * (job.windows / job.rows)
    vectors = job.windows * p.frames * d * 4.0
    flops = steps * batch * 2.0 * d * width * 2
    moved = steps * 4.0 * (batch * width * 4 + 2 * d * width * 10)
    memory = 4.0 * (2 * d * width * 4 + batch * width * 3)
    learning = Cost(
        flops,
        moved,
        200.0 * steps,
        flops / p.machine.rate(p.model.dtype) + moved / p.machine.bandwidth,
        memory,
    )
    return {
        "hear": heard,
        "keep vectors": Cost(0, 2 * vectors, 0, 2 * vectors / p.machine.bandwidth, min(vectors, 2.0**29)),
        "learn": learning,
    }


def _mend(job: Job) -> Parts:
    p, trials = job.pieces, job.units
    kept = job.windows * p.frames * p.width("encoder") * p.itemsize
    written = p.write(job.rows, job.tokens, own=True) * (job.windows / job.rows)
    return {
        "hear": p.hear(job.rows) * (job.windows / job.rows),
        "write in every trial": (written * (trials + 1)).holding(kept),
    }


COMMANDS: dict[str, Callable[[Job], Parts]] = {
    "transcribe": _transcribe,
    "explain": _explain,
    "lens": _lens,
    "patch": _patch,
    "trace": _trace,
    "probe": _probe,
    "features": _features,
    "monitor": _monitor,
    "mend": _mend,
}
_RECOGNISERS = ("transcribe", "explain", "monitor", "mend")
_WATCHING = 0.03  # what `benchmarks/monitoring.py` holds it to
_UNITS = {"trace": "feature", "features": "step", "mend": "trial"}
_DEFAULTS = {"trace": SpeechSettings().nodes, "features": 2000, "mend": 40}


def plan(
    model: Model,
    command: str,
    machine: Machine,
    *,
    seconds: float = WINDOW,
    batch: int | None = None,
    units: int | None = None,
    recordings: int = 1,
) -> Plan:
    """What a command takes on a machine.

    Args:
        model: A model on the meta device (`load_model(name, device="meta", dtype=...)`).
        command: One of `COMMANDS`.
        machine: The machine, such as `measured()`.
        seconds: Of sound, in all.
        batch: Rows at once; None: `model.batch`.
        units: Features of a trace, steps of a training, trials of a search; None: the command's own default.
        recordings: How many recordings the sound is in, each with windows of its own.

    Raises:
        OptionError: There is no such command, or a number is out of range.
        ModelError: The command is not for this kind of model.
    """
    if command not in COMMANDS:
        raise OptionError(f"Nothing is planned for {command!r}.", f"Choose one of: {', '.join(COMMANDS)}.")
    if not seconds > 0 or not math.isfinite(seconds):
        raise OptionError(f"{seconds} seconds of sound are none.", "Give more than 0.")
    if command in _RECOGNISERS and not isinstance(model, SpeechModel):
        raise ModelError(
            f"`otoscope {command}` is for recognisers, and {model.origin.name} is none.",
            "Name a Whisper model.",
        )
    if units is not None and command not in _UNITS:
        raise OptionError(
            f"`otoscope {command}` has no units to count.", f"Leave them out, or plan {', '.join(_UNITS)}."
        )
    units = _DEFAULTS.get(command, 0) if units is None else units
    if command in _UNITS and units < 1:
        raise OptionError(f"{counted(units, _UNITS[command])} are none.", "Give 1 or more.")
    job = Job(pieces_of(model, machine, seconds), seconds, batch or model.batch, units, recordings)
    parameters = list(model.hf.parameters())
    numbers = sum(x.numel() for x in parameters)
    weights = float(sum(x.numel() * x.element_size() for x in parameters))
    loading = Stage(
        "start and load",
        machine.start + weights / machine.hashing + 3 * weights / machine.bandwidth,
        0.0,
        0.5 * weights,
    )
    stages = [
        Stage(name, cost.seconds, cost.flops, cost.peak) for name, cost in COMMANDS[command](job).items()
    ]
    return Plan(
        command, model.origin.name, str(model.dtype).removeprefix("torch."), numbers, weights, machine.start_bytes,
        (loading, *stages), tuple(_assumptions(job, command)),
    )  # fmt: skip


def _assumptions(job: Job, command: str) -> list[str]:
    windows, tokens = counted(job.windows, "window"), counted(job.tokens, "token")
    told = [
        f"{job.seconds:g} s of sound in {windows} of {WINDOW:g} s, {tokens} each, {counted(job.rows, 'row')} at once"
    ]
    if command in _UNITS:
        told.append(counted(job.units, _UNITS[command]))
    if command == "patch":
        told.append(
            f"every recording loops, and each patched text is written to {_LOOP} tokens; the reference is not heard"
        )
        told.append(
            f"{counted(SweepOptions().winners, 'winner')}, priced on the shipped recordings, whose texts stay as long"
        )
    if command == "monitor":
        told.append(f"watching takes {100 * _WATCHING:g} % of the time of writing")
    if command == "probe":
        told.append("a hundredth of a second for each probe that is fitted")
    if command == "features":
        told.append("one layer of the stack that hears, 4096 features, 2048 vectors a step")
    if command in ("trace", "explain"):
        told.append("the model's own neurons, every one of them active; the encoder stays closed")
    return told
