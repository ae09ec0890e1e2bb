"""The live page as a person meets it, in headless Chromium, over a real server."""

from __future__ import annotations

import re

import numpy as np
import pytest
from tests.patching.worlds import hearing_whisper
from tests.views.live_server import TOKEN, serving

from otoscope.audio import read
from otoscope.views.live import Limits

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def live():
    with serving(hearing_whisper(seed=3), Limits(streams=2)) as running:
        yield running


@pytest.fixture
def open_live(live, visit):
    """Open the page of the server, with its token."""

    def opened(fragment=f"#token={TOKEN.replace(' ', '%20')}", **options):
        return visit(f"http://{live[1]}/{fragment}", [f"http://{live[1]}/"], **options)

    return opened


@pytest.fixture(scope="module")
def recording(jfk, tmp_path_factory):
    import soundfile

    path = tmp_path_factory.mktemp("sound") / "short.wav"
    soundfile.write(path, read(jfk, duration=2.5).samples, 16_000)
    return path


def token(text="word", risk=0.9):
    return {"token": 1, "text": text, "start": 0.5, "risk": risk, "invented": risk, "loop": 0.0}


def segment(*tokens, kind="segment", alarm=False, **more):
    return {
        "type": kind, "segment": 0, "heard": 1.0, "start": 0.0, "end": 1.0, "text": "", "risk": 0.9, "alarm": alarm,
        "rung": alarm, "stopped": False, "tokens": list(tokens),
    } | more  # fmt: skip


def told(live, page, *events):
    """Events of the test's own, on the page's stream."""
    page.get_by_role("button", name="Microphone").click()
    page.get_by_text("Listening;").wait_for()
    (stream,) = live[0].streams
    for event in events:
        stream.tell(event)


@pytest.mark.parametrize("bypass_csp", [False, True])
def test_a_recording_is_sent_in_real_time_and_its_text_and_alarm_are_shown(open_live, recording, bypass_csp):
    page = open_live(bypass_csp=bypass_csp)
    page.locator("#file").set_input_files(recording)
    page.get_by_text(re.compile("Done: 0:0[23] of sound")).wait_for(timeout=20_000)
    assert page.locator(".segment").count() >= 2
    assert page.locator(".segment .token").first.inner_text().strip().startswith("w")
    assert page.get_by_role("alert").inner_text().startswith("Alarm at 0:0")
    assert page.locator(".token.alarm").count()
    assert page.get_by_role("button", name="Microphone").is_enabled()


def test_a_file_that_is_no_sound_is_told_and_another_may_be_chosen(open_live, recording, tmp_path):
    (tmp_path / "no.wav").write_bytes(b"no sound")
    page = open_live()
    page.locator("#file").set_input_files(tmp_path / "no.wav")
    page.get_by_text("no.wav is no sound that this browser can read.").wait_for()
    page.locator("#file").set_input_files(recording)
    page.get_by_text("Listening;").wait_for()


def test_the_microphone_moves_the_meter_and_stops(live, open_live):
    page = open_live()
    page.get_by_role("button", name="Microphone").click()
    page.wait_for_function("() => Number(document.querySelector('.meter').ariaValueNow) > -55")
    assert page.evaluate("document.activeElement.id") == "stop"
    page.keyboard.press("Enter")
    page.get_by_text("Done: 0:0").wait_for()
    assert not live[0].streams


def test_a_page_that_is_left_frees_its_stream(live, open_live):
    page = open_live()
    told(live, page)
    page.goto("about:blank")
    for _ in range(100):
        if not live[0].streams:
            break
        page.wait_for_timeout(50)
    assert not live[0].streams


def test_without_a_token_the_page_asks_for_one_and_a_wrong_one_is_told(open_live):
    page = open_live("")
    page.get_by_label("Token").fill("wrong")
    page.get_by_role("button", name="Microphone").click()
    page.get_by_text("The token is wrong.").wait_for()
    page.get_by_label("Token").fill(TOKEN)
    page.get_by_role("button", name="Microphone").click()
    page.get_by_text("Listening;").wait_for()


def test_hostile_text_is_shown_as_text(live, open_live, label):
    page = open_live(viewport={"width": 420, "height": 800})
    events = [segment(token(label)), segment(token(label), kind="partial", segment=1)]
    told(live, page, *events, {"type": "alarm", "kind": label, "time": 1.0, "risk": 0.9}, {"type": label})
    page.get_by_role("alert").wait_for()
    assert page.locator("img").count() == 0
    shown = page.locator(".segment .token").first.text_content()
    assert shown.replace("\ufffd", "\0") == label
    assert page.evaluate("document.documentElement.scrollWidth") <= 420


def test_the_banner_follows_a_text_that_turns_out_to_be_a_loop(live, open_live):
    page = open_live()
    alarm = {"type": "alarm", "segment": 0, "kind": "invented", "time": 1.0, "risk": 0.9}
    looped = segment(token(" and so"), alarm=True, stopped=True)
    told(live, page, segment(token(" yes")), alarm, looped, looped | {"segment": 1})
    page.get_by_text("alarm: a loop, cut short").nth(1).wait_for()
    assert page.get_by_role("alert").inner_text() == (
        "Alarm at 0:01: the text may be invented (risk 0.90 when it rang). It looped, and was cut short."
    )


def test_the_keyboard_alone_reaches_every_control(open_live):
    page = open_live()
    reached = []
    for _ in range(3):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id"))
    assert reached == ["microphone", "file", "text"]


@pytest.mark.parametrize("width", [320, 600])  # what a 1280-pixel window has left at 400 % and about 200 %
def test_a_magnified_page_never_scrolls_sideways(live, open_live, width):
    page = open_live(viewport={"width": width, "height": 800})
    told(
        live,
        page,
        segment(*[token(" word")] * 60, alarm=True),
        segment(token("x" * 300), kind="partial", segment=1),
    )
    page.locator("#partial .token").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_keeps_its_contrast_on_every_tint(live, open_live, scheme):
    page = open_live(color_scheme=scheme)
    tokens = [token(" word", risk) for risk in np.linspace(0, 1, 11).tolist()]
    alarm = {"type": "alarm", "kind": "loop", "time": 1.0, "risk": 0.9}
    told(live, page, segment(*tokens, alarm=True), segment(*tokens, kind="partial", segment=1), alarm)
    page.get_by_role("alert").wait_for()
    worst = page.evaluate(
        """() => {
          const canvas = new OffscreenCanvas(1, 1).getContext('2d', {willReadFrequently: true});
          const mixed = (colours) => {
            for (const colour of colours) { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); }
            return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
          };
          const light = (rgb) => rgb
            .map((c) => c / 255).map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
            .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
          const paper = (element) => getComputedStyle(element).backgroundColor;
          const papers = (element) => element ? [...papers(element.parentElement), paper(element)] : [];
          const contrast = (element) => {
            const [a, b] = [mixed(papers(element)), mixed([getComputedStyle(element).color])].map(light);
            return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
          };
          const texts = document.querySelectorAll('.token, .at, .rang, #alarm, #status, .legend, .title');
          return Math.min(...[...texts].map(contrast));
        }"""
    )
    assert worst >= 4.5


def test_only_the_newest_segments_stay_on_the_page(live, open_live):
    page = open_live()
    told(live, page, *[segment(token(f"n{i}"), segment=i) for i in range(310)])
    page.get_by_text("n309").wait_for()
    assert page.locator(".segment").count() == 300
