"""Dictionaries on the hub: a card that says how good they are, and only what belongs to them goes there and comes back."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from tests.circuits.cases import Random

from otoscope.dictionaries.formats.own import load_own, save_dictionary
from otoscope.dictionaries.sharing import model_card, push
from otoscope.errors import DictionaryError


@pytest.fixture
def folder(tmp_path):
    """A dictionary with its scores, and files beside it that are nobody's business."""
    path = tmp_path / "features"
    save_dictionary(Random().transcoders("relu"), path)
    layer = {"layer": 0, "explained_variance": 0.91, "l0": 51.5, "dead": 3, "dense": 1, "width": 40}
    scores = {
        "layers": [layer],
        "trained_on": {"items": 10, "vectors": 2000},
        "held_out": {"items": 2, "vectors": 300},
        "recipe": {
            "model": "whisper-tiny.en",
            "point": "decoder_blocks.*.mlp",
            "about": "A <b>try</b> | `x`",
        },
        "config": {
            "kind": "skip",
            "width": 40,
            "k": 8,
            "activation": "topk",
            "start": "neurons",
            "steps": 5,
            "seed": 0,
        },
    }
    (path / "scores.json").write_text(json.dumps(scores))
    change = {"change": 0.004, "ci_low": -0.001, "ci_high": 0.01, "n": 2}
    judged = {"items": 2, "loss_recovered": 0.98, "wer": 0.05, "wer_spliced": 0.054, "wer_difference": change}
    (path / "judged.json").write_text(json.dumps(judged))
    (path / "held_out.jsonl").write_text('{"audio_filepath": "private/secret.wav"}\n')
    (path / "checkpoint.pt").write_bytes(b"\x80\x04")
    return path


def test_the_card_says_what_it_is_and_how_good(folder):
    card = model_card(folder)
    assert card.startswith("---\nlibrary_name: otoscope\n")
    assert "# Skip transcoders for whisper-tiny.en, decoder_blocks.*.mlp" in card
    assert "| 0 | 0.910 | 51.5 | 3 of 40 | 1 |" in card
    assert "95 % -0.10 to +1.00" in card
    assert "2,000 vectors of 10 recordings" in card
    assert "<b>" not in card
    assert "private/" not in card
    with pytest.raises(DictionaryError, match="no dictionary of otoscope"):
        model_card(folder.parent)


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as pushing and pulling a few small files takes."""

    protocol_version = "HTTP/1.1"

    def __init__(self, *args, files: dict[str, bytes], log: list[str]):
        self.files, self.log = files, log
        super().__init__(*args)

    def do_POST(self):
        import base64

        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.log.append(f"POST {self.path.partition('?')[0]}")
        if self.path == "/api/repos/create":
            return self.answer({"url": f"{self.base}/me/features", "id": "me/features"})
        if "/preupload/" in self.path:
            asked = json.loads(body)["files"]
            told = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                for f in asked
            ]
            return self.answer({"files": told})
        if "/commit/" in self.path:
            for line in body.decode().splitlines():
                told = json.loads(line)
                if told["key"] == "file":
                    self.files[told["value"]["path"]] = base64.b64decode(told["value"]["content"])
            return self.answer(
                {"commitUrl": f"{self.base}/me/features/commit/{'f' * 40}", "commitOid": "f" * 40}
            )
        return self.answer({})

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        self.log.append(f"{self.command} {self.path.partition('?')[0]}")
        resolved = re.search(r"/resolve/[^/]+/(.+)$", self.path)
        if resolved and resolved[1] in self.files:
            content = self.files[resolved[1]]
            return self.send(200, content, {"ETag": f'"{hash(content):x}"', "X-Repo-Commit": "f" * 40})
        if self.path.startswith("/api/models/me/features/tree/"):
            return self.answer(
                [{"type": "file", "path": n, "size": len(c), "oid": "0" * 40} for n, c in self.files.items()]
            )
        if self.path.startswith("/api/models/me/features"):
            siblings = [{"rfilename": n, "size": len(c), "blobId": "0" * 40} for n, c in self.files.items()]
            return self.answer(
                {"id": "me/features", "sha": "f" * 40, "private": True, "tags": [], "siblings": siblings}
            )
        return self.send(404, b"", {"X-Error-Code": "RepoNotFound"})

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, told) -> None:
        self.send(200, json.dumps(told).encode(), {"Content-Type": "application/json"})

    def send(self, code: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(code)
        for key, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *args):
        pass


@pytest.fixture
def hub(tmp_path):
    """A hub on this machine: what it holds, what was asked, and a way to run otoscope against it."""
    files: dict[str, bytes] = {}
    log: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Hub, files=files, log=log))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environment = {
        **{k: v for k, v in os.environ.items() if k != "HF_HUB_OFFLINE"},
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HUB_CACHE": str(tmp_path / "hub"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_TOKEN": "hf_x",
        "no_proxy": "*",
    }

    def otoscope(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "otoscope", *arguments]
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=120, check=False
        )

    yield files, log, otoscope
    server.shutdown()


def test_what_is_pushed_comes_back_and_nothing_else_goes(folder, hub, tmp_path):
    files, _, otoscope = hub
    pushed = otoscope("features", "push", str(folder), "me/features")
    assert pushed.returncode == 0, pushed.stderr
    assert "MB, to me/features" in pushed.stderr  # its size is said first
    layers = {f"layer_{n}.safetensors" for n in range(3)}
    assert set(files) == {"README.md", "dictionary.json", "scores.json", "judged.json", *layers}
    files["evil.pt"] = b"\x80\x04."
    pulled = otoscope("features", "pull", "me/features", "--out", str(tmp_path / "back"))
    assert pulled.returncode == 0, pulled.stderr
    assert not (tmp_path / "back" / "evil.pt").exists()
    ours, theirs = (load_own(path, torch.float64) for path in (folder, tmp_path / "back"))
    for layer in range(3):
        torch.testing.assert_close(
            ours.transcoders[layer].w_enc, theirs.transcoders[layer].w_enc, rtol=0, atol=0
        )
    again = otoscope("features", "pull", "me/features", "--out", str(tmp_path / "back"))
    assert again.returncode == 2
    assert "holds something already" in again.stderr


def test_what_cannot_be_shared_is_told_in_a_sentence(folder, hub, tmp_path):
    _, _, otoscope = hub
    gone = otoscope("features", "pull", "me/nothing", "--out", str(tmp_path / "x"))
    assert gone.returncode == 2
    assert "cannot be fetched" in gone.stderr
    with pytest.raises(DictionaryError, match="no name on the hub"):
        push(folder, "nobody")
    with pytest.raises(DictionaryError, match="no dictionary"):
        push(tmp_path, "me/features")
