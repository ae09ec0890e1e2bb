"""The server of runs as a person meets it, in headless Chromium: from an empty folder to compared and annotated runs."""

from __future__ import annotations

import json
from pathlib import Path
from shutil import copytree

import pytest
from tests.views import graphs
from tests.views.axe import violations
from tests.views.conftest import HOSTILE, made_up
from tests.views.served import serving

import otoscope as oto
from otoscope.monitors import monitor
from otoscope.views.page import save_page
from otoscope.views.server_entries import id_of

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("ablated_once")]

OTHER = "And so my dear fellow citizens, ask what we can do."


@pytest.fixture
def served(tmp_path):
    with serving(tmp_path) as running:
        yield running


@pytest.fixture
def open_served(served, visit):
    """Open an address of the server, with its key."""

    def opened(path="/", fragment="", **options):
        page = visit(served.url(path, fragment), [f"http://{served.address}/"], **options)
        page.locator("main").first.wait_for()
        return page

    return opened


@pytest.fixture
def three(served, doc):
    """Three runs: two of the same recording, and one of another text."""
    save_page(doc, served.folder / "jfk.html")
    base = made_up(text=OTHER, title="jfk.flac · whisper-base", seed=2)
    save_page(
        base.model_copy(update={"model": base.model.model_copy(update={"name": "whisper-base"})}),
        served.folder / "base.html",
    )
    save_page(
        made_up(text="Nothing of the sort.", title="austen.flac", duration=4.0), served.folder / "austen.html"
    )
    return served


def titles(page):
    return page.locator(".run-list td.title > a").all_inner_texts()


# Finding


def test_an_empty_folder_says_what_to_do(open_served):
    page = open_served()
    page.get_by_role(
        "heading", name="Bring a recording, and see how a speech recogniser heard it."
    ).wait_for()
    for name in ("Record", "Choose a recording"):
        assert page.get_by_text(name, exact=True).is_visible()
    assert page.get_by_text("The recording stays on this machine.").is_visible()
    assert page.locator(".run-list").count() == 0


def test_the_key_leaves_the_address_at_once_and_reloads_and_other_tabs_still_know_it(open_served, served):
    page = open_served(fragment="#with=0")
    assert page.url == f"http://{served.address}/#with=0"
    page.reload()
    page.locator("h1").wait_for()
    other = page.context.new_page()
    other.goto(f"http://{served.address}/")
    other.locator("h1").wait_for()
    assert "no_key" not in other.content()
    assert other.get_by_test_id("bring").is_visible()


def test_without_the_key_the_page_says_where_it_is(visit, served):
    from playwright.sync_api import Error

    try:
        page = visit(f"http://{served.address}/", [f"http://{served.address}/"])
        page.get_by_text("Open the address that `otoscope serve` printed.").wait_for()
        assert page.locator("main").count() == 0
    except Error as error:
        pytest.fail(str(error))
    finally:
        visit.expect("status of 401")


def test_runs_are_found_by_their_words_sorted_and_opened(open_served, three):
    page = open_served()
    page.get_by_text("3 runs").wait_for()
    page.get_by_label("Search").fill("ask NOT")
    assert titles(page) == ["jfk.flac · whisper-tiny.en"]
    assert page.get_by_text("1 of 3 shown").is_visible()
    page.get_by_label("Search").fill("whisper-base")
    assert titles(page) == ["jfk.flac · whisper-base"]
    page.get_by_label("Search").fill("")
    page.get_by_role("button", name="Run").click()
    assert titles(page)[0] == "austen.flac"
    assert page.locator("th.title").get_attribute("aria-sort") == "ascending"
    page.get_by_role("button", name="Sound").click()
    assert titles(page)[-1] == "austen.flac"
    page.get_by_role("link", name="austen.flac").click()
    page.get_by_text("The model wrote “Nothing of the sort.”").wait_for()
    assert page.title() == "austen.flac · otoscope"
    page.get_by_role("link", name="← All runs").click()
    page.get_by_text("3 runs").wait_for()


def test_what_appears_in_the_folder_appears_on_the_page(open_served, served, doc):
    page = open_served()
    page.locator(".welcome").wait_for()
    save_page(doc, served.folder / "new.html")
    page.get_by_role("link", name="jfk.flac · whisper-tiny.en").wait_for()
    (served.folder / "new.html").unlink()
    page.locator(".welcome").wait_for()


