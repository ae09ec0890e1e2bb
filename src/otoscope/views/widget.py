"""A document's page in a notebook with a kernel behind it: what is chosen goes both ways, and the page can run the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otoscope.documents.base import Document
from otoscope.errors import OptionError, OtoscopeError
from otoscope.progress import reporting_to
from otoscope.views.acting import Acts
from otoscope.views.page import render_page, static

try:
    import anywidget
    import traitlets
except ImportError as error:
    raise OptionError(
        "A live page in a notebook needs anywidget, which is not installed.",
        'Install it: pip install "otoscope[notebook]", or display the document itself.',
    ) from error

if TYPE_CHECKING:
    from collections.abc import Callable

    from otoscope.models.base import Model
    from otoscope.views.page import Shown


def page_widget(doc: Shown, model: Model | None = None) -> PageWidget:
    """The page of a document as a widget; see `Document.widget`."""
    return PageWidget(doc, Acts(model) if model is not None else None)


class PageWidget(anywidget.AnyWidget):
    """A page in a sandboxed frame.

    What the page asks for runs in the kernel, between cells like a cell of its own: hooks are put into the very model that the
    cells use, so nothing else may run meanwhile. The notebook's stop button stops it.

    Attributes:
        state: What is chosen on the page, as in its address (`token=5&silence=1.2-1.8`); set it to choose.
        outcomes: What was run from the page, oldest first, as documents.
    """

    _esm = static("widget.js")
    page = traitlets.Unicode().tag(sync=True)
    state = traitlets.Unicode().tag(sync=True)

    def __init__(self, doc: Shown, acts: Acts | None = None) -> None:
        super().__init__(page=render_page(doc, acts.ops if acts else ()))
        self.doc, self.acts = doc, acts
        self.outcomes: list[Document] = []
        self.on_msg(self._take)

    def _take(self, _widget: Any, message: Any, _buffers: Any) -> None:
        """Run what the page asks for, and answer."""
        if not isinstance(message, dict) or message.get("otoscope") != "act" or self.acts is None:
            return
        answer = {"otoscope": "answer", "id": message.get("id")}
        try:
            told = _Telling(
                lambda progress: self.send({**answer, "otoscope": "progress", "progress": progress})
            )
            with reporting_to(told):
                result = self.acts.run(str(message.get("op")), _arguments(message.get("args")), self.doc)
            self._keep(result)
            self.send({**answer, "answer": result})
        except OtoscopeError as error:
            self.send({**answer, "error": str(error)})
        except KeyboardInterrupt:
            self.send({**answer, "error": "It was interrupted."})
        except Exception as error:  # the page must not wait for ever; the notebook shows the traceback
            self.send(
                {
                    **answer,
                    "error": f"otoscope met an error it did not expect: {type(error).__name__}: {error}",
                }
            )
            raise

    def _keep(self, result: dict[str, Any]) -> None:
        from otoscope.documents.kinds import document_of

        if "kind" in result:
            self.outcomes.append(document_of(result))


def _arguments(given: Any) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise OptionError("The arguments are no object.", "Send them by name.")
    return given


class _Telling:
    """Tells the page how far the outermost task is."""

    def __init__(self, tell: Callable[[dict[str, Any]], None]) -> None:
        self._tell, self._open = tell, 0

    def start(self, label: str, total: float | None, unit: str) -> _Task:
        """Begin a task; tasks inside another are not told."""
        self._open += 1
        return _Task(self._tell if self._open == 1 else None, label, total, unit)

    def finish(self, task: Any) -> None:
        """End one."""
        self._open -= 1

    def notice(self, text: str) -> None:
        """Say one line where the progress stands."""
        self._tell({"done": 0, "total": 0, "stage": text})


class _Task:
    def __init__(
        self, tell: Callable[[dict[str, Any]], None] | None, label: str, total: float | None, unit: str
    ) -> None:
        self._tell, self._label, self._total, self._done = tell, label, total or 0, 0.0
        self._unit = unit
        self.advance(0)

    def advance(self, amount: float = 1) -> None:
        """Say that more is done."""
        self._done += amount
        if self._tell:
            self._tell({"done": self._done, "total": self._total, "unit": self._unit, "stage": self._label})
