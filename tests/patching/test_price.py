"""What an edit costs."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest
import torch
from tests.patching.worlds import hearing_whisper, spans

from otoscope.audio.samples import sample
from otoscope.corpora import Item
from otoscope.errors import ManifestError
from otoscope.outcomes import error_rates
from otoscope.patching.changes import Change
from otoscope.patching.components import Component
from otoscope.patching.price import card, is_repeat, price, price_legend, price_rows, priced_on, shipped
from otoscope.patching.references import Reference
from otoscope.patching.writing import writer_of
from otoscope.runs import Run

pytestmark = pytest.mark.usefixtures("one_thread")

HEAD = Component("decoder", 0, "cross_attn", 1)


@pytest.fixture(scope="module")
def writer():
    return writer_of(hearing_whisper(seed=1, dtype=torch.float64), 12)


def corpus():
    speech = [replace(item, text="w1 w77 w2 w3", language="en") for item in spans(3)]
    repeats = [replace(item, text=" ".join(["w77"] * 4), labels={"times": 4}) for item in spans(1)]
    return [*speech, *repeats, *(replace(item, text="") for item in spans(2))]


def priced(writer, items, changes, path, batch=4):
    with Run.opened(path, "patching", {}) as run:
        return price(writer, items, changes, run, batch, window=1.0)


def test_an_edit_that_does_nothing_costs_nothing(writer, tmp_path):
    (found,) = priced(writer, corpus(), [Change((HEAD,), alpha=0.0)], tmp_path)
    assert found["n"] == 6
    wer = found["speech"]["en"]["wer"]
    assert wer["before"] == wer["after"]
    assert wer["difference"] == wer["ci_low"] == wer["ci_high"] == 0
    for key in ("repeats", "nonspeech", "loops"):
        assert found[key]["before"] == found[key]["after"], key
    assert found["repeats"]["before"]["n"] == 1
    assert found["nonspeech"]["before"]["raw"]["n"] == 2
    assert found["loops"]["before"]["n"] == 3
    assert "hallucination rate, log-probability gate" in [row[0] for row in price_rows(found)]
    assert "log-probability gate" in " ".join(price_legend(found))


def test_a_card_has_the_errors_of_the_texts_that_were_written(writer, tmp_path):
    items = corpus()
    change = Change((Component("decoder", 1, "cross_attn"),), Reference("silence"), 2.0)
    (found,) = priced(writer, items, [change], tmp_path)
    heard = [writer.hear(item.clip(), item.language) for item in items[:3]]
    quiet = [writer.hear(change.reference.sound(item.clip()), "en") for item in items[:3]]
    for side, texts in (("before", writer.write(heard, None)), ("after", writer.write(heard, change, quiet))):
        expected = error_rates([i.text for i in items[:3]], [t.text for t in texts], "en")
        assert found["speech"]["en"]["wer"][side] == pytest.approx(expected.wer)
        assert found["speech"]["en"]["cer"][side] == pytest.approx(expected.cer)


def test_a_price_that_stopped_goes_on_with_another_batch(writer, tmp_path, monkeypatch):
    items = [item for _ in range(3) for item in corpus()]  # eighteen: more than one part
    changes = [Change((HEAD,)), Change((HEAD,), alpha=2.0)]
    whole = priced(writer, items, changes, tmp_path / "whole", batch=16)
    write_part = Run.write_part

    def once(run, name, number, table):
        if number:
            raise KeyboardInterrupt
        write_part(run, name, number, table)

    monkeypatch.setattr(Run, "write_part", once)
    with pytest.raises(KeyboardInterrupt):
        priced(writer, items, changes, tmp_path / "part", batch=3)
    monkeypatch.undo()
    again = priced(writer, items, changes, tmp_path / "part", batch=16)
    for a, b in zip(whole, again, strict=True):
        assert a | {"tokens_per_second": 0} == b | {"tokens_per_second": 0}
    assert whole[0]["n"] == 18


def test_what_is_longer_than_a_window_or_unreadable_is_left_out_and_said(writer, tmp_path, capsys):
    long = [Item("long", sample("jfk"), text="w1"), Item("long too", sample("jfk"), text="w1", duration=3.0)]
    items = [*corpus()[:1], *long, Item("gone", tmp_path / "gone.wav", text="w1")]
    (found,) = priced(writer, items, [Change((HEAD,))], tmp_path / "run")
    assert found["n"] == 1
    err = capsys.readouterr().err
    assert "3 recordings could not be priced" in err
    assert "gone is left out" in err
    (empty,) = priced(writer, items[1:], [Change((HEAD,))], tmp_path / "none")
    assert empty["n"] == 0
    assert empty["speech"] == {}
    assert price_rows(empty)
    assert price_legend(empty) == []


def test_languages_have_cards_of_their_own_and_repetitions_are_no_speech():
    items = [
        Item("a", None, text="the red house", language="en"),
        Item("b", None, text="un deux trois", language="fr"),
        Item("c", None, text="no no no", language="en", labels={"times": 3}),
    ]
    texts = [("the red house", "the red horse"), ("un deux", "un deux trois"), ("no no no", "no no")]
    table = pd.DataFrame(
        [
            {"item": i, "edit": edit, "text": text, "tokens": 3, "language": "en", "avg_logprob": -0.1,
             "no_speech_prob": 0.1, "seconds": 0.5}
            for i, sides in enumerate(texts)
            for edit, text in zip((-1, 0), sides, strict=True)
        ]
    )  # fmt: skip
    found = card(items, table, 0)
    assert found["speech"]["en"]["wer"]["difference"] == pytest.approx(1 / 3)
    assert found["speech"]["fr"]["wer"]["difference"] == pytest.approx(-1 / 3)
    assert found["repeats"]["before"]["count"] == 1
    assert found["repeats"]["after"]["count"] == 0
    assert found["nonspeech"] is None
    assert is_repeat(items[2])
    assert not is_repeat(items[0])
    assert found["tokens_per_second"]["before"] == pytest.approx(6)


def test_without_a_corpus_the_shipped_recordings_are_priced(tmp_path):
    assert [i.path for i in priced_on([])] == [i.path for i in shipped()]
    assert all(item.text and item.path.exists() for item in shipped())
    with pytest.raises(ManifestError):
        priced_on([tmp_path / "nowhere.jsonl"])