def test_a_directory_of_a_job_says_what_it_is(open_served, served):
    (served.folder / "sweep").mkdir()
    (served.folder / "sweep" / "run.json").write_text('{"kind": "sweep", "settings": {"model": "<b>m</b>"}}')
    page = open_served()
    page.get_by_role("link", name="sweep").click()
    page.get_by_text("The directory of a job.").wait_for()
    assert page.get_by_text("<b>m</b>").is_visible()


def test_hostile_names_texts_and_notes_are_inert(open_served, served, make_doc):
    for i, label in enumerate(HOSTILE):
        doc = make_doc(tokens=["a"], text=label, title=label, duration=0.5)
        doc.note = label
        save_page(doc, served.folder / f"{i}.html")
    save_page(doc, served.folder / "<img src=x onerror=alert(1)>.html")
    page = open_served(bypass_csp=True, viewport={"width": 900, "height": 800})
    page.get_by_text(f"{len(HOSTILE) + 1} runs").wait_for()
    assert page.locator("img").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 900
    page.goto(f"http://{served.address}/run/{id_of('0.html')}")
    assert page.get_by_test_id("note").locator("bdi").text_content() == HOSTILE[0]
    assert page.locator("img").count() == 0


@pytest.mark.parametrize("width", [320, 420, 600])
def test_a_magnified_list_and_comparison_never_scroll_sideways(open_served, three, width):
    page = open_served(viewport={"width": width, "height": 800})
    page.get_by_text("3 runs").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") == width
    page.goto(f"http://{three.address}/compare/{id_of('jfk.html')}/{id_of('base.html')}")
    page.locator("iframe").nth(1).wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") == width


# Comparing


def test_two_runs_are_compared_and_follow_each_other(open_served, three):
    page = open_served()
    page.get_by_label("Compare jfk.flac · whisper-tiny.en").check()
    page.get_by_text("One chosen; tick another.").wait_for()
    page.get_by_label("Compare jfk.flac · whisper-base").check()
    page.get_by_role("link", name="Compare the two").click()
    page.locator("iframe").nth(1).wait_for()
    left, right = (page.frame_locator("iframe").nth(i) for i in (0, 1))
    marked = page.locator(".differences mark").all_inner_texts()
    assert "dear" in marked
    assert "fellow" not in marked
    first = int(left.locator("main").get_attribute("data-token"))
    doc = oto.read_document(three.folder / "jfk.html")
    other = oto.read_document(three.folder / "base.html")

    def twin(index):
        middle = (doc.transcript.tokens[index].start + doc.transcript.tokens[index].end) / 2
        return next(t.index for t in other.transcript.tokens if t.start <= middle < t.end)

    right.locator(f"main[data-token='{twin(first)}']").wait_for()  # they begin together
    left.locator(".token").nth(6).click()
    right.locator(f"main[data-token='{twin(6)}']").wait_for()
    right.locator(".token").nth(1).click()
    left.locator("main:not([data-token='6'])").wait_for()
    assert right.locator("main").get_attribute("data-token") == "1"
    left.locator("body").hover()
    page.mouse.wheel(0, 2500)
    frame = next(one for one in page.frames if f"/beside/{id_of('base.html')}" in one.url)
    frame.wait_for_function("() => document.scrollingElement.scrollTop > 300")


def test_a_run_is_compared_with_another_from_its_own_page(open_served, three):
    page = open_served(f"/run/{id_of('jfk.html')}")
    page.get_by_role("link", name="Compare with…").click()
    page.get_by_text("One chosen; tick another.").wait_for()
    assert page.get_by_label("Compare jfk.flac · whisper-tiny.en").is_checked()


# Writing


