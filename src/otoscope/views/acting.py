"""What a page may run where a model is at hand: on a server or in a notebook.

A page names an operation and gives JSON; it gets JSON back. Progress goes to whoever listens (`otoscope.progress`), and a
listener that raises stops the work.
"""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from otoscope.errors import OptionError

if TYPE_CHECKING:
    from otoscope.audio import Clip
    from otoscope.documents.base import Document
    from otoscope.models.base import Model

_MOST_CONTROLS = 50


class Acts:
    """Operations on what a page shows.

    Args:
        model: The model that the documents were made with.

    Attributes:
        ops: Names of the operations: `intervene` takes `intervention` (the fields of an `Intervention`), and optionally
            `controls`, `seed` and `language`; it answers with an `Outcome`.
    """

    ops: tuple[str, ...] = ("intervene",)

    def __init__(self, model: Model) -> None:
        self.model = model

    def run(self, op: str, args: dict[str, Any], doc: Document) -> dict[str, Any]:
        """Run one operation.

        Args:
            op: One of `ops`.
            args: Its arguments, from JSON; whatever they hold, the answer is a result or an `OtoscopeError`.
            doc: What the page shows; its sound is taken from there.

        Returns:
            JSON values.

        Raises:
            OtoscopeError: The operation does not exist, its arguments do not fit, or it was refused further down.
        """
        if op not in self.ops:
            raise OptionError(f"There is no operation {op!r}.", f"Choose one of: {', '.join(self.ops)}.")
        self._check_model(doc)
        return getattr(self, f"_{op}")(args, doc)

    def _check_model(self, doc: Document) -> None:
        """Refuse a document of another model.

        Raises:
            OptionError: It is.
        """
        shown = getattr(getattr(doc, "graph", doc), "model", None)
        name, digest = getattr(shown, "name", shown), getattr(shown, "sha256", None)
        own = self.model.describe()
        other = digest != own["sha256"] if digest and own["sha256"] else name not in (None, own["name"])
        if other or getattr(shown, "mended", None) != own.get("mended"):
            raise OptionError(
                f"This page is about {name}, and the model at hand is {own['name']}.",
                f"Load {name} as the page names it, and try again.",
            )

    def _intervene(self, args: dict[str, Any], doc: Document) -> dict[str, Any]:
        from otoscope.documents.intervention import Intervention
        from otoscope.studies.intervening import intervene

        known = {"intervention", "controls", "seed", "language"}
        if set(args) - known:
            raise OptionError(
                f"intervene takes no {sorted(set(args) - known)[0]!r}.", f"It takes {sorted(known)}."
            )
        try:
            intervention = Intervention.model_validate(args.get("intervention", {}))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or "intervention"
            raise OptionError(
                f"The intervention cannot be read: {place}: {first['msg']}.", "Send its fields."
            ) from error
        outcome = intervene(
            self.model,
            clip_of(doc),
            intervention,
            language=_language(args, doc),
            controls=_whole(args, "controls", 5, _MOST_CONTROLS),
            seed=_whole(args, "seed", 0, 2**32 - 1),
        )
        return outcome.model_dump(mode="json", exclude_none=True)


def clip_of(doc: Document) -> Clip:
    """The sound that a document carries, with the name and the place it has in its recording.

    Raises:
        OptionError: It carries none.
    """
    import soundfile

    from otoscope.audio import Clip

    resource = getattr(doc, "resources", {}).get("audio")
    if resource is None:
        raise OptionError("This page carries no sound to change.", "Open the page of a recording.")
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(resource.data)), dtype="float32")
    about = getattr(getattr(doc, "sound", None) or doc, "audio", None)
    made = Clip.of(samples, rate)
    return Clip(made.samples, getattr(about, "file", None), getattr(about, "start", 0.0))


def _language(args: dict[str, Any], doc: Document) -> str | None:
    """The language asked for, or the one that the document's settings name."""
    language = args.get("language", getattr(doc, "settings", {}).get("language"))
    if language is not None and not isinstance(language, str):
        raise OptionError("The language is no text.", "Send a code such as fr.")
    return language


def _whole(args: dict[str, Any], name: str, usual: int, most: int) -> int:
    value = args.get(name, usual)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise OptionError(f"{name}={value!r} cannot be used.", f"Send a whole number from 0 to {most}.")
    return value
