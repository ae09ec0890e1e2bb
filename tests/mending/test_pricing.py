"""Prices of repairs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.mending.corpora import mixed_corpus, talker

from otoscope.activations import Edit
from otoscope.errors import OptionError
from otoscope.mending.applying import repaired
from otoscope.mending.breaker import Breaker
from otoscope.mending.pricing import price_repairs, repair_rows, require_unseen, used
from otoscope.mending.repair import Repair
from otoscope.outcomes import error_rates
from otoscope.patching.writing import writer_of

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model():
    return talker(dtype=torch.float64)


def priced(model, repairs, path, corpus=None):
    return price_repairs(model, repairs, corpus or mixed_corpus(), out=path, max_tokens=12)


def test_a_repair_that_does_nothing_changes_nothing(model, tmp_path):
    edit = Edit.scale("decoder_blocks.1.self_attn.hook_z", 1.0, heads=1)
    (found,) = priced(model, [Repair.of(model, "none", edits=(edit,))], tmp_path)["repairs"]
    assert found["card"]["n"] == 6
    assert found["card"]["speech"]["en"]["wer"]["difference"] == 0
    for key in ("loops", "repeats", "nonspeech"):
        assert found["card"][key]["before"] == found["card"][key]["after"]
    assert found["cuts"]["nonspeech"]["cut"] == 0
    assert repair_rows(found)


@pytest.mark.parametrize(
    "edit",
    [Edit.zero("decoder_blocks.1.hook_cross_attn_out"), Edit.zero("encoder_blocks.0.hook_mlp_out")],
    ids=["decoder", "encoder"],
)
def test_a_card_tells_the_errors_of_what_the_mended_model_writes(model, tmp_path, edit):
    repair, corpus = Repair.of(model, "edit", edits=(edit,)), mixed_corpus()
    (found,) = priced(model, [repair], tmp_path)["repairs"]
    writer = writer_of(model, 12)
    speech = corpus[:2]
    with repaired(model, repair):
        texts = writer.write([writer.hear(item.clip(), "en") for item in speech], None)
    expected = error_rates([item.text for item in speech], [t.text for t in texts], "en")
    assert found["card"]["speech"]["en"]["wer"]["after"] == pytest.approx(expected.wer)


def test_several_repairs_are_priced_side_by_side_and_a_stopped_job_goes_on(model, tmp_path):
    quiet = Repair.of(model, "quiet", edits=(Edit.zero("decoder_blocks.1.hook_cross_attn_out"),))
    breaker = Repair.of(model, "breaker", breaker=Breaker())
    first = priced(model, [quiet, breaker], tmp_path / "run")
    assert [r["name"] for r in first["repairs"]] == ["quiet", "breaker"]
    again = priced(model, [quiet, breaker], tmp_path / "run")
    assert first == again
    with pytest.raises(OptionError, match="begun with"):
        priced(model, [quiet], tmp_path / "run")


def test_recordings_that_a_repair_was_made_with_are_refused_and_speakers_named(model, tmp_path, capsys):
    corpus = mixed_corpus()
    repair = Repair.of(model, "x", made={"used": used(corpus[:2])})
    with pytest.raises(OptionError, match="2 of these 6"):
        priced(model, [repair], tmp_path, corpus)
    joined = Repair.of(model, "y").joined(repair)
    for later in (joined, Repair.of(model, "z", made={"start": joined.made})):
        with pytest.raises(OptionError, match="2 of these 6"):
            require_unseen(later, corpus)
    other = [replace(item, labels={"speaker": 0}) for item in corpus[3:]]
    require_unseen(repair, other)
    assert "same speakers (0)" in capsys.readouterr().err