def test_a_note_survives_a_reload_and_is_in_the_copy(open_served, three, tmp_path_factory):
    page = open_served(f"/run/{id_of('jfk.html')}", fragment="#token=5")
    page.get_by_role("button", name="Add a note").click()
    page.keyboard.type("Listen at 3 s <b>again</b>")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Space")
    assert page.locator("main").get_attribute("data-token") == "5"  # what is typed moves nothing else
    page.get_by_role("button", name="Keep the note").click()
    page.get_by_test_id("note").wait_for()
    page.reload()
    assert page.get_by_test_id("note").locator("bdi").text_content() == "Listen at 3 s <b>again</b >"
    with page.expect_download() as download:
        page.get_by_role("button", name="Save a copy").click()
    copy = tmp_path_factory.mktemp("copy") / "copy.html"
    download.value.save_as(copy)
    assert download.value.suggested_filename.startswith("jfk.flac · whisper-tiny.en")
    assert oto.read_document(copy).note == "Listen at 3 s <b>again</b >"
    page.goto(f"http://{three.address}/")
    page.get_by_text("Listen at 3 s").wait_for()


def test_a_copy_with_a_note_shows_it_without_a_server(visit, three, tmp_path_factory, doc):
    noted = doc.model_copy(update={"note": "kept"})
    path = tmp_path_factory.mktemp("copy") / "copy.html"
    save_page(noted, path)
    page = visit(path.as_uri(), ["file:"])
    assert page.get_by_test_id("note").locator("bdi").text_content() == "kept"
    assert page.get_by_role("button", name="Add a note").count() == 0


def test_what_is_written_onto_a_graph_is_kept_and_two_graphs_are_compared(open_served, served):
    save_page(graphs.made_up_doc(), served.folder / "one.html")
    save_page(graphs.made_up_doc(graphs.made_up_graph(seed=1)), served.folder / "two.html")
    page = open_served(f"/run/{id_of('one.html')}")
    node = page.get_by_test_id("chosen-node")
    node.get_by_role("button", name="Rename").click()
    node.get_by_label("Name of the node").fill("hears a plosive")
    with page.expect_response("**/annotations"):
        page.keyboard.press("Enter")
    page.goto(f"http://{served.address}/run/{id_of('one.html')}")
    page.locator(".graph-panel").wait_for()
    assert "hears a plosive" in node.locator("h3").inner_text()
    page.goto(f"http://{served.address}/compare/{id_of('one.html')}/{id_of('two.html')}")
    compare = page.get_by_test_id("compare")
    compare.get_by_text("nodes in both").wait_for()
    compare.get_by_role("button", name="Second").click()
    with page.expect_response("**/annotations") as sent:
        page.get_by_role("button", name="Pin", exact=True).click()
    assert sent.value.url.endswith(f"/api/runs/{id_of('two.html')}/annotations")
    page.goto(f"http://{served.address}/run/{id_of('two.html')}")
    page.locator("[data-box]").wait_for()


# Bringing


@pytest.mark.weights
@pytest.mark.slow
def test_a_recording_is_brought_in_explained_and_opened(open_served, served, jfk):
    page = open_served()
    page.get_by_label("Choose a recording").set_input_files(jfk)
    row = page.get_by_test_id("jobs").locator("li")
    row.get_by_role("progressbar").wait_for()
    page.wait_for_function("() => document.querySelector('.jobs progress')?.value > 0", timeout=300_000)
    page.wait_for_url("**/run/*", timeout=300_000)
    page.get_by_text("The model wrote “And so my fellow Americans").wait_for()
    assert [path.name for path in served.folder.glob("*.html")] == ["jfk.html"]
    assert oto.read_document(served.folder / "jfk.html").audio.file == "jfk.flac"


@pytest.mark.weights
@pytest.mark.slow
def test_a_dropped_recording_that_is_called_off_leaves_nothing(open_served, served, jfk):
    page = open_served()
    data = page.evaluate_handle(
        """bytes => {
          const data = new DataTransfer();
          data.items.add(new File([new Uint8Array(bytes)], "drop <b>.flac"));
          return data;
        }""",
        list(jfk.read_bytes()),
    )
    page.dispatch_event("body", "dragover", {"dataTransfer": data})
    page.get_by_text("Let go to explain it.").wait_for()
    page.dispatch_event("body", "drop", {"dataTransfer": data})
    page.get_by_role("button", name="Cancel").click()
    page.get_by_text("cancelled; nothing was kept").wait_for(timeout=300_000)
    assert list(served.folder.glob("*.html")) == []
    assert page.locator(".welcome").is_visible()


