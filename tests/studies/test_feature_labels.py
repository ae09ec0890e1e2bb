"""Labels that single features tell: a planted one is found, dealt-out ones are not; signs of splitting are where it is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from otoscope.dictionaries.activation import Activation
from otoscope.dictionaries.transcoder import Transcoder, TranscoderSet
from otoscope.studies.feature_labels import (
    Labelled,
    _areas,
    _ranked,
    splitting,
    stability,
    summary,
    told_apart,
)

RNG = np.random.default_rng(0)
ITEMS, PLACES, FEATURES = 40, 25, 12


def test_areas_are_those_of_scikit_learn_ties_and_all():
    x = RNG.integers(0, 4, (200, 5)).astype(float)
    mine = RNG.random(200) < 0.3
    expected = [roc_auc_score(mine, column) for column in x.T]
    np.testing.assert_allclose(_areas(_ranked(x), mine), expected, atol=1e-6)


@pytest.fixture
def planted():
    """Activations of two layers, of which feature 7 of layer 1 is on where the word is `cat`, mostly."""
    words = np.where(RNG.random(ITEMS * PLACES) < 0.2, "cat", "dog").astype(object)
    x = {n: np.maximum(RNG.standard_normal((ITEMS, PLACES, FEATURES)), 0) for n in (0, 1)}
    x[1][:, :, 7] += 3 * (words.reshape(ITEMS, PLACES) == "cat")
    group, place = np.repeat(np.arange(ITEMS), PLACES), np.tile(np.arange(PLACES), ITEMS)
    return Labelled("word", {"word": words}, group, place), x


def test_a_planted_feature_is_found_on_one_half_and_holds_on_the_other(planted):
    labelled, x = planted
    noise = {n: np.maximum(RNG.standard_normal((ITEMS, PLACES, FEATURES)), 0) for n in (0, 1)}
    systems = {
        "dictionary": (lambda layer, item: x[layer][item], (0, 1)),
        "random": (lambda layer, item: noise[layer][item], (0, 1)),
    }
    found = told_apart(labelled, systems)
    cat = next(entry for entry in found if entry["value"] == "cat")
    assert (cat["dictionary"]["layer"], cat["dictionary"]["feature"]) == (1, 7)
    assert cat["dictionary"]["auc"] > 0.95
    assert cat["dictionary"]["ci_low"] > 0.9
    assert abs(cat["random"]["auc"] - 0.5) < 0.12
    assert abs(cat["dictionary"]["shuffled"] - 0.5) < 0.12
    told = summary(found, list(systems))
    assert told["values"] == 2
    assert told["dictionary"] > told["random"] + 0.2


def test_a_value_of_few_rows_is_not_asked_for():
    labelled = Labelled("recording", {"noise": np.array(["a"] * 37 + ["b"] * 3)}, np.arange(40))
    assert told_apart(labelled, {"dictionary": (lambda _layer, _item: np.zeros((3, 4)), (0,))}) == []


def transcoders(rows: torch.Tensor, encoder: torch.Tensor | None = None) -> TranscoderSet:
    n, d = rows.shape
    part = Transcoder(
        rows if encoder is None else encoder, torch.zeros(n), rows, torch.zeros(d), Activation()
    )
    return TranscoderSet({0: part}, layers=1)


def test_a_word_spread_over_two_features_shows_as_split_and_absorbed():
    word = np.array(["cat", "dog"] * 200, dtype=object)
    labelled = Labelled("word", {"word": word}, np.repeat(np.arange(40), 10), np.tile(np.arange(10), 40))
    whole, halves = np.zeros((400, 4)), np.zeros((400, 4))
    whole[word == "cat", 0] = 1
    halves[::4, 0], halves[2::4, 1] = 1, 1  # every other cat has a feature of its own
    rows = torch.eye(4, 6)
    alike = rows.clone()
    alike[1] = torch.nn.functional.normalize(alike[0] + 0.5 * alike[1], dim=0)

    def told(x, written):
        return splitting(transcoders(written), labelled, lambda _, item: x[10 * item : 10 * item + 10], [0])

    one, two, far = told(whole, rows), told(halves, alike), told(halves, rows)
    assert one["split"] < 0.01
    assert two["split"] > 0.1
    assert two["absorbed"] > far["absorbed"] + 0.3


def test_twins_write_alike():
    rows = torch.nn.functional.normalize(
        torch.randn(50, 20, generator=torch.Generator().manual_seed(0)), dim=1
    )
    rows[1] = rows[0]
    labelled = Labelled(
        "word", {"word": np.array(["a"] * 50, dtype=object)}, np.arange(50), np.zeros(50, int)
    )
    told = splitting(transcoders(rows), labelled, lambda _layer, _item: np.zeros((1, 50)), [0])
    assert told["twins"] == [pytest.approx(0.04)]


def test_features_of_another_seed_are_shared_in_whatever_order_and_random_ones_are_not():
    g = torch.Generator().manual_seed(1)
    rows = torch.randn(60, 30, generator=g)
    order = torch.randperm(60, generator=g)
    same = stability(transcoders(rows), [transcoders(rows[order])], [0])
    other = stability(transcoders(rows), [transcoders(torch.randn(60, 30, generator=g))], [0])
    assert same["shared"] == 1
    assert same["writes"] == pytest.approx(1, abs=1e-5)
    assert other["shared"] < 0.1
    assert other["writes"] == pytest.approx(other["chance"], abs=0.05)


def test_copies_of_a_recording_are_on_one_half_and_a_silent_one_does_no_harm():
    """A feature that knows each recording by heart tells nothing of recordings that it never met."""
    rng = np.random.default_rng(3)
    block = np.repeat(np.arange(30), 4)  # thirty recordings, each with three copies
    gender = rng.permutation(np.repeat(["f", "m"], 15))[block]
    known = rng.random((30, 200))[block] + 0.01 * rng.random((120, 200))
    systems = {"dictionary": (lambda _layer, item: known[item : item + 1], (0,))}
    labels = {"gender": gender}
    blind = told_apart(Labelled("recording", labels, np.arange(120)), systems)
    fair = told_apart(Labelled("recording", labels, np.arange(120), block=block), systems)
    assert np.mean([e["dictionary"]["auc"] for e in blind]) > np.mean([e["dictionary"]["auc"] for e in fair])
    assert abs(np.mean([e["dictionary"]["auc"] for e in fair]) - 0.5) < 0.3
    silent = {"dictionary": (lambda _layer, item: known[item : item + (item > 0)], (0,))}
    assert told_apart(Labelled("recording", labels, np.arange(120), block=block), silent)
