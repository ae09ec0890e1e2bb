"""`otoscope monitor serve`: how soon an alarm comes under four real-time streams, and whether an hour of sound stays in memory.

The server runs as a person starts it, in a process of its own; the clients share this one. Speech, and sounds on which
whisper-tiny.en falls into loops, take turns in every stream. `OTOSCOPE_MONITOR` names a monitor in place of the one that comes
with otoscope.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.figures import Figure

CLAIM = (
    "`otoscope monitor serve` (whisper-tiny.en), four streams on two cores: an alarm comes at most 1.5 s (95th percentile) after "
    "the last sample that its text rests on was sent; an hour of sound grows the server by at most 50 MB after its first fifth"
)
STREAMS = 4
FIGURES = (
    Figure(
        "Alarm under four real-time streams, 95th percentile",
        "real_time/alarm_seconds_p95",
        at_most=1.5,
        unit="s",
    ),
    Figure("alarms raised meanwhile", "real_time/alarms", at_least=1),
    Figure("growth of the server over an hour of sound", "soak/growth_mb", at_most=50, unit="MB"),
)
MINUTES, SOAK_MINUTES = 10.0, 60.0
APART = 7.0  # seconds
PIECE = 1600  # samples a message: 100 ms
FAST_PIECE = 16_000
RATE = 16_000


def run() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        sounds = _sounds(Path(folder))
        late, soaked = latency(sounds, MINUTES), soak(sounds, SOAK_MINUTES)
    return {"real_time": late, "soak": soaked}


def _sounds(folder: Path) -> list[np.ndarray]:
    """Speech and what sets off loops, in turn, with pauses, at 16 kHz."""
    from benchmarks.measure import clips
    from otoscope.corpora.recipes import Loops, make_corpus

    recipe = Loops(kinds=("long", "babble", "shuffled", "reversed"), count=4)
    loops = [item.clip().samples for item in make_corpus(recipe, folder / "loops").items]
    pause = np.random.default_rng(0).standard_normal(24_000).astype(np.float32) * 1e-3
    speech = [clip.samples for clip in clips(len(loops))]
    return [part for pair in zip(speech, loops, strict=False) for sound in pair for part in (sound, pause)]


def _material(sounds: list[np.ndarray], stream: int, seconds: float) -> np.ndarray:
    """Sound of one stream, which begins elsewhere than the others'."""
    turned = [*sounds[4 * stream :], *sounds[: 4 * stream]]
    once = np.concatenate(turned)
    return np.resize(once, round(seconds * RATE))


@contextmanager
def serving() -> Iterator[dict[str, Any]]:
    """A server; gives its addresses, token and `pid`."""
    command = [sys.executable, "-m", "otoscope", "monitor", "serve", "--json", "-", "--quiet"]
    if folder := os.environ.get("OTOSCOPE_MONITOR"):
        command += ["--monitor", folder]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline()) | {"pid": process.pid}
        finally:
            process.send_signal(signal.SIGINT)
    assert process.returncode == 0


async def _listen(client: Any, arrived: list[tuple[float, dict[str, Any]]]) -> None:
    async for message in client:
        event = json.loads(message)
        arrived.append((time.perf_counter(), event))


async def _stream(
    at: dict[str, Any], samples: np.ndarray, piece: int, paced: bool
) -> tuple[list[float], list[tuple[float, dict[str, Any]]]]:
    """Send one stream; when each piece was sent, and when each event came."""
    from websockets.asyncio.client import connect

    sent: list[float] = []
    arrived: list[tuple[float, dict[str, Any]]] = []
    async with connect(at["stream"], compression=None, ping_interval=None) as client:
        await client.send(json.dumps({"type": "start", "token": at["token"], "rate": RATE}))
        listening = asyncio.create_task(_listen(client, arrived))
        begun = time.perf_counter()
        integers = (np.clip(samples, -1, 1) * 32767).astype("<i2")
        for i, first in enumerate(range(0, len(integers), piece)):
            if paced:
                await asyncio.sleep(begun + (i + 1) * piece / RATE - time.perf_counter())
            await client.send(integers[first : first + piece].tobytes())
            sent.append(time.perf_counter())
        await client.send('{"type": "end"}')
        await listening
    assert arrived[-1][1]["type"] == "end", arrived[-1]
    return sent, arrived


