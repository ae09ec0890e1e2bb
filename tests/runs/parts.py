"""Jobs for workers. They import nothing heavy, since every worker that is hired imports this anew."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from otoscope.errors import ModelError, OptionError


def square(number: int) -> int:
    return number**2


def dies_once(folder: str, number: int) -> int:
    """The first worker that comes to part 2 is killed there, as a machine that goes away."""
    mark = Path(folder) / "died"
    if number == 2 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number**2


def dies_always(number: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return number


def refuses(number: int) -> int:
    raise OptionError(f"Part {number} cannot be.", "Take another.")


class Unloadable:
    """A job that cannot be unpickled where it arrives, as a model whose weights are others there."""

    def __reduce__(self):
        return refuse_to_load, ()


def refuse_to_load():
    raise ModelError("x holds other weights on this machine.", "Put the same files everywhere.")


def square_with(_, number: int) -> int:
    return number**2


def killed_once(folder: str, job, number: int):
    """Parts 0 and 1 kill the first worker that has computed them."""
    result, mark = job(number), Path(folder) / f"killed-{number}"
    if number < 2 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return result


def own_process(_number: int) -> int:
    return os.getpid()


def own_process_with_others(folder: str, count: int, number: int) -> int:
    """This process, once so many parts are under way at the same time."""
    (Path(folder) / f"here-{number}").touch()
    until = time.monotonic() + 60
    while len(list(Path(folder).glob("here-*"))) < count:
        assert time.monotonic() < until, "the others do not come"
        time.sleep(0.01)
    return os.getpid()
