"""The page as a person meets it, in headless Chromium."""

import pytest

pytestmark = pytest.mark.browser


def chosen(page):
    return int(page.locator("main").get_attribute("data-token"))


def tab_past_the_bar(page):
    """Tab until the focus is in the page itself; a server has its bar before it."""
    page.keyboard.press("Tab")
    while page.evaluate("!!document.activeElement.closest('.run-bar')"):
        page.keyboard.press("Tab")


@pytest.mark.parametrize("bypass_csp", [False, True])
def test_every_panel_shows_and_nothing_goes_out(open_page, doc, bypass_csp):
    page = open_page(doc, bypass_csp=bypass_csp)
    for panel in ("which-sound", "audio", "logit-lens", "encoder-lens", "ablation", "circuit"):
        assert page.get_by_test_id(panel).is_visible()
    assert "The model wrote “And so, my fellow Americans" in page.locator("h1").inner_text()
    assert page.locator(".token").count() == len(doc.transcript.tokens)


def test_the_page_opens_at_the_least_certain_token(open_page, doc):
    least = min(doc.transcript.tokens, key=lambda token: token.p)
    assert chosen(open_page(doc)) == least.index


def test_choosing_a_token_moves_everything_and_survives_a_reload(open_page, doc):
    page = open_page(doc)
    page.locator(".token").nth(5).click()
    lens = doc.logit_lens.tokens[5]
    rows = page.get_by_test_id("lens-of-token").locator("tbody tr")
    assert rows.count() == doc.logit_lens.layers
    top = rows.first.locator("td").first.inner_text()
    assert top.startswith("␣" + lens.layers[-1].top[0].text.strip())
    assert rows.nth(doc.logit_lens.layers - 1 - lens.saturation_layer).get_attribute("class") == "settled"
    assert "attention of token 5" in page.get_by_test_id("audio").inner_text()
    first = doc.ablation.change.unpack()[:, 5]
    cell = page.get_by_label("decoder, layers by whole blocks").locator("tbody tr").first.locator("td").first
    row = next(i for i, one in enumerate(doc.ablation.components) if one.id == "decoder_blocks.3.self_attn")
    assert float(cell.inner_text().replace("−", "-")) == pytest.approx(first[row], abs=0.005)
    assert page.url.endswith("#token=5")
    page.reload()
    page.locator("main").wait_for()
    assert chosen(page) == 5


@pytest.mark.one_host
def test_the_selected_tokens_span_lies_at_its_time(open_page, doc):
    page = open_page(doc, "#token=5")
    token, rows = doc.transcript.tokens[5], page.locator(".rows").bounding_box()
    span = page.get_by_test_id("span").bounding_box()
    scale = rows["width"] / float(page.locator(".rows").get_attribute("data-seconds"))
    assert span["x"] - rows["x"] == pytest.approx(token.start * scale, abs=1.5)
    assert span["width"] == pytest.approx((token.end - token.start) * scale, abs=1.5)


@pytest.mark.one_host
def test_a_cell_of_the_overview_selects_its_token(open_page, doc):
    page = open_page(doc, "#token=5")
    page.locator("[data-testid=logit-lens] td[data-at='1,2']").click()
    assert chosen(page) == 2


def test_the_keyboard_alone_reaches_tokens_grids_and_sound(open_page, doc):
    page = open_page(doc, "#token=5")
    tab_past_the_bar(page)
    assert page.evaluate("document.activeElement.dataset.token") == "5"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert chosen(page) == 7
    assert page.evaluate("document.activeElement.dataset.token") == "7"
    page.keyboard.press("Home")
    assert chosen(page) == 0
    page.keyboard.press("ArrowLeft")
    assert chosen(page) == 0
    page.keyboard.press("Space")
    page.get_by_role("button", name="Pause").wait_for()
    page.keyboard.press("Space")
    page.get_by_role("button", name="Play", exact=True).wait_for()
    grid = page.locator("[data-testid=logit-lens] .grid")
    grid.locator("[tabindex='0']").focus()
    row, column = map(int, page.evaluate("document.activeElement.dataset.at").split(","))
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.dataset.at") == f"{row + 1},{column + 1}"
    assert grid.locator("output").inner_text().startswith(f"layer 2, token {column + 1}")
    assert chosen(page) == 0
    page.keyboard.press("Enter")
    assert chosen(page) == column + 1


@pytest.mark.one_host
def test_keys_that_come_faster_than_the_page_is_drawn_all_count(open_page, doc):
    page = open_page(doc, "#token=5")
    page.evaluate(
        "const press = () => new KeyboardEvent('keydown', {key: 'ArrowRight', bubbles: true});"
        "for (let i = 0; i < 2; i++) document.body.dispatchEvent(press());"
    )
    page.wait_for_function("() => document.querySelector('main').dataset.token === '7'", timeout=2000)
    assert page.url.endswith("#token=7")


