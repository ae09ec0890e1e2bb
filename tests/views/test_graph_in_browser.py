"""An attribution graph as a person meets it, in headless Chromium."""

import contextlib
import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
from tests.views.graphs import WORDS, made_up_doc, made_up_graph
from tests.views.test_save_picture_in_browser import SVG, saved

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def doc():
    return made_up_doc()


def chosen(page):
    return page.locator(".graph-panel").get_attribute("data-node")


def first_input(page):
    return page.get_by_label("inputs", exact=True).locator("li[data-node]").first


@contextlib.contextmanager
def kept(page):
    """Wait until what is written inside is kept: by a server, else by the address."""
    if page.locator("html[data-host=server]").count():
        with page.expect_response("**/annotations"):
            yield
        return
    before = ""
    while before != page.url:  # it follows what was chosen before a moment later
        before = page.url
        page.wait_for_timeout(500)
    yield
    page.wait_for_url(lambda url: url != before)


def hidden(page, what):
    return int(page.get_by_test_id(f"hidden-{what}").inner_text().replace(",", ""))


def set_slider(page, name, position):
    page.get_by_label(re.compile(name)).evaluate(
        "(input, value) => { input.value = value; input.dispatchEvent(new Event('input', {bubbles: true})); }", str(position)
    )  # fmt: skip


def test_which_sound_made_the_word_is_seen_at_once_and_heard_with_one_click(open_page, doc):
    page = open_page(doc)
    story = page.get_by_test_id("story")
    assert "country" in story.locator("mark").inner_text()
    first = story.locator(".evidence button").first
    assert "“country”" in first.inner_text()
    first.click()
    page.wait_for_function("() => document.querySelector('audio').currentTime > 0")
    segment = doc.graph.segments[len(WORDS) - 5]
    page.wait_for_function("() => document.querySelector('audio').paused")
    assert segment.end <= page.evaluate("document.querySelector('audio').currentTime") < segment.end + 0.3
    assert chosen(page) == f"encoder/frame/-1/{len(WORDS) - 5}"


@pytest.mark.one_host
def test_hovering_a_node_names_it_and_marks_its_row_and_the_other_way_round(open_page, doc):
    page = open_page(doc)
    row = first_input(page)
    row.hover()
    tip = page.get_by_test_id("graph-tip")
    assert tip.is_visible()
    assert "of the input of the chosen node" in tip.inner_text()
    at = tip.evaluate("(tip) => [parseFloat(tip.style.left), parseFloat(tip.style.top)]")
    page.mouse.move(2, 2)
    assert tip.count() == 0
    page.get_by_test_id("graph-canvas").hover(position={"x": 1, "y": at[1] + 1})  # brings it into view
    area = page.get_by_test_id("graph-canvas").bounding_box()
    page.mouse.move(area["x"] + at[0] + 1, area["y"] + at[1] + 1)
    assert "hovered" in row.get_attribute("class")
    assert tip.is_visible()


def test_clicking_a_node_chooses_it_and_the_address_keeps_it(open_page, doc):
    page = open_page(doc)
    row = first_input(page)
    node = doc.graph.nodes[int(row.get_attribute("data-node"))].id
    row.hover()
    at = page.get_by_test_id("graph-tip").evaluate(
        "(tip) => [parseFloat(tip.style.left), parseFloat(tip.style.top)]"
    )
    page.get_by_test_id("graph-canvas").click(position={"x": at[0], "y": at[1]})
    assert chosen(page) == node
    page.wait_for_url("**/*#*node=*")
    page.reload()
    page.locator(".graph-panel").wait_for()
    assert chosen(page) == node


@pytest.mark.one_host
def test_lists_tell_signed_shares_that_sum_with_the_rest(open_page, doc):
    page = open_page(doc)
    inputs = page.get_by_label("inputs", exact=True)
    if inputs.get_by_role("button", name="Show all").count():
        inputs.get_by_role("button", name="Show all").click()
    target = next(i for i, node in enumerate(doc.graph.nodes) if node.kind == "target")
    to, weight = doc.graph.edges.target.unpack(), doc.graph.edges.weight.unpack()
    told = inputs.locator("li[data-node]")
    assert told.count() == (to == target).sum()
    strongest = max(weight[to == target], key=abs) / doc.graph.nodes[target].inputs.mass
    shown = float(
        told.first.locator(".share").inner_text().replace("−", "-").replace("%", "").replace("+", "")
    )
    assert shown == pytest.approx(100 * strongest, abs=0.6)
    assert inputs.locator("li.rest").is_visible()


