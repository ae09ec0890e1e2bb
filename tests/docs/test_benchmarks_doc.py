"""What is claimed of speed and memory has been measured, and the page says what was."""

from __future__ import annotations

import importlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from benchmarks import parity
from benchmarks.__main__ import NAMES, main, page, verdict
from benchmarks.checking import counts
from benchmarks.figures import Figure
from benchmarks.measure import run_named
from benchmarks.studied import IDENTITIES, STUDIES

ROOT = Path(__file__).parents[2]
CLAIM = re.compile(
    r"\btakes?\b.*\b(second|minute|hour)s?\b|\btimes (faster|slower)|\bless (time|memory)\b"
    r"|\b(faster|slower) than\b|\bas fast as\b|\bpeak memory\b"
)


def sentences() -> list[str]:
    """The README's prose, sentence by sentence; what stands in code and tables claims nothing."""
    text = re.sub(r"^```.*?^```", "", (ROOT / "README.md").read_text("utf-8"), flags=re.M | re.S)
    lines = [line for line in text.splitlines() if not line.startswith("|")]
    return re.split(r"(?<=[.:])\s+", "\n".join(lines))


def test_the_page_is_what_the_results_give():
    assert page() == (ROOT / "docs" / "benchmarks.md").read_text("utf-8"), "run python -m benchmarks NAME"


def test_every_claim_of_speed_or_memory_in_the_readme_leads_to_what_was_measured():
    claims = [sentence for sentence in sentences() if CLAIM.search(sentence)]
    assert claims
    for claim in claims:
        assert re.findall(r"docs/benchmarks\.md#(\w+)", claim), f"which benchmark measures this? {claim}"


def test_every_link_to_a_benchmark_meets_one():
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    for name in {
        name for path in pages for name in re.findall(r"benchmarks\.md#(\w+)", path.read_text("utf-8"))
    }:
        assert name in NAMES, name


@pytest.mark.parametrize("name", NAMES)
def test_every_benchmark_says_what_it_claims_and_which_figures_that_stands_on(name):
    benchmark = importlib.import_module(f"benchmarks.{name}")
    assert benchmark.CLAIM
    assert all(figure.row({})[-1] == "not measured" for figure in benchmark.FIGURES)


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.command)
def test_every_figure_of_a_study_was_found(study):
    assert all(figure.reached(study.result()) is not None for figure in study.figures)


@pytest.mark.parametrize("identity", IDENTITIES, ids=lambda identity: identity.says)
def test_the_test_of_an_identity_is_there(identity):
    for test in identity.tests:
        file, name = test.split("::")
        assert re.search(rf"^def {name}\(", (ROOT / file).read_text("utf-8"), flags=re.M), test


@pytest.mark.parametrize(
    ("result", "row"),
    [
        ({"a": 1.5, "b": 2.0}, ("ratio", "at most 2 s", "2 s", "holds")),
        ({"a": 1.5, "b": 2.1}, ("ratio", "at most 2 s", "2.1 s", "**does not hold**")),
        ({"a": 1.5}, ("ratio", "at most 2 s", "–", "not measured")),
        ({"not_measured": "no index"}, ("ratio", "at most 2 s", "–", "not measured: no index")),
    ],
)
def test_of_several_places_the_worst_counts(result, row):
    assert Figure("ratio", ("a", "b"), at_most=2, unit="s").row(result) == row


def test_a_figure_can_be_held_to_another_that_was_measured():
    figure = Figure("same texts", "same", at_least=("other/of", "of"))
    assert figure.row({"same": 15, "of": 16, "other": {"of": 8}}) == (
        "same texts", "at least 16", "15", "**does not hold**",
    )  # fmt: skip
    assert Figure("same nodes", "same", at_least=True).row({"same": True}) == (
        "same nodes",
        "yes",
        "yes",
        "holds",
    )


def test_what_was_not_measured_has_not_passed():
    told = verdict({"a": True, "b": False, "c": None, "d": True})
    assert told == "2 passed, 1 failed (b), 1 not measured (c)"


def test_a_benchmark_that_is_none_is_refused_before_any_is_run(capsys):
    with pytest.raises(SystemExit) as left:
        main(["importing", "imported"])
    assert left.value.code == 2
    assert "there is no benchmark imported; choose from importing, capture" in capsys.readouterr().err


def test_a_run_of_all_tests_is_measured_only_if_it_came_to_its_end():
    end = "== 1 failed, 20 passed, 3 skipped, 2 errors in 600.00s (0:10:00) =="
    assert counts(2, f"...\n{end}\n") == {"passed": 20, "failed": 3, "skipped": 3}
    assert counts(0, "4950 passed in 9s")["passed"] == 4950
    for code, output in ((0, ""), (2, "20 passed in 3s"), (2, "no tests ran"), (0, "3 skipped in 1s")):
        with pytest.raises(RuntimeError, match="make test"):
            counts(code, output)


@pytest.mark.parametrize("name", ["hearing_checks", "grounding", "false_alarms", "learning", "parity_base"])
def test_claims_of_the_prepared_recordings_are_not_measured_on_others(name, monkeypatch, tmp_path):
    benchmark = importlib.import_module(f"benchmarks.{name}")
    monkeypatch.setattr(
        benchmark if hasattr(benchmark, "PREPARED") else parity, "PREPARED", tmp_path / "no.jsonl"
    )
    result = benchmark.run()
    assert all("prepared recordings are not here" in figure.row(result)[-1] for figure in benchmark.FIGURES)


def test_the_threads_are_those_of_the_process_that_was_measured(monkeypatch):
    monkeypatch.setitem(sys.modules, "benchmarks.in_one", SimpleNamespace(run=dict, THREADS=7))
    monkeypatch.setitem(sys.modules, "benchmarks.in_own", SimpleNamespace(run=dict))
    assert run_named("in_one") == ({}, 7)
    assert run_named("in_own") == ({}, torch.get_num_threads())
    assert importlib.import_module("benchmarks.planning").ALONE["OMP_NUM_THREADS"] == "1"


ENDLESS = """
import subprocess, sys, time, types
from benchmarks.__main__ import in_a_process_of_its_own

def run():
    subprocess.run([sys.executable, "-c", "import time; print(1, flush=True); time.sleep(600)"])

sys.modules["benchmarks.endless"] = types.SimpleNamespace(run=run)
if __name__ == "__main__":
    in_a_process_of_its_own("endless")
"""


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_benchmark_that_is_stopped_leaves_nothing_running(stop, tmp_path):
    (tmp_path / "endless.py").write_text(ENDLESS)
    command = [sys.executable, str(tmp_path / "endless.py")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as stopped:
        assert stopped.stdout
        assert stopped.stdout.readline() == "1\n"
        stopped.send_signal(stop)
        assert stopped.communicate(timeout=60)[0] == ""  # it ends when nobody is left who could write
