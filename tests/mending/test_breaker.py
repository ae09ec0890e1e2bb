"""The loop breaker acts while a loop lasts and never else."""

from __future__ import annotations

import pytest
import torch
from tests.mending.test_repair import Rows
from tests.models.talking import encode, sound, talking_whisper

from otoscope.errors import OptionError
from otoscope.mending.applying import repaired
from otoscope.mending.breaker import Breaker
from otoscope.mending.repair import Repair
from otoscope.models.decoding import decode
from otoscope.models.transcripts import DecodeOptions

pytestmark = pytest.mark.usefixtures("one_thread")

END = 94


@pytest.fixture(scope="module")
def whisper():
    """One that goes round in circles: embeddings that resemble their own unembedding."""
    model = talking_whisper(end=END, dtype=torch.float64, seed=3)
    with torch.no_grad():
        model.hf.model.decoder.embed_positions.weight.mul_(0)
    return model


def written(model, rows=3):
    heard = encode(model, sound(rows, dtype=torch.float64))
    return [d.ids for d in decode(model, heard, torch.full((rows, 1), 2), DecodeOptions())]


@pytest.mark.parametrize(
    "ids, loop",
    [
        ([], set()),
        ([5, 5, 5], set()),  # three copies, but only three tokens
        ([5] * 8, {5}),
        ([1, 2, 3, 4] * 2, set()),
        ([1, 2, 3, 4] * 3, {1}),
        ([9, 9, *[1, 2, 3, 4] * 3, 1], {2}),  # in the middle of the fourth copy
        ([*[1, 2, 3, 4] * 3, 7], set()),  # it is over
        ([1, 2, 3, 4, 7] + [1, 2, 3, 4] * 2, set()),  # a gap
    ],
)
def test_a_loop_is_told_by_copies_without_a_gap(ids, loop):
    assert Breaker(copies=3, tokens=8).going_on(ids) == loop


def test_short_phrases_need_more_copies_than_long_ones():
    breaker = Breaker(copies=3, tokens=12)
    assert breaker.going_on([1, 2] * 5) == set()
    assert breaker.going_on([1, 2] * 6) == {1}
    assert breaker.going_on(list(range(10)) * 3) == {0}
    assert Breaker(longest=9).going_on(list(range(10)) * 3) == set()


def test_the_model_of_these_tests_loops(whisper):
    assert any(Breaker().going_on(ids) for ids in written(whisper))


def test_texts_are_as_they_were_up_to_the_loop_and_then_end(whisper):
    breaker = Breaker()
    with repaired(whisper, Repair.of(whisper, "breaker", breaker=breaker)):
        ended = written(whisper)
    for before, after in zip(written(whisper), ended, strict=True):
        first = next((i for i in range(len(before)) if breaker.going_on(before[:i])), len(before))
        assert after == before[:first]


def test_forbidding_lets_the_text_go_on_otherwise(whisper):
    breaker = Breaker(action="forbid")
    with repaired(whisper, Repair.of(whisper, "breaker", breaker=breaker)):
        other = written(whisper)
    for before, after in zip(written(whisper), other, strict=True):
        first = next((i for i in range(len(before)) if breaker.going_on(before[:i])), None)
        if first is None:
            assert after == before
            continue
        assert after[:first] == before[:first]
        assert len(after) > first
        assert all(after[i] not in breaker.going_on(after[:i]) for i in range(len(after)))


def test_with_a_trigger_it_acts_on_rows_in_alarm_alone(whisper):
    before = written(whisper)
    with repaired(whisper, Repair.of(whisper, "x", breaker=Breaker())):
        always = written(whisper)
    row = next(i for i in range(3) if before[i] != always[i])
    with repaired(whisper, Repair.of(whisper, "x", breaker=Breaker(), when="alarm"), Rows(row)):
        found = written(whisper)
    assert found == [always[i] if i == row else before[i] for i in range(3)]


def test_timestamps_are_no_text_and_the_prompt_is_not_looked_at(whisper):
    stop = Breaker().filter(whisper, prompt=9)
    logits = torch.zeros(1, 99)
    assert torch.isfinite(stop(torch.tensor([[5] * 9 + [5] * 7]), logits)).all()
    assert not torch.isfinite(stop(torch.tensor([[5] * 9 + [5, 96] * 8]), logits)).all()


def test_a_suppressed_end_is_written_all_the_same(whisper):
    logits = torch.zeros(1, 99)
    logits[0, END] = -torch.inf
    out = Breaker().filter(whisper, 0)(torch.tensor([[5] * 8]), logits)
    assert out.argmax() == END
    assert logits[0, 5] == 0


@pytest.mark.parametrize("values", [{"copies": 1}, {"tokens": 0}, {"longest": 0}, {"action": "laugh"}])
def test_a_breaker_that_cannot_work_is_refused(values):
    with pytest.raises(OptionError):
        Breaker(**values)


def test_hugging_face_generate_takes_it_as_a_logits_processor(whisper):
    from transformers import LogitsProcessorList

    breaker, prompt = Breaker(action="forbid"), whisper.prompt("en")
    processors = LogitsProcessorList([breaker.filter(whisper, len(prompt))])
    out = whisper.generate(
        sound(dtype=torch.float64),
        language="en",
        task="transcribe",
        do_sample=False,
        logits_processor=processors,
    )
    heard = encode(whisper, sound(dtype=torch.float64))
    with repaired(whisper, Repair.of(whisper, "x", breaker=breaker)):
        rows = decode(whisper, heard, torch.tensor([prompt] * 3), DecodeOptions())
    assert [ids[: len(row.ids)] for ids, row in zip(out.tolist(), rows, strict=True)] == [r.ids for r in rows]
