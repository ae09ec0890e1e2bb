"""Numbers of a result, from a table made by hand."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from otoscope.corpora import Item
from otoscope.patching.components import Component
from otoscope.patching.results import PatchResult
from otoscope.patching.sweeping import SweepOptions, explain_empty

COMPONENTS = [Component("decoder", 0, "cross_attn", head) for head in range(3)] + [
    Component("decoder", 0, "mlp")
]
RESTORED = {0: "1111110", 1: "1000000", 2: "0000000", 3: "0100001"}  # of seven items that have the outcome
CONTROL = {0: "1000000", 1: "0000000", 2: "0000000", 3: "1111111"}


def a_result(restored=RESTORED, speakers="aabbccd", **options):
    count = len(speakers)
    lines = [
        {"item": i, "text": f"t{i}", "ids": [i], "language": "en", "has": i < count, "reason": None}
        for i in range(count + 2)
    ]
    lines[-1] |= {"text": None, "reason": "It is damaged."}
    texts = [
        {
            "item": i, "component": c, "control": control, "resolved": hit == "1" or (c == 2 and not control),
            "collapsed": False, "restored": hit == "1", "text": "", "tokens": 9,
        }
        for control, table in ((False, restored), (True, CONTROL))
        for c, hits in table.items()
        for i, hit in enumerate(hits)
    ]  # fmt: skip
    corpus = [Item(f"{i}<b>", None, labels={"speaker": s}) for i, s in enumerate([*speakers, "x", "x"])]
    baseline = pd.concat([pd.DataFrame(lines[:3]), pd.DataFrame(lines[3:])], ignore_index=True)
    return PatchResult.of(
        {"name": "m"}, SweepOptions(**options), COMPONENTS, corpus, baseline, pd.DataFrame(texts)
    )


def test_counts_rates_and_baselines_are_those_of_the_table():
    data = a_result().to_dict()
    assert (data["n_items"], data["n_outcome"]) == (8, 7)
    assert data["baseline_outcome_rate"] == 7 / 8
    assert data["skipped"] == [{"audio_filepath": "8<b>", "reason": "It is damaged."}]
    first, second, third, mlp = data["effects"]
    assert (first["restored"], first["n"], first["restored_rate"]) == (6, 7, 6 / 7)
    assert (third["resolved"], third["restored"]) == (7, 0)
    assert first["restored_random_rate"] == pytest.approx((1 + 0) / 2 / 7)
    assert first["random_rate"] == pytest.approx((1 + 7) / 2 / 7)
    assert first["direction_rate"] == pytest.approx(1 / 7)
    assert mlp["restored_random_rate"] is mlp["p_value"] is mlp["p_adjusted"] is None  # no other of its kind
    assert 0 < first["restored_p_value"] == pytest.approx((2 / 3) * (1 / 3) ** 5)
    assert second["restored_p_value"] > 0.5
    assert data["any_component"]["count"] == 7
    json.dumps(data, allow_nan=False)


def test_winners_come_from_the_discovery_half_alone():
    found = a_result(speakers="abcdefg")
    before = (
        [w.component for w in found.winners],
        found.p_adjusted,
        found.ranked,
        found.cumulative[0]["component"],
    )
    turned = {
        c: "".join(h if first else "10"[int(h)] for h, first in zip(hits, found.discovery, strict=True))
        for c, hits in RESTORED.items()
    }
    other = a_result(turned, speakers="abcdefg")
    assert other.matrix("restored").tolist() != found.matrix("restored").tolist()
    assert (
        [w.component for w in other.winners],
        other.p_adjusted,
        other.ranked,
        other.cumulative[0]["component"],
    ) == before


def test_groups_stay_whole_and_nameless_items_stand_alone():
    found = a_result()
    for speaker in "abcd":
        assert len({bool(found.discovery[i]) for i, s in enumerate("aabbccd") if s == speaker}) == 1
    assert 0 < a_result(group_by="hat").discovery.sum() < 7


def test_the_best_is_priced_although_nothing_stands_out_and_says_so():
    lucky = {0: "1111111", 1: "1111111", 2: "0000000", 3: "0000000"}
    (winner,) = a_result(lucky).winners
    assert not winner.significant
    assert a_result(dict.fromkeys(range(4), "0000000")).winners == []


def test_a_half_without_items_has_no_numbers():
    data = a_result(speakers="aaaaaaa").to_dict()
    test = data["effects"][0]["test"]
    assert test["n"] == 0
    assert test["rate"] is test["p_value"] is test["random_rate"] is test["ci_low"] is None


def test_without_the_direction_control_there_is_no_rate_of_it():
    assert a_result(direction_control=False).to_dict()["effects"][0]["direction_rate"] is None


def test_the_result_is_shown_as_text_never_as_markup():
    assert "7 of 8 items" in repr(a_result())
    assert "<script" not in a_result()._repr_html_()
    assert explain_empty(a_result()) is None
