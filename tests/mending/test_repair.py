"""A repair is one value: saved, loaded, applied for the length of a block, and gone afterwards."""

from __future__ import annotations

import json
import pickle

import pytest
import torch
from tests.conftest import tiny
from tests.models.talking import encode, sound, talking_whisper

from otoscope.activations import Edit
from otoscope.errors import EditError, OptionError, OutputError
from otoscope.mending.applying import repaired, weakened
from otoscope.mending.breaker import Breaker
from otoscope.mending.repair import Repair, load_repair, require_empty
from otoscope.models.base import Origin
from otoscope.models.decoding import decode
from otoscope.models.transcripts import DecodeOptions

pytestmark = pytest.mark.usefixtures("one_thread")

EDIT = Edit.scale("decoder_blocks.1.hook_mlp_out", -3.0)
NAME = "model.decoder.layers.0.fc2.weight"


@pytest.fixture(scope="module")
def whisper():
    return talking_whisper(dtype=torch.float64)


def written(model):
    heard = encode(model, sound(dtype=torch.float64))
    return [d.ids for d in decode(model, heard, torch.full((3, 1), 2), DecodeOptions())]


def bits(model):
    return {name: value.clone() for name, value in model.hf.state_dict().items()}


def test_a_saved_repair_comes_back_as_it_was(whisper, tmp_path):
    repair = Repair.of(
        whisper,
        "all of it",
        edits=(EDIT, Edit.add("decoder_blocks.0.hook_attn_out", torch.randn(48, dtype=torch.float64))),
        weights={NAME: torch.randn(48, 80)},
        breaker=Breaker(4, 9, action="forbid"),
        made={"seed": 3},
    )
    found = load_repair(repair.save(tmp_path / "repair"))
    assert found.to_dict() == repair.to_dict()
    assert torch.equal(found.weights[NAME], repair.weights[NAME])
    assert torch.equal(found.edits[1].value, repair.edits[1].value)
    assert load_repair(Repair.of(whisper, "nothing").save(tmp_path / "empty")).edits == ()


def test_a_folder_without_a_repair_or_with_a_newer_one_is_refused(whisper, tmp_path):
    with pytest.raises(OptionError, match="nope does not exist"):
        load_repair(tmp_path / "nope")
    with pytest.raises(OptionError, match="holds no repair"):
        load_repair(tmp_path)
    Repair.of(whisper, "nothing").save(tmp_path)
    told = json.loads((tmp_path / "repair.json").read_text())
    (tmp_path / "repair.json").write_text(json.dumps(told | {"format": 9}))
    with pytest.raises(OptionError, match="format 9"):
        load_repair(tmp_path)
    (tmp_path / "repair.json").write_text(json.dumps(told).replace('"made": {', '"made": {"seed": -1e999'))
    with pytest.raises(OptionError, match="holds no repair that can be read"):
        load_repair(tmp_path)
    with pytest.raises(OutputError, match="not empty"):
        require_empty(tmp_path)


def test_inside_the_block_the_model_is_mended_and_says_so_and_afterwards_it_is_as_it_was(whisper):
    before, plain = bits(whisper), written(whisper)
    changed = whisper.hf.get_parameter(NAME).detach() * -2
    with repaired(whisper, Repair.of(whisper, "both", edits=(EDIT,), weights={NAME: changed})):
        assert written(whisper) != plain
        assert whisper.describe()["mended"] == "both"
        assert torch.equal(whisper.hf.get_parameter(NAME), changed)
    assert "mended" not in whisper.describe()
    assert all(torch.equal(a, b) for a, b in zip(before.values(), bits(whisper).values(), strict=True))
    assert written(whisper) == plain


def test_an_exception_leaves_no_trace(whisper):
    before = bits(whisper)
    weights = {NAME: torch.zeros(48, 80, dtype=torch.float64)}
    repair = Repair.of(whisper, "both", edits=(EDIT,), weights=weights, breaker=Breaker())
    with pytest.raises(KeyboardInterrupt), repaired(whisper, repair):
        raise KeyboardInterrupt
    assert not whisper.open_hooks
    assert not whisper.filters
    assert whisper.mended is None
    assert all(torch.equal(a, b) for a, b in zip(before.values(), bits(whisper).values(), strict=True))


def test_a_mended_model_is_not_sent_to_other_processes_where_it_would_not_be_mended(
    whisper, monkeypatch, tmp_path
):
    monkeypatch.setattr(whisper, "origin", Origin(path=tmp_path))
    weights = {NAME: torch.zeros(48, 80, dtype=torch.float64)}
    for repair in (Repair.of(whisper, "x", weights=weights), Repair.of(whisper, "x", breaker=Breaker())):
        with repaired(whisper, repair), pytest.raises(EditError, match="other processes"):
            pickle.dumps(whisper)


class Rows:
    """In alarm are certain rows, from a step on."""

    def __init__(self, *rows):
        self.rows, self.asked = rows, set()

    def alarmed(self, row):
        self.asked.add(row)
        return row in self.rows


