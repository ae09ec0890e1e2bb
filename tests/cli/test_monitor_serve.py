"""`otoscope monitor serve` from start to Ctrl-C, and what it refuses."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest
from tests.monitors.ringing import echo_monitor
from websockets.sync.client import connect

from otoscope.cli.main import main


@pytest.fixture
def monitor(tiny_en, tmp_path):
    return str(echo_monitor(tiny_en).save(tmp_path / "monitor"))


@pytest.mark.weights
@pytest.mark.slow
def test_it_prints_where_it_listens_serves_and_ends_on_ctrl_c(monitor):
    command = [sys.executable, "-m", "otoscope", "monitor", "serve", "--monitor", monitor, "--json", "-"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        assert told["page"].endswith(f"/#token={told['token']}")
        assert told["stream"].startswith("ws://127.0.0.1:")
        with connect(told["stream"]) as client:
            client.send(json.dumps({"type": "start", "token": told["token"], "rate": 16000}))
            assert json.loads(client.recv(20))["model"] == "whisper-tiny.en"
            client.send('{"type": "end"}')
            assert json.loads(client.recv(20)) == {"type": "end", "seconds": 0.0}
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "", "")


@pytest.mark.parametrize(
    "arguments, reason, remedy",
    [
        (["--host", "0.0.0.0"], "is reached from other machines", "--allow-remote"),
        (["--host", "example.org"], "is reached from other machines", "--allow-remote"),
        (["--token", ""], "The token is empty", "random"),
        (["--pause", "0.1"], "A pause of 0.1 s", "0.2 s"),
        (["--port", "70000"], "--port", "--help"),
    ],
)
def test_what_cannot_be_served_is_refused_before_any_work(arguments, reason, remedy, capsys):
    assert main(["monitor", "serve", *arguments]) == 2
    error = capsys.readouterr().err
    assert reason in error
    assert remedy in error


def test_without_its_extra_it_says_what_to_install(monkeypatch, capsys):
    from otoscope.cli import monitor_serve

    monkeypatch.setattr(monitor_serve, "_EXTRA", ("starlette", "a_package_that_is_not_there"))
    assert main(["monitor", "serve"]) == 2
    error = capsys.readouterr().err
    assert "a_package_that_is_not_there, which is not installed" in error
    assert 'pip install "otoscope[serve]"' in error


@pytest.mark.weights
def test_a_port_that_is_taken_is_told(monitor, capsys):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["monitor", "serve", "--monitor", monitor, "--port", port]) == 2
    assert f"127.0.0.1:{port} cannot be listened on" in capsys.readouterr().err
