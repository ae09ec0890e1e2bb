"""What is free in a container: what its limit leaves, with the pages of files that give way at once. What is freed is kept."""

import os
import platform
import subprocess
import sys

import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from otoscope.machine import _of_container, numpy_on_one_thread

_TELL = ("MALLOC_", "GLIBC_TUNABLES", "THP_MEM_ALLOC_ENABLE")
_UNTOLD = {name: value for name, value in os.environ.items() if not name.startswith(_TELL)}

REUSED = """
import resource
import otoscope.models
import torch
for _ in range(50):
    if _ == 10:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2**24)  # 64 MiB
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.parametrize(
    ("limit", "used", "pages", "free"),
    [("1000", "900", 300, 400), ("1000", "1100", 0, 0), ("max", "900", 300, float("inf"))],
)
def test_pages_of_files_that_nobody_uses_are_free(tmp_path, limit, used, pages, free):
    (tmp_path / "memory.max").write_text(f"{limit}\n")
    (tmp_path / "memory.current").write_text(f"{used}\n")
    (tmp_path / "memory.stat").write_text(f"anon 5\ninactive_file {pages}\nactive_file 7\n")
    assert _of_container(tmp_path) == free


def test_without_a_container_there_is_no_limit(tmp_path):
    assert _of_container(tmp_path) == float("inf")


def pages_taken_anew(**told):
    ran = subprocess.run(
        [sys.executable, "-c", REUSED], env=_UNTOLD | told, capture_output=True, text=True, check=True
    )
    return int(ran.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another system library's ways are left alone")
def test_with_models_at_hand_freed_memory_is_used_again_unless_the_environment_says_otherwise():
    assert pages_taken_anew() < 1000
    assert pages_taken_anew(MALLOC_PERTURB_="0") > 100_000  # 40 times 64 MiB in pages of 4 KiB


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another system library's ways are left alone")
def test_freed_memory_can_be_given_back():
    kept = """
import otoscope.models
import torch
from pathlib import Path
from otoscope.machine import give_back_freed_memory
resident = lambda: int(Path("/proc/self/statm").read_text().split()[1])
torch.ones(2**26)  # 256 MiB
before = resident()
assert give_back_freed_memory()
print(before - resident())
"""
    ran = subprocess.run(
        [sys.executable, "-c", kept], env=_UNTOLD, capture_output=True, text=True, check=True
    )
    assert int(ran.stdout) > 50_000  # pages of 4 KiB


def in_threads():
    return [pool["num_threads"] for pool in threadpool_info() if pool["internal_api"] == "openblas"]


@pytest.fixture
def two():
    """NumPy's own threads, two in each library that it and SciPy bring."""
    import scipy.linalg  # noqa: F401 - brings the second

    with threadpool_limits(2):
        threads = in_threads()
        if set(threads) != {2}:
            pytest.skip("NumPy's products are another library's here, or have one core")
        yield threads


def test_numpy_takes_one_thread_inside_of_the_block_alone(two):
    with numpy_on_one_thread():
        assert in_threads() == [1] * len(two)
    assert in_threads() == two


def test_threads_may_leave_the_block_in_the_order_in_which_they_came(two):
    first, second = numpy_on_one_thread(), numpy_on_one_thread()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert in_threads() == [1] * len(two)
    second.__exit__(None, None, None)
    assert in_threads() == two
