from __future__ import annotations

import contextlib
import io
import sys

from otoscope.cli.reporter import amounts, reporting
from otoscope.progress import notice, track


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_bytes_are_shown_as_megabytes():
    assert amounts(1_500_000, 3e6, "bytes") == "2 of 3 MB"
    assert amounts(4, 9, "clips") == "4 of 9 clips"
    assert amounts(4, None, "") == "4"


def test_without_a_terminal_progress_is_a_line_now_and_then(capsys, monkeypatch):
    now = iter(range(0, 1000, 6))  # six seconds from one look at the clock to the next
    monkeypatch.setattr("otoscope.cli.reporter.time.monotonic", lambda: next(now))
    with reporting(), track("Reading", 4, "clips") as task:
        for _ in range(4):
            task.advance()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "Reading: 2 of 4 clips\nReading: 4 of 4 clips\n"


def test_on_a_terminal_bars_and_notices_show_names_literally(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with reporting():
        with track("Reading [bold]x[/bold]\x07", 2, "clips") as task, track("Inner", None):
            task.advance()
            notice("Fetching [red]y.")
        notice("After.")
    shown = terminal.getvalue()
    assert "Reading [bold]x[/bold]\\x07" in shown
    assert "Fetching [red]y." in shown
    assert "After." in shown
    assert "\x07" not in shown


def test_bars_end_and_the_cursor_comes_back_after_an_error(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")

    def unfinished():
        with track("Reading", 2, "clips"):
            yield

    work = unfinished()  # kept alive beyond the block, as a traceback keeps it
    with contextlib.suppress(KeyboardInterrupt), reporting():
        next(work)
        raise KeyboardInterrupt
    shown = terminal.getvalue()
    assert shown.rfind("\x1b[?25h") > shown.rfind("\x1b[?25l") >= 0
