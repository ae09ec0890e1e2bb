"""What a page may run where a model is at hand: on a server or in a notebook.

A page names an operation and gives JSON; it gets JSON back. Progress goes to whoever listens (`otoscope.progress`), and a
listener that raises stops the work.
"""

from __future__ import annotations

import base64
import io
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from otoscope.dictionaries.loading import is_own
from otoscope.documents.graph import GraphData, GraphDoc
from otoscope.errors import OptionError
from otoscope.progress import track

if TYPE_CHECKING:
    from otoscope.audio import Clip
    from otoscope.documents.base import Document
    from otoscope.documents.intervention import Intervention
    from otoscope.models.base import Model
    from otoscope.studies.graph_edges import EdgeSplitter

_MOST_CONTROLS = 50
_MOST_TOKENS = 200
_WINDOW = 30.0  # s, of models that do not say
_SPARE = 1.0  # s by which a page's sound may be longer than a window
_MOST_VALUES = 2 * 48_000  # a second, of all channels


class Acts:
    """Operations on what a page shows.

    Args:
        model: The model that the documents were made with.
        within: Folder out of which no dictionary is read that a page names, as on a server, where anybody's page may ask; None: a
            page may name any, as in a notebook, on a person's own machine.

    Attributes:
        ops: Names of the operations. `intervene` takes `intervention` (the fields of an `Intervention`), and optionally
            `controls`, `seed` and, of a recording, `language` or, of a prompt, `tokens`; it answers with an `Outcome`. `split`
            takes `place` (of a graph in the document, such as `graph` or `circuits/0/graph`) and the ids of the ends of an edge,
            `source` and `target`; it answers with an `EdgeSplit`.
    """

    ops: tuple[str, ...] = ("intervene", "split")

    def __init__(self, model: Model, within: Path | None = None) -> None:
        self.model, self.within = model, within
        self._splitting: tuple[str, EdgeSplitter] | None = None  # of the graph that was asked about last

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

    def _check_dictionaries(self, *names: str | None) -> None:
        """Refuse dictionaries that a page has no business with.

        Raises:
            OptionError: One lies outside the folder that pages may name.
        """
        for name in names:
            if name is None or self.within is None or is_own(name):
                continue
            if not _lies_in(name, self.within):
                raise OptionError(
                    f"The dictionary {name[:80]!r} is not in the folder that is served.",
                    "Use neurons, or put the dictionary into the served folder and name it there.",
                )

    def _intervene(self, args: dict[str, Any], doc: Document) -> dict[str, Any]:
        from otoscope.studies.intervening import TOKENS, intervene, intervene_prompt

        prompt = prompt_of(doc)
        known = {"intervention", "controls", "seed", "language" if prompt is None else "tokens"}
        if set(args) - known:
            raise OptionError(
                f"intervene takes no {sorted(set(args) - known)[0]!r} here.", f"It takes {sorted(known)}."
            )
        intervention = _intervention(args)
        self._check_dictionaries(intervention.dictionary, intervention.encoder_dictionary)
        how = {
            "controls": _whole(args, "controls", 5, _MOST_CONTROLS),
            "seed": _whole(args, "seed", 0, 2**32 - 1),
        }
        if prompt is not None:
            how["tokens"] = _whole(args, "tokens", TOKENS, _MOST_TOKENS)
            outcome = intervene_prompt(self.model, prompt, intervention, **how)
        else:
            clip = clip_of(doc, getattr(self.model, "window_seconds", _WINDOW))
            outcome = intervene(self.model, clip, intervention, language=_language(args, doc), **how)
        return outcome.model_dump(mode="json", exclude_none=True)

    def _split(self, args: dict[str, Any], doc: Document) -> dict[str, Any]:
        for name in ("place", "source", "target"):
            if not isinstance(args.get(name), str) or set(args) - {"place", "source", "target"}:
                raise OptionError(
                    f"{name} is missing or no text.", "Send place, source and target, and nothing else."
                )
        graph, known = (
            graph_at(doc, args["place"]),
            sha256(f"{args['place']} {doc.dumps()}".encode()).hexdigest(),
        )
        self._check_dictionaries(graph.dictionary_folder)
        if self._splitting is None or self._splitting[0] != known:
            with track("Reading what the graph is of"):
                self._splitting = None
                self._splitting = known, self._splitter(doc, graph)
        return (
            self._splitting[1]
            .split(args["source"], args["target"])
            .model_dump(mode="json", exclude_none=True)
        )

    def _splitter(self, doc: Document, graph: GraphData) -> EdgeSplitter:
        from otoscope.circuits.heard import listen
        from otoscope.models.transcripts import DecodeOptions
        from otoscope.models.whisper import require_speech
        from otoscope.studies.graph_edges import EdgeSplitter

        heard = None
        if graph.segments:
            speech = require_speech(self.model)
            options = DecodeOptions(language=speech.check_language(_language({}, doc)))
            heard = listen(speech, clip_of(doc, speech.window_seconds), options)
        settings = doc.settings if isinstance(doc, GraphDoc) else {}
        return EdgeSplitter(self.model, graph, heard, settings)


def _lies_in(name: str, folder: Path) -> bool:
    try:
        return Path(name).resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):  # NUL, a name that is too long, links that go round
        return False


def graph_at(doc: Document, place: str) -> GraphData:
    """The graph at a place of a document.

    Raises:
        OptionError: There is none.
    """
    found: Any = doc
    for step in place.split("/"):
        if isinstance(found, list):
            # No list has more than nine digits of entries, and Python makes no number of thousands of digits.
            at = int(step) if step.isdecimal() and len(step) < 10 else len(found)
            found = found[at] if at < len(found) else None
        else:
            fields = type(found).model_fields if isinstance(found, BaseModel) else ()
            found = getattr(found, step, None) if step in fields else None
        if found is None:
            break
    if not isinstance(found, GraphData):
        raise OptionError(f"The document has no graph at {place[:80]!r}.", "Name one of its graphs.")
    return found


def _intervention(args: dict[str, Any]) -> Intervention:
    """The intervention that a page asks for.

    Raises:
        OptionError: It is none.
    """
    from otoscope.documents.intervention import Intervention

    try:
        return Intervention.model_validate(args.get("intervention", {}))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "intervention"
        raise OptionError(
            f"The intervention cannot be read: {place}: {first['msg']}.", "Send its fields."
        ) from error


def prompt_of(doc: Document) -> str | None:
    """The prompt that a document is about; None: it is about a recording, or neither."""
    from otoscope.documents.lens import LensDoc

    if isinstance(doc, GraphDoc):
        return doc.graph.text if doc.sound is None and not doc.graph.segments else None
    return doc.text if isinstance(doc, LensDoc) and doc.is_prompt else None


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
