"""One thing that was looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: What was looked at.
        status: "ok"; "lack": something optional is missing; "broken": something needed does not work.
        detail: What was found.
        remedy: What to do about it, when there is something to do.
    """

    name: str
    status: Literal["ok", "lack", "broken"]
    detail: str
    remedy: str | None = None
