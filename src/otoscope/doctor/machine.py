"""Python, processor, memory, graphics card, sound and browser."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterator

from otoscope.doctor.check import Check
from otoscope.machine import free_memory, whole_memory

_MEMORY = 2_000_000_000  # whisper-base with the sweeps of `explain`
_CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
_BROWSER_SECONDS = 5


def look_at_machine() -> list[Check]:
    """What there is to compute, hear and see with."""
    checks = [Check("python", "ok", f"{platform.python_version()} on {platform.platform()}")]
    for name, look in (("audio", _audio), ("cpu", _cpu), ("devices", _devices), ("espeak-ng", _espeak)):
        checks += guarded(name, look)
    return [*checks, _memory(), _browser()]


def guarded(name: str, look: Callable[[], Iterator[Check]]) -> list[Check]:
    """A native library that does not load is a finding, not a reason to stop looking."""
    try:
        return list(look())
    except (ImportError, OSError) as error:
        return [Check(name, "broken", str(error)[:200], "Install otoscope again in a fresh environment.")]


def _audio() -> Iterator[Check]:
    import soundfile

    detail = f"{soundfile.__version__} with {soundfile.__libsndfile_version__}"
    if "MP3" in soundfile.available_formats():
        yield Check("sound files", "ok", detail)
    else:
        yield Check("sound files", "lack", f"{detail}, without MP3", "Run `pip install -U soundfile`.")


def _cpu() -> Iterator[Check]:
    import torch
    from threadpoolctl import threadpool_info

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    named = os.environ.get("OMP_NUM_THREADS")
    threads = f"{torch.get_num_threads()} thread(s)" + (f" (OMP_NUM_THREADS={named})" if named else "")
    yield Check("cpu", "ok", f"{cores} cores; torch computes in {threads}, {_instructions()}")
    pools = [one for one in threadpool_info() if one["user_api"] == "blas"]
    with_mkl = [f"MKL in torch: {'yes' if torch.backends.mkl.is_available() else 'no'}"]
    told = [f"{one['internal_api']} {one['version']} ({one['num_threads']} thread(s))" for one in pools]
    yield Check("blas", "ok", ", ".join([*told, *with_mkl]))


def _instructions() -> str:
    import torch

    return torch.backends.cpu.get_cpu_capability()


def _devices() -> Iterator[Check]:
    import torch

    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
        yield Check("cuda", "ok", f"{names} (CUDA {torch.version.cuda})")
    elif torch.version.cuda is None:
        yield Check("cuda", "lack", f"torch {torch.__version__} is built without CUDA", _CUDA_BUILD)
    else:
        yield Check("cuda", "lack", "no usable GPU found", "Check the driver with `nvidia-smi`.")
    if platform.system() == "Darwin":
        usable = torch.backends.mps.is_available()
        remedy = None if usable else "Use a build of torch for Apple's processors."
        yield Check("mps", "ok" if usable else "lack", "usable" if usable else "not usable", remedy)


_CUDA_BUILD = "To use an NVIDIA GPU, install a CUDA build of torch; nothing is missing otherwise."


def _espeak() -> Iterator[Check]:
    from otoscope.audio import espeak

    if espeak.available():
        yield Check("espeak-ng", "ok", espeak.version())
    else:
        yield Check("espeak-ng", "lack", "not installed", "Run `pip install 'otoscope[synth]'`.")


def _memory() -> Check:
    free, whole = free_memory(), whole_memory()
    detail = f"{free / 1e9:.1f} of {whole / 1e9:.1f} GB free"
    if free < _MEMORY:
        return Check("memory", "lack", detail, "Close other programs, or pass a smaller --batch.")
    return Check("memory", "ok", detail)


def chromium() -> str | None:
    """The path of a Chromium on this machine, which the tests of pages open them in; `OTOSCOPE_CHROMIUM` names one."""
    return next((path for name in _names() if (path := shutil.which(name))), None)


def _names() -> tuple[str, ...]:
    named = os.environ.get("OTOSCOPE_CHROMIUM")
    return (named,) if named else _CHROMIUM


def _browser() -> Check:
    path = chromium()
    if path is None:
        lacking = "Pages are single files: open them in any browser, here or elsewhere. Tests of pages need Chromium."
        return Check("browser", "lack", f"no {' or '.join(_names())} on the path", lacking)
    try:
        asked = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=_BROWSER_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        return Check("browser", "lack", f"{path} does not start: {type(error).__name__}", "Install it again.")
    return Check("browser", "ok", f"{asked.stdout.strip().splitlines()[0]} at {path}")
