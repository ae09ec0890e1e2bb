"""Putting changes together on a page, in every host, and reading what came of them."""

import pytest
from tests.documents.samples import a_lens
from tests.views.axe import violations

from otoscope.documents.intervention import Outcome

pytestmark = pytest.mark.browser

PROMPT = "The capital of\nFrance is"


def panel(page):
    return page.get_by_test_id("intervene")


def lines(page):
    return panel(page).locator(".copied-line code").all_inner_texts()


def test_a_cell_of_the_ablation_grid_goes_into_the_list_and_out_again(open_page, doc):
    page = open_page(doc)
    grid = page.get_by_label("decoder, layers by heads of cross-attention")
    cell = grid.locator("tbody tr").nth(1).locator("td").nth(3)
    before = cell.get_attribute("class").split()
    cell.click()
    assert "decoder layer 2, cross-attention head 3 zeroed" in panel(page).inner_text()
    assert cell.get_attribute("class").split() == [*before, "taken"]
    assert "in the list of changes" in cell.get_attribute("aria-label")
    python, command = lines(page)
    assert "oto.Intervention(zero=['decoder_blocks.2.cross_attn.3'])" in python
    assert command.endswith("--model whisper-tiny.en --zero decoder_blocks.2.cross_attn.3")
    cell.focus()
    page.keyboard.press("Enter")
    assert "Nothing is changed yet" in panel(page).inner_text()


@pytest.mark.one_host
def test_heads_that_change_more_than_the_control_are_framed_whatever_is_in_the_list(open_page, doc):
    page = open_page(doc)
    framed = page.locator("[data-testid=ablation] td.marked")
    count = framed.count()
    assert 0 < count < page.locator("[data-testid=ablation] td.cell").count()
    assert "more than the control" in framed.first.get_attribute("aria-label")
    framed.first.click()
    assert framed.count() == count


@pytest.mark.one_host
def test_arrow_keys_in_a_field_move_its_cursor_and_not_the_token(open_page, doc):
    page = open_page(doc, "#token=5")
    panel(page).get_by_label("Or write one").fill("1.2-1.8")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Backspace")
    assert panel(page).get_by_label("Or write one").input_value() == "1.2-18"
    assert page.locator("main").get_attribute("data-token") == "5"


@pytest.mark.one_host
def test_what_is_near_the_token_is_offered_and_what_is_typed_is_read(open_page, doc):
    page = open_page(doc, "#token=5")
    word = doc.transcript.words[5]
    panel(page).locator(".offer").first.click()
    panel(page).get_by_label("Or write one").fill("encoder:3:604x2")
    page.keyboard.press("Enter")
    told = panel(page).locator(".pending").inner_text()
    assert "encoder layer 3, feature 604 times 2" in told
    assert f"{word.start:.4f}"[:4] in told
    panel(page).get_by_label("Or write one").fill("<img src=x onerror=alert(1)>")
    panel(page).get_by_role("button", name="Add").click()
    assert "That is no change." in panel(page).inner_text()
    panel(page).get_by_role("button", name="Take back: encoder layer 3").click()
    assert "604" not in panel(page).locator(".pending").inner_text()


def test_the_list_survives_a_reload_and_another_token(open_page, doc):
    page = open_page(doc, "#token=5")
    panel(page).locator(".offer").first.click()
    before = panel(page).locator(".pending").inner_text()
    page.locator(".token").nth(7).click()
    assert panel(page).locator(".pending").inner_text() == before
    page.reload()
    page.locator("main[data-token='7']").wait_for()
    assert panel(page).locator(".pending").inner_text() == before


def test_where_nothing_can_run_the_button_stays_and_says_so(visit, tmp_path, doc):
    doc.save(tmp_path / "page.html")
    page = visit((tmp_path / "page.html").as_uri() + "#zero=decoder_blocks.2.mlp", ["file:"])
    assert panel(page).get_by_role("button", name="Write again").is_disabled()
    assert "runs no model" in panel(page).inner_text()
    assert len(lines(page)) == 2
    panel(page).get_by_role("button", name="Copy the Python line").click()
    panel(page).get_by_text("Copied").wait_for()


def made_up_outcome(doc, text=" And so, my fellow citizens", label=None):
    """An outcome of the same shape as a real one, from the parts of an explained clip."""
    told = {"transcript": doc.transcript, "logit_lens": doc.logit_lens}
    risk = {"text": 0.2, "threshold": 0.6, "alarm": False, "tokens": [0.1] * len(doc.transcript.tokens)}
    after = doc.transcript.model_copy(update={"text": text})
    return Outcome.model_validate(
        {
            "title": label or doc.title,
            "file": label or "jfk.flac",
            "duration": doc.audio.duration,
            "model": doc.model,
            "intervention": {"silence": [(1.0, 2.0)]},
            "before": told | {"risk": risk},
            "after": told | {"transcript": after, "risk": risk | {"text": 0.9, "alarm": True}},
            "words": [
                {"op": "same", "before": "And so", "after": "And so"},
                {"op": "replaced", "before": label or "Americans", "after": label or "citizens"},
            ],
            "change": doc.ablation.change.model_copy(
                update={"shape": (len(doc.transcript.tokens),), "data": _first_row(doc)}
            ),
            "size": 0.7,
            "controls": [
                {
                    "intervention": {"silence": [(4.0, 5.0)]},
                    "text": label or "x",
                    "changed": True,
                    "size": 0.3,
                },
                {
                    "intervention": {"silence": [(6.0, 7.0)]},
                    "text": doc.transcript.text,
                    "changed": False,
                    "size": 0.1,
                },
            ],
            "python": f"print({label!r})",
            "command": label or "otoscope",
            "notes": [label or "beware"],
        }
    )


