"""Published configurations of models too large to fetch for a look: their sizes without their weights.

One JSON file a model lies in `published/`, with where its values are known from and which of them could not be verified.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otoscope.errors import ModelError
from otoscope.models.sources import REGISTRY

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

_FOLDER = Path(__file__).parent / "published"


@dataclass(frozen=True)
class Published:
    """What is published about a model.

    Attributes:
        hub_id: Its name on the hub.
        config: Values of its config.json that decide shapes and computation, as Transformers' configuration classes take them.
        parameters_millions: Parameters as its makers state them.
        dtype: Precision of the published weights; None: not known.
        sources: Where the values are known from.
        unverified: Values of this entry that no source confirms, by name.
    """

    hub_id: str
    config: dict[str, Any]
    parameters_millions: int
    dtype: str | None
    sources: tuple[str, ...]
    unverified: tuple[str, ...]

    def configuration(self) -> PreTrainedConfig:
        """The Transformers configuration."""
        from transformers import AutoConfig

        values = dict(self.config)
        return AutoConfig.for_model(values.pop("model_type"), **values)


@cache
def published() -> dict[str, Published]:
    """Every published configuration, by hub id."""
    found = {}
    for path in sorted(_FOLDER.glob("*.json")):
        facts = json.loads(path.read_text("utf-8"))
        facts |= {name: tuple(facts[name]) for name in ("sources", "unverified")}
        found[facts["hub_id"]] = Published(**facts)
    return found


def find_published(name: str) -> Published | None:
    """The published configuration of a hub id, of its last part (`whisper-large-v3`) or of an alias; None: there is none."""
    known = published()
    wanted = REGISTRY[name].hub_id if name in REGISTRY else name
    return known.get(wanted) or next(
        (p for hub_id, p in known.items() if hub_id.split("/")[-1] == wanted), None
    )


def require_published(name: str) -> Published:
    """The published configuration of a name.

    Raises:
        ModelError: There is none.
    """
    found = find_published(name)
    if found is None:
        raise ModelError(
            f"No configuration of {name[:200]!r} is kept here.",
            f"Name a model directory, or one of {', '.join(published())}.",
        )
    return found