@pytest.mark.one_host
def test_sliders_hide_and_say_how_much(open_page, doc):
    page = open_page(doc)
    set_slider(page, "Influence of nodes", 1)
    set_slider(page, "Strength of edges", 1)
    assert (hidden(page, "nodes"), hidden(page, "edges")) == (0, 0)
    set_slider(page, "Influence of nodes", 0.9)
    some = hidden(page, "nodes")
    assert some > 0
    set_slider(page, "Influence of nodes", 0.3)
    assert hidden(page, "nodes") > some
    assert hidden(page, "edges") > 0
    page.get_by_role("button", name="show", exact=True).first.click()
    assert hidden(page, "nodes") == 0


def test_the_keyboard_alone_moves_pins_and_plays(open_page, doc):
    page = open_page(doc)
    canvas = page.get_by_test_id("graph-canvas")
    canvas.focus()
    before = chosen(page)
    page.keyboard.press("ArrowDown")
    assert chosen(page) != before
    page.keyboard.press("Enter")
    assert page.locator(f"[data-box='{chosen(page)}']").is_visible()
    page.keyboard.press("p")
    assert page.locator("[data-box]").count() == 0
    page.keyboard.press("ArrowUp")
    assert page.locator("#graph-said").text_content().startswith(doc.graph.targets[0].text)


def test_search_finds_a_word_and_goes_there(open_page, doc):
    page = open_page(doc)
    page.get_by_label("Search").fill("country")
    found = page.get_by_label("Found nodes")
    assert found.locator("li").count() >= 2
    found.locator("li button").first.click()
    assert chosen(page) != "target/0" or "country" in page.get_by_test_id("chosen-node").inner_text()
    assert found.count() == 0


def test_a_node_is_renamed_and_its_name_by_rule_stays_visible(open_page, doc):
    feature = next(node for node in doc.graph.nodes if node.kind == "feature")
    page = open_page(doc, f"#node={feature.id}")
    node = page.get_by_test_id("chosen-node")
    node.get_by_role("button", name="Rename").click()
    node.get_by_label("Name of the node").fill("hears a plosive")
    with kept(page):
        page.keyboard.press("Enter")
    assert "hears a plosive" in node.locator("h3").inner_text()
    assert f"By rule: {feature.label}" in node.inner_text()
    page.reload()
    page.locator(".graph-panel").wait_for()
    assert "hears a plosive" in page.get_by_test_id("chosen-node").locator("h3").inner_text()


def test_dragging_one_box_onto_another_makes_a_supernode(open_page):
    doc = made_up_doc()
    ids = [node.id for node in doc.graph.nodes if node.kind == "feature"][:2]
    page = open_page(made_up_doc(pins=["target/0", *ids]))
    boxes = [page.locator(f"[data-box='{each}']") for each in ids]
    page.get_by_test_id("subgraph").scroll_into_view_if_needed()
    a, b = (box.bounding_box() for box in boxes)
    page.mouse.move(a["x"] + a["width"] / 2, a["y"] + a["height"] - 6)
    page.mouse.down()
    page.mouse.move(b["x"] + b["width"] / 2, b["y"] + b["height"] / 2, steps=6)
    page.mouse.up()
    group = page.locator(".box.supernode")
    assert group.count() == 1
    assert "2 nodes" in group.inner_text()
    name = group.get_by_label("Name of the group")
    name.fill("plosives")
    name.press("Enter")
    group.get_by_role("button", name="Ungroup").click()
    page.locator(".box.supernode").wait_for(state="detached", timeout=3000)
    assert page.locator("[data-box]").count() == 3


@pytest.mark.one_host
def test_ticked_boxes_are_grouped_without_a_mouse(open_page):
    doc = made_up_doc()
    ids = [node.id for node in doc.graph.nodes if node.kind == "feature"][:2]
    page = open_page(made_up_doc(pins=ids))
    for each in ids:
        page.locator(f"[data-box='{each}'] input[type=checkbox]").focus()
        page.keyboard.press("Space")
    page.get_by_role("button", name="Group 2 boxes").focus()
    page.keyboard.press("Enter")
    assert page.locator(".box.supernode").count() == 1


