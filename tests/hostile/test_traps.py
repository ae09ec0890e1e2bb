"""Files made to do harm: each is refused before it runs, unpacks or allocates anything, with one reason and one remedy."""

from __future__ import annotations

import io
import json
import os
import pickle
import sqlite3
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from fuzz.small_dictionaries import model, transcoders
from fuzz.targets.audio import encoded
from fuzz.targets.gguf import seeds as gguf_files
from fuzz.targets.pt import saved

from otoscope.audio import info, read
from otoscope.circuits.pt import read_pt
from otoscope.dictionaries.formats.circuit_tracer import save_circuit_tracer
from otoscope.dictionaries.formats.files import tensors
from otoscope.dictionaries.loading import load_dictionary
from otoscope.dictionaries.training.checkpoints import HEADER, Checkpoints
from otoscope.documents.changes import ComponentChange, FeatureChange, parse_span
from otoscope.errors import (
    AudioError,
    DictionaryError,
    GraphError,
    ModelError,
    OptionError,
    OtoscopeError,
    OutputError,
    TrainingError,
)
from otoscope.models.gguf_head import check_head
from otoscope.models.loading import load_model
from otoscope.runs.annotations import AnnotationStore
from otoscope.runs.notes import FILE, Notes
from otoscope.studies.feature_recipes import read_recipe
from otoscope.text_values import object_of, yaml_of

pytestmark = pytest.mark.usefixtures("one_thread")

ROOM = 200  # MB by which a refusal may let the process grow


@pytest.fixture(autouse=True)
def little_memory():
    """The peak is begun anew: that of the process's whole life may have been high already."""
    process = Path("/proc/self")
    if not os.access(
        process / "clear_refs", os.W_OK
    ):  # this system does not tell it; the refusal counts all the same
        yield
        return
    (process / "clear_refs").write_text("5")
    before = peak_kib(process)
    yield
    assert peak_kib(process) - before < ROOM * 1024


def peak_kib(process):
    return int((process / "status").read_text().split("VmHWM:")[1].split()[0])


