"""Every parser under changed and made-up files: a valid value or one reason and one remedy, in bounded time.

The targets are those of `python -m fuzz`, which goes on for as long as it is told and lets coverage guide it.
"""

from __future__ import annotations

import time
from pathlib import Path
from random import Random

import pytest
from fuzz.mutating import mutated
from fuzz.target import NAMES, SEPARATOR, Target
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.usefixtures("one_thread")

REGRESSIONS = Path(__file__).parent / "regressions"
CASES = {"requests": 12, "graphs": 20, "repairs": 20, "documents": 25}
"""How many of each are tried; 40 where nothing is said, as these take longer."""
LONGEST = 5.0  # s


@pytest.fixture(scope="module", params=NAMES)
def target(request):
    return Target.of(request.param)


@pytest.fixture(scope="module")
def folder(target, tmp_path_factory):
    return tmp_path_factory.mktemp(target.name)


def try_one(target, case, folder):
    began = time.monotonic()
    valid = target.once(case, folder)
    assert time.monotonic() - began < LONGEST
    return valid


def test_files_that_are_whole_are_taken(target, folder):
    assert all(try_one(target, seed, folder) for seed in target.seeds())


def test_changed_files_are_taken_or_refused_with_a_reason_and_a_remedy(target, folder):
    seeds = target.seeds()

    @settings(
        max_examples=CASES.get(target.name, 40),
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(which=st.integers(0, len(seeds) - 1), seed=st.integers(0, 2**32))
    def run(which, seed):
        try_one(target, mutated(seeds[which], Random(seed)), folder)

    run()


def test_any_bytes_are_taken_or_refused_with_a_reason_and_a_remedy(target, folder):
    count = len(target.module.FILES)

    @settings(max_examples=10, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.binary(max_size=200), min_size=1, max_size=count))
    def run(files):
        try_one(target, SEPARATOR.join(files), folder)

    run()


@pytest.mark.parametrize(
    "path", sorted(REGRESSIONS.glob("*/*")), ids=lambda path: f"{path.parent.name}/{path.name}"
)
def test_what_broke_a_parser_once_no_longer_does(path, tmp_path):
    try_one(Target.of(path.parent.name), path.read_bytes(), tmp_path)
