"""A made-up but realistic document, and a real browser to open its page in."""

import base64
import functools
import io
import itertools
import os
import re
import wave
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from tests.views.framed import in_notebook

from otoscope.doctor.machine import chromium
from otoscope.documents.base import Array
from otoscope.documents.explain import ExplainDoc
from otoscope.runs.notes import FILE
from otoscope.views.page import save_page

TEXT = (
    " And so, my fellow Americans, ask not what your country can do for you,"
    " ask what you can do for your country."
)
HOSTILE = [
    "</script><img src=x onerror=alert(1)> {csp}{css}{title}%s${x} <!--<script>alert(1)//",
    "\u202egnitirw \u2066bidi \"'&<>\u2028\u2029\0",
    "__proto__",
    "x" * 10_000,
]
LAYERS, HEADS, TOP = 4, 6, 5


def made_up(tokens=None, text=TEXT, title="jfk.flac · whisper-tiny.en", seed=0, duration=11.0, alarm=None):
    """A document as `explain` would make it for an 11 s clip, with `tokens` as the written tokens' texts.

    With `alarm` the monitor rings at that token.
    """
    rng = np.random.default_rng(seed)
    tokens = text.replace(",", " ,").replace(".", " .").split() if tokens is None else tokens
    pieces = [word if word in ",." else f" {word}" for word in tokens]
    count = len(pieces)
    p = np.clip(rng.beta(9, 1.2, count), 0.05, 0.9999)
    edges = np.linspace(0.3, duration - 0.4, count + 1)
    token_info = [
        {
            "index": i,
            "id": 300 + 7 * i,
            "text": piece,
            "p": p[i],
            "logprob": np.log(p[i]),
            "entropy": -3 * p[i] * np.log(p[i]),
            "start": edges[i],
            "end": edges[i + 1],
        }
        for i, piece in enumerate(pieces)
    ]
    words = [
        {
            "text": piece,
            "start": edges[i],
            "end": edges[i + 1],
            "p": p[i],
            "first_token": i,
            "last_token": i,
        }
        for i, piece in enumerate(pieces)
    ]
    components = _components()
    change = rng.standard_normal((len(components), count)) * rng.gamma(0.4, 0.5, (len(components), 1))
    attention = [c for c in components if "head" not in c and c["part"] != "mlp"]
    wav = _tone(duration)
    return ExplainDoc.model_validate(
        {
            "title": title,
            "model": {
                "name": "whisper-tiny.en",
                "family": "whisper",
                "source": "wheel faster-tiny 1.0",
                "sha256": "0" * 64,
                "dtype": "float32",
                "attention": "otoscope",
                "encoder_layers": LAYERS,
                "decoder_layers": LAYERS,
                "heads": HEADS,
            },
            "settings": {"strategy": "greedy", "timestamps": False, "max_positions": 448},
            "versions": {"torch": "2.13.0", "transformers": "5.23.0"},
            "seed": 0,
            "audio": {"file": "audio/jfk.flac", "duration": duration, "recording_duration": duration},
            "waveform": Array.pack(_peaks(wav), "f16"),
            "mel": Array.pack(_mel(rng, duration), "u8"),
            "transcript": {
                "text": text,
                "language": "en",
                "tokens": token_info,
                "words": words,
                "no_speech_prob": 0.012,
                "avg_logprob": -0.21,
                "compression_ratio": 1.4,
                "reference": text.strip(),
                "wer": 0.0,
            },
            "alignment": {
                "heads": [(1, 0), (2, 0), (2, 5), (3, 0)],
                "matrix": Array.pack(_attention(edges, count), "u8"),
            },
            "logit_lens": {
                "layers": LAYERS,
                "tokens": [_lens(rng, one, pieces) for one in token_info],
            },
            "encoder_lens": [
                {"layer": 0, "text": " the" * 120, "is_final_text": False},
                {"layer": 1, "text": " And so my fellow Marines asked.", "is_final_text": False},
                {"layer": 2, "text": text, "is_final_text": True},
                {"layer": 3, "text": text, "is_final_text": True},
            ],
            "ablation": {
                "components": components,
                "change": Array.pack(change, "f32"),
                "controls": [
                    {k: c[k] for k in ("stack", "layer", "part")} for c in attention for _ in range(2)
                ],
                "control_change": Array.pack(np.full((2 * len(attention), count), -0.1), "f32"),
            },
            "timings": [{"stage": "decode", "seconds": 0.8}, {"stage": "ablation", "seconds": 12.3}],
            "notes": ["Zeroing takes the model to states it was never trained in."],
            "in_words": [f"whisper-tiny.en wrote: {text}", "Least certain word: fellow (p = 0.31)"],
            "left_out": ["The encoder was not opened."],
            **_under_the_sound(np.random.default_rng(seed + 1), pieces, edges, duration, alarm),
            "resources": {
                "audio": {"media_type": "audio/wav", "data": base64.b64encode(_wav(wav)).decode()},
            },
        }
    )


