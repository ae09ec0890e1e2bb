"""A graph of a prompt, with its model at hand: in a notebook, on a server, and without one."""

import pytest
from tests.conftest import tiny
from tests.models.tokenizers import word_tokenizer
from tests.views.served import serving
from tests.views.test_widget import cell  # noqa: F401 - a fixture

import otoscope as oto
from otoscope.circuits.tracer import TraceSettings
from otoscope.models.loading import load_model
from otoscope.studies import graph_edges
from otoscope.views.server_work import Setup
from otoscope.views.widget import page_widget

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The directory of a random Llama with a tokenizer."""
    path = tmp_path_factory.mktemp("llama")
    tiny("llama").hf.save_pretrained(path)
    word_tokenizer(97).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def model(folder):
    return load_model(str(folder))


@pytest.fixture(scope="module")
def doc(model):
    """Two of its edges carry their heads."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph_edges, "SPLITS", 2)
        graph = oto.trace(model, "w5 w9 w11 w4 w7", settings=TraceSettings(nodes=40))
        return oto.graph_doc(graph, node_share=1.0, edge_share=1.0)


def heads_of_another(page, doc):
    """Open the heads of an input of the target that came without them."""
    carried = {split.source for split in doc.graph.splits if split.target == doc.graph.targets[0].node}
    page.get_by_label("inputs", exact=True).get_by_role("button", name="Show all").click()
    rows = page.get_by_label("inputs", exact=True).locator("li[data-node]:has(button.heads)")
    nodes = [int(rows.nth(i).get_attribute("data-node")) for i in range(rows.count())]
    row = rows.nth(next(i for i, node in enumerate(nodes) if node not in carried))
    row.locator("button.heads").click()
    return row.get_by_test_id("heads")


def test_without_a_model_a_page_says_that_other_edges_need_it(visit, tmp_path, doc):
    doc.save(tmp_path / "graph.html")
    heads = heads_of_another(visit((tmp_path / "graph.html").as_uri(), ["file:"]), doc)
    assert "this one needs the model" in heads.inner_text()
    assert "split_by_head(graph," in heads.locator("code").last.inner_text()
    assert heads.get_by_role("button").count() == 0


def answered(page, deliver, shown, patience=100):
    """Deliver what the page asks of the kernel until the answer is shown: a busy machine takes its time."""
    for _ in range(patience):
        deliver()
        if shown.is_visible():
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"{shown} is not shown.")


def test_a_notebook_splits_an_edge_zeroes_its_head_and_continues_the_prompt(cell, doc, model):  # noqa: F811
    page, frame, deliver = cell(page_widget(doc, model))
    heads = heads_of_another(frame, doc)
    heads.get_by_role("button", name="Split it by head").click()
    answered(page, deliver, heads.get_by_text("parts sum to the edge"))
    heads.get_by_role("button", name="zero it").first.click()
    assert "zeroed" in frame.locator(".pending").inner_text()
    frame.get_by_role("button", name="Write again").click()
    outcome = frame.get_by_test_id("outcome")
    answered(page, deliver, outcome.get_by_text("next token").first)
    assert "random other places" in outcome.inner_text()


def test_a_server_splits_an_edge_and_changes_a_feature_of_a_prompt(visit, tmp_path, doc, folder):
    with serving(tmp_path, setup=Setup(model=str(folder))) as served:
        doc.save(tmp_path / "graph.html")
        page = visit(served.page_of("graph.html"), [f"http://{served.address}/"])
        heads = heads_of_another(page, doc)
        heads.get_by_role("button", name="Split it by head").click()
        heads.get_by_text("parts sum to the edge").wait_for()
        feature = next(i for i, node in enumerate(doc.graph.nodes) if node.kind == "feature")
        page.evaluate("i => document.querySelector(`li[data-node='${i}'] button.edge`)?.click()", feature)
        page.get_by_role("button", name="Take it away").click()
        assert "feature" in page.locator(".pending").inner_text()
        page.get_by_role("button", name="Write again").click()
        page.get_by_test_id("outcome").wait_for()
        assert "next token" in page.get_by_test_id("outcome").inner_text()
