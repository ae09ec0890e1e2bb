"""A full disk, and one that cannot be written to: one reason, one remedy, and the same job goes on when there is room."""

from __future__ import annotations

import json
import resource
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from tests.faults import jobs
from tests.faults.killing import contents, run, unfinished

from otoscope.activations import Edit
from otoscope.cli.main import REFUSED, main
from otoscope.errors import OutputError
from otoscope.files import atomic_folder, atomic_write
from otoscope.runs import ActivationStore, Run


@pytest.mark.parametrize("job", [jobs.harvested, jobs.trained], ids=["harvest", "train"])
def test_a_job_on_a_full_disk_says_so_and_goes_on_when_there_is_room(job, disk, tmp_path):
    assert run(job, tmp_path / "run").code == 0
    end = run(job, disk.path / "run")
    assert end.code == 1
    said = (disk.path / "run.said").read_text()
    assert "OutputError" in said
    assert "No space left on device. Free some space, or write to another disk." in said
    assert not unfinished(disk.path)
    disk.remount("size=50m")
    assert run(job, disk.path / "run").code == 0
    assert contents(disk.path / "run") == contents(tmp_path / "run")


def test_whatever_writes_to_a_full_disk_the_message_names_the_result(disk):
    from safetensors.numpy import save_file

    much = np.random.default_rng(0).random((200, 200))
    with Run.opened(disk.path / "parts", "sweep", {}) as parts:
        with pytest.raises(OutputError, match=r"effects-00000\.parquet cannot be written: No space"):
            parts.write_part("effects", 0, pd.DataFrame(much))
        assert parts.parts("effects") == []
    with Run.opened(disk.path / "store", "activations", {}) as store:
        with pytest.raises(OutputError, match=r"vectors-00000\.safetensors cannot be written: No space"):
            ActivationStore(store).append(0, {"x": much}, pd.DataFrame())
        assert not ActivationStore(store).has(0)
    with (
        pytest.raises(OutputError, match="export cannot be written: No space"),
        atomic_folder(disk.path / "export") as begun,
    ):
        save_file({"x": much}, begun / "model.safetensors")
    assert not unfinished(disk.path)
    assert not (disk.path / "export").exists()


def test_an_older_result_survives_a_full_disk(disk):
    with atomic_write(disk.path / "result.json") as file:
        file.write("old")
    with (
        pytest.raises(OutputError, match="Free some space"),
        atomic_write(disk.path / "result.json") as file,
    ):
        file.write("new" * 100_000)
    assert contents(disk.path) == {"result.json": b"old"}


def test_a_limit_on_the_size_of_files_is_told_as_such(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(OutputError, match="File too large"), atomic_write(tmp_path / "x", "wb") as file:
            file.write(bytes(10_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())


def test_a_finished_run_on_a_disk_that_cannot_be_written_to_is_read(disk, tmp_path):
    with Run.opened(tmp_path / "run", "sweep", {"seed": 0}) as made:
        made.write_part("effects", 0, pd.DataFrame({"x": [1]}))
    disk.remount("size=10m")
    shutil.copytree(tmp_path / "run", disk.path / "run")
    disk.remount("ro")
    assert Run.read(disk.path / "run").table("effects")["x"].tolist() == [1]
    with pytest.raises(OutputError, match=r"Read-only file system. Choose a place that can be written to\."):
        Run.opened(disk.path / "run", "sweep", {"seed": 0}).__enter__()
    assert contents(disk.path / "run") == contents(tmp_path / "run")


def test_commands_refuse_it_before_any_work(disk, capsys, jfk):
    disk.remount("ro")
    assert main(["transcribe", str(jfk), "--json", str(disk.path / "out.json")]) == REFUSED
    said = capsys.readouterr().err.splitlines()
    assert said == [
        f"error: {disk.path / 'out.json'} cannot be written: Read-only file system.",
        "remedy: Choose a place that can be written to.",
    ]


def test_a_repair_that_does_not_fit_leaves_the_older_one_whole(disk, tmp_path):
    from tests.mending.corpora import talker

    from otoscope.mending.repair import Repair, load_repair

    model = talker()
    small = Repair.of(model, "small", edits=(Edit.zero("decoder_blocks.0.hook_attn_out"),))
    small.save(disk.path / "repair")
    with pytest.raises(OutputError, match="repair cannot be written: No space"):
        Repair.of(model, "large", weights={"model.decoder.layers.0.fc2.weight": torch.zeros(200, 200)}).save(
            disk.path / "repair"
        )
    assert load_repair(disk.path / "repair").name == "small"
    assert json.loads((disk.path / "repair" / "repair.json").read_text())["name"] == "small"