@pytest.mark.one_host
def test_groups_are_suggested_previewed_and_accepted(open_page):
    page = open_page(made_up_doc(made_up_graph(twins=True)))
    page.get_by_role("button", name="Suggest groups").click()
    offered = page.get_by_test_id("suggestions").locator("li")
    count = offered.count()
    assert count > 0
    offered.first.hover()
    offered.first.get_by_role("button").click()
    assert page.locator(".box.supernode").count() == 1
    assert offered.count() == count - 1


def test_two_graphs_are_compared(open_page):
    other = made_up_graph(seed=1)
    page = open_page(made_up_doc(compare=other))
    compare = page.get_by_test_id("compare")
    assert re.search(
        r"\d+ nodes in both, \d+ only in the first, \d+ only in the second", compare.inner_text()
    )
    compare.locator("summary").click()
    assert compare.get_by_role("row", name=re.compile(r"^sound [+−]")).is_visible()
    compare.get_by_role("button", name=re.compile("^Second")).click()
    assert compare.get_by_role("button", name=re.compile("^Second")).get_attribute("aria-pressed") == "true"
    assert page.get_by_test_id("graph-canvas").is_visible()


def test_what_is_written_on_one_of_two_graphs_is_not_on_the_other(open_page):
    page = open_page(made_up_doc(compare=made_up_graph(seed=1)))
    pin = page.get_by_role("button", name="Pin", exact=True)
    with kept(page):
        pin.click()
    second = page.get_by_test_id("compare").get_by_role("button", name=re.compile("^Second"))
    second.click()
    assert page.locator("[data-box]").count() == 0
    page.get_by_test_id("graph-canvas").focus()
    pinned = page.url
    page.keyboard.press("ArrowDown")
    page.wait_for_url(lambda url: url != pinned)
    with kept(page):
        page.keyboard.press("Enter")
    only = page.locator("[data-box]").get_attribute("data-box")
    page.reload()
    page.locator(".graph-panel").wait_for()
    assert page.locator("[data-box]").get_attribute("data-box") == "target/0"
    second.click()
    assert page.locator("[data-box]").get_attribute("data-box") == only != "target/0"


def test_an_address_keeps_what_others_write_and_cleared_pins_stay_away(open_page):
    page = open_page(made_up_doc(pins=["target/0"]), "#zero=decoder_blocks.0.mlp")
    page.get_by_role("button", name="Clear", exact=True).click()
    page.wait_for_url(re.compile(r"zero=decoder_blocks\.0\.mlp.*node="))
    page.evaluate("location.hash = '#node=target/0&zero=decoder_blocks.1.mlp'")
    page.get_by_text("decoder layer 1, MLP zeroed").wait_for()
    assert page.locator("[data-box]").count() == 0


@pytest.mark.one_host
def test_a_source_is_not_said_to_be_what_is_explained(open_page, doc):
    sources = set(doc.graph.edges.source.unpack().tolist())
    for i, node in enumerate(doc.graph.nodes):
        if node.kind == "target" or i not in sources:
            page = open_page(doc, f"#node={node.id}")
            told = page.get_by_label("outputs", exact=True).inner_text()
            assert ("It is what is explained." in told) == (node.kind == "target")
            assert ("Nothing that is shown." in told) == (node.kind != "target")
            if node.kind == "target":
                break


def test_the_graph_is_saved_as_vectors(open_page, doc):
    page = open_page(doc)
    tree = ET.fromstring(saved(page, "graph", "SVG")[0])
    texts = ["".join(one.itertext()) for one in tree.iter(f"{SVG}text")]
    assert any("What supplied" in text and "country" in text for text in texts)
    assert {"country", "americans"} <= set(texts)
    assert len(list(tree.iter(f"{SVG}path"))) > len(doc.graph.nodes)
    assert len(list(tree.iter(f"{SVG}image"))) == page.locator(".graph-sound canvas").count() > 0
    assert saved(page, "graph", "PNG")[0].startswith(b"\x89PNG")


