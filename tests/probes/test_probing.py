"""Planted knowledge is found at its layer, with controls beside it; what cannot be probed is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from otoscope.corpora import Item
from otoscope.errors import ManifestError, OptionError
from otoscope.probes.probing import ProbeOptions, check_labels, probe
from otoscope.runs import ActivationStore, Run

D = 24


def corpus(voices=24, each=8):
    """Items of `voices` speakers, half of them female; `loud` alternates within a speaker."""
    return [
        Item(
            f"{v}-{i}.wav",
            Path(f"{v}-{i}.wav"),
            labels={
                "speaker": f"v{v}",
                "gender": "f" if v % 2 else "m",
                "loud": i % 2,
                "snr": i + v / 100,
                "part": "train" if v < voices // 2 else "test",
            },
        )
        for v in range(voices)
        for i in range(each)
    ]


def store_of(items, path, known_at=1, keep=lambda i: True, seed=0):
    """Layers 0 to 2 of noise and a fingerprint of each speaker; from `known_at` on the gender and the SNR show, too."""
    rng = np.random.default_rng(seed)
    rows = [i for i in range(len(items)) if keep(i)]
    speakers = {f"v{v}": rng.standard_normal(D) for v in range(100)}
    vectors = {"mel": rng.standard_normal((len(rows), 6)).astype("f4")}
    for layer in range(3):
        x = rng.standard_normal((len(rows), D))
        for row, i in enumerate(rows):
            x[row] += 2 * speakers[items[i].labels["speaker"]]
            if layer >= known_at:
                x[row, 0] += 16 * (items[i].labels["gender"] == "f")
                x[row, 1] = 0.3 * items[i].labels["snr"] + 0.1 * x[row, 1]
        vectors[f"encoder.mean.{layer}"] = x.astype("f4")
    reasons = [None if keep(i) else "It is truncated." for i in range(len(items))]
    index = pd.DataFrame(
        {
            "item": range(len(items)),
            "audio_filepath": [i.audio_filepath for i in items],
            "reason": reasons,
            "remedy": reasons,
        }
    )
    with Run.opened(path, "activations", {"model": {"name": "planted"}}) as run:
        ActivationStore(run).append(0, vectors, index)
    return ActivationStore.read_from(path)


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    items = corpus()
    return items, store_of(items, tmp_path_factory.mktemp("store") / "s")


def test_a_planted_label_is_found_from_its_layer_on_and_not_before(planted):
    items, store = planted
    curve = probe(store, items, "gender")
    scores = [layer.score for layer in curve.layers]
    assert scores[0] < 0.8
    assert scores[1] > 0.9
    assert curve.best.layer in (1, 2)
    assert curve.best.ci_low > curve.best.control + 0.2
    assert curve.best.auc > 0.95


def test_the_json_has_the_promised_keys(planted):
    items, store = planted
    data = json.loads(json.dumps(probe(store, items, "gender").to_dict(), allow_nan=False))
    assert {"label", "layers", "best_layer", "n_train", "n_test", "groups_disjoint"} <= data.keys()
    wanted = {
        "layer",
        "accuracy",
        "balanced_accuracy",
        "ci_low",
        "ci_high",
        "control_accuracy",
        "baseline_accuracy",
    }
    assert all(wanted <= layer.keys() for layer in data["layers"])
    assert data["groups_disjoint"] is True
    assert data["n_test"] == 192
    assert data["n_groups"] == 24
    assert data["n_folds"] == 5


def test_no_speaker_is_trained_and_tested_on_in_one_fold(planted):
    items, store = planted
    task = probe(store, items, "gender").task
    for train, test in task.folds:
        assert not set(task.groups[train]) & set(task.groups[test])


def test_sharing_speakers_flatters_and_the_output_says_so(planted):
    """At layer 0 nothing tells the gender, but speakers can be told apart: with shared speakers the probe seems to know."""
    items, store = planted
    apart = probe(store, items, "gender").layers[0]
    shared = probe(store, items, "gender", ProbeOptions(group_by="none"))
    assert shared.layers[0].score > apart.score + 0.15
    assert shared.to_dict()["groups_disjoint"] is False


def test_a_label_that_is_not_in_the_activations_stays_at_chance(planted):
    items, store = planted
    curve = probe(store, items, "loud")
    assert all(layer.ci_low < 0.55 for layer in curve.layers)


def test_a_numeric_label_is_told_by_regression(planted):
    items, store = planted
    curve = probe(store, items, "snr")
    assert curve.task.kind == "numeric"
    assert curve.layers[0].score < 0.1
    assert curve.layers[1].score > 0.5
    assert curve.layers[1].control < 0.1
    assert curve.to_dict()["measure"] == "r2"


def test_given_parts_take_the_place_of_folds(planted):
    items, store = planted
    curve = probe(store, items, "gender", ProbeOptions(split_by="part"))
    data = curve.to_dict()
    assert (data["n_train"], data["n_test"], data["n_folds"]) == (96, 96, 1)
    (train, test) = curve.task.folds[0]
    assert {items[curve.task.rows[i]].labels["part"] for i in train} == {"train"}
    assert {items[curve.task.rows[i]].labels["part"] for i in test} == {"test"}
    assert data["groups_disjoint"] is True


def test_given_parts_that_share_speakers_are_recorded_as_such(planted):
    items, store = planted
    mixed = [
        replace(item, labels=item.labels | {"part": ("train", "test")[i % 2]}) for i, item in enumerate(items)
    ]
    curve = probe(store, mixed, "gender", ProbeOptions(split_by="part"))
    assert curve.to_dict()["groups_disjoint"] is False
    assert "share speakers" in " ".join(curve.cautions())


def test_items_in_neither_given_part_are_left_out_and_counted(planted):
    items, store = planted
    some = [
        replace(item, labels=item.labels | ({"part": "dev"} if i < 8 else {})) for i, item in enumerate(items)
    ]
    data = probe(store, some, "gender", ProbeOptions(split_by="part")).to_dict()
    assert (data["n_items"], data["missing_labels"]) == (184, 8)


def test_parts_by_other_names_are_refused_with_the_names_there_are(planted):
    items, _ = planted
    upper = [replace(item, labels=item.labels | {"part": str(item.labels["part"]).upper()}) for item in items]
    with pytest.raises(ManifestError, match="it has: TEST, TRAIN"):
        check_labels(upper, "gender", ProbeOptions(split_by="part"))


def test_given_parts_of_few_speakers_get_controls_that_can_be_fitted_or_none(tmp_path):
    items = corpus(voices=4, each=6)
    store = store_of(items, tmp_path / "s")
    layer = probe(store, items, "gender", ProbeOptions(split_by="part")).layers[0]
    assert layer.control is None or 0 <= layer.control <= 1


def test_one_mislabelled_item_does_not_turn_the_control_into_the_task(planted):
    items, store = planted
    wrong = [
        replace(item, labels=item.labels | ({"gender": "f"} if i == 0 else {}))
        for i, item in enumerate(items)
    ]
    best = probe(store, wrong, "gender").best
    assert best.score > 0.8
    assert best.control < 0.65


def test_labels_of_other_items_or_another_order_are_refused(planted):
    items, store = planted
    for wrong in (items[::-1], items[:50]):
        with pytest.raises(OptionError, match="other items"):
            probe(store, wrong, "gender")


def test_the_baseline_and_the_random_model_are_measured_and_not_assumed(planted, tmp_path):
    items, store = planted
    knows = store_of(items, tmp_path / "knows", known_at=0, seed=5)
    layer = probe(store, items, "gender", random=knows).layers[0]
    assert layer.random > 0.85 > layer.score  # this "random" model knows the gender from layer 0 on
    assert abs(layer.baseline - 0.5) < 0.2  # mel statistics are noise here
    assert layer.accuracy == pytest.approx(layer.score)  # the classes are of one size


def test_single_frames_are_probed_with_their_items_kept_together(tmp_path):
    items = corpus(voices=8, each=3)
    rng = np.random.default_rng(0)
    counts = rng.integers(2, 6, len(items))
    of = np.repeat(np.arange(len(items)), counts)
    x = rng.standard_normal((len(of), 4)).astype("f4")
    x[:, 2] += 8 * np.array([items[i].labels["loud"] for i in of])
    index = pd.DataFrame(
        {"item": range(len(items)), "audio_filepath": [i.audio_filepath for i in items], "frames": counts,
         "reason": [None] * len(items), "remedy": [None] * len(items)}
    )  # fmt: skip
    with Run.opened(tmp_path / "s", "activations", {"model": {"name": "planted"}}) as run:
        ActivationStore(run).append(0, {"encoder.frames.0": x}, index)
    store = ActivationStore.read_from(tmp_path / "s")
    curve = probe(store, items, "loud", ProbeOptions(pool="frames"))
    assert curve.best.score > 0.98
    assert curve.best.control < 0.8
    data = curve.to_dict()
    assert (data["n_items"], data["n_rows"]) == (24, counts.sum())


@pytest.mark.parametrize("value", [float("nan"), 10**400, {"a": 1}, ["x"], "\ud800", "$x$\n" * 2000, True])
def test_hostile_label_values_are_told_apart_or_refused_but_never_break(planted, value):
    items, store = planted
    odd = [
        replace(item, labels=item.labels | ({"gender": value} if item.labels["gender"] == "f" else {}))
        for item in items
    ]
    said = ""
    try:
        said = json.dumps(probe(store, odd, "gender", ProbeOptions(shuffles=1)).to_dict(), allow_nan=False)
    except ManifestError as refused:
        said = str(refused)[:1000]
    assert "gender" in said


def test_few_groups_come_with_a_caution(planted, tmp_path):
    items = corpus(voices=4, each=4)
    curve = probe(store_of(items, tmp_path / "s"), items, "gender")
    assert any("only 4 groups" in caution for caution in curve.cautions())


def test_the_same_seed_gives_the_same_numbers(planted):
    items, store = planted
    a, b = (probe(store, items, "gender", ProbeOptions(seed=3)).to_dict() for _ in range(2))
    assert a == b


def test_unreadable_and_unlabelled_items_are_counted(tmp_path):
    items = corpus()
    store = store_of(items, tmp_path / "s", keep=lambda i: i not in (0, 80))
    del items[5].labels["gender"]
    data = probe(store, items, "gender").to_dict()
    assert data["missing_labels"] == 1
    assert [one["audio_filepath"] for one in data["skipped"]] == ["0-0.wav", "10-0.wav"]
    assert data["n_items"] == 189


def test_the_directions_of_the_probes_point_to_the_planted_unit(planted):
    items, store = planted
    curve = probe(store, items, "gender")
    deviation = store.read("encoder.mean.2").std(axis=0)
    weight = np.abs(curve.probes[2].weight[0] * deviation)  # towards "m", the second class
    assert np.argmax(weight) == 0
    assert curve.probes[2].weight[0, 0] < 0


@pytest.mark.parametrize(
    "change, reason, remedy",
    [
        (lambda i: i.labels.update(gender="f"), "Every recording has the gender f", "at least two classes"),
        (lambda i: i.labels.pop("gender"), "No recording has the label gender", "loud"),
        (lambda i: i.labels.pop("speaker"), "have no speaker", "--group-by none"),
        (
            lambda i: i.labels.update(gender="x" if i.labels["speaker"] == "v0" else "y"),
            "gender x has recordings of one speaker only",
            "--group-by none",
        ),
    ],
)
def test_what_cannot_be_probed_is_refused_before_any_model(change, reason, remedy):
    items = corpus()
    for item in items:
        change(item)
    with pytest.raises(ManifestError, match=reason) as refused:
        check_labels(items, "gender", ProbeOptions())
    assert remedy in refused.value.remedy


def test_a_pool_that_was_not_kept_is_answered_with_those_that_were(planted):
    items, store = planted
    with pytest.raises(OptionError, match="pooled by max") as refused:
        probe(store, items, "gender", ProbeOptions(pool="max"))
    assert "encoder.mean" in refused.value.remedy