def _under_the_sound(rng, pieces, edges, duration, alarm):
    """Attention of every head, the account of every token (carried by its own time), risk, and two features."""
    count, heads = len(pieces), [(layer, head) for layer in range(LAYERS) for head in range(HEADS)]
    if not count:
        return {}
    cuts = [0.0, *edges, duration, 30.0]
    sound = np.abs(rng.normal(0, 0.1, (count, len(cuts) - 1))) - 0.05
    sound[np.arange(count), np.arange(count) + 1] = 3.0
    text = np.tril(rng.normal(0, 0.3, (count, count)), -1)
    tokens = []
    for i in range(count):
        parts = {
            "sound": sound[i].sum(),
            "text": text[i].sum(),
            "prompt": 0.5,
            "positions": -0.2,
            "biases": 4.0,
        }
        share = 3.0 / np.maximum(sound[i], 0).sum()
        carried = {"start": edges[i], "end": edges[i + 1], "share": share}
        carried["heads"] = [{"layer": 2, "head": 1, "share": 0.4}]
        tokens.append(parts | {"value": sum(parts.values()), "errors": 0.0, "carried": carried})
    steps = np.clip(rng.beta(2, 20, count + 1), 0, 1)
    if alarm is not None:
        steps[alarm] = 0.9
    columns = int(duration / 0.02)
    place = (edges[:-1] + edges[1:])[None, :, None] / 2 + rng.normal(0, 0.2, (len(heads), 1, 1))
    matrix = np.exp(-(((np.arange(columns) * 0.02 - place) / 0.15) ** 2))
    times = np.arange(columns) * 0.02
    return {
        "head_attention": {
            "heads": heads,
            "column_seconds": 0.02,
            "matrix": Array.pack(matrix, "u8"),
            "peak": Array.pack(np.full((len(heads), count), 0.4)),
            "padding": Array.pack(np.full((len(heads), count), 0.1), "f16"),
        },
        "accounts": {
            "spans": list(pairwise(cuts)),
            "sound": Array.pack(sound, "f16"),
            "text": Array.pack(text, "f16"),
            "tokens": tokens,
        },
        "risk": {
            "monitor": "monitor of whisper-tiny.en",
            "steps": steps.tolist(),
            "parts": {"invented": steps.tolist(), "loop": (steps / 9).tolist()},
            "threshold": 0.6,
            "false_alarm_rate": 0.05,
            "alarm_token": alarm,
        },
        "feature_rows": [
            {
                "layer": 3,
                "feature": number,
                "dictionary": "neurons",
                "column_seconds": 0.02,
                "token": 0,
                "share": 0.2,
            }
            | {"values": Array.pack(np.sin(times * number) ** 2, "u8")}
            for number in (7, 42)
        ],
    }


