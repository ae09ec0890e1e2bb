"""The console entry, and the one place where failures become lines on stderr and an exit code.

Nothing but the standard library is imported before `main` guards against Ctrl-C.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
import warnings
from collections.abc import Sequence
from types import FrameType
from typing import Any, NoReturn

DONE, BUG, REFUSED, SIGNALLED, PIPE_CLOSED = 0, 1, 2, 128, 141
"""Exit codes; a signal's number is added to `SIGNALLED`, as a shell reports it (Ctrl-C: 130)."""

_OUTPUT_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}


def run() -> NoReturn:
    """Run the command line and leave the process with its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal that lacks a letter shows its number
            stream.reconfigure(errors="backslashreplace")  # pyright: ignore[reportAttributeAccessIssue]
    _heed_signals()
    sys.exit(main(sys.argv[1:]))


def main(arguments: Sequence[str]) -> int:
    """Run one command.

    Args:
        arguments: As on the command line, without the program's name.

    Returns:
        The exit code: 0 done, 1 a bug, 2 something a person can put right, 3 done but for recordings that were skipped,
        130 interrupted, 143 or 129 told to end.
    """
    debug = "--debug" in arguments
    try:
        with warnings.catch_warnings():
            if not debug:
                _quieten()
            code = _invoke(arguments)
            sys.stdout.flush()
        return code
    except _Stopped as stopped:
        return _interrupted(stopped, debug, stopped.number)
    except KeyboardInterrupt as interrupt:
        return _interrupted(interrupt, debug)
    except BrokenPipeError:
        _drop_unwritten()
        return PIPE_CLOSED
    except Exception as error:
        return _failed(error, debug)


def _invoke(arguments: Sequence[str]) -> int:
    import typer

    from otoscope.cli.app import app

    command = typer.main.get_command(app)
    try:
        with command.make_context("otoscope", list(arguments) or ["--help"]) as context:
            command.invoke(context)
    except typer.Exit as leaving:
        return leaving.exit_code
    except _usage_error() as error:
        path = _path(command, arguments)
        if _stands_for_many(error):
            remedy = f"For several recordings name a folder or a manifest; see `{path} --help`."
        else:
            remedy = f"See `{path} --help`."
        return _report(_sentence(error), remedy)
    return DONE


def _path(command: Any, arguments: Sequence[str]) -> str:
    """The command that a command line begins with; an error that Click meets while it reads options does not say which."""
    path = ["otoscope"]
    for word in arguments:
        if (command := getattr(command, "commands", {}).get(word)) is None:
            break
        path.append(word)
    return " ".join(path)


def _usage_error() -> type[Exception]:
    """The class of wrong command lines, in Click or in the copy of it that newer Typer carries."""
    import typer

    return typer.BadParameter.__mro__[1]  # pyright: ignore[reportReturnType]


def _stands_for_many(error: Exception) -> bool:
    """Whether several recordings were named to a command that takes one thing, which may be a folder of them."""
    context = getattr(error, "ctx", None)
    takes = [getattr(p, "metavar", None) or "" for p in context.command.params] if context else []
    extra = "unexpected extra argument" in _sentence(error)
    return extra and any(metavar.strip("[]").endswith("MANIFEST|FOLDER") for metavar in takes)


def _sentence(error: Exception) -> str:
    message: str = error.format_message()  # pyright: ignore[reportAttributeAccessIssue]
    message = message.replace("Value error, ", "")  # a word of pydantic's, which newer Typer checks with
    return message if message.endswith((".", "?")) else f"{message}."


def _quieten() -> None:
    """Keep other libraries' advice off the terminal; otoscope's own warnings stay, one line each."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    warnings.simplefilter("ignore")
    warnings.filterwarnings("default", module="otoscope")
    warnings.showwarning = lambda message, *_, **__: print(f"warning: {message}", file=sys.stderr)


class _Stopped(KeyboardInterrupt):
    """A signal that asks the process to end, on which it cleans up as after Ctrl-C."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


_LOOK_AGAIN = 0.05
"""Seconds until a signal that came in the middle of an import is heeded, or put off once more."""


def _heed_signals() -> None:
    """End in good order on Ctrl-C, and when a scheduler, a service manager or a closing terminal asks for it.

    A signal that comes while something is imported waits for the import: libraries in C++ call Python as they load,
    and an exception there ends the process on the spot ("terminate called", exit -6).
    """
    if sys.platform == "win32":
        return

    def stop(number: int, frame: FrameType | None) -> None:
        if _importing(frame):
            again = threading.Timer(_LOOK_AGAIN, signal.pthread_kill, [threading.main_thread().ident, number])
            again.daemon = True
            again.start()
        elif number == signal.SIGINT:
            raise KeyboardInterrupt
        else:
            raise _Stopped(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # `nohup` ignores SIGHUP, and a shell SIGINT for what it runs in the background; they stay ignored
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, stop)


def _importing(frame: FrameType | None) -> bool:
    while frame:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _interrupted(interrupt: KeyboardInterrupt, debug: bool, number: int = signal.SIGINT) -> int:
    if debug:
        _show_traceback()
    if sys.platform != "win32":
        for further in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(further, signal.SIG_IGN)  # a second one must not break the way out
    # CPython remembers an interrupt that came while it ran source text (as dataclasses and named tuples do when they
    # are imported), caught or not, and kills itself with SIGINT at exit; running another text makes it forget.
    exec("")
    print("Interrupted; no half-written file was left behind.", file=sys.stderr)
    if notes := getattr(interrupt, "__notes__", None):  # where the job goes on
        from otoscope.cli.show import plain

        print(*map(plain, dict.fromkeys(notes)), sep="\n", file=sys.stderr)
    return SIGNALLED + number


def _drop_unwritten() -> None:
    """Let what stdout could not take go, so that it does not fail once more at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _failed(error: Exception, debug: bool) -> int:
    from otoscope.errors import OtoscopeError
    from otoscope.files import output_error

    if debug:
        _show_traceback()
    if isinstance(error, OtoscopeError):
        return _report(error.reason, error.remedy)
    if isinstance(error, OSError) and error.errno in _OUTPUT_ERRNOS:
        _drop_unwritten()
        told = output_error(error.filename or "The result", error)
        return _report(told.reason, told.remedy)
    if _out_of_memory(error):
        return _report("There is not enough memory.", "Run fewer rows at once: `--batch 1`.")
    _report(
        f"otoscope met an error it did not expect: {type(error).__name__}: {str(error)[:300]}",
        "This is a bug; please report it with what `--debug` and `otoscope doctor` show.",
    )
    return BUG


def _out_of_memory(error: Exception) -> bool:
    """Torch raises its own type on accelerators and a bare RuntimeError on the CPU."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError)
        and (type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error))
    )


def _report(reason: str, remedy: str) -> int:
    from otoscope.cli.show import plain

    for label, text in (("error", reason), ("remedy", remedy)):
        print(f"{label}: {plain(' '.join(text.split()))}", file=sys.stderr)
    return REFUSED


def _show_traceback() -> None:
    import traceback

    traceback.print_exc()
