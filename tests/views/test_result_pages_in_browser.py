"""Pages of sweeps, curves and lenses as a person meets them; and what holds of every page."""

import pytest
from tests.documents.samples import a_curve, a_lens, a_sweep
from tests.views.axe import violations
from tests.views.graphs import made_up_doc as a_graph
from tests.views.test_features_page import made_up as made_up_features
from tests.views.test_intervene_in_browser import made_up_outcome

pytestmark = pytest.mark.browser
MAKERS = {"sweep": a_sweep, "curve": a_curve, "lens": a_lens}
FIGURES = {"sweep": "sweep-restored", "curve": "curve-gender", "lens": "lens-trajectory"}


OTHERS = {
    "explain": lambda doc: doc,
    "graph": lambda _: a_graph(),
    "features": lambda _: made_up_features(["cat", "dog", "cow"]),
    "intervention": made_up_outcome,
}


@pytest.fixture(params=[*MAKERS, *OTHERS])
def any_doc(request, doc):
    return MAKERS[request.param]() if request.param in MAKERS else OTHERS[request.param](doc)


# Sweeps ------------------------------------------------------------------------------------------------------------------


def test_the_control_is_taken_away_and_can_be_put_back(open_page):
    page = open_page(a_sweep())
    best = page.locator("td[data-at='0,1']")  # the last layer on top
    assert best.inner_text() == "+75 %"
    assert "minus the control" in page.get_by_test_id("sweep-legend").inner_text()
    page.get_by_label("minus the control").uncheck()
    assert best.inner_text() == "100 %"
    assert page.url.endswith("control=kept")
    page.reload()
    page.locator("main").wait_for()
    assert best.inner_text() == "100 %"


@pytest.mark.one_host
def test_what_stands_out_is_framed_and_the_rest_is_muted(open_page):
    page = open_page(a_sweep())
    assert page.locator("td.marked").count() == 1
    assert page.locator("td.muted").count() == 11
    assert "stands out" in page.locator("td.marked").get_attribute("aria-label")


@pytest.mark.one_host
def test_a_control_that_is_not_random_is_not_called_so(open_page):
    doc = a_sweep()
    others = [one.model_copy(update={"control": "other cells"}) for one in doc.measures]
    page = open_page(doc.model_copy(update={"measures": others}))
    assert "the other cells 25 %" in page.locator("td.marked").get_attribute("aria-label")
    page.locator("td.marked").click()
    assert "the other cells" in page.get_by_test_id("sweep-cell").inner_text()
    assert "random components" not in page.locator("main").inner_text()


def test_a_cell_tells_what_became_of_every_recording(open_page):
    page = open_page(a_sweep())
    page.locator("td.marked").click()
    cell = page.get_by_test_id("sweep-cell")
    assert "DL2H1 cross-attn" in cell.inner_text()
    assert cell.locator(".outcomes li").count() == 3
    assert "restored" in cell.locator("li").first.inner_text()
    assert "what was said" in cell.locator("li").first.inner_text()
    assert "+80 %" in cell.inner_text()  # its price
    assert "cell=9" in page.url


@pytest.mark.one_host
def test_the_grid_shows_one_recording_alone(open_page):
    page = open_page(a_sweep())
    page.locator("select").select_option("1")
    assert page.locator("td[data-at='0,1']").inner_text() == "100 %"
    assert page.locator("td[data-at='0,0']").inner_text() == "0 %"


@pytest.mark.one_host
def test_columns_of_the_table_sort(open_page):
    page = open_page(a_sweep())
    first = page.locator(".sweep-table tbody tr").first
    assert "DL2H1" in first.inner_text()
    page.get_by_role("button", name="component", exact=True).click()
    assert "DL0H0" in first.inner_text()
    assert page.locator("th[aria-sort=ascending]").count() == 1


# Curves and lenses -------------------------------------------------------------------------------------------------------


def test_a_line_can_be_hidden_and_values_are_told_by_arrow_keys(open_page):
    page = open_page(a_curve())
    chart = page.locator(".chart svg").first
    assert chart.locator("g.chart-line").count() == 3
    chart.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    told = page.locator(".chart output").first.inner_text()
    assert told.startswith("layer 1: probe 0.68 (0.58 to 0.73) · shuffled labels 0.50")
    page.get_by_role("button", name="shuffled labels").click()
    assert chart.locator("g.chart-line").count() == 2
    page.reload()
    page.locator("main").wait_for()
    assert chart.locator("g.chart-line").count() == 2