def latency(sounds: list[np.ndarray], minutes: float) -> dict[str, Any]:
    """Four streams in real time, that begin and end some seconds apart."""

    async def one(at: dict[str, Any], n: int) -> Any:
        await asyncio.sleep(APART * n)
        return await _stream(at, _material(sounds, n, 60 * minutes), PIECE, True)

    async def together(at: dict[str, Any]) -> list[Any]:
        return await asyncio.gather(*(one(at, n) for n in range(STREAMS)))

    with serving() as at:
        streams = asyncio.run(together(at))
    alarms, texts, waits = [], 0, []
    for sent, arrived in streams:

        def sent_at(heard: float, sent: list[float] = sent) -> float:
            return sent[min(max(-(-round(heard * RATE) // PIECE), 1), len(sent)) - 1]

        before = 0.0
        for when, event in arrived:
            if event["type"] == "alarm":
                alarms.append(when - sent_at(event["heard"]))
            if event["type"] in ("partial", "segment"):
                texts += 1
                waits.append(
                    when - sent_at(before)
                )  # what came right after the text before had to wait for this one
                before = max(before, event["heard"])
    p95 = _percentile(alarms, 95)
    return {
        "streams": STREAMS, "minutes": minutes, "alarms": len(alarms), "texts": texts,
        "alarm_seconds_median": _percentile(alarms, 50), "alarm_seconds_p95": p95,
        "alarm_seconds_max": _percentile(alarms, 100),
        "sound_waits_seconds_median": _percentile(waits, 50), "sound_waits_seconds_p95": _percentile(waits, 95),
    }  # fmt: skip


def soak(sounds: list[np.ndarray], minutes: float) -> dict[str, Any]:
    """As much sound as is asked for, shared among four streams, as fast as it is taken."""

    async def together(at: dict[str, Any]) -> tuple[list[Any], list[tuple[float, float]]]:
        memory: list[tuple[float, float]] = []
        watching = asyncio.create_task(_watch(at["pid"], memory))
        each = 60 * minutes / STREAMS
        streams = await asyncio.gather(
            *(_stream(at, _material(sounds, n, each), FAST_PIECE, False) for n in range(STREAMS))
        )
        watching.cancel()
        return streams, memory

    with serving() as at:
        begun = time.perf_counter()
        streams, memory = asyncio.run(together(at))
        took = time.perf_counter() - begun
    heard = sum(arrived[-1][1]["seconds"] for _, arrived in streams)
    first = [mb for when, mb in memory if 0.2 * took <= when - begun <= 0.4 * took]
    last = [mb for when, mb in memory if when - begun >= 0.8 * took]
    growth = statistics.median(last) - statistics.median(first)
    return {
        "minutes": round(heard / 60, 1), "seconds": round(took, 1), "times_real_time": round(heard / took, 1),
        "segments": sum(event["type"] == "segment" for _, arrived in streams for _, event in arrived),
        "alarms": sum(event["type"] == "alarm" for _, arrived in streams for _, event in arrived),
        "mb_after_warm_up": round(statistics.median(first), 1), "mb_at_the_end": round(statistics.median(last), 1),
        "mb_peak": round(max(mb for _, mb in memory), 1), "growth_mb": round(growth, 1),
    }  # fmt: skip


async def _watch(pid: int, memory: list[tuple[float, float]]) -> None:
    """Note the server's resident memory in MB every second."""
    while True:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        kb = next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
        memory.append((time.perf_counter(), kb * 1024 / 1e6))
        await asyncio.sleep(1)


def _percentile(values: list[float], q: float) -> float:
    return round(float(np.percentile(values, q)), 3) if values else float("nan")
