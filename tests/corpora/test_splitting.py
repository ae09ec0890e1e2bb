from __future__ import annotations

import itertools
import time
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from otoscope.corpora import Item, folds, split
from otoscope.corpora.splitting import Part, contents
from otoscope.errors import ManifestError, OptionError


def corpus(*labels: dict) -> list[Item]:
    return [Item("a.wav", Path("a.wav"), labels=one) for one in labels]


def speakers(sizes, genders=None) -> list[Item]:
    """One speaker a size, with so many items."""
    return corpus(
        *(
            {"speaker": f"s{index}", "gender": genders[index] if genders else "f"}
            for index, size in enumerate(sizes)
            for _ in range(size)
        )
    )


def parts_by(items, parts, label) -> dict:
    found = defaultdict(set)
    for item, part in zip(items, parts, strict=True):
        found[repr(item.labels.get(label))].add(part)
    return found


SIZES = st.lists(st.integers(1, 12), min_size=2, max_size=30)
SHARES = st.sampled_from(
    [{"train": 0.8, "test": 0.2}, {"a": 0.5, "b": 0.5}, {"train": 0.7, "dev": 0.1, "test": 0.2}]
)


@settings(deadline=None)
@given(SIZES, SHARES, st.integers(0, 3), st.randoms(use_true_random=False))
def test_no_speaker_is_in_two_parts_and_no_part_is_empty(sizes, shares, seed, random):
    assume(len(sizes) >= len(shares))
    items = speakers(sizes)
    random.shuffle(items)
    parts = split(items, shares, seed=seed)
    assert set(parts) == set(shares)
    assert all(len(found) == 1 for found in parts_by(items, parts, "speaker").values())


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 6), st.sampled_from("mfx")), min_size=2, max_size=25),
    st.integers(2, 5),
    st.integers(0, 3),
)
def test_every_class_can_be_learnt_from_the_other_folds_and_no_group_leaks(speakers, count, seed):
    groups_with = Counter(label for _, label in speakers)
    assume(min(groups_with.values()) >= 2 and len(speakers) >= count)
    groups = [index for index, (size, _) in enumerate(speakers) for _ in range(size)]
    labels = [label for size, label in speakers for _ in range(size)]
    found = folds(groups, labels, count, seed)
    assert set(found) == set(range(count))
    assert all(len(set(found[np.array(groups) == group])) == 1 for group in set(groups))
    for label, number in groups_with.items():
        assert len(set(found[np.array(labels) == label])) == min(number, count)


@pytest.mark.parametrize("share", [0.5, 0.2, 0.1])
def test_shares_are_met_to_a_group_when_groups_are_alike(share):
    parts = split(speakers([5] * 40), {"train": 1 - share, "test": share})
    assert parts.count("test") == 200 * share


def test_classes_have_the_same_shares_when_stratified():
    items = speakers([4] * 20 + [2] * 30, genders="f" * 20 + "m" * 30)
    parts = split(items, {"train": 0.8, "test": 0.2}, stratify_by="gender")
    inside = contents(items, parts, "speaker", "gender")
    assert inside == {
        "train": Part(112, 40, {"f": 64, "m": 48}),
        "test": Part(28, 10, {"f": 16, "m": 12}),
    }
    unstratified = contents(items, split(items, seed=1), "speaker", "gender")
    assert unstratified["test"].classes != {"f": 16, "m": 12}


def cost(items, parts, shares) -> float:
    """Squared deviations from the shares of all items and of each gender."""
    total = 0.0
    for gender in ("f", "m", None):
        chosen = [p for i, p in zip(items, parts, strict=True) if gender in (None, i.labels["gender"])]
        if chosen:
            total += sum((chosen.count(name) / len(chosen) - share) ** 2 for name, share in shares.items())
    return total


def test_small_corpora_are_divided_almost_as_well_as_can_be():
    """Against every possible assignment that leaves no class out of a part."""
    rng, shares, worse = np.random.default_rng(0), {"train": 0.7, "test": 0.3}, []
    for _ in range(40):
        genders = "ffmm" + "".join(rng.choice(["f", "m"], 4))
        items = speakers(rng.integers(1, 9, 8), genders)
        names = [item.labels["speaker"] for item in items]
        best = min(
            cost(items, [("train", "test")[way[int(name[1:])]] for name in names], shares)
            for way in itertools.product((0, 1), repeat=8)
            if all(len({p for p, g in zip(way, genders, strict=True) if g == one}) == 2 for one in "fm")
        )
        worse.append(cost(items, split(items, shares, stratify_by="gender"), shares) - best)
    assert min(worse) >= -1e-12
    assert np.mean(np.array(worse) < 1e-12) > 0.9
    assert max(worse) < 0.02


