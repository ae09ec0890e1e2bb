"""Says what this installation has, what it lacks, and what to do about each lack."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Literal

from otoscope.errors import ModelError
from otoscope.models.cache import cache_dir
from otoscope.models.hub import hub_reachable
from otoscope.models.sources import DEFAULT, REGISTRY, obtain, status
from otoscope.models.wheels import pip_command

__all__ = ["Check", "examine"]

_INDEX_SECONDS = 6
_ROOM = 2_000_000_000  # every registered model with its unpacked copy
_MINIMUM_ROOM = 300_000_000


@dataclass(frozen=True)
class Check:
    """One thing looked at.

    Attributes:
        name: What was looked at.
        status: "ok"; "lack": something optional is missing; "broken": something needed does not work.
        detail: What was found.
        remedy: What to do about it, when there is something to do.
    """

    name: str
    status: Literal["ok", "lack", "broken"]
    detail: str
    remedy: str | None = None


def examine() -> list[Check]:
    """Look at versions, devices, the cache, the sources of weights and the optional extras.

    Downloads nothing; takes a few seconds, of which a hub that does not answer takes two and a package
    index that does not answer six.
    """
    checks = [Check("python", "ok", f"{platform.python_version()} on {platform.platform()}")]
    checks += [_package(name, *needs) for name, *needs in _NEEDED]
    checks += [*_guarded("audio", _audio), *_guarded("devices", _devices)]
    checks += [_cache(), *_weights(), _hub(), _index()]
    return [*checks, *(_extra(package, extra) for package, extra in _OPTIONAL)]


_NEEDED = (
    ("otoscope",),
    ("torch",),
    ("transformers",),
    ("numpy",),
    ("safetensors",),
    ("huggingface-hub",),
    ("soxr",),
)
_OPTIONAL = (("gguf", "gguf"), ("accelerate", "gguf"))


def _package(name: str) -> Check:
    try:
        return Check(name, "ok", metadata.version(name))
    except metadata.PackageNotFoundError:
        return Check(name, "broken", "not installed", f"Run `pip install {name}`.")


def _guarded(name: str, look: Callable[[], list[Check]]) -> list[Check]:
    """A native library that does not load is a finding, not a reason to stop looking."""
    try:
        return look()
    except (ImportError, OSError) as error:
        return [Check(name, "broken", str(error)[:200], "Install otoscope again in a fresh environment.")]


def _audio() -> list[Check]:
    import soundfile

    detail = f"{soundfile.__version__} with {soundfile.__libsndfile_version__}"
    if "MP3" not in soundfile.available_formats():
        return [Check("soundfile", "lack", f"{detail}, without MP3", "Run `pip install -U soundfile`.")]
    return [Check("soundfile", "ok", detail)]


def _devices() -> list[Check]:
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    checks = [Check("cpu", "ok", f"{cores} cores, torch uses {torch.get_num_threads()} threads")]
    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
        checks.append(Check("cuda", "ok", f"{names} (CUDA {torch.version.cuda})"))
    elif torch.version.cuda is None:
        checks.append(Check("cuda", "lack", f"torch {torch.__version__} is built without CUDA", _CUDA_BUILD))
    else:
        checks.append(Check("cuda", "lack", "no usable GPU found", "Check the driver with `nvidia-smi`."))
    if platform.system() == "Darwin":
        usable = torch.backends.mps.is_available()
        checks.append(Check("mps", "ok" if usable else "lack", "usable" if usable else "not usable"))
    return checks


_CUDA_BUILD = "To use an NVIDIA GPU, install a CUDA build of torch; nothing is missing otherwise."


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


def _extra(package: str, extra: str) -> Check:
    if util.find_spec(package) is None:
        return Check(
            package, "lack", "not installed", f"Run `pip install 'otoscope[{extra}]'` to read GGUF files."
        )
    return Check(package, "ok", metadata.version(package))
