"""The monitor inside Hugging Face's `generate`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.monitors.monitors_of import random_monitor

from otoscope.audio import read
from otoscope.errors import OptionError
from otoscope.monitors.generating import HallucinationMonitor
from otoscope.monitors.running import watch_all

pytestmark = pytest.mark.weights


@pytest.fixture(scope="module")
def heard(tiny_en, jfk):
    return tiny_en.features([read(jfk), read(jfk).span(0, 4)])


def generate(model, features, monitor=None, **options):
    watch = {} if monitor is None else {"logits_processor": [monitor], "stopping_criteria": [monitor]}
    with torch.no_grad():
        return model.hf.generate(features, **watch, **options)


def test_the_text_is_the_same_and_the_risks_are_those_of_otoscope(tiny_en, heard, jfk):
    plain = generate(tiny_en, heard)
    clips = [read(jfk), read(jfk).span(0, 4)]
    monitor = random_monitor(tiny_en, threshold=2.0)
    with HallucinationMonitor(tiny_en, monitor, seconds=[clip.duration for clip in clips]) as watching:
        watched = generate(tiny_en, heard, watching)
    assert torch.equal(plain, watched)
    for row, one in enumerate(watch_all(tiny_en, clips, monitor)):
        wanted = one.progress[0].risks
        np.testing.assert_allclose(watching.rows[row].risks[: len(wanted)], wanted, atol=1e-3)
    assert tiny_en.open_hooks == 0


def test_stop_ends_a_row_at_its_alarm(tiny_en, heard):
    rung = []
    monitor = random_monitor(tiny_en, threshold=0.0)
    with HallucinationMonitor(
        tiny_en, monitor, "stop", on_alarm=lambda row, progress: rung.append(row), every=1
    ) as watching:
        ids = generate(tiny_en, heard, watching)
    assert ids.shape[1] <= 4  # the prompt and what was under way
    assert sorted(rung) == [0, 1]


def test_a_mend_acts_on_rows_in_alarm_alone(tiny_en, heard):
    end = tiny_en.end_token

    def finish(tokens, scores):
        return torch.full_like(scores, -torch.inf).index_fill(1, torch.tensor([end]), 0.0)

    with HallucinationMonitor(tiny_en, random_monitor(tiny_en, threshold=2.0), mend=finish) as watching:
        assert torch.equal(generate(tiny_en, heard, watching), generate(tiny_en, heard))
    with HallucinationMonitor(
        tiny_en, random_monitor(tiny_en, threshold=0.0), mend=finish, on_alarm=lambda *_: None
    ) as watching:
        assert generate(tiny_en, heard, watching).shape[1] < 12


def test_beam_search_is_refused(tiny_en, heard):
    with (
        pytest.raises(OptionError, match="beam search"),
        HallucinationMonitor(tiny_en, random_monitor(tiny_en, threshold=2.0)) as watching,
    ):
        generate(tiny_en, heard, watching, num_beams=4)
    assert tiny_en.open_hooks == 0


def test_outside_of_its_block_it_says_so(tiny_en, heard):
    monitor = HallucinationMonitor(tiny_en, random_monitor(tiny_en))
    with pytest.raises(OptionError, match="not watching"):
        generate(tiny_en, heard, monitor)
