from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from otoscope.corpora import Item, labels_of
from otoscope.corpora.item import FIELDS, key_of

ITEMS = [
    Item("a.wav", Path("a.wav"), "Hi.", 1.5, 2.0, "en", {"speaker": "x", "n": 0}),
    Item("b.wav", Path("b.wav"), labels={"speaker": None}),
]


def test_a_label_is_given_for_every_item_and_none_where_it_is_missing():
    assert labels_of(ITEMS, "speaker") == ["x", None]
    assert labels_of(ITEMS, "n") == [0, None]
    assert labels_of(ITEMS, "nothing") == [None, None]


def test_every_field_works_as_a_label():
    assert [labels_of(ITEMS, name) for name in FIELDS] == [
        ["a.wav", "b.wav"],
        ["Hi.", None],
        [1.5, None],
        [2.0, 0.0],
        ["en", None],
    ]


def test_labels_that_look_alike_are_told_apart_and_numpy_values_are_what_they_hold():
    keys = [
        key_of(value) for value in ("x", "1", 1, True, 1.5, None, "null", [1], {"b": 1, "a": [2]}, "", '"x"')
    ]
    assert keys == [
        "x",
        '"1"',
        "1",
        "true",
        "1.5",
        "null",
        '"null"',
        "[1]",
        '{"a": [2], "b": 1}',
        "",
        '"\\"x\\""',
    ]
    assert [key_of(value) for value in (np.str_("x"), np.int64(1), np.bool_(True))] == ["x", "1", "true"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner), max_leaves=4
)


@given(JSON | st.text(alphabet='01"[]{}nul tre.'), JSON | st.text(alphabet='01"[]{}nul tre.'))
def test_values_have_one_key_exactly_when_they_are_the_same_json(one, other):
    same = json.dumps(one) == json.dumps(other)
    assert (key_of(one) == key_of(other)) == same
