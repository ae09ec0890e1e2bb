"""What attribution graphs take. They choose by numbers what they compute next, so they are reckoned and not rehearsed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otoscope.planning.rehearsal import Cost

if TYPE_CHECKING:
    from otoscope.planning.jobs import Job

_BATCH_BYTES = 2**27
"""Bytes of the full rows of a batch of targets; see `otoscope.circuits.tracer`."""


def traced(job: Job, nodes: int) -> Cost:
    """A graph of so many features: sweeps, the rows that are kept, and the choice of what comes next."""
    p = job.pieces
    rows = swept(job, nodes, through=False)
    columns = _columns(job)
    kept = min(0.15, 2.0**29 / (8 * nodes * columns))
    sorting = 10.0 * 4 * nodes * columns  # sums, magnitudes and what is kept of every row
    influence = nodes / 128 * nodes / 2 * kept * columns * 36.0
    store = nodes * columns * kept * 8 + 6 * 8.0 * columns
    moved = sorting + influence
    return rows + Cost(0.0, moved, 0.0, moved / p.machine.bandwidth, store + rows.peak)


def swept(job: Job, rows: int, through: bool) -> Cost:
    """Adjoint sweeps of so many rows: below and before each target, half of both on average; through all features, all of it."""
    p = job.pieces
    layers, d, m = p.layers(p.writes), p.width(p.writes), p.hidden(p.writes)
    share = 0.5 if through else 0.25
    cross = 2 * d * d + 60 * d if p.writes == "decoder" else 0
    flops = share * rows * job.length * layers * 2.0 * (2 * d * d + cross + (2 if through else 1) * d * m)
    columns = _columns(job)
    at_once = max(1, min(256, rows, _BATCH_BYTES // (4 * columns)))
    moved = 4.0 * rows * columns * 4 + 10 * 4 * share * rows * job.length * layers * d
    seconds = max(flops / p.machine.rate(p.model.dtype), 0.0) + moved / p.machine.bandwidth
    carried = 4.0 * at_once * (columns + 4 * job.length * d)
    frames = 4.0 * layers * (p.heads(p.writes) * job.length + 2 * d) * p.frames if p.hears else 0.0
    return Cost(flops, moved, 40.0 * layers * rows / at_once, seconds, carried + frames)


def _columns(job: Job) -> int:
    """Features of a text: every neuron at every position."""
    p = job.pieces
    return job.length * p.layers(p.writes) * p.hidden(p.writes)