@pytest.mark.weights
@pytest.mark.slow
def test_the_microphone_is_recorded_and_explained(open_served, served):
    page = open_served()
    page.get_by_role("button", name="Record", exact=True).click()
    page.wait_for_function(
        "() => /Recording 0:0[4-9]/.test(document.querySelector('.recording')?.textContent ?? '')"
    )
    assert page.evaluate("document.querySelector('meter').value") > 0
    page.get_by_role("button", name="Stop and explain").click()
    page.wait_for_url("**/run/*", timeout=300_000)
    assert "my fellow" in page.locator("h1").inner_text()
    (made,) = served.folder.glob("recording *.html")
    assert 3 < oto.read_document(made).audio.duration < 8


def test_a_recording_that_is_discarded_goes_nowhere(open_served, served):
    page = open_served()
    page.get_by_role("button", name="Record", exact=True).click()
    page.get_by_role("button", name="Discard").click()
    page.get_by_role("button", name="Record", exact=True).wait_for()
    assert page.get_by_test_id("jobs").count() == 0


def test_what_is_no_recording_is_told_with_a_remedy(open_served, tmp_path_factory, visit):
    path = tmp_path_factory.mktemp("sound") / "no.wav"
    path.write_bytes(b"no sound")
    page = open_served()
    page.get_by_label("Choose a recording").set_input_files(path)
    page.get_by_role("alert").wait_for()
    assert "is not" in page.get_by_role("alert").inner_text()
    visit.expect("status of 422")


# Acting


@pytest.mark.weights
@pytest.mark.slow
def test_a_silenced_span_changes_the_text_beside_the_original(open_served, served, explained):
    save_page(explained, served.folder / "short.html")
    page = open_served(f"/run/{id_of('short.html')}")
    panel = page.get_by_test_id("intervene")
    panel.locator(".offers button").first.click()
    panel.get_by_role("button", name="Write again").click()
    panel.get_by_test_id("outcome").wait_for(timeout=300_000)


def test_axe_finds_nothing_on_the_servers_own_pages(open_served, three):
    run = {"description": "study", "settings": {}, "versions": {}}
    (three.folder / "job").mkdir()
    (three.folder / "job" / "run.json").write_text(json.dumps(run))
    page = open_served(color_scheme="light", bypass_csp=True)
    page.get_by_text("More options").click()
    assert violations(page) == []
    page = open_served(
        f"/compare/{id_of('jfk.html')}/{id_of('base.html')}", color_scheme="light", bypass_csp=True
    )
    assert violations(page) == []


def test_what_a_model_and_a_folder_offer_may_be_chosen_for_a_recording(open_served, served):
    monitors = Path(monitor.__file__).with_name("shipped")
    copytree(monitors / "whisper-base", served.folder / "fits" / "calls")
    page = open_served()
    bring = page.get_by_test_id("bring")
    assert bring.get_by_label("Language").count() == 0  # whisper-tiny.en writes English alone
    watching = bring.get_by_label("Monitor")
    assert watching.locator("option").all_inner_texts() == ["the one that comes with otoscope", "none"]
    bring.get_by_label("Model").select_option("whisper-base")
    bring.get_by_label("Language").select_option(label="French")
    assert bring.get_by_label("Language").input_value() == "fr"
    assert watching.locator("option").all_inner_texts()[1] == "fits/calls"


def test_a_note_on_a_page_whose_file_was_replaced_is_refused_with_a_remedy(
    open_served, served, doc, make_doc, visit
):
    save_page(doc, served.folder / "a.html")
    page = open_served(f"/run/{id_of('a.html')}")
    save_page(make_doc(seed=1), served.folder / "a.html")
    page.get_by_role("button", name="Add a note").click()
    page.get_by_label("Note", exact=True).fill("about the first")
    visit.expect("412")
    page.get_by_role("button", name="Keep the note").click()
    trouble = page.get_by_role("alert")
    trouble.wait_for()
    assert "was written again since this page was opened" in trouble.inner_text()
    assert "reload the page" in trouble.inner_text()
    assert page.get_by_label("Note", exact=True).input_value() == "about the first"
    page.get_by_role("button", name="Discard what was typed").click()
    page.get_by_label("Note", exact=True).wait_for(state="detached")
    page.reload()
    page.locator("main").wait_for()
    assert page.get_by_test_id("note").count() == 0
