"""The page in a notebook with a kernel behind it: the kernel's side alone, and both sides in a real browser."""

import json

import pytest

from otoscope.documents.intervention import Outcome
from otoscope.errors import OptionError
from otoscope.progress import track
from otoscope.views.page import static

pytest.importorskip("anywidget")

from otoscope.views.widget import PageWidget, page_widget


class Echo:
    """Stands where `Acts` stands, to see what reaches it; the real one is tried below."""

    ops = ("echo",)

    def run(self, op, args, doc):
        if args.get("refuse"):
            raise OptionError("It cannot be.", "Leave it.")
        if args.get("stop"):
            raise KeyboardInterrupt
        with track("Echoing", 2, "times") as task:
            task.advance()
            with track("inner", 5) as inner:
                inner.advance()
        return {"op": op, "args": args, "title": doc.title}


@pytest.fixture
def talk(doc):
    """A widget, and what it says to its page."""
    widget = PageWidget(doc, Echo())
    said = []
    widget.send = said.append

    def talked(message):
        said.clear()
        widget._take(widget, message, [])
        return said

    return talked


def test_a_request_is_answered_and_progress_of_the_outermost_task_is_told(talk, doc):
    said = talk({"otoscope": "act", "id": 7, "op": "echo", "args": {"a": 1}})
    assert said[-1] == {
        "otoscope": "answer",
        "id": 7,
        "answer": {"op": "echo", "args": {"a": 1}, "title": doc.title},
    }
    assert [m["progress"] for m in said[:-1]] == [
        {"done": 0, "total": 2, "unit": "times", "stage": "Echoing"},
        {"done": 1, "total": 2, "unit": "times", "stage": "Echoing"},
    ]


@pytest.mark.parametrize(
    ("args", "error"),
    [
        ({"refuse": 1}, "It cannot be. Leave it."),
        ({"stop": 1}, "It was interrupted."),
        ([], "The arguments are no object. Send them by name."),
    ],
)
def test_a_refusal_or_an_interruption_is_an_answer_too(talk, args, error):
    (answer,) = talk({"otoscope": "act", "id": 1, "op": "echo", "args": args})
    assert answer == {"otoscope": "answer", "id": 1, "error": error}


@pytest.mark.parametrize("message", [None, "act", {"otoscope": "state"}, {"id": 1}, []])
def test_what_is_no_request_is_passed_over(talk, message):
    assert talk(message) == []


def test_without_a_model_the_page_offers_nothing(doc):
    widget = page_widget(doc)
    assert "data-ops" not in widget.page
    said = []
    widget.send = said.append
    widget._take(widget, {"otoscope": "act", "id": 1, "op": "intervene", "args": {}}, [])
    assert said == []


NOTEBOOK = """<!doctype html><meta charset="utf-8"><title>notebook</title><body>
<div id="cell"></div><script type="module">
const url = URL.createObjectURL(new Blob([await kernel("esm")], {type: "text/javascript"}));
const {default: widget} = await import(url);
const listeners = {}, values = {page: await kernel("page"), state: await kernel("state")};
window.fire = (event, value) => (listeners[event] ?? []).forEach((listener) => listener(value));
window.setState = (state) => { values.state = state; fire("change:state"); };
const model = {
  get: (name) => values[name],
  set: (name, value) => { values[name] = value; },
  save_changes: () => kernel("saved", JSON.stringify({state: values.state})),
  send: (message) => kernel("message", JSON.stringify(message)),
  on: (event, listener) => (listeners[event] ??= []).push(listener),
  off: () => {},
};
window.close_ = widget.render({model, el: document.getElementById("cell")});
</script>"""


@pytest.fixture
def cell(visit, tmp_path):
    """A widget in a cell: the front end's part is played by a few lines, the kernel's by this process."""

    def shown(widget):
        (tmp_path / "notebook.html").write_text(NOTEBOOK, encoding="utf-8")
        page = visit("about:blank", ["file:"])

        def kernel(what, text=""):
            if what == "message":
                widget._take(widget, json.loads(text), [])
            elif what == "saved":
                widget.set_state(json.loads(text))
            return {"esm": static("widget.js"), "page": widget.page, "state": widget.state}.get(what)

        page.expose_function("kernel", kernel)
        waiting = []
        widget.send = waiting.append
        page.goto((tmp_path / "notebook.html").as_uri())
        page.locator("iframe").wait_for()
        frame = page.frames[1]
        frame.locator("main").wait_for()

        def deliver():
            while waiting:
                page.evaluate("m => fire('msg:custom', m)", waiting.pop(0))

        return page, frame, deliver

    return shown


@pytest.mark.browser
def test_what_is_chosen_goes_both_ways(cell, doc):
    widget = page_widget(doc)
    page, frame, _ = cell(widget)
    frame.locator(".token").nth(5).click()
    page.wait_for_timeout(200)
    assert widget.state == "token=5"
    page.evaluate("setState('token=7&zero=decoder_blocks.2.mlp')")
    frame.locator("main[data-token='7']").wait_for()
    assert "decoder layer 2, MLP zeroed" in frame.locator(".pending").inner_text()
    assert frame.get_by_role("button", name="Write again").is_disabled()


@pytest.mark.browser
def test_the_frame_is_as_high_as_its_page_but_no_higher_than_the_screen(cell, doc):
    page, _, _ = cell(page_widget(doc))
    page.wait_for_function("() => document.querySelector('iframe').style.height !== '600px'")
    height = page.evaluate("parseFloat(document.querySelector('iframe').style.height) / screen.availHeight")
    assert height == pytest.approx(0.85, abs=0.01)


@pytest.mark.browser
def test_a_message_from_elsewhere_is_not_taken_for_the_pages(cell, doc):
    widget = page_widget(doc)
    page, frame, _ = cell(widget)
    page.evaluate("postMessage({otoscope: 'state', state: 'token=9'}, '*')")
    page.wait_for_timeout(200)
    assert widget.state == ""
    frame.evaluate("postMessage({otoscope: 'state', state: 'token=9'}, '*')")
    page.wait_for_timeout(200)
    assert frame.url == "about:srcdoc"


@pytest.mark.browser
@pytest.mark.weights
def test_the_page_runs_the_model_in_the_kernel(cell, tiny_en, explained):
    widget = page_widget(explained, tiny_en)
    page, frame, deliver = cell(widget)
    frame.locator(".offer").first.click()
    frame.get_by_role("button", name="Write again").click()
    page.wait_for_timeout(500)
    deliver()
    frame.get_by_test_id("outcome").wait_for()
    (outcome,) = widget.outcomes
    assert isinstance(outcome, Outcome)
    assert outcome.after.transcript.text in frame.get_by_test_id("outcome").inner_text()
    assert "random other places" in frame.get_by_test_id("outcome").inner_text()
