"""Whether weights can be kept, are whole, and can be had."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from otoscope.doctor.check import Check
from otoscope.errors import ModelError
from otoscope.models.cache import cache_dir
from otoscope.models.hub import hub_reachable
from otoscope.models.sources import DEFAULT, REGISTRY, obtain, status
from otoscope.models.wheels import pip_command

_INDEX_SECONDS = 6
_ROOM = 2_000_000_000  # every registered model with its unpacked copy
_MINIMUM_ROOM = 300_000_000


def look_at_weights() -> list[Check]:
    """The cache, every registered model in it, the hub and the package index."""
    return [_cache(), *_weights(), _hub(), _index()]


def _cache() -> Check:
    folder = cache_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        free = shutil.disk_usage(folder).free
    except OSError as error:
        why = error.strerror or type(error).__name__
        return Check("cache", "broken", f"{folder} cannot be written to: {why}", _ELSEWHERE)
    detail = f"{folder} holds {_size(folder) / 1e6:.0f} MB, {free / 1e9:.1f} GB free"
    if free < _ROOM:
        return Check("cache", "lack" if free > _MINIMUM_ROOM else "broken", detail, _ELSEWHERE)
    return Check("cache", "ok", detail)


_ELSEWHERE = "Set OTOSCOPE_CACHE to a folder that can be written to and has a few gigabytes free."


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def _weights() -> list[Check]:
    return [_weight(entry.entry.alias) if entry.cached else _absent(entry.entry.alias) for entry in status()]


def _weight(alias: str) -> Check:
    try:
        local = obtain(REGISTRY[alias])
    except ModelError as error:
        return Check(alias, "broken", error.reason, error.remedy)
    return Check(alias, "ok", f"{local.path} (verified)")


def _absent(alias: str) -> Check:
    when = " (the default)" if alias == DEFAULT else ""
    return Check(
        alias,
        "lack",
        f"not fetched yet{when}",
        f"It is fetched on first use, or by `otoscope models get {alias}`.",
    )


def _hub() -> Check:
    if hub_reachable():
        return Check("model hub", "ok", "reachable")
    return Check(
        "model hub",
        "lack",
        "not reachable within 2 s, or switched off by HF_HUB_OFFLINE",
        f"{', '.join(REGISTRY)} need no hub; for other models connect, or pass a local directory.",
    )


def _index() -> Check:
    """Whether pip, set up as the person has it, finds the default model's wheel."""
    wheel = REGISTRY[DEFAULT].wheels[0]
    try:
        command = [
            *pip_command(),
            "index",
            "versions",
            "--disable-pip-version-check",
            "--retries",
            "0",
            wheel.package,
        ]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=_INDEX_SECONDS, check=False)
    except ModelError as error:
        return Check("package index", "lack", error.reason, error.remedy)
    except subprocess.TimeoutExpired:
        return Check("package index", "lack", f"no answer within {_INDEX_SECONDS} s", _INDEX_REMEDY)
    if answer.returncode or wheel.version not in answer.stdout:
        return Check("package index", "lack", f"pip does not find {wheel} there", _INDEX_REMEDY)
    return Check("package index", "ok", f"pip finds {wheel} there")


_INDEX_REMEDY = "Check `pip config list`; without it, registered models come from the hub or the cache."
