"""The sdist and the wheel that users would get, and the wheel at work in an environment without this folder."""

from __future__ import annotations

import re
import subprocess

import pytest
from release.check import ROOT, SMOKE, build, complaints, environment


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build(tmp_path_factory.mktemp("dist"), isolated=False)


def test_there_is_one_version_everywhere():
    from otoscope import __version__

    assert re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text("utf-8"), re.M)[1] == __version__
    latest = re.search(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M)[1]
    assert latest in ("Unreleased", __version__)


def test_the_wheel_is_the_package_and_nothing_else_and_comes_out_of_the_sdist(built):
    assert complaints(*built) == []


@pytest.mark.weights
@pytest.mark.slow
def test_an_installed_wheel_explains_the_sample(built, tmp_path):
    python = environment(tmp_path / "environment", built[1], shared=True)
    tried = subprocess.run([python, "-I", SMOKE], capture_output=True, text=True, check=False)
    assert tried.returncode == 0, tried.stdout + tried.stderr
    assert len(tried.stdout.splitlines()) == 4