class Runs:
    """Touches a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


# Archives ----------------------------------------------------------------------------------------------------------------


def packed(path, name, size):
    """An archive whose one member unpacks to `size` zeros after the head of an array of them."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "|u1", "fortran_order": False, "shape": (size,)})
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open(name, "w", force_zip64=True) as member,
    ):
        member.write(head.getvalue())
        for _ in range(size // 2**20):
            member.write(bytes(2**20))
    return path


def test_an_npz_that_unpacks_to_much_more_than_it_has_is_not_unpacked(tmp_path):
    bomb = packed(tmp_path / "params.npz", "W_enc.npy", 2**28)
    assert bomb.stat().st_size < 2**20
    with pytest.raises(DictionaryError, match="would unpack to 256 MB"):
        tensors(bomb, torch.float32)


def test_an_npz_whose_array_says_a_size_that_it_has_not_is_refused(tmp_path):
    path, head = tmp_path / "params.npz", io.BytesIO()
    np.lib.format.write_array_header_1_0(
        head, {"descr": "<f4", "fortran_order": False, "shape": (2**20, 2**20)}
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("W_enc.npy", head.getvalue() + bytes(64))
    with pytest.raises(DictionaryError):
        tensors(path, torch.float32)


def test_an_npz_of_pickles_runs_nothing(tmp_path):
    path, mark = tmp_path / "params.npz", tmp_path / "ran"
    np.savez(path, W_enc=np.array([Runs(mark)], dtype=object))
    with pytest.raises(DictionaryError):
        tensors(path, torch.float32)
    assert not mark.exists()


def test_a_packed_pt_is_not_unpacked(tmp_path):
    path = tmp_path / "graph.pt"
    with (
        zipfile.ZipFile(io.BytesIO(saved())) as plain,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for name in plain.namelist():
            archive.writestr(name, plain.read(name))
    with pytest.raises(GraphError, match="packed"):
        read_pt(path)


def test_a_pt_whose_tensor_repeats_one_number_without_end_is_refused(tmp_path):
    path = tmp_path / "graph.pt"
    path.write_bytes(saved(adjacency_matrix=torch.ones(1).expand(2**15, 2**15)))
    with pytest.raises(GraphError, match="shape that its numbers do not fill"):
        read_pt(path)


def test_a_pt_in_the_old_form_which_is_a_bare_pickle_is_refused(tmp_path):
    path, mark = tmp_path / "graph.pt", tmp_path / "ran"
    path.write_bytes(pickle.dumps(Runs(mark)))
    with pytest.raises(GraphError):
        read_pt(path)
    assert not mark.exists()


def test_lists_in_lists_in_a_pt_are_never_spelled(tmp_path):
    path, value = tmp_path / "graph.pt", ["x"]
    for _ in range(60):
        value = [value, value]  # 2^60 texts when it is written out
    path.write_bytes(saved(input_string=value, scan=value))
    assert read_pt(path).record["prompt"] == ""


# YAML and JSON -----------------------------------------------------------------------------------------------------------

TAGS = (
    "!!python/object/apply:os.mkdir ['{mark}']", "!!python/object/new:os.mkdir ['{mark}']", "!!python/name:os.mkdir",
    "!!python/module:this", "!!python/object:os.PathLike {{}}",
)  # fmt: skip


@pytest.mark.parametrize("tag", TAGS)
def test_tags_of_yaml_make_nothing(tag, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(f"model: {tag.format(mark=tmp_path / 'ran')}\npoint: x\n")
    with pytest.raises(OptionError, match="cannot be read"):
        read_recipe(path)
    assert not (tmp_path / "ran").exists()


def test_aliases_of_yaml_are_refused():
    rows = ["a0: &a0 [x, x]", *(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 60))]
    with pytest.raises(ValueError, match="aliases"):
        yaml_of("\n".join(rows))


@pytest.mark.parametrize(
    "reader, text",
    [
        (object_of, '{"a": ' * 100_000),
        (yaml_of, "[" * 100_000),
        (yaml_of, "[\n" * 100_000),
        (yaml_of, "- " * 100_000),
        (yaml_of, "{a: " * 100_000),
        (yaml_of, "".join(" " * i + "a:\n" for i in range(1_000))),
    ],
    ids=("json", "yaml", "lines", "dashes", "keys", "indents"),
)
def test_nesting_without_end_is_refused_before_it_takes_long(reader, text):
    with pytest.raises(ValueError, match="nested too deeply"):
        reader(text)


def test_settings_may_be_nested_as_deep_as_anybody_writes_them():
    assert len(yaml_of("- [x]\n" * 200)) == 200
    deep = yaml_of("[" * 100 + "]" * 100)
    for _ in range(99):
        (deep,) = deep
    assert deep == []
    with pytest.raises(ValueError, match="nested too deeply"):
        yaml_of("[" * 101 + "]" * 101)


@pytest.mark.parametrize(
    "value", ["!!int ''", "!!bool x", "!!timestamp x", "!!float ''", "!!binary x", "!!map x"]
)
def test_a_tag_that_does_not_fit_its_value_is_told_as_bad_yaml(value):
    with pytest.raises(ValueError, match=r"tag|convert|expected|base64"):
        yaml_of(f"a: {value}")


def test_bytes_are_utf_8_and_nothing_is_guessed():
    text = '{"a": "é"}'
    assert object_of(text.encode()) == object_of(text.encode("utf-8-sig")) == {"a": "é"}
    for encoding in ("utf-16", "utf-16-le", "utf-32", "latin-1"):
        with pytest.raises(ValueError, match=r"utf-8|JSON|Expecting"):
            object_of(text.encode(encoding))


def test_a_message_stays_short_whatever_it_quotes():
    error = OtoscopeError("x" * 100_000 + ".", "y" * 100_000 + ".")
    assert len(error.reason) == len(error.remedy) == 999
    assert error.reason.endswith("x.")


# Recordings --------------------------------------------------------------------------------------------------------------


def test_a_flac_that_announces_2_36_samples_is_refused(tmp_path):
    path, data = tmp_path / "a.flac", bytearray(encoded("FLAC", "PCM_16"))
    at = (
        8 + 10
    )  # "fLaC", the block's head, then sizes: 20 bits of rate, 3 of channels, 5 of depth, 36 of samples
    (field,) = struct.unpack(">Q", data[at : at + 8])
    data[at : at + 8] = struct.pack(">Q", field | (2**36 - 1))
    path.write_bytes(data)
    assert info(path).duration > 4e6
    with pytest.raises(AudioError, match="truncated"):
        read(path)


@pytest.mark.parametrize("size", [1, 2**31 + 1])
def test_a_wav_whose_size_is_none_of_its_own_is_refused(size, tmp_path):
    path, data = tmp_path / "a.wav", bytearray(encoded("WAV", "PCM_16"))
    at = data.index(b"data") + 4
    data[at : at + 4] = struct.pack("<I", size)
    path.write_bytes(data)
    with pytest.raises(AudioError):
        read(path)


# Models and dictionaries -------------------------------------------------------------------------------------------------


def gguf_field(kind, value):
    """The head of a file with one field."""
    return (
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"k" + struct.pack("<I", kind) + value
    )


GGUF_TRAPS = {
    "a text without end": gguf_field(8, struct.pack("<Q", 2**62)),
    "numbers without end": gguf_field(9, struct.pack("<IQ", 0, 2**62)),
    "empty arrays without end": gguf_field(9, struct.pack("<IQ", 9, 2**62) + struct.pack("<IQ", 9, 0) * 9),
    "arrays in arrays": gguf_field(9, struct.pack("<IQ", 9, 1) * 5_000),
    "fields without end": b"GGUF" + struct.pack("<IQQ", 3, 0, 2**63),
    "tensors without end": b"GGUF" + struct.pack("<IQQ", 3, 2**63, 0),
    "an unknown type": gguf_field(99, bytes(8)),
}


@pytest.mark.parametrize("trap", GGUF_TRAPS)
def test_a_gguf_head_that_announces_what_is_not_there_is_refused(trap, tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(GGUF_TRAPS[trap])
    with pytest.raises(ModelError, match="no whole GGUF file"):
        check_head(path)


def test_a_gguf_with_more_layers_than_tensors_is_refused(tmp_path):
    path, data = tmp_path / "model.gguf", bytearray(gguf_files()[0][0])
    at = data.index(b"llama.block_count") + len(b"llama.block_count") + 4
    data[at : at + 4] = struct.pack("<I", 2**31)
    path.write_bytes(data)
    with pytest.raises(ModelError, match="layers"):
        check_head(path)


def test_a_configuration_of_more_layers_than_tensors_begins_no_model(tmp_path):
    model().hf.save_pretrained(tmp_path)
    told = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(told | {"num_hidden_layers": 10**9}))
    with pytest.raises(ModelError, match="announces 1000000000 layers"):
        load_model(tmp_path)


@pytest.mark.parametrize("name", ["../outside.safetensors", "link.safetensors", "/etc/passwd", "hf://x/y"])
def test_a_dictionary_reads_nothing_outside_its_folder(name, tmp_path):
    folder = tmp_path / "dictionary"
    save_circuit_tracer(transcoders(), folder, "m")
    (folder / "layer_1.safetensors").rename(tmp_path / "outside.safetensors")
    (folder / "link.safetensors").symlink_to(tmp_path / "outside.safetensors")
    told = yaml.safe_load((folder / "config.yaml").read_text())
    (folder / "config.yaml").write_text(yaml.safe_dump(told | {"transcoders": ["layer_0.safetensors", name]}))
    with pytest.raises(DictionaryError, match=r"outside its own folder|not here"):
        load_dictionary(folder, model())


def test_a_checkpoint_names_no_file_elsewhere(tmp_path):
    (tmp_path / HEADER).write_text('{"step": 1, "tensors": "../x.safetensors", "data": []}')
    with pytest.raises(TrainingError, match="damaged"):
        Checkpoints(tmp_path).last()


# Databases and spellings -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", ["notes", "annotations"])
def test_a_view_in_place_of_a_table_is_not_run(table, tmp_path):
    columns = ", ".join(f"x as {name}" for name in ("about", "place", "value", "text", "author", "written"))
    endless = f"with recursive c(x) as (select 1 union all select x + 1 from c) select {columns} from c"
    with sqlite3.connect(tmp_path / FILE) as database:
        database.execute(f"create view {table} as {endless}")
    with pytest.raises(OutputError, match="more than tables"):
        Notes(tmp_path).read() if table == "notes" else AnnotationStore(tmp_path).read("x")


@pytest.mark.parametrize(
    "reader, text",
    [
        (FeatureChange.parse, f"encoder:{'9' * 5000}:1=0"), (FeatureChange.parse, "encoder:1:1=1e999"),
        (FeatureChange.parse, f"decoder:1:1=0@{'9' * 5000}"), (FeatureChange.parse, "encoder:1:1=0@1.00001-1.00002"),
        (FeatureChange.parse, "encoder:٣:1=0"), (ComponentChange.parse, f"decoder_blocks.{'9' * 5000}.mlp"),
        (parse_span, f"0-{'9' * 400}"), (parse_span, "-1-2"), (parse_span, "nan-1"), (parse_span, "1-1"),
    ],
)  # fmt: skip
def test_numbers_that_nothing_has_are_refused(reader, text):
    with pytest.raises(OptionError):
        reader(text)
