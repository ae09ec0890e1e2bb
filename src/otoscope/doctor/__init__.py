"""Says what this installation has, what it lacks, and what to do about each lack."""

from __future__ import annotations

from otoscope.doctor.check import Check
from otoscope.doctor.machine import look_at_machine
from otoscope.doctor.packages import look_at_extras, look_at_packages
from otoscope.doctor.weights import look_at_weights

__all__ = ["Check", "examine"]


def examine() -> list[Check]:
    """Look at packages, the machine, weights and their sources, and the optional extras.

    Downloads nothing; takes a few seconds, of which a hub that does not answer takes two and a package
    index that does not answer six.
    """
    return [*look_at_packages(), *look_at_machine(), *look_at_weights(), *look_at_extras()]
