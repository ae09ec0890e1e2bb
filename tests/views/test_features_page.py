"""The page of features, in headless Chromium: found, chosen, heard, and hostile names inert."""

from __future__ import annotations

import pytest
from tests.views.conftest import HOSTILE

import otoscope as oto
from otoscope.corpora import Item, write_manifest
from otoscope.documents.features import FeatureInfo, FeatureMoment, FeaturesDoc, Neighbour, TokenWeight
from otoscope.runs.notes import Notes
from otoscope.studies.feature_examples import Examples, collect_examples
from otoscope.studies.feature_page import about_feature, features_doc

pytestmark = pytest.mark.browser


def made_up(labels):
    """A document of features of a text, one a label."""
    features = [
        FeatureInfo(
            layer=1,
            feature=i,
            label=label,
            density=0.01 * (i + 1),
            mean=1.5,
            max=4.0,
            histogram=[3, 2, 1],
            histogram_top=4.0,
            silent=5,
            promotes=[TokenWeight(text=label, weight=0.5)],
            neighbours=[Neighbour(feature=(i + 1) % len(labels), cosine=0.8)],
            moments=[
                FeatureMoment(activation=4.0, before="before ", at=label, after=" after", recording=label)
            ],
        )
        for i, label in enumerate(labels)
    ]
    return FeaturesDoc(
        title=labels[0], model="m", place="p", dictionary="d", corpus=labels[0], items=9, vectors=99, features_in_all=500,
        features=features, notes=["Labels prove nothing."],
    )  # fmt: skip


def test_a_feature_is_searched_chosen_and_stays_in_the_address(open_page):
    page = open_page(made_up(["cat", "dog", "cow"]))
    assert page.locator(".feature-list li").count() == 3
    page.get_by_label("Search").fill("dog")
    assert page.locator(".feature-list li").count() == 1
    page.locator(".feature-list button").click()
    assert page.locator("h1").inner_text() == "dog"
    assert page.url.endswith("#feature=1.1")
    page.locator(".near button").click()
    assert page.locator("h1").inner_text() == "cow"
    page.go_back()
    assert page.locator("h1").inner_text() == "dog"
    again = open_page(made_up(["cat", "dog", "cow"]), "#feature=1.2")
    assert again.locator("h1").inner_text() == "cow"
    assert open_page(made_up(["cat", "dog"]), "#feature=9.9").locator("h1").inner_text() == "cat"


@pytest.mark.parametrize("dark", [False, True])
def test_hostile_names_are_inert(open_page, dark):
    page = open_page(made_up(HOSTILE), bypass_csp=True, color_scheme="dark" if dark else "light")
    for i in range(len(HOSTILE)):
        page.locator(f"[data-index='{i}']").click()
        assert page.locator("main").get_attribute("data-feature") == str(i)
    assert page.locator("img").count() == 0
    width = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert width <= 0


@pytest.fixture(scope="module")
def collected(tiny_en, tmp_path_factory):
    """Examples of neurons over two real recordings, one of them named by a person."""
    folder = tmp_path_factory.mktemp("collected")
    items = [Item(f"{n}.flac", oto.sample(n), language="en") for n in ("austen-0880", "austen-0890")]
    write_manifest(items, folder / "clips.jsonl")
    collect_examples(
        tiny_en, "neurons", folder / "clips.jsonl", folder / "out", point="encoder_blocks.2.mlp", batch=2
    )
    Notes(folder / "out").write(about_feature(2, 11), "a person's <b>name</b>")
    return Examples(folder / "out")


@pytest.fixture(scope="module")
def heard(collected):
    return features_doc(collected, [(2, 11), (2, 12)])


@pytest.fixture(scope="module")
def not_heard(collected, heard):
    """When `heard` was made, the recordings go away."""
    (collected.folder.parent / "clips.jsonl").unlink()
    return features_doc(collected, count=2)


@pytest.mark.weights
def test_moments_are_heard_and_a_person_s_name_comes_first(heard, open_page):
    doc = heard
    assert doc.features[0].named == "a person's <b>name</b>"
    moment = doc.features[0].moments[0]
    assert moment.snippet_start <= moment.start < moment.end <= moment.snippet_start + moment.snippet_seconds
    page = open_page(doc, bypass_csp=True)  # the test itself evaluates
    assert page.locator("h1").inner_text().startswith("a person's <b>name</b>")
    play = page.locator(".play").first
    play.click()
    page.wait_for_function("() => document.querySelector('audio').currentTime > 0.05")
    assert play.inner_text() == "Stop"
    seconds = page.evaluate("document.querySelector('audio').duration")
    assert seconds == pytest.approx(moment.snippet_seconds, abs=0.05)
    page.wait_for_function(
        "() => document.querySelector('.play').textContent === 'Play'", timeout=20_000
    )  # to its end
    assert page.locator(".wave rect").count() == len(doc.features[0].moments)


@pytest.mark.weights
def test_without_the_recordings_the_page_shows_words_alone(not_heard, open_page):
    doc = not_heard
    assert doc.resources == {}
    page = open_page(doc)
    assert page.locator(".moment").count() > 0
    assert page.locator(".play").count() == 0