def _components():
    kinds = [("encoder", "attn"), ("encoder", "mlp")]
    kinds += [("decoder", "self_attn"), ("decoder", "cross_attn"), ("decoder", "mlp")]
    found = []
    for stack, part in kinds:
        for layer in range(LAYERS):
            whole = {
                "id": f"{stack}_blocks.{layer}.{part}",
                "label": f"{stack[0].upper()}{layer} {part}",
                "stack": stack,
                "layer": layer,
                "part": part,
            }
            heads = [] if part == "mlp" else range(HEADS)
            found += [whole]
            found += [
                whole | {"id": f"{whole['id']}.{h}", "label": f"{whole['label']} head {h}", "head": h}
                for h in heads
            ]
    return found


def _lens(rng, token, pieces):
    saturation = int(rng.integers(0, LAYERS))
    return {"index": token["index"], "saturation_layer": saturation, "layers": [
        _reading(rng, token, pieces, layer, layer >= saturation) for layer in range(LAYERS)
    ]}  # fmt: skip


def _reading(rng, token, pieces, layer, settled):
    share = token["p"] * (layer + 1) / LAYERS * (1 if settled else 0.2)
    others = rng.dirichlet(np.ones(TOP - 1)) * (1 - share) * (0.9 if settled else 1)
    top = [
        {"id": 9000 + j, "text": pieces[int(rng.integers(len(pieces)))], "p": o} for j, o in enumerate(others)
    ]
    top.append({"id": token["id"], "text": token["text"], "p": share})
    if settled:
        top[-1]["p"] = max(share, others.max() + 1e-3)
    top.sort(key=lambda one: -one["p"])
    rank = [one["id"] for one in top].index(token["id"])
    return {
        "layer": layer,
        "top": top,
        "p_final": top[rank]["p"],
        "rank_final": rank,
        "entropy": 4 / (1 + layer),
    }


def _attention(edges, count):
    centres = (edges[:-1] + edges[1:])[:, None] / 2
    positions = np.arange(550)[None] * 0.02
    return (
        np.exp(-(((positions - centres) / 0.12) ** 2)) * 0.1 if count else np.zeros((0, positions.shape[1]))
    )


def _tone(duration):
    t = np.arange(int(duration * 16_000)) / 16_000
    rng = np.random.default_rng(7)
    return 0.4 * np.sin(2 * np.pi * 180 * t) * np.sin(np.pi * t * 2.2) ** 4 + 0.01 * rng.standard_normal(
        t.size
    )


def _peaks(wav, bins=2200):
    cut = wav[: wav.size // bins * bins].reshape(bins, -1)
    return np.stack([cut.min(1), cut.max(1)])


def _mel(rng, duration):
    frames = int(duration * 100)
    t, f = np.arange(frames)[None] / 100, np.arange(80)[:, None]
    voiced = np.sin(np.pi * t * 2.2) ** 4
    return voiced * np.exp(-f / 40) * (1 + np.cos(f / 3)) + 0.08 * rng.standard_normal((80, frames)) - 0.5


def _wav(samples):
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes((samples * 32_767).astype("<i2").tobytes())
    return buffer.getvalue()


@functools.cache
def spoken_into_the_microphone():
    """A WAV file that Chromium's made-up microphone plays again and again."""
    import atexit
    import tempfile

    import soundfile

    from otoscope.audio import read
    from otoscope.audio.samples import sample

    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    path = f"{folder.name}/spoken.wav"
    soundfile.write(path, read(sample("jfk")).samples, 16_000)
    return path


@pytest.fixture(scope="session")
def browser():
    reason = "No Chromium was found; install chromium, or name one in OTOSCOPE_CHROMIUM."
    if chromium() is None and os.environ.get("CI"):
        pytest.fail(reason)
    if chromium() is None:
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--no-first-run",
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-audio-capture={spoken_into_the_microphone()}",
    ]
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium(), args=flags)
        yield running
        running.close()


@pytest.fixture
def make_doc():
    """The builder itself, for tests that need a document of their own."""
    return made_up


@pytest.fixture(scope="session")
def doc():
    return made_up()


@pytest.fixture(params=HOSTILE, ids=range(len(HOSTILE)))
def label(request):
    """Text that tries to be something else."""
    return request.param


