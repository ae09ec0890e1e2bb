"""The live server as its clients meet it: real sockets, every reason to be closed, and nobody harmed by another."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time

import httpx
import numpy as np
import pytest
from tests.patching.worlds import hearing_whisper
from tests.views.live_server import OPTIONS, TOKEN, serving
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from otoscope.audio import read
from otoscope.models.transcribing import transcribe


@pytest.fixture(scope="module")
def model():
    return hearing_whisper()


@pytest.fixture(scope="module")
def live(model):
    with serving(model) as running:
        yield running


@pytest.fixture
def address(live):
    yield live[1]
    wait_for(lambda: not live[0].streams and not live[0].waiting)


@pytest.fixture(scope="module")
def samples(jfk):
    return read(jfk, duration=2.5).samples


def wait_for(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def pcm(samples):
    return (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()


def opened(address, path="/stream", **more):
    return connect(f"ws://{address}{path}", compression=None, max_size=None, close_timeout=1, **more)


def start(client, **more):
    client.send(json.dumps({"type": "start", "token": TOKEN} | more))
    ready = json.loads(client.recv(10))
    assert ready["type"] == "ready"
    return ready


def events(client):
    """Everything that is told until the connection is closed, and how it was closed."""
    told = []
    while True:
        try:
            told.append(json.loads(client.recv(60)))
        except ConnectionClosed as closed:
            return told, closed.rcvd and closed.rcvd.code, closed.rcvd and closed.rcvd.reason


def conversation(address, data, piece=6000, **more):
    with opened(address) as client:
        start(client, **more)
        for at in range(0, len(data), piece):
            client.send(data[at : at + piece])
        client.send('{"type": "end"}')
        return events(client)


def text_of(told):
    return [event["text"] for event in told if event["type"] == "segment"]


def test_a_clip_sent_in_whole_has_the_text_of_transcribe(address, model, samples):
    from otoscope.audio import Clip

    told, code, reason = conversation(address, np.asarray(samples, "<f4").tobytes(), format="f32le")
    assert (code, reason, told[-1]) == (1000, "", {"type": "end", "seconds": 2.5})
    assert text_of(told) == [s.text for s in transcribe(model, Clip(samples), OPTIONS).segments]


@pytest.mark.parametrize("rate", [8_000, 44_100])
def test_sound_of_other_rates_is_resampled_on_its_way(address, model, jfk, rate):
    import soxr

    from otoscope.audio import Clip

    sound = soxr.resample(read(jfk, duration=2.0).samples, 16_000, rate)
    told, code, _ = conversation(address, np.asarray(sound, "<f4").tobytes(), rate=rate, format="f32le")
    assert code == 1000
    assert text_of(told) == [s.text for s in transcribe(model, Clip.of(sound, rate), OPTIONS).segments]


START = json.dumps({"type": "start", "token": TOKEN})


@pytest.mark.parametrize(
    "messages, code, reason",
    [
        (["{"], 1007, "no JSON"),
        (["[1]"], 1007, "no JSON object"),
        (["[" * 9000], 1007, "no JSON"),
        (['{"type": "hello"}'], 1007, 'not of type "start"'),
        ([b"\0\0"], 1003, "must be text"),
        ([json.dumps({"type": "start"})], 1008, "token is wrong"),
        ([json.dumps({"type": "start", "token": TOKEN + "x"})], 1008, "token is wrong"),
        ([json.dumps({"type": "start", "token": "\ud83d\ude00\ud800"})], 1008, "token is wrong"),
        ([json.dumps({"type": "start", "token": 7})], 1007, "token of the start message"),
        ([json.dumps({"type": "start", "token": TOKEN, "rate": 4000})], 1007, "4000 samples a second"),
        ([json.dumps({"type": "start", "token": TOKEN, "rate": 16000.5})], 1007, "rate of the start message"),
        ([json.dumps({"type": "start", "token": TOKEN, "rate": True})], 1007, "rate of the start message"),
        ([json.dumps({"type": "start", "token": TOKEN, "format": "mp3"})], 1007, "'mp3' is not known"),
        ([json.dumps({"type": "start", "token": TOKEN, "language": "xx"})], 1007, "xx"),
        ([json.dumps({"type": "start", "token": TOKEN, "language": "\ud800" * 99})], 1007, "knows no language"),
        ([json.dumps({"type": "start", "token": TOKEN, "rate": 10**3000})], 1007, "A rate of 1000"),
        ([json.dumps({"type": "start", "token": TOKEN, "pause": -1})], 1007, "pause of -1 s"),
        ([json.dumps({"type": "start", "token": TOKEN, "volume": 11})], 1007, "no 'volume'"),
        ([START, "{"], 1007, "no JSON"),
        ([START, START], 1007, 'only text message is {"type": "end"}'),
        ([START, b"abc"], 1007, "3 bytes is no whole number of s16le samples"),
        ([START.replace("}", ', "format": "f32le"}'), np.array([np.nan], "<f4").tobytes()], 1007, "NaN"),
        ([START.replace("}", ', "format": "f32le"}'), np.array([2e4], "<f4").tobytes()], 1007, "full scale"),
        ([START, bytes(20_002)], 1009, "exceeds limit of 20000 bytes"),
        ([], 1008, "No start message came within 1 s"),
        ([START], 1008, "Nothing came for 1 s"),
    ],
)  # fmt: skip
def test_whatever_is_wrong_is_closed_with_its_code_and_reason(address, messages, code, reason):
    with opened(address) as client:
        for message in messages:
            client.send(message)
        _, got, said = events(client)
    assert got == code
    assert reason in said


def test_a_message_in_fragments_has_the_same_limit(address):
    with opened(address) as client:
        start(client)
        with contextlib.suppress(ConnectionClosed):
            client.send(bytes(9_000) for _ in range(4))
        _, code, _ = events(client)
    assert code == 1009


@pytest.mark.parametrize("size", [20_001, 10_000_000])
def test_the_reason_arrives_however_long_the_message_is(address, size):
    with opened(address) as client:
        start(client)
        with contextlib.suppress(ConnectionClosed):
            client.send(bytes(size))
        _, code, reason = events(client)
    assert (code, "exceeds limit of 20000 bytes" in reason) == (1009, True)


def test_the_token_may_stand_in_the_address(address):
    with opened(address, f"/stream?token={TOKEN.replace(' ', '%20')}") as client:
        client.send('{"type": "start"}')
        assert json.loads(client.recv(10))["type"] == "ready"
        client.send('{"type": "end"}')
        assert events(client)[1] == 1000


def test_more_streams_than_there_are_places_are_sent_away(address):
    with contextlib.ExitStack() as stack:
        first = [stack.enter_context(opened(address)) for _ in range(3)]
        for client in first:
            start(client)
        with opened(address) as late:
            late.send(START)
            _, code, reason = events(late)
        assert (code, reason) == (1013, "All 3 streams are taken; try again later.")
        for client in first:
            client.send('{"type": "end"}')
            assert events(client)[1] == 1000


def test_connections_that_never_begin_are_counted_too(address):
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(opened(address))
        with opened(address) as late:
            _, code, reason = events(late)
    assert (code, "have not begun" in reason) == (1013, True)


def test_a_stream_is_not_harmed_by_others_that_misbehave(live, address, samples):
    def misbehave():
        with opened(address) as wild:
            start(wild)
            wild.send(pcm(samples)[:16_000])
            wild.send(b"odd")
            events(wild)
        with opened(address) as gone:
            start(gone)
            gone.send(pcm(samples)[:16_000])
            gone.socket.shutdown(socket.SHUT_RDWR)  # without a word
        with opened(address) as silent:
            silent.send("{}")
            events(silent)

    alone = text_of(conversation(address, pcm(samples))[0])
    others = [threading.Thread(target=misbehave) for _ in range(2)]
    for other in others:
        other.start()
    told = []
    with opened(address) as client:
        start(client)
        for at in range(0, 80_000, 8_000):
            client.send(pcm(samples)[at : at + 8_000])
            time.sleep(0.1)
        client.send('{"type": "end"}')
        told, code, _ = events(client)
    for other in others:
        other.join(30)
    assert code == 1000
    assert text_of(told) == alone


def test_an_abrupt_end_frees_everything(live, samples):
    app, address = live
    for _ in range(5):
        with opened(address) as client:
            start(client)
            client.send(pcm(samples)[:16_000])
            client.socket.shutdown(socket.SHUT_RDWR)
            wait_for(lambda: not app.streams)
    assert text_of(conversation(address, pcm(samples))[0])


def test_who_sends_faster_than_is_written_is_slowed_down(model, samples):
    """The engine stands still meanwhile: no more is taken in than a window, a message, and what sockets hold."""
    free, swallowed = threading.Event(), []

    def flood(client):
        with contextlib.suppress(ConnectionClosed):
            for _ in range(2000):
                client.send(pcm(samples)[:16_000])
                swallowed.append(16_000)

    with serving(model) as (app, address):
        write = app.engine._write
        app.engine._write = lambda *job: (free.wait(30), write(*job))
        with opened(address) as client:
            start(client)
            sending = threading.Thread(target=flood, args=[client])
            sending.start()
            time.sleep(1.5)
            (stream,) = app.streams
            assert sending.is_alive()  # 32 MB were not swallowed ...
            count = len(swallowed)
            time.sleep(0.5)
            assert len(swallowed) == count  # ... and no more is taken
            assert stream._segmenter.count <= 16_000 + 1 + 8_000
            free.set()
            wait_for(lambda: len(swallowed) > count)
        sending.join(30)


def test_who_reads_nothing_is_given_up(model):
    with serving(model) as (app, address), socket.create_connection(address.split(":")) as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.sendall(
            f"GET /stream HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        raw.recv(4096)
        raw.sendall(b"\x81" + bytes([0x80 | len(START)]) + bytes(4) + START.encode())
        wait_for(lambda: app.streams)
        (stream,) = app.streams
        for _ in range(300):  # each larger than the buffers between here and there
            stream.tell({"type": "partial", "text": "x" * 100_000})
            time.sleep(0.001)
        assert not stream.wants
        wait_for(lambda: not app.streams, 5)


def test_the_server_says_that_it_stops(model):
    with contextlib.ExitStack() as stack:
        client = None
        with serving(model) as (_, address):
            client = stack.enter_context(opened(address))
            start(client)
        assert events(client)[1] == 1012


def called(address, host, origin=None):
    """A connection to the server under another name."""
    name, _, port = address.rpartition(":")
    there = socket.create_connection((name, int(port)))
    return connect(f"ws://{host}/stream", sock=there, origin=origin, compression=None)


@pytest.mark.parametrize(
    "host, origin",
    [
        ("evil.example", None),
        ("127.0.0.1:1", None),
        (None, "http://evil.example"),
        (None, "null"),
        (None, "http://localhost"),
    ],
)
def test_other_names_and_other_pages_are_shut_out(address, host, origin):
    host = host or address
    with pytest.raises(InvalidStatus) as refused, called(address, host, origin):
        pass
    assert refused.value.response.status_code == 403
    headers = {"Host": host} | ({"Origin": origin} if origin else {})
    assert httpx.get(f"http://{address}/", headers=headers).status_code == 403


def test_the_own_page_and_the_names_of_this_machine_are_let_in(address):
    port = address.rpartition(":")[2]
    for name in (f"127.0.0.1:{port}", f"localhost:{port}"):
        with called(address, name, f"http://{name}") as client:
            start(client)
            client.send('{"type": "end"}')
            assert events(client)[1] == 1000


def test_the_page_is_one_text_with_a_policy_of_its_own(address):
    first, second = (httpx.get(f"http://{address}/") for _ in range(2))
    policy = first.headers["content-security-policy"]
    nonce = policy.split("'nonce-")[1].split("'")[0]
    assert policy != second.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert first.text.count(f'nonce="{nonce}"') == 4
    assert "<!-- " not in first.text
    assert TOKEN not in first.text
    assert httpx.get(f"http://{address}/../etc/passwd").status_code == 404
