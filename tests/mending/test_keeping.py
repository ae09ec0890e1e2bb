"""Whether a repair still writes the speech that it was taught to keep."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.mending.corpora import mixed_corpus, talker

from otoscope.activations import Edit
from otoscope.mending.keeping import imbalance, write_again
from otoscope.mending.lessons import Lesson, hear_items, write_heard
from otoscope.mending.repair import Repair

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model():
    return talker(dtype=torch.float64)


@pytest.fixture(scope="module")
def lessons(model):
    """Two lessons of speech, whose references are what the untouched model writes, and a sound."""
    first, second, *_, sound = hear_items(model, mixed_corpus()[:4])
    found = [Lesson(sound, [], [model.end_token], "sound")]
    for heard, decoded in zip((first, second), write_heard(model, [first, second], 12), strict=True):
        text = model.tokenizer.decode(decoded.ids, skip_special_tokens=True)
        heard = replace(heard, item=replace(heard.item, text=text))
        found.append(Lesson(heard, decoded.prompt, [*decoded.ids, model.end_token], "speech"))
    return found


def test_a_repair_that_changes_nothing_keeps_speech(model, lessons):
    kept = write_again(model, Repair.of(model, "nothing"), lessons, max_tokens=12)
    assert (kept.changed.count, kept.changed.n) == (0, 2)
    assert (kept.wer_before, kept.wer_after, kept.broke) == (0, 0, False)
    assert "0 of 2 texts changed" in str(kept)


def test_a_repair_that_writes_something_else_is_said_to_break_it(model, lessons):
    deaf = Repair.of(model, "deaf", edits=(Edit.zero("decoder_blocks.1.hook_cross_attn_out"),))
    told = write_again(model, deaf, lessons, max_tokens=12).to_dict()
    assert told["changed"]["count"] > 0
    assert told["wer"]["before"] == 0
    assert told["wer"]["after"] >= 0.1
    assert told["broke"]
    assert model.mended is None


def test_less_speech_than_failures_is_warned_of(model, lessons):
    sound = lessons[0]
    assert imbalance(lessons) is None
    assert "only 2 of the lessons" in imbalance([*lessons, sound, sound])
    assert write_again(model, Repair.of(model, "x"), [sound]) is None
