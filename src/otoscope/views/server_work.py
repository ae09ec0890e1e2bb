"""What a server does with its model: explain a recording that came, and act on what a page shows."""

from __future__ import annotations

import re
import shutil
import tempfile
import unicodedata
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otoscope.audio import info
from otoscope.documents.base import Document
from otoscope.errors import AudioError, OptionError
from otoscope.models.loading import load_model
from otoscope.models.sources import REGISTRY
from otoscope.models.whisper import require_speech
from otoscope.progress import track
from otoscope.studies.explain import Stages, explain_clip
from otoscope.views.acting import Acts
from otoscope.views.page import save_page
from otoscope.views.server_choices import SHIPPED, Monitors
from otoscope.views.server_jobs import Job

if TYPE_CHECKING:
    from otoscope.models.base import Model

LONGEST_SOUND = 3600.0
"""Seconds of a recording that is taken."""

_STEM = 60  # characters of a page's name
_KINDS: dict[str, type | tuple[type, ...]] = {
    "model": str, "language": str, "offset": (int, float), "token": int, "reference": str, "batch": int,
    "circuits": int, "monitor": str,
}  # fmt: skip
_BOUNDS = {"offset": (0, 2**31 - 1), "token": (0, 2**31 - 1), "batch": (1, 2**31 - 1), "circuits": (0, 5)}


@dataclass(frozen=True)
class Setup:
    """How models are loaded.

    Attributes:
        model: The one used unless a page asks for another.
        device: See `load_model`.
        dtype: See `load_model`.
        batch: Rows at once; None: the model's own.
        seed: Of everything random.
        monitors: Folders of monitors that pages may choose, beside those in the served folder.
    """

    model: str = "whisper-tiny.en"
    device: str = "auto"
    dtype: str = "auto"
    batch: int | None = None
    seed: int = 0
    monitors: tuple[Path, ...] = ()


class Workshop:
    """The one model in memory, and what is done with it. Only the queue's thread works here.

    Args:
        folder: Where new pages go.
        setup: How models are loaded.

    Raises:
        OptionError: A folder of the setup holds no monitor.
    """

    def __init__(self, folder: Path, setup: Setup) -> None:
        self.folder, self.setup = folder, setup
        self.monitors = Monitors(folder, setup.monitors)
        self._name: str | None = None
        self._model: Model | None = None
        self._acts: Acts | None = None

    def explain(self, job: Job, sound: Path, options: Mapping[str, Any]) -> dict[str, Any]:
        """Explain a recording; the page is whole or not there, and nothing that was there is lost.

        Returns:
            `path`, the page's name in the folder.
        """
        options = dict(options)
        options["monitor"] = self.monitors.monitor(options.get("monitor", SHIPPED))
        with track("Opening the model", None):
            model = self.model(options.pop("model", None))
        job.check()
        options.setdefault("batch", self.setup.batch)
        stages = Stages(circuits=options.pop("circuits", Stages.circuits))
        doc = explain_clip(require_speech(model), sound, seed=self.setup.seed, stages=stages, **options)
        job.check()
        path = free_name(self.folder, sound.stem)
        save_page(doc, path)
        return {"path": path.name}

    def act(self, job: Job, op: str, args: dict[str, Any], doc: Document) -> dict[str, Any]:
        """Run one operation on a document with the model that it was made with."""
        shown = getattr(getattr(doc, "graph", doc), "model", None)
        name = getattr(shown, "name", shown)
        with track("Opening the model", None):
            model = self.model(name if isinstance(name, str) and self.is_offered(name) else None)
        job.check()
        if self._acts is None:
            self._acts = Acts(model, within=self.folder)
        return self._acts.run(op, args, doc)

    def is_offered(self, name: str) -> bool:
        """Whether a page may have a model loaded: never a path or an address of its own making."""
        return name == self.setup.model or name in REGISTRY

    def model(self, name: str | None) -> Model:
        """The model of a name, which takes the place of the one that was in memory.

        Raises:
            OptionError: Pages may not choose it.
            ModelError: It cannot be loaded.
        """
        name = name or self.setup.model
        if not self.is_offered(name):
            raise OptionError(
                f"{name[:80]!r} is no model of this server.", "Start it with `otoscope serve --model`."
            )
        if self._model is None or self._name != name:
            self._model = self._acts = None  # before the next is loaded: two may not fit
            self._model, self._name = load_model(name, self.setup.device, self.setup.dtype), name
        return self._model


def checked_options(told: Any) -> dict[str, Any]:
    """The options of `explain` that a page sent.

    Raises:
        OptionError: One is not known, or of a wrong type.
    """
    if not isinstance(told, dict):
        raise OptionError("The options are no JSON object.", "Send an object, such as {}.")
    options = {name: value for name, value in told.items() if value is not None and value != ""}
    for name, value in options.items():
        if name not in _KINDS:
            raise OptionError(f"There is no option {name[:40]!r}.", f"The options are {', '.join(_KINDS)}.")
        if isinstance(value, bool) or not isinstance(value, _KINDS[name]):
            raise OptionError(f"{name} is of a wrong type.", "Look at the guide of `otoscope serve`.")
    for name, (least, most) in _BOUNDS.items():
        value = options.get(name, least)
        if not least <= value <= most:  # never true of NaN
            raise OptionError(f"{name} cannot be {value}.", f"Give a number from {least} to {most:,}.")
    return options


def checked_sound(path: Path) -> None:
    """Refuse what came if it is no recording, or a very long one.

    Raises:
        AudioError: It is.
    """
    try:
        length = info(path).duration
    except AudioError as error:  # where it lies on this machine is nobody's business
        raise AudioError(error.reason.replace(str(path), path.name), error.remedy) from None
    if length is not None and length > LONGEST_SOUND:
        raise AudioError(
            f"The recording is {length / 60:.0f} minutes long.",
            f"Cut it to {LONGEST_SOUND / 60:.0f} minutes, or explain it with `otoscope explain --offset`.",
        )


class Parcel:
    """A recording that is coming in: a file in a folder of its own, outside the runs, which goes away with this object.

    Args:
        name: What the sender calls it; it may hold anything.
    """

    def __init__(self, name: str) -> None:
        folder = tempfile.mkdtemp(prefix="otoscope-serve-")
        self.path = Path(folder) / plain_name(name)
        self._removed = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)

    def drop(self) -> None:
        """Remove it."""
        self._removed()


def plain_name(name: str) -> str:
    """A file name made of a name from outside: letters, digits, dashes and `_. ` of its last part, and no more than 60."""
    last = re.split(r"[/\\]", name)[-1]
    kept = "".join(
        c
        for c in unicodedata.normalize("NFC", last)
        if c.isalnum() or c in "_. " or unicodedata.category(c) == "Pd"
    )
    stem, dot, ending = kept.strip(" .").rpartition(".")
    stem, ending = (stem, ending) if dot else (ending, "")
    stem = stem.strip(" .-")[:_STEM].encode()[:150].decode("utf-8", "ignore") or "recording"
    ending = ending.lower() if ending.isascii() and 0 < len(ending) <= 5 else "wav"
    return f"{stem}.{ending}"


def free_name(folder: Path, stem: str) -> Path:
    """A page's path in a folder that nothing has yet: `STEM.html`, or `STEM-2.html` and so on."""
    names = (f"{stem}{'' if n == 1 else f'-{n}'}.html" for n in range(1, 10_000))
    return next(folder / name for name in names if not (folder / name).exists())
