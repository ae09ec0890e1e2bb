"""Run directories: what was done, with what, and its results, so that a killed job goes on where it stopped."""

from __future__ import annotations

from otoscope.runs.engines import Engine, Here, OnRay, computed, elsewhere, running_on
from otoscope.runs.run import DESCRIPTION, Run
from otoscope.runs.store import ActivationStore

__all__ = [
    "DESCRIPTION",
    "ActivationStore",
    "Engine",
    "Here",
    "OnRay",
    "Run",
    "computed",
    "elsewhere",
    "running_on",
]