def test_the_present_state_is_copied_as_python_that_compiles(open_page, doc):
    page = open_page(doc, "#nodes=0.9&edges=0.8")
    page.get_by_role("button", name="Pin", exact=True).click()
    page.get_by_role("button", name="Copy as Python").click()
    text = page.get_by_test_id("copied").inner_text()
    compile(text, "copied", "exec")
    assert ".prune(0.9, 0.8).graph" in text
    assert 'graph.subgraph(["target/0"])' in text
    page.get_by_role("button", name="Copy the command").click()
    assert page.get_by_test_id("copied").inner_text().startswith("otoscope trace up.wav --token 9")


@pytest.mark.one_host
def test_what_is_left_out_is_told(open_page, doc):
    page = open_page(doc)
    page.get_by_test_id("left-out").locator("summary").click()
    assert "14,000 features were active" in page.get_by_test_id("left-out").inner_text()


def test_hostile_labels_are_shown_as_text(open_page, label):
    words = [label, *WORDS[1:]]
    doc = made_up_doc(made_up_graph(words=words, texts=[f" {word}" for word in words]), title=label)
    doc.graph.annotations.labels["target/0"] = label
    doc.graph.annotations.pins.append("target/0")
    page = open_page(doc, viewport={"width": 900, "height": 800})
    assert page.locator("img").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 900
    page.get_by_label("Search").fill(label[:40].strip())
    page.get_by_label("Found nodes").wait_for()


@pytest.mark.parametrize(
    "fragment", ["#node=nowhere", "#notes={", "#notes=" + json.dumps({"labels": [1]}), "#%"]
)
def test_an_address_that_means_nothing_is_passed_over(open_page, doc, fragment):
    assert chosen(open_page(doc, fragment)) == "target/0"


@pytest.mark.parametrize("width", [320, 600])
def test_a_magnified_page_never_scrolls_sideways(open_page, doc, width):
    page = open_page(doc, viewport={"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") == width


def trained(name="dicts/mine"):
    """A graph of trained features, with the folder that they can be loaded from, or with none."""
    graph = made_up_graph()
    told = {"kind": "transcoders", "name": "mine"}
    graph = replace(graph, record=graph.record | {"dictionary": told, "encoder_dictionary": told})
    return made_up_doc(graph, folders=name and {"dictionary": name, "encoder_dictionary": name})


def choose_feature(page, doc, stream):
    node = next(n for n in doc.graph.nodes if n.kind == "feature" and n.stream == stream)
    page.evaluate(
        "(id) => { location.hash = location.hash.replace(/node=[^&]*&?/, '') + '&node=' + id; }", node.id
    )
    page.wait_for_function("(id) => document.querySelector('.graph-panel').dataset.node === id", arg=node.id)


@pytest.mark.one_host
def test_a_trained_feature_is_taken_away_with_the_folder_of_its_dictionary(open_page):
    doc = trained()
    page = open_page(doc)
    choose_feature(page, doc, "encoder")
    page.get_by_role("button", name="Take it away", exact=True).click()
    assert (
        "--encoder-dictionary dicts/mine"
        in page.locator(".copied-lines, pre, code").all_inner_texts().__str__()
    )
    page.wait_for_timeout(400)
    page.reload()
    page.locator(".graph-panel").wait_for()
    assert "--encoder-dictionary dicts/mine" in page.content()


@pytest.mark.one_host
def test_features_whose_folder_nobody_knows_are_not_offered(open_page):
    doc = trained(name=None)
    page = open_page(doc)
    choose_feature(page, doc, "decoder")
    assert page.get_by_role("button", name="Pin", exact=True).count()
    assert page.get_by_role("button", name="Take it away", exact=True).count() == 0


@pytest.mark.one_host
def test_features_of_two_dictionaries_are_not_mixed(open_page):
    doc = trained()
    page = open_page(doc, "#feature=decoder:1:7=0")
    choose_feature(page, doc, "decoder")
    button = page.get_by_role("button", name="Take it away", exact=True)
    assert button.is_disabled()
    assert "another dictionary" in button.get_attribute("title")
    page.get_by_role("button", name=re.compile("Take back")).click()
    assert button.is_enabled()