def test_large_speakers_are_tested_on_as_often_as_small_ones():
    items = speakers([6] * 10 + [3] * 10)
    tested = Counter()
    for seed in range(60):
        parts = split(items, {"train": 0.7, "test": 0.3}, seed=seed)
        tested.update({i.labels["speaker"] for i, p in zip(items, parts, strict=True) if p == "test"})
    assert sum(tested[f"s{n}"] for n in range(10)) == pytest.approx(180, abs=40)


def test_a_seed_gives_the_same_parts_again_and_another_seed_others():
    items = speakers([3] * 30)
    assert split(items, seed=1) == split(items, seed=1)
    assert split(items, seed=1) != split(items, seed=2)
    groups = [item.labels["speaker"] for item in items]
    assert folds(groups, ["x"] * 90, 5, 1).tolist() == folds(groups, ["x"] * 90, 5, 1).tolist()
    assert folds(groups, ["x"] * 90, 5, 1).tolist() != folds(groups, ["x"] * 90, 5, 2).tolist()


def test_the_order_of_the_items_does_not_matter():
    items = speakers([3] * 30)
    shuffled = np.random.default_rng(0).permutation(len(items))
    parts = split(items)
    assert split([items[n] for n in shuffled]) == [parts[n] for n in shuffled]


def test_groups_that_only_look_alike_are_kept_as_they_are():
    items = corpus(*({"speaker": value} for value in ("1", 1, True, 1.5, ["a"], {"b": 2}) for _ in range(3)))
    parts = split(items, {"a": 0.5, "b": 0.5})
    assert all(len(found) == 1 for found in parts_by(items, parts, "speaker").values())
    assert parts.count("a") == 9


def test_a_field_can_be_grouped_by():
    items = [Item(f"{n % 4}.wav", Path(f"{n % 4}.wav"), language="en") for n in range(12)]
    parts = split(items, {"a": 0.5, "b": 0.5}, group_by="audio_filepath", stratify_by="language")
    assert [parts[n] for n in range(4)] == parts[4:8] == parts[8:]


def test_items_without_the_class_are_divided_like_a_class_of_their_own():
    items = speakers([2] * 10, ["m", "f"] * 4 + [None, None])
    parts = split(items, {"a": 0.5, "b": 0.5}, stratify_by="gender")
    assert all(
        part.classes == {"f": 4, "m": 4, "null": 2}
        for part in contents(items, parts, stratify_by="gender").values()
    )
    one_only = speakers([2] * 9, ["m", "f"] * 4 + [None])
    assert set(split(one_only, stratify_by="gender")) == {"train", "test"}


def test_ten_thousand_items_are_divided_without_comparing_each_with_each():
    rng = np.random.default_rng(0)
    for count in (50, 1000, 10_000):
        items = corpus(*({"speaker": int(s), "gender": "mf"[s % 2]} for s in rng.integers(0, count, 10_000)))
        start = time.process_time()
        parts = split(items, stratify_by="gender")
        assert time.process_time() - start < 4  # comparing in pairs takes longer
        assert parts.count("test") == pytest.approx(2000, abs=40)


# Refusals


def test_one_group_cannot_be_divided():
    with pytest.raises(ManifestError, match="1 different values of speaker, too few for 2 parts"):
        split(speakers([5]))
    with pytest.raises(ManifestError, match="too few for 5 parts"):
        folds(["a", "b", "c", "d"], ["x"] * 4, 5)
    with pytest.raises(ManifestError, match="0 different values"):
        split([])


def test_a_class_in_one_group_alone_is_named():
    with pytest.raises(ManifestError, match="All items of the class m have the same speaker") as caught:
        split(speakers([5, 5, 5], "ffm"), stratify_by="gender")
    assert "another speaker" in caught.value.remedy
    with pytest.raises(ManifestError, match="class m have the same group"):
        folds(["a", "b", "c"], ["f", "f", "m"], 2)


def test_items_without_the_group_are_counted():
    with pytest.raises(ManifestError, match="1 of 3 items have no speaker"):
        split(corpus({"speaker": "a"}, {"speaker": "b"}, {}))


@pytest.mark.parametrize(
    "shares",
    [
        {},
        {"all": 1.0},
        {"a": 0.5, "b": 0.4},
        {"a": 1.5, "b": -0.5},
        {"a": 1.0, "b": 0.0},
        {"a": float("nan"), "b": 0.5},
        {"a": 0.5, "": 0.5},
    ],
)
def test_shares_that_do_not_divide_are_refused(shares):
    with pytest.raises(OptionError, match="do not divide a corpus"):
        split(speakers([1, 1, 1]), shares)


def test_folds_need_two_and_a_label_for_every_item():
    with pytest.raises(OptionError, match="at least 2 folds"):
        folds(["a", "b"], ["x", "x"], 1)
    with pytest.raises(OptionError, match="2 groups and 1 labels"):
        folds(["a", "b"], ["x"], 2)
