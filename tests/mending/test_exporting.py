"""What is exported is a whole checkpoint with the repair in it."""

from __future__ import annotations

import runpy
import sys

import pytest
import torch

import otoscope as oto
from otoscope.errors import OptionError, OutputError
from otoscope.files import remove_abandoned
from otoscope.mending.applying import repaired
from otoscope.mending.breaker import Breaker
from otoscope.mending.exporting import Parity, check_exports, export_ctranslate2, export_transformers
from otoscope.mending.repair import Repair, load_repair

pytestmark = [pytest.mark.weights, pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

GATE = oto.Edit.zero("decoder_blocks.3.self_attn.hook_z", heads=1)


@pytest.fixture(scope="module")
def clips(jfk):
    clip = oto.read(jfk)
    return [clip.span(0, 5), clip.span(5, 11), oto.read(oto.sample("austen-0880"))]


@pytest.fixture(scope="module")
def exported(tiny_en, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    repair = Repair.of(tiny_en, "gate", edits=(GATE,))
    return repair, export_transformers(tiny_en, repair, folder / "hf"), folder


def test_the_checkpoint_is_the_edited_model(tiny_en, exported, clips):
    repair, found, _ = exported
    assert not found.left
    assert found.baked == (
        "model.decoder.layers.3.self_attn.out_proj.bias",
        "model.decoder.layers.3.self_attn.out_proj.weight",
    )
    again = oto.load_model(found.folder)
    inputs = tiny_en.inputs(clips, [*tiny_en.prompt(), 400, 500])
    with torch.no_grad(), repaired(tiny_en, repair):
        expected = tiny_en.forward(inputs).logits
    with torch.no_grad():
        torch.testing.assert_close(again.forward(inputs).logits, expected, atol=2e-3, rtol=0)
        assert (tiny_en.forward(inputs).logits - expected).abs().max() > 0.1


def test_transformers_and_faster_whisper_write_what_the_edited_model_writes(tiny_en, exported, clips):
    pytest.importorskip("faster_whisper")
    repair, found, folder = exported
    converted = export_ctranslate2(found.folder, folder / "ct2")
    assert (converted / "model.bin").is_file()
    assert all(path.is_file() for path in converted.iterdir())
    parities = check_exports(tiny_en, repair, clips, found.folder, converted)
    assert [p.name for p in parities] == ["transformers", "faster-whisper"]
    for parity in parities:
        assert parity.same.count == 3, parity.to_dict()
    assert all(parities[0].expected)


def test_a_finished_export_of_the_same_repair_is_kept_so_that_a_killed_command_can_be_given_again(
    tiny_en, exported
):
    repair, found, _ = exported
    before = {path: path.stat().st_mtime_ns for path in found.folder.rglob("*")}
    again = export_transformers(tiny_en, Repair.of(tiny_en, "another name", edits=repair.edits), found.folder)
    assert (again.baked, again.left) == (found.baked, found.left)
    assert {path: path.stat().st_mtime_ns for path in found.folder.rglob("*")} == before


def test_a_folder_with_files_and_an_unknown_precision_are_refused(tiny_en, exported):
    _, found, folder = exported
    with pytest.raises(OutputError, match="not empty"):
        export_transformers(tiny_en, Repair.of(tiny_en, "gate", edits=(GATE, GATE)), found.folder)
    with pytest.raises(OptionError, match="precision"):
        export_ctranslate2(found.folder, folder / "other", "float7")
    assert not (folder / "other").exists()
    assert not list(folder.glob(".*"))


def test_what_cannot_be_baked_gets_a_program_that_applies_it(tiny_en, tmp_path, monkeypatch, capsys, jfk):
    push = oto.Edit.add(
        "decoder_blocks.1.hook_resid_post",
        30 * torch.randn(384, generator=torch.Generator().manual_seed(0)),
        steps=(3, 4),
    )
    repair = Repair.of(tiny_en, "both", edits=(GATE, push), breaker=Breaker())
    found = export_transformers(tiny_en, repair, tmp_path / "hf")
    assert ["certain steps" in found.left[0], "loop breaker" in found.left[1]] == [True, True]
    rest = load_repair(tmp_path / "hf" / "mend")
    assert [edit.op for edit in rest.edits] == ["add"]
    assert rest.breaker == Breaker()
    with repaired(tiny_en, repair):
        expected = oto.transcribe(tiny_en, jfk).text
    assert expected != oto.transcribe(tiny_en, jfk).text
    monkeypatch.setattr(sys, "argv", ["mended.py", str(jfk)])
    runpy.run_path(str(tmp_path / "hf" / "mended.py"), run_name="__main__")
    assert capsys.readouterr().out.strip() == expected


def test_a_conversion_under_way_is_not_taken_for_an_abandoned_one(exported, monkeypatch):
    converters = pytest.importorskip("ctranslate2.converters")
    _, found, folder = exported
    convert = converters.TransformersConverter.convert

    def interrupted(self, *args, **kwargs):
        made = convert(self, *args, **kwargs)
        remove_abandoned(folder)  # as another process does that writes into the same folder
        return made

    monkeypatch.setattr(converters.TransformersConverter, "convert", interrupted)
    assert (export_ctranslate2(found.folder, folder / "beside") / "model.bin").is_file()


def test_parity_says_how_many_texts_loop_so_that_nobody_takes_it_for_a_test_of_the_breaker():
    texts = ("He was not an ill-disposed young man.", "thank you very much " * 8)
    parity = Parity("faster-whisper", texts, texts)
    assert parity.loops == 1
    assert parity.to_dict()["loops"] == 1
