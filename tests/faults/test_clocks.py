"""The clock may be set back or forth: nothing depends on the order of file times."""

from __future__ import annotations

import os
import time

import pytest
from tests.faults import jobs
from tests.faults.killing import contents, run

from otoscope.corpora.recipes.debian import _newest
from otoscope.errors import OutputError
from otoscope.runs import Run
from otoscope.studies import feature_judging


def set_times(folder, seconds):
    for path in [folder, *folder.rglob("*")]:
        os.utime(path, (seconds, seconds))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """What a training leaves that nothing disturbed."""
    folder = tmp_path_factory.mktemp("trained") / "whole"
    assert run(jobs.trained, folder).code == 0
    return contents(folder)


@pytest.mark.parametrize("seconds", [0, 2**33], ids=["1970", "2242"])
def test_a_training_goes_on_whatever_the_times_of_its_files_are(seconds, trained, tmp_path):
    assert run(jobs.trained, tmp_path / "run", at_change=30).killed
    set_times(tmp_path / "run", seconds)
    assert run(jobs.trained, tmp_path / "run").code == 0
    assert contents(tmp_path / "run") == trained


def test_a_judgement_under_way_is_not_thrown_away_when_the_clock_jumps(tmp_path):
    old = time.time() - 30 * 24 * 3600
    for name in ("under-way", "forgotten"):
        with Run.opened(tmp_path / name / "parts", "judging", {"of": name}):
            pass
        os.utime(tmp_path / name / "parts" / "run.json", (old, old))
    forgotten = tmp_path / "forgotten" / "parts"
    with Run.kept_free(forgotten) as free:
        assert free
        with pytest.raises(OutputError, match="works in"), Run.opened(forgotten, "judging", {}):
            pass
    with Run.opened(tmp_path / "under-way" / "parts", "judging", {"of": "under-way"}):
        feature_judging._sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["under-way"]


def test_the_newest_package_is_the_one_with_the_highest_version(tmp_path):
    for seconds, version in ((3, "1.9-1"), (2, "1.10-2"), (1, "1.10-1")):
        path = tmp_path / f"words_{version}_all.deb"
        path.touch()
        os.utime(path, (seconds, seconds))
    assert _newest("words", tmp_path).name == "words_1.10-2_all.deb"
    assert _newest("nothing", tmp_path) is None