def test_the_lens_is_coloured_by_probability_rank_or_entropy(open_page):
    page = open_page(a_lens())
    cell = page.locator("[data-testid=logit-lens] td[data-at='0,0']")  # layer 2
    tint = lambda: cell.evaluate("one => one.style.getPropertyValue('--amount')")  # noqa: E731
    assert float(tint()) == pytest.approx(0.75)
    page.get_by_role("radio", name="rank").check()
    assert float(tint()) == 1.0
    page.get_by_role("radio", name="entropy").check()
    assert float(tint()) == pytest.approx(1 / 3, abs=0.001)
    assert page.url.endswith("lens=entropy")
    assert "rival" in page.locator("td[data-at='2,0']").get_attribute("aria-label")


def test_a_click_draws_a_trajectory_and_pins_stay_beside_it(open_page):
    page = open_page(a_lens())
    page.locator("[data-testid=logit-lens] td[data-at='0,2']").click()
    chart = page.get_by_test_id("trajectory")
    assert chart.locator(".chart g.chart-line").count() == 1
    page.get_by_role("button", name="third").first.click()
    page.get_by_role("button", name="Pin this token").click()
    page.locator("[data-testid=logit-lens] td[data-at='0,3']").click()
    assert chart.locator(".chart g.chart-line").count() == 3
    assert "(token 2)" in chart.inner_text()
    assert "instead" in chart.inner_text()


@pytest.mark.one_host
def test_the_encoder_ladder_says_what_kind_of_text_each_layer_gives(open_page):
    page = open_page(a_lens())
    assert page.locator(".ladder .verdict-kind").all_inner_texts() == ["correct", "loop"]


# Every page --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MAKERS)
def test_hostile_labels_are_text_everywhere(open_page, kind, label):
    page = open_page(MAKERS[kind](label), viewport={"width": 900, "height": 800})
    assert page.locator("img").count() == 0
    assert page.locator("footer li bdi").last.text_content() == label
    assert page.evaluate("document.documentElement.scrollWidth") <= 900


def test_no_page_scrolls_sideways(open_page, any_doc):
    page = open_page(any_doc, viewport={"width": 420, "height": 800})  # a telephone
    if page.locator("td.cell").count():
        page.locator("td.cell").first.click()
    assert page.evaluate("document.documentElement.scrollWidth") == 420
    page.set_viewport_size({"width": 600, "height": 800})  # 1,200 pixels at 200 %
    page.wait_for_function("() => document.documentElement.scrollWidth === 600")


@pytest.mark.one_host
def test_every_control_is_reached_by_the_tabulator(open_page, any_doc):
    page = open_page(any_doc)
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    reached = page.evaluate(
        """() => {
          const controls = [...document.querySelectorAll('main :is(button, input, select, summary, svg[role=img], .scroll)')]
            .filter((one) => one.matches('button, input, select, summary, svg[tabindex], [tabindex]'));
          // Members of a widget (tokens, cells, radio buttons of one group) are reached by arrow keys from its one stop.
          const own = controls.filter((one) => one.tabIndex < 0 && !one.closest('[role=listbox], [role=grid]') && !one.disabled);
          return own.map((one) => one.outerHTML.slice(0, 80));
        }"""
    )
    assert reached == []
    grids = page.locator("[role=grid], [role=listbox]")
    for i in range(grids.count()):
        assert grids.nth(i).locator("[tabindex='0']").count() == 1


@pytest.mark.one_host
def test_pages_heed_what_the_reader_prefers(open_page, any_doc):
    page = open_page(any_doc, reduced_motion="reduce", forced_colors="active")
    heading = page.locator("h1").first
    heading.evaluate("one => { one.style.transition = 'all 1s'; one.style.animation = 'turn 1s'; }")
    moving = "one => [getComputedStyle(one).transitionDuration, getComputedStyle(one).animationName]"
    assert heading.evaluate(moving) == ["0s", "none"]
    if page.locator(".token").count():
        chosen = page.locator(".token:is([aria-selected=true], [aria-pressed=true])")
        assert chosen.evaluate("one => getComputedStyle(one).outlineStyle") == "solid"


@pytest.mark.one_host
def test_axe_finds_nothing_in_either_theme(open_page, any_doc):
    page = open_page(any_doc, color_scheme="light", bypass_csp=True)
    if page.locator("td.cell").count():
        page.locator("td.cell").first.click()
    assert violations(page) == []
