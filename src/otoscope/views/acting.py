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
_WINDOW = 30.0  # s, of models that do not say
_SPARE = 1.0  # s by which a page's sound may be longer than a window
_MOST_VALUES = 2 * 48_000  # a second, of all channels


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
            clip_of(doc, getattr(self.model, "window_seconds", _WINDOW)),
            intervention,
            language=_language(args, doc),
            controls=_whole(args, "controls", 5, _MOST_CONTROLS),
            seed=_whole(args, "seed", 0, 2**32 - 1),
        )
        return outcome.model_dump(mode="json", exclude_none=True)


def clip_of(doc: Document, seconds: float = _WINDOW) -> Clip:
    """The sound that a document carries, with the name and the place it has in its recording.

    Args:
        doc: The document; it may come from anywhere, and a few bytes of sound may unpack to gigabytes.
        seconds: The longest sound to take, such as a window of the model; one second more is let pass.

    Raises:
        AudioError: The sound cannot be heard.
        OptionError: It carries none, or one that is damaged or too long.
    """
    import soundfile

    from otoscope.audio import Clip

    resource = getattr(doc, "resources", {}).get("audio")
    if resource is None:
        raise OptionError("This page carries no sound to change.", "Open the page of a recording.")
    raw = base64.b64decode(resource.data)
    try:
        told = soundfile.info(io.BytesIO(raw))
        most = int((seconds + _SPARE) * told.samplerate)
        if told.frames > most or told.frames * told.channels > (seconds + _SPARE) * _MOST_VALUES:
            raise OptionError(
                f"The sound of this page is longer than one window of {seconds:g} s.",
                "Explain the recording again.",
            )
        samples, rate = soundfile.read(io.BytesIO(raw), frames=most, dtype="float32")
    except soundfile.SoundFileError:
        raise OptionError("The sound of this page is damaged.", "Explain the recording again.") from None
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
