"""Every figure of a page can be saved as a picture, from a file and from a sandboxed frame."""

import html
import io
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from otoscope.views.page import render_page

pytestmark = pytest.mark.browser
SVG = "{http://www.w3.org/2000/svg}"


def saved(page, figure, format):
    """The bytes and the name that "Save picture" hands out."""
    box = page.locator(f"[data-figure='{figure}']")
    if not box.locator("details.save").get_attribute("open"):
        box.locator("details.save[open], details.save summary").first.click()
    with page.page.expect_download() if hasattr(page, "page") else page.expect_download() as download:
        box.get_by_role("button", name=format).click()
    return download.value.path().read_bytes(), download.value.suggested_filename


def test_a_table_becomes_vectors_with_its_caption(open_page, doc):
    page = open_page(doc, color_scheme="light")
    raw, name = saved(page, "logit-lens", "SVG")
    assert name == "logit-lens.svg"
    tree = ET.fromstring(raw)
    texts = ["".join(one.itertext()) for one in tree.iter(f"{SVG}text")]
    assert "Logit lens" in texts
    assert any("jfk.flac" in text and "whisper-tiny.en" in text for text in texts)
    cells = page.locator("[data-testid=logit-lens] td.cell")
    for number in (0, cells.count() - 1):  # the last one is scrolled out of sight
        assert cells.nth(number).inner_text() in texts
    assert len(list(tree.iter(f"{SVG}image"))) == 0
    assert (
        float(tree.get("width"))
        > page.locator(
            "[data-testid=logit-lens] table.grid, [data-testid=logit-lens] table"
        ).last.bounding_box()["width"]
    )


def test_a_png_has_twice_the_size_and_the_colours_of_the_page(open_page, doc):
    page = open_page(doc, color_scheme="dark")
    tree = ET.fromstring(saved(page, "logit-lens", "SVG")[0])
    raw, name = saved(page, "logit-lens", "PNG")
    assert name == "logit-lens.png"
    picture = Image.open(io.BytesIO(raw)).convert("RGB")
    assert picture.size == (2 * round(float(tree.get("width"))), round(2 * float(tree.get("height"))))
    assert picture.getpixel((2, 2)) == (0x11, 0x15, 0x1A)  # the dark paper
    assert len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0)) > 50


def test_sound_and_ablation_are_saved_with_their_canvases_and_grids(open_page, doc):
    page = open_page(doc, "#token=5")
    sound = ET.fromstring(saved(page, "sound", "SVG")[0])
    rows = page.locator(".bench canvas").count()  # waveform, mel, attention and what lies under them
    assert len(list(sound.iter(f"{SVG}image"))) == rows >= 3
    shown = ["".join(one.itertext()) for one in sound.iter(f"{SVG}text")]
    assert shown.count("Sound") == 1  # the heading is the caption
    assert len(list(sound.iter(f"{SVG}pattern"))) == 1  # the hatching of the padding
    assert not any("Drag over" in text for text in shown)
    second = next(one for one in sound.iter(f"{SVG}text") if one.text == "s" and one.get("x"))
    first = next(
        one for one in sound.iter(f"{SVG}text") if one.text == "0" and one.get("y") == second.get("y")
    )
    assert float(second.get("x")) - float(first.get("x")) > 9  # a digit and a blank
    texts = set(shown)
    assert {"Americans", "ask"} <= texts
    assert not texts & {"Play", "Pause"}
    grids = ET.fromstring(saved(page, "ablation", "SVG")[0])
    texts = ["".join(one.itertext()) for one in grids.iter(f"{SVG}text")]
    cells = page.locator("[data-testid=ablation] td.cell")
    assert cells.last.inner_text() in texts
    assert len(texts) > cells.count()


def test_hostile_labels_stay_text_in_the_picture(open_page, make_doc, label):
    doc = make_doc(tokens=[label, "b"], text=label, title=label, duration=0.5)
    raw, _ = saved(open_page(doc, "#token=0"), "logit-lens", "SVG")
    tree = ET.fromstring(raw)  # well-formed, whatever the label holds
    assert {one.tag.removeprefix(SVG) for one in tree.iter()} <= {
        "svg", "title", "desc", "rect", "text", "g", "line", "linearGradient", "stop",
    }  # fmt: skip


def test_pictures_are_saved_from_a_sandboxed_frame_too(visit, doc, tmp_path):
    """The frame of a notebook has no origin of its own and may download."""
    outer = tmp_path / "notebook.html"
    inside = html.escape(render_page(doc), quote=True)
    outer.write_text(
        f'<iframe sandbox="allow-scripts allow-downloads" width="900" height="900" srcdoc="{inside}"></iframe>'
    )
    page = visit(outer.as_uri(), ["file:"])
    frame = page.frames[1]
    frame.locator("main").wait_for()
    for format, magic in (("PNG", b"\x89PNG"), ("SVG", b"<svg")):
        assert saved(frame, "logit-lens", format)[0].startswith(magic)
