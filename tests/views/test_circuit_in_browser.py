"""Circuits in the page of an explained clip: what is written on them, and their sound beside the page's own."""

import pytest
from tests.views.graphs import made_up_doc
from tests.views.served import serving

from otoscope.documents.explain import Circuit

pytestmark = pytest.mark.browser


@pytest.fixture
def traced(make_doc):
    """An explained clip with the circuits of tokens 1 and 4."""
    doc = make_doc()
    graph = made_up_doc().graph
    circuits = [Circuit(token=token, why="asked for", graph=graph) for token in (1, 4)]
    return doc.model_copy(update={"circuits": circuits})


def circuit(page):
    return page.get_by_test_id("circuit")


def test_pins_are_there_again_after_another_token_was_looked_at(open_page, traced):
    page = open_page(traced, "#token=1")
    circuit(page).get_by_role("button", name="Pin", exact=True).click()
    assert circuit(page).locator("[data-box]").count() == 1
    circuit(page).locator("button[data-token='4']").click()
    page.locator("main[data-token='4']").wait_for()
    assert circuit(page).locator("[data-box]").count() == 0
    circuit(page).locator("button[data-token='1']").click()
    page.locator("main[data-token='1']").wait_for()
    assert circuit(page).locator("[data-box='target/0']").count() == 1
    page.locator(".token").nth(2).click()
    assert "was not traced" in circuit(page).inner_text()


def test_a_server_keeps_both_pins_of_a_circuit_that_was_left_and_come_back_to(visit, tmp_path, traced):
    with serving(tmp_path) as served:
        traced.save(tmp_path / "traced.html")
        _pin_leave_and_pin(visit(served.page_of("traced.html", "#token=1"), [f"http://{served.address}/"]))


def _pin_leave_and_pin(page):
    with page.expect_response("**/annotations"):
        circuit(page).get_by_role("button", name="Pin", exact=True).click()
    circuit(page).locator("button[data-token='4']").click()
    page.locator("main[data-token='4']").wait_for()
    circuit(page).locator("button[data-token='1']").click()
    page.locator("main[data-token='1']").wait_for()
    circuit(page).get_by_test_id("graph-canvas").focus()
    page.keyboard.press("ArrowDown")
    with page.expect_response("**/annotations"):
        page.keyboard.press("Enter")
    page.reload()
    circuit(page).locator(".graph-panel").wait_for()
    assert circuit(page).locator("[data-box]").count() == 2


@pytest.mark.one_host
def test_the_command_for_a_token_that_was_not_traced_hears_the_clip_as_it_was_heard(open_page, traced):
    audio = traced.audio.model_copy(update={"start": 12.5})
    doc = traced.model_copy(update={"audio": audio, "settings": {"language": "fr"}})
    told = circuit(open_page(doc, "#token=2")).locator("code").inner_text()
    assert told == (
        "otoscope explain audio/jfk.flac --model whisper-tiny.en --token 2 --offset 12.5 --language fr"
    )


def test_one_sound_at_a_time(open_page, traced):
    page = open_page(traced, "#token=1")
    page.get_by_test_id("audio").get_by_role("button", name="Play", exact=True).click()
    page.wait_for_function("() => !document.querySelectorAll('audio')[0].paused")
    circuit(page).locator(".segment").first.click()
    page.wait_for_function("() => !document.querySelector('.graph-panel audio').paused")
    # The others are silenced by the event that follows the start.
    page.wait_for_function(
        "() => [...document.querySelectorAll('audio')].filter((one) => !one.paused).length === 1"
    )
    page.get_by_test_id("audio").get_by_role("button", name="Play", exact=True).wait_for()


def test_arrow_keys_belong_to_the_graph_while_it_has_the_focus(open_page, traced):
    page = open_page(traced, "#token=1")
    circuit(page).get_by_label("Search").fill("ab")
    page.keyboard.press("ArrowLeft")
    circuit(page).get_by_label("Influence of nodes").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("main").get_attribute("data-token") == "1"


def test_what_is_pointed_at_under_the_sound_is_marked_in_the_circuit_and_the_other_way_round(
    open_page, traced
):
    graph = traced.circuits[0].graph
    into = [int(i) for i, to in zip(graph.edges.source.unpack(), graph.edges.target.unpack(), strict=True)
            if to == graph.targets[0].node]  # fmt: skip
    hearing = [i for i in into if graph.nodes[i].stream == "encoder" and graph.nodes[i].kind == "feature"]
    heard = graph.nodes[hearing[0]]
    own = traced.feature_rows[0].model_copy(update={"layer": heard.layer, "feature": heard.feature})
    page = open_page(traced.model_copy(update={"feature_rows": [own]}), "#token=1")
    row = page.locator(f"[data-row='feature {heard.layer}.{heard.feature}']")
    row.hover(position={"x": 300, "y": 20})
    assert heard.label in circuit(page).get_by_test_id("graph-tip").inner_text()

    inputs = circuit(page).get_by_label("inputs", exact=True)
    if inputs.get_by_role("button", name="Show all").count():
        inputs.get_by_role("button", name="Show all").click()
    inputs.locator(f"li[data-node='{hearing[0]}']").hover()
    assert "meant" in row.get_attribute("class").split()
    sound = next(i for i in into if graph.nodes[i].kind == "frame")
    inputs.locator(f"li[data-node='{sound}']").hover()
    assert "meant" not in row.get_attribute("class").split()
    told = page.get_by_test_id("meant-time").get_attribute("data-time")
    assert graph.nodes[sound].start <= float(told.removesuffix(" s")) <= graph.nodes[sound].end
