from __future__ import annotations

import time

import pytest

from otoscope.models import doctor, hub
from otoscope.models.doctor import examine


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch):
    monkeypatch.setenv("OTOSCOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    hub.hub_reachable.cache_clear()
    yield
    hub.hub_reachable.cache_clear()


def found(checks, name):
    return next(check for check in checks if check.name == name)


def test_a_bare_offline_machine_is_described_with_a_remedy_for_every_lack(tmp_path):
    started = time.perf_counter()
    checks = examine()
    assert time.perf_counter() - started < 30
    assert {check.status for check in checks} <= {"ok", "lack", "broken"}
    assert len({check.name for check in checks}) == len(checks)
    assert all(check.remedy for check in checks if check.status != "ok")
    assert all("\n" not in check.detail for check in checks)
    assert found(checks, "model hub").status == "lack"
    assert found(checks, "package index").status == "lack"
    assert found(checks, "whisper-tiny.en").status == "lack"
    assert "otoscope models get whisper-tiny.en" in found(checks, "whisper-tiny.en").remedy
    assert str(tmp_path / "cache") in found(checks, "cache").detail


def test_a_cache_that_cannot_be_written_is_broken(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("OTOSCOPE_CACHE", str(tmp_path / "file" / "cache"))
    check = doctor._cache()
    assert check.status == "broken"
    assert "OTOSCOPE_CACHE" in check.remedy


def test_damaged_weights_are_found(tmp_path):
    from otoscope.models.sources import REGISTRY

    entry = REGISTRY["whisper-tiny.en"]
    entry.folder.mkdir(parents=True)
    for file in entry.files:
        (entry.folder / file.name).write_bytes(b"damaged")
    check = next(check for check in doctor._weights() if check.name == entry.alias)
    assert check.status == "broken"
    assert "--force" in check.remedy


def test_a_missing_extra_names_the_command_that_brings_it():
    check = doctor._extra("surely-not-installed", "gguf")
    assert (check.status, "otoscope[gguf]" in check.remedy) == ("lack", True)


def test_a_native_library_that_does_not_load_is_a_finding():
    def look():
        raise OSError("cannot load library")

    assert doctor._guarded("audio", look)[0].status == "broken"