def test_a_gated_repair_changes_the_rows_in_alarm_alone(whisper):
    plain = written(whisper)
    with repaired(whisper, Repair.of(whisper, "always", edits=(EDIT,))):
        always = written(whisper)
    assert all(a != b for a, b in zip(plain, always, strict=True))
    trigger = Rows(1)
    with repaired(whisper, Repair.of(whisper, "gated", edits=(EDIT,), when="alarm"), trigger):
        gated = written(whisper)
    assert gated == [plain[0], always[1], plain[2]]
    assert trigger.asked == {0, 1, 2}


def test_what_cannot_be_is_refused(whisper):
    with (
        pytest.raises(OptionError, match="nothing raises one"),
        repaired(whisper, Repair.of(whisper, "x", when="alarm")),
    ):
        pass
    with pytest.raises(EditError, match="rows"):
        Repair.of(whisper, "x", edits=(EDIT.at_rows(1),))
    with pytest.raises(EditError, match="out of range"):
        Repair.of(whisper, "x", edits=(Edit.zero("decoder_blocks.0.self_attn.hook_z", heads=77),))
    with (
        pytest.raises(OptionError, match="other weights"),
        repaired(tiny("whisper"), Repair.of(whisper, "x")),
    ):
        pass
    with (
        pytest.raises(OptionError, match="no parameter"),
        repaired(whisper, Repair.of(whisper, "x", weights={"y": torch.zeros(1)})),
    ):
        pass


def test_joined_repairs_act_together(whisper):
    a = Repair.of(whisper, "a", edits=(EDIT,), breaker=Breaker(5))
    b = Repair.of(whisper, "b", edits=(Edit.zero("decoder_blocks.0.hook_attn_out"),))
    both = a.joined(b)
    assert both.name == "a+b"
    assert both.edits == (*a.edits, *b.edits)
    assert both.breaker == Breaker(5)
    with repaired(whisper, both):
        expected = written(whisper)
    with repaired(whisper, a), repaired(whisper, b):
        assert written(whisper) == expected


def test_weights_may_go_part_of_the_way(whisper):
    own = whisper.hf.get_parameter(NAME).detach()
    repair = Repair.of(whisper, "x", weights={NAME: own + 2}, breaker=Breaker())
    half = weakened(whisper, repair, 0.5)
    torch.testing.assert_close(half.weights[NAME], own + 1)
    assert half.breaker == repair.breaker
    assert torch.equal(weakened(whisper, repair, 0).weights[NAME], own)


def test_a_repair_knows_which_stacks_it_changes(whisper):
    assert Repair.of(whisper, "x", edits=(EDIT,)).stacks == {"decoder"}
    assert Repair.of(whisper, "x", edits=(Edit.zero("encoder_blocks.0.hook_mlp_out"),)).stacks == {"encoder"}
    assert Repair.of(whisper, "x", weights={"model.encoder.layers.0.fc2.bias": torch.zeros(48)}).stacks == {
        "encoder"
    }


def test_a_text_may_be_empty_where_the_checkpoint_forbids_it(whisper):
    """Whisper's own lists keep the end from being written first."""
    config = whisper.hf.generation_config
    lists = config.begin_suppress_tokens, config.suppress_tokens
    always_end = torch.full((1, 99), -torch.inf)
    always_end[0, whisper.end_token] = 0

    def ending(_tokens, logits):
        return torch.where(torch.isfinite(logits), logits + always_end, logits)

    def texts():
        heard = encode(whisper, sound(1, dtype=torch.float64))
        with whisper.filtering(lambda _prompt: ending):
            return decode(whisper, heard, torch.full((1, 1), 2), DecodeOptions())[0].ids

    try:
        config.begin_suppress_tokens = [3, 7, whisper.end_token]
        assert texts()
        with repaired(whisper, Repair.of(whisper, "quiet", may_be_empty=True)):
            assert not texts()
            assert config.begin_suppress_tokens == [3, 7]
        assert config.begin_suppress_tokens == [3, 7, whisper.end_token]
    finally:
        config.begin_suppress_tokens, config.suppress_tokens = lists


def test_changed_weights_are_in_force_whether_or_not_a_row_is_in_alarm(whisper):
    before = dict(whisper.hf.named_parameters())[NAME].data
    repair = Repair.of(whisper, "x", weights={NAME: torch.zeros_like(before)}, when="alarm")
    with repaired(whisper, repair, Rows()):
        assert not dict(whisper.hf.named_parameters())[NAME].any()
    assert dict(whisper.hf.named_parameters())[NAME].data is before or torch.equal(
        dict(whisper.hf.named_parameters())[NAME].data, before
    )


def test_the_digest_is_of_what_it_does_and_not_of_its_name(whisper, tmp_path):
    repair = Repair.of(whisper, "a", edits=(EDIT,), weights={NAME: torch.ones(2, 2)})
    Repair.of(whisper, "b", edits=(EDIT,), weights={NAME: torch.ones(2, 2)}, made={"seed": 1}).save(tmp_path)
    assert load_repair(tmp_path).digest() == repair.digest()
    for other in (
        Repair.of(whisper, "a", edits=(EDIT,), weights={NAME: torch.zeros(2, 2)}),
        Repair.of(whisper, "a", edits=(EDIT, EDIT), weights={NAME: torch.ones(2, 2)}),
        Repair.of(whisper, "a", edits=(EDIT,), weights={NAME: torch.ones(2, 2)}, may_be_empty=True),
    ):
        assert other.digest() != repair.digest()