def test_playing_moves_the_sound_the_clock_and_the_cursor(open_page, doc):
    page = open_page(doc)
    before = page.locator(".cursor").bounding_box()["x"]
    page.get_by_role("button", name="Play", exact=True).click()
    page.wait_for_function("() => document.querySelector('audio').currentTime > 0.2")
    page.wait_for_function("() => Number(document.querySelector('[data-testid=clock]').textContent) > 0.2")
    page.get_by_role("button", name="Pause").click()
    assert page.locator(".cursor").bounding_box()["x"] > before + 10


def test_choosing_a_word_plays_just_that_word(open_page, doc):
    page = open_page(doc)
    word = doc.transcript.words[3]
    page.locator(".word").nth(3).click()
    assert chosen(page) == word.first_token
    page.get_by_role("button", name="Play", exact=True).wait_for()
    time = page.evaluate("document.querySelector('audio').currentTime")
    assert word.end <= time < word.end + 0.3


def pixel(page, row, seconds, y):
    """Colour of a row at a time and a share of its height, all of the axis in view."""
    return page.evaluate(
        """([row, seconds, y]) => {
          const at = document.querySelector(`[data-row="${row}"] canvas`);
          const x = seconds / document.querySelector('.rows').dataset.seconds;
          const [left, top] = [x * at.width, y * at.height].map(Math.floor);
          return [...at.getContext('2d').getImageData(left, top, 1, 1).data];
        }""",
        [row, seconds, y],
    )


@pytest.mark.one_host
def test_the_pictures_show_what_the_document_holds(open_page, doc):
    page = open_page(doc, "#token=5", color_scheme="light", device_scale_factor=1)
    loud, quiet, silent = (
        pixel(page, row, seconds, y)
        for row, seconds, y in [("log-mel", 0.227, 0.99), ("log-mel", 0.455, 0.99), ("attention", 8.0, 0.9)]
    )
    assert sum(loud[:3]) < sum(quiet[:3]) - 200  # strong is dark on light paper
    assert silent[3] == 0  # no attention far from the token


def test_hostile_labels_are_shown_as_text(open_page, make_doc, label):
    doc = make_doc(tokens=[label, "b"], text=label, title=label, duration=0.5)
    hostile = doc.model_copy(
        update={
            "notes": [label],
            "in_words": ["", label],
            "left_out": [label],
            "feature_rows": [one.model_copy(update={"dictionary": label}) for one in doc.feature_rows],
            "risk": doc.risk.model_copy(update={"monitor": label}),
            "settings": {label: label},
            "model": doc.model.model_copy(update={"name": label, "family": label}),
            "encoder_lens": [one.model_copy(update={"text": label}) for one in doc.encoder_lens],
        }
    )
    page = open_page(hostile, "#token=0", viewport={"width": 900, "height": 800})
    assert page.locator("img").count() == 0
    assert page.locator("footer > ul li bdi").first.text_content() == label
    assert label.strip() in page.locator(".token").first.text_content()
    assert page.evaluate("document.documentElement.scrollWidth") <= 900


@pytest.mark.parametrize("fragment", ["#token=99", "#token=<img>", "#token=-1", "#%"])
def test_an_address_that_names_no_token_is_passed_over(open_page, doc, fragment):
    least = min(doc.transcript.tokens, key=lambda token: token.p)
    assert chosen(open_page(doc, fragment)) == least.index


@pytest.mark.one_host
def test_a_clip_without_a_word_has_a_page_too(open_page, make_doc):
    page = open_page(make_doc(tokens=[], text=""))
    assert page.locator("h1").inner_text() == "The model wrote nothing."
    assert page.get_by_text("No token was written.").is_visible()


@pytest.mark.parametrize("width", [320, 600])  # what a 1280-pixel window has left at 400 % and about 200 %
def test_a_magnified_page_never_scrolls_sideways(open_page, doc, width):
    page = open_page(doc, viewport={"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.one_host
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_keeps_its_contrast_on_every_tint(open_page, doc, scheme):
    page = open_page(doc, color_scheme=scheme)
    worst = page.evaluate(
        """() => {
          const canvas = new OffscreenCanvas(1, 1).getContext('2d', {willReadFrequently: true});
          const mixed = (colours) => {
            for (const colour of colours) { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); }
            return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
          };
          const light = (rgb) => rgb
            .map((c) => c / 255).map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
            .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
          const style = getComputedStyle(document.body);
          const paper = style.backgroundColor;
          const contrast = (element) => {
            const own = getComputedStyle(element);
            const [a, b] = [mixed([paper, own.backgroundColor]), mixed([own.color])].map(light);
            return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
          };
          const texts = document.querySelectorAll('td.amount, td.change, td.falls, .lead, .legend');
          return Math.min(...[...texts].map(contrast));
        }"""
    )
    assert worst >= 4.5


def test_a_long_transcript_is_usable_in_seconds(open_page, make_doc):
    page = open_page(make_doc(tokens=["word"] * 400, text=" word" * 400, duration=30.0))
    spent = page.evaluate(
        """async () => {
          const before = performance.now();
          document.querySelectorAll('.token')[200].click();
          await new Promise(requestAnimationFrame);
          return performance.now() - before;
        }"""
    )
    assert chosen(page) == 200
    assert spent < 600
