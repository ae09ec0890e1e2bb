"""A live server in a thread, over a small random model."""

from __future__ import annotations

import contextlib
import threading

from tests.monitors.ringing import echo_monitor

from otoscope.models.transcripts import DecodeOptions
from otoscope.monitors.engine import Engine
from otoscope.monitors.streaming import Pacing
from otoscope.views.gate import bind
from otoscope.views.live import Limits, Live, server

TOKEN = "a token that nobody guesses"
OPTIONS = DecodeOptions(language="en", max_positions=24)
LIMITS = Limits(streams=3, waiting=3, message=20_000, begin=1.0, idle=1.0)


@contextlib.contextmanager
def serving(model, limits=LIMITS, options=OPTIONS, pacing=None):
    """A server in a thread of its own; gives the application and its address."""
    monitor, pacing = echo_monitor(model, tokens=2), pacing or Pacing(pause=None, every=0.3, first=0.3)
    with Engine(model, monitor, options, pacing) as engine, bind("127.0.0.1", 0) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        live = Live(engine, TOKEN, address, limits)
        running = server(live)
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]})
        thread.start()
        yield live, address
        running.should_exit = True
        thread.join(20)
        assert not thread.is_alive()
    assert not live.streams