LISTEN_FOR_VIOLATIONS = """
addEventListener("securitypolicyviolation", (e) => console.error("CSP", e.violatedDirective, e.blockedURI))
"""


def _keep_picture(page, test):
    """Keep a picture of how a test left its page, to be looked at: in the folder OTOSCOPE_SCREENSHOTS, or on CI in artefacts/.

    A page looks the same on every host: of the three, the one from disk is kept.
    """
    folder = os.environ.get("OTOSCOPE_SCREENSHOTS") or ("artefacts" if os.environ.get("CI") else "")
    host = test.callspec.params.get("open_page", "file") if hasattr(test, "callspec") else "file"
    if folder and host == "file":
        name = re.sub(r"[^\w-]+", "_", test.name)[:150]
        page.screenshot(path=Path(folder) / f"{name}.png")


@pytest.fixture
def visit(browser, request):
    """Open an address; afterwards nothing may have gone wrong, or out to anywhere but what is allowed.

    `visit.expect(text)` allows for one complaint of the browser that a test provokes.
    """
    complaints, contexts, expected = [], [], []

    def visited(url, allowed, bypass_csp=False, **options):
        def allow(route):
            if route.request.url.startswith((*allowed, "blob:", "data:")):
                return route.continue_()
            complaints.append(f"request to {route.request.url}")
            return route.abort()

        context = browser.new_context(bypass_csp=bypass_csp, **options)
        contexts.append(context)
        context.route("**/*", allow)
        page = context.new_page()
        page.add_init_script(LISTEN_FOR_VIOLATIONS)
        page.on("console", lambda message: message.type == "error" and complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: (complaints.append(dialog.message), dialog.dismiss()))
        page.goto(url)
        return page

    visited.expect = expected.append
    yield visited
    for context in contexts:
        for page in context.pages:
            page.wait_for_timeout(10)  # complaints are told a moment later
            _keep_picture(page, request.node)
        context.close()
    for text in expected:
        complaints.remove(next(one for one in complaints if text in one))
    assert complaints == []


@pytest.fixture(scope="session")
def pages_server(tmp_path_factory):
    """A server over a folder of its own, for pages that are shown on every host."""
    pytest.importorskip("starlette")
    from tests.views.served import serving

    with serving(tmp_path_factory.mktemp("runs")) as served:
        yield served


numbers = itertools.count()


HOSTS = ("file", "server", "notebook")


def pytest_generate_tests(metafunc):
    """Show every page from disk, on a server and in a notebook; what a page draws from its document alone, from disk."""
    if "open_page" in metafunc.fixturenames:
        hosts = HOSTS[:1] if metafunc.definition.get_closest_marker("one_host") else HOSTS
        metafunc.parametrize("open_page", hosts, indirect=True)


@pytest.fixture
def open_page(request, visit, tmp_path):
    """Open a document's page: from disk, on a server and in the frame of a notebook."""
    if (
        request.param == "server"
    ):  # what one test wrote onto a document is not for the next that shows the same
        for path in request.getfixturevalue("pages_server").folder.iterdir():
            path.unlink(missing_ok=True)  # a journal of what is still being written goes by itself

    def opened(doc, fragment="", **options):
        if request.param == "file":
            save_page(doc, tmp_path / "page.html")
            page = visit((tmp_path / "page.html").as_uri() + fragment, ["file:"], **options)
        elif request.param == "server":
            served = request.getfixturevalue("pages_server")
            for written in served.folder.glob(f"{FILE}*"):  # annotations of another test
                written.unlink()
            name = f"{next(numbers)}.html"  # a run of its own: one that changes is found again only a while later
            save_page(doc, served.folder / name)
            page = visit(served.page_of(name, fragment), [f"http://{served.address}/"], **options)
        else:
            page = in_notebook(doc, fragment, visit, tmp_path, **options)
        page.locator("main, #page:not(:has(.loading))").first.wait_for()
        return page

    return opened
