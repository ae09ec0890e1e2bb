"""Running the command line as a person does."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.fixture
def otoscope(tmp_path):
    """Run `otoscope ARGUMENTS` in a process of its own, in an empty folder."""

    def run(*arguments: str, **more) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "otoscope", *arguments]
        return subprocess.run(
            command, **({"cwd": tmp_path, "capture_output": True, "text": True, "timeout": 120} | more)
        )

    return run


@pytest.fixture(autouse=True)
def _wide_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setitem(os.environ, "NO_COLOR", "1")
