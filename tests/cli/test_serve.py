"""`otoscope serve` from start to Ctrl-C, and what it refuses."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys

import httpx
import pytest

from otoscope.cli.main import main


@pytest.mark.slow
def test_it_prints_where_it_listens_serves_and_ends_on_ctrl_c(tmp_path):
    command = [sys.executable, "-m", "otoscope", "serve", str(tmp_path), "--json", "-"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        assert told["page"] == f"{told['address']}/#key={told['token']}"
        assert told["address"].startswith("http://127.0.0.1:")
        headers = {"Authorization": f"Bearer {told['token']}"}
        assert httpx.get(f"{told['address']}/api/runs", headers=headers).json()["runs"] == []
        assert httpx.get(f"{told['address']}/api/runs").status_code == 401
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "", "")
    assert list(tmp_path.iterdir()) == []  # looking at a folder leaves nothing in it


@pytest.mark.parametrize(
    "arguments, reason, remedy",
    [
        (["missing"], "missing does not exist", "mkdir"),
        (["file"], "file is no folder", "mkdir"),
        ([".", "--host", "0.0.0.0"], "is reached from other machines", "--allow-remote"),
        ([".", "--port", "70000"], "--port", "--help"),
        ([], "DIR", "--help"),
    ],
)
def test_what_cannot_be_served_is_refused_before_any_work(
    arguments, reason, remedy, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    assert main(["serve", *arguments]) == 2
    error = capsys.readouterr().err
    assert reason in error
    assert remedy in error


def test_a_port_that_is_taken_is_told(capsys, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["serve", str(tmp_path), "--port", port]) == 2
    assert f"127.0.0.1:{port} cannot be listened on" in capsys.readouterr().err


def test_without_its_extra_it_says_what_to_install(monkeypatch, capsys, tmp_path):
    from otoscope.cli import serve

    monkeypatch.setattr(serve, "_EXTRA", ("starlette", "a_package_that_is_not_there"))
    assert main(["serve", str(tmp_path)]) == 2
    assert 'pip install "otoscope[serve]"' in capsys.readouterr().err
