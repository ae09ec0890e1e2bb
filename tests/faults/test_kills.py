"""Killed with SIGKILL before any change of a file, a job goes on and ends as if nothing had been.

What is promised of every job in a directory of its own: the same files with the same bytes as in a run that nothing disturbed,
no part written twice, no temporary file left, and the directory free at once for the next process.
`python -m tests.faults.loop` does the same to the commands, at random moments, for much longer.
"""

from __future__ import annotations

import random

import pytest
from tests.faults import jobs
from tests.faults.killing import contents, run, unfinished

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What a job leaves and how many changes it makes, undisturbed; each job once."""
    done = {}

    def of(job):
        if job not in done:
            folder = tmp_path_factory.mktemp("whole") / "run"
            end = run(job, folder)
            assert end.code == 0
            done[job] = contents(folder), len(end.changes)
        return done[job]

    return of


JOBS = [jobs.made, jobs.transcribed, jobs.harvested, jobs.swept, jobs.trained, jobs.searched]
ids = [job.__name__ for job in JOBS]


@pytest.mark.parametrize("job", JOBS, ids=ids)
def test_a_job_that_is_killed_three_times_ends_as_if_nothing_had_been(job, whole, tmp_path):
    wanted, changes = whole(job)
    rng, named = random.Random(job.__name__), []
    for _ in range(3):
        end = run(job, tmp_path / "run", at_change=rng.randrange(changes // 2))
        named += end.named()
        assert end.killed or end.code == 0
    end = run(job, tmp_path / "run")
    assert end.code == 0
    found = contents(tmp_path / "run")
    for files in (found, wanted):  # the journal of a search tells of every stop
        files.pop("search/trials.log", None)
    assert found == wanted
    assert not unfinished(tmp_path / "run")
    parts = [name for name in named + end.named() if name.endswith((".parquet", ".flac"))]
    assert len(parts) == len(set(parts))


def test_a_corpus_can_be_killed_before_every_single_change(whole, tmp_path):
    wanted, changes = whole(jobs.made)
    for change in range(changes):
        folder = tmp_path / str(change) / "run"
        assert run(jobs.made, folder, at_change=change).killed
        assert run(jobs.made, folder).code == 0
        assert contents(folder) == wanted, f"killed before change {change}"
        assert not unfinished(folder)
