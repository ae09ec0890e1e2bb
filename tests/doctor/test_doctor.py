from __future__ import annotations

import pytest

from otoscope.doctor import examine, machine, packages, weights
from otoscope.models import hub


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


def test_a_bare_offline_machine_is_described_with_a_remedy_for_every_lack(tmp_path):
    all_of_them = examine()
    checks = {check.name: check for check in all_of_them}
    assert len(checks) == len(all_of_them)
    assert all(check.remedy for check in all_of_them if check.status != "ok")
    assert all("\n" not in check.detail for check in all_of_them)
    assert all(checks[name].status == "lack" for name in ("model hub", "package index", "whisper-tiny.en"))
    assert "otoscope models get whisper-tiny.en" in checks["whisper-tiny.en"].remedy
    assert str(tmp_path / "cache") in checks["cache"].detail
    assert "thread" in checks["cpu"].detail
    assert checks["memory"].detail.endswith("GB free")


# Packages ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def named(monkeypatch):
    """Let otoscope's metadata name these requirements."""
    return lambda *texts: monkeypatch.setattr(packages.metadata, "requires", lambda _: list(texts))


def test_every_extra_of_users_is_looked_at():
    from importlib.metadata import metadata

    extras = set(metadata("otoscope").get_all("Provides-Extra") or ())
    assert {check.name.strip("[]") for check in packages.look_at_extras()} == extras - {"dev", "docs", "fuzz"}


def test_a_needed_package_that_is_missing_or_too_old_is_broken(named):
    named("surely-not-installed>=2", "numpy<1", "pytest>=7; extra == 'dev'", "never; python_version < '3'")
    own, missing, old = packages.look_at_packages()
    assert (own.name, own.status) == ("otoscope", "ok")
    assert (missing.status, missing.remedy) == ("broken", "Run `pip install 'surely-not-installed>=2'`.")
    assert (old.status, old.detail.split(", ")[1]) == ("broken", "but <1 is needed")


def test_an_extra_that_is_missing_names_the_command_that_brings_it(named):
    named("numpy>=2", "surely-not-installed; extra == 'gguf'", "numpy>=2; extra == 'gguf'")
    gguf = packages.look_at_extras()[0]
    assert (gguf.name, gguf.status) == ("[gguf]", "lack")
    assert gguf.detail.startswith("surely-not-installed not installed, numpy 2")
    assert gguf.remedy == "Run `pip install 'otoscope[gguf]'` to read GGUF files."


# The machine -------------------------------------------------------------------------------------------------------------


def test_a_native_library_that_does_not_load_is_a_finding():
    def look():
        yield from ()
        raise OSError("cannot load library")

    assert machine.guarded("audio", look)[0].status == "broken"


def test_a_machine_without_a_browser_or_memory_is_told_what_to_do(monkeypatch):
    monkeypatch.setenv("OTOSCOPE_CHROMIUM", "surely-not-installed")
    monkeypatch.setattr(machine, "free_memory", lambda: 5e8)
    found = {check.name: check for check in machine.look_at_machine()}
    assert (found["browser"].status, found["memory"].status) == ("lack", "lack")
    assert found["memory"].detail.startswith("0.5 of ")


def test_a_browser_that_tests_of_pages_cannot_use_is_not_taken_for_one(tmp_path, monkeypatch):
    monkeypatch.delenv("OTOSCOPE_CHROMIUM", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("firefox", "google-chrome"):
        assert machine.chromium() is None
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    assert machine.chromium() == str(tmp_path / "google-chrome")


# Weights -----------------------------------------------------------------------------------------------------------------


def test_a_cache_that_cannot_be_written_is_broken(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("OTOSCOPE_CACHE", str(tmp_path / "file" / "cache"))
    check = weights.look_at_weights()[0]
    assert check.status == "broken"
    assert "OTOSCOPE_CACHE" in check.remedy


def test_damaged_weights_are_found():
    from otoscope.models.sources import REGISTRY

    entry = REGISTRY["whisper-tiny.en"]
    entry.folder.mkdir(parents=True)
    for file in entry.files:
        (entry.folder / file.name).write_bytes(b"damaged")
    check = next(check for check in weights.look_at_weights() if check.name == entry.alias)
    assert check.status == "broken"
    assert "--force" in check.remedy
