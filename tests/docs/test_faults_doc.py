"""The table of kills is what the last long loop gave."""

from __future__ import annotations

import json
from pathlib import Path

from tests.faults.loop import table

ROOT = Path(__file__).parents[2]


def test_the_page_shows_the_account_that_is_kept():
    told = json.loads((ROOT / "benchmarks" / "results" / "faults.json").read_text())
    assert table(told["jobs"]) in (ROOT / "docs" / "faults.md").read_text()
    assert sum(len(job["kills"]) for job in told["jobs"].values()) == told["kills"]