def _first_row(doc):
    from otoscope.documents.base import Array

    return Array.pack(doc.ablation.change.unpack()[0]).data


def test_an_outcome_is_a_page_of_its_own(open_page, doc):
    outcome = made_up_outcome(doc)
    page = open_page(outcome)
    assert page.locator("h1").inner_text() == "1–2 s silenced"
    assert page.locator("del").inner_text() == "Americans"
    assert page.locator("ins").inner_text() == "citizens"
    assert "1 of 2" in page.locator(".verdict").inner_text()
    assert page.locator(".risks b").inner_text() == "alarm"
    token = 3
    page.locator(".tokens .token").nth(token).click()
    lens = page.get_by_label("Logit lens before and after").locator("tbody tr")
    assert lens.count() == doc.logit_lens.layers
    assert f"{doc.logit_lens.tokens[token].layers[-1].top[0].p:.3f}".lstrip("0") in lens.first.inner_text()


def test_hostile_labels_of_an_outcome_are_text(open_page, doc, label):
    page = open_page(made_up_outcome(doc, text=label, label=label), viewport={"width": 900, "height": 800})
    assert page.locator("img").count() == 0
    assert page.locator("del").text_content() == label
    assert page.evaluate("document.documentElement.scrollWidth") <= 900


@pytest.mark.parametrize("width", [320, 600])
def test_a_magnified_outcome_never_scrolls_sideways(open_page, doc, width):
    page = open_page(made_up_outcome(doc), viewport={"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") == width


# Prompts


def of_a_prompt(doc, label=PROMPT):
    """The outcome of a prompt, from the parts of an explained clip."""
    following = [("Paris", 0.8, 0.1), (label, 0.1, 0.7)]
    more = {
        "prompt": label,
        "intervention": {"zero": ["blocks.9.attn.3"], "scale": ["blocks.2.mlpx0.5"]},
        "next_tokens": [
            {"id": i, "text": t, "before": b, "after": a} for i, (t, b, a) in enumerate(following)
        ],
    }
    return Outcome.model_validate(made_up_outcome(doc).model_dump() | more)


@pytest.mark.one_host
def test_an_outcome_of_a_prompt_shows_what_follows_it_on_both_sides(open_page, doc):
    page = open_page(of_a_prompt(doc), bypass_csp=True, color_scheme="light")
    assert page.locator("h1").inner_text() == "layer 9, self-attention head 3 zeroed; layer 2, MLP times 0.5"
    assert page.locator(".sides .prompt").text_content() == PROMPT
    rows = page.get_by_label("Next token after the prompt").locator("tbody tr")
    assert [row.split("\t")[-1].strip() for row in rows.all_inner_texts()] == [".100", ".700"]
    assert violations(page) == []


def test_hostile_prompts_are_text(open_page, doc, label):
    page = open_page(of_a_prompt(doc, label), viewport={"width": 420, "height": 800})
    assert page.locator("img").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 420


@pytest.mark.one_host
def test_a_prompt_on_a_page_is_changed_by_what_is_offered_or_written(open_page):
    lens = a_lens().model_copy(
        update={"is_prompt": True, "text": PROMPT, "encoder_lens": [], "model": "smollm2-135m"}
    )
    page = open_page(lens)
    panel(page).get_by_role("button", name="Zero the MLP of layer 1").click()
    panel(page).get_by_label("Or write one").fill("blocks.9.attn.3x0.5")
    page.keyboard.press("Enter")
    told = panel(page).locator(".pending").inner_text()
    assert "layer 1, MLP zeroed" in told
    assert "layer 9, self-attention head 3 times 0.5" in told
    python, command = lines(page)
    assert "oto.intervene_prompt(oto.load_model('smollm2-135m'), 'The capital of\\nFrance is'," in python
    assert "oto.Intervention(zero=['blocks.1.mlp'], scale=['blocks.9.attn.3x0.5'])" in python
    assert command.endswith("--model smollm2-135m --zero blocks.1.mlp --scale blocks.9.attn.3x0.5")


@pytest.mark.one_host
def test_a_recordings_lens_alone_offers_no_change(open_page):
    assert panel(open_page(a_lens())).count() == 0
