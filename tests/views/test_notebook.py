"""Documents and results as a notebook shows them."""

import re
from html.parser import HTMLParser

import pytest

from otoscope.documents.card import Card, Mark, Table, card_of
from otoscope.models.transcripts import DecodeOptions, Transcript, Word
from otoscope.showing import Shows
from otoscope.views import notebook
from otoscope.views.cards import html_of, render
from otoscope.views.page import render_page


def tags(html):
    found = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attrs):
            found.append((tag, dict(attrs)))

    Reader().feed(html)
    return found


def test_a_document_shows_its_page_in_a_frame_that_can_reach_nothing(doc):
    bundle = doc._repr_mimebundle_()
    assert bundle["text/plain"] == doc.summary()
    frame = next(attrs for tag, attrs in tags(bundle["text/html"]) if tag == "iframe")
    assert frame["sandbox"] == "allow-scripts allow-downloads"
    assert frame["srcdoc"] == render_page(doc)


def test_no_label_gets_out_of_the_frame_or_the_summary(make_doc, label):
    tame, hostile = (make_doc(tokens=["a"], text=x, title=x, duration=0.5) for x in ("a", label[:200]))
    shapes = [
        [(tag, sorted(attrs)) for tag, attrs in tags(notebook.frame_of(one))] for one in (tame, hostile)
    ]
    assert shapes[0] == shapes[1]


def test_a_page_too_large_for_a_notebook_is_left_out_and_says_what_to_do(doc, monkeypatch):
    monkeypatch.setattr(notebook, "LARGEST", 1000)
    html = notebook.frame_of(doc)
    assert "<iframe" not in html
    assert "doc.save(" in html
    assert len(html) < 2000


def test_save_writes_the_page(doc, tmp_path):
    doc.save(tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text("utf-8") == render_page(doc)


def every_kind_of_result():
    import importlib
    import pkgutil

    import otoscope

    for module in pkgutil.walk_packages(otoscope.__path__, "otoscope."):
        if not module.name.endswith(("__main__", "views.widget")):
            importlib.import_module(module.name)
    return [kind for kind in Shows.__subclasses__() if kind.__module__.startswith("otoscope.")]


def test_every_kind_of_result_can_be_shown():
    kinds = every_kind_of_result()
    assert len(kinds) >= 30
    for kind in kinds:
        assert hasattr(kind, "card") or hasattr(kind, "to_dict"), kind


def transcript(text):
    words = (Word(text, 0.1, 0.5, 0.25, 0, 0),)
    return Transcript(text, "en", (), words, (), 1.0, 0.1, -0.3, 1.0, None, (), DecodeOptions(), {})


def test_a_transcript_marks_its_doubtful_words(label):
    html = transcript(label)._repr_html_()
    assert not {tag for tag, _ in tags(html)} & {"img", "script"}
    assert "p = 0.25" in html
    assert len(html) < 3000 + 5 * len(label[:400])


class Numbers(Shows):
    """A result that has nothing but its numbers."""

    def to_dict(self):
        rows = [{"layer": i, "score": i / 7, "parts": [1, 2]} for i in range(30)]
        return {
            "score": 0.123456,
            "rate": {"value": 0.5, "n": 3},
            "layers": rows,
            "known": None,
            "ids": [1, 2, 3],
        }


def test_a_result_without_a_card_of_its_own_shows_its_numbers_and_its_first_rows():
    html = html_of(Numbers())
    text = re.sub("<[^>]+>", " ", html)
    assert "0.1235" in text
    assert "rate: value" in text
    assert "and 18 more rows" in text
    assert html.count("<tr>") == 13
    assert "3 values" in text


@pytest.mark.parametrize("field", ["title", "note", "text", "told", "fact", "cell", "line"])
def test_every_part_of_a_card_is_escaped(field, label):
    at = {field: label}
    card = Card(
        title=at.get("title", "a"),
        note=at.get("note", "a"),
        texts=[[Mark(text=at.get("text", "a"), told=at.get("told", "a"), amount=0.5)]],
        facts={at.get("fact", "a"): at.get("fact", "a")},
        table=Table.of([at.get("cell", "a")], [[at.get("cell", "a")]]),
        lines=[at.get("line", "a")],
    )
    tame = card_of("a", {})
    assert [t for t, _ in tags(render(card))] == [t for t, _ in tags(render(_tame(card)))]
    assert len(render(card)) < 8000
    assert render(tame)


def _tame(card):
    return Card(
        title="a",
        note="a",
        texts=[[Mark(text="a", told="a")]],
        facts={"a": "a"},
        table=Table.of(["a"], [["a"]]),
        lines=["a"],
    )


def test_a_clip_plays_in_its_cell(jfk):
    import otoscope as oto

    html = oto.read(jfk)._repr_html_()
    assert 'src="data:audio/flac;base64,' in html
    assert "11.00 s" in html
