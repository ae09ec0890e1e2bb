"""A page in the frame of a notebook, used as a page of its own is."""

import re
from fnmatch import fnmatch

from otoscope.views.notebook import frame_of


class Framed:
    """What tests ask of a page: the frame's own answers where it has them, else those of the page around it."""

    def __init__(self, page):
        self._page = page
        frame = page.locator("iframe").element_handle().content_frame()  # a large srcdoc takes a moment
        assert frame is not None
        self._frame = frame

    def __getattr__(self, name):
        return getattr(self._frame if hasattr(self._frame, name) else self._page, name)

    def say(self, message):
        """Post a message as the notebook does."""
        self._page.evaluate(
            "m => document.querySelector('iframe').contentWindow.postMessage(m, '*')", message
        )

    def wait_for_url(self, wanted):
        """Wait until the frame's own address fits a pattern, an expression or a function; it has no path."""
        fits = {
            str: lambda url: fnmatch(url, wanted.replace("**/", "*")),
            re.Pattern: lambda url: wanted.search(url) is not None,
        }.get(type(wanted), wanted)
        for _ in range(100):
            if fits(self._frame.url):
                return
            self._page.wait_for_timeout(50)
        raise AssertionError(f"{self._frame.url} does not come to fit {wanted}")

    def go_back(self):
        """One step back within the frame; the page around it goes nowhere."""
        self._frame.evaluate("() => history.back()")
        self._page.wait_for_timeout(300)

    def reload(self):
        """Show the frame anew, and tell it what was chosen, as a widget does."""
        state = self._frame.url.partition("#")[2]
        self._frame.evaluate("() => { window.shownBefore = true; }")
        self._page.evaluate("() => { const f = document.querySelector('iframe'); f.srcdoc = f.srcdoc; }")
        self._frame.wait_for_function("() => !window.shownBefore && document.querySelector('main')")
        self.say({"otoscope": "state", "state": state})
        self._page.wait_for_timeout(100)


def in_notebook(doc, fragment, visit, folder, **options):
    """Show a document as the output of a cell."""
    notebook = f"<!doctype html><meta charset=utf-8><title>notebook</title><body style='margin:0'>{frame_of(doc, largest=10**8)}"
    (folder / "notebook.html").write_text(notebook, encoding="utf-8")
    page = Framed(visit((folder / "notebook.html").as_uri(), ["file:"], **options))
    if fragment:
        page.locator("main, #page:not(:has(.loading))").first.wait_for()
        page.say({"otoscope": "state", "state": fragment.removeprefix("#")})
        page.wait_for_timeout(100)
    return page
