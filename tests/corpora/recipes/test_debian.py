from __future__ import annotations

import shutil
import tarfile

import pytest
from tests.corpora.recipes.debs import deb

from otoscope.corpora.recipes import debian
from otoscope.errors import OptionError


@pytest.fixture(params=["dpkg-deb", "python alone"])
def reader(request, monkeypatch):
    if request.param == "python alone":
        monkeypatch.setattr(debian.shutil, "which", lambda name: None)
    elif shutil.which("dpkg-deb") is None:
        pytest.skip("there is no dpkg-deb here")


def link(name: str, kind: bytes, target: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


@pytest.mark.parametrize("compression", ["xz", "gz"])
@pytest.mark.usefixtures("reader")
def test_the_wanted_files_of_a_package_are_read(tmp_path, compression):
    package = deb(
        tmp_path / "a_1_all.deb", {"./usr/a.wav": b"A" * 999, "./usr/b.txt": b"B"}, compression=compression
    )
    assert dict(debian.contents(package, lambda name: name.endswith(".wav"))) == {"usr/a.wav": b"A" * 999}
    assert dict(debian.contents(package, lambda name: True)).keys() == {"usr/a.wav", "usr/b.txt"}


@pytest.mark.usefixtures("reader")
def test_links_and_devices_are_passed_over_and_nothing_is_written(tmp_path, monkeypatch):
    (tmp_path / "secret").write_text("secret")
    hostile = [
        link("./usr/soft.wav", tarfile.SYMTYPE, str(tmp_path / "secret")),
        link("./usr/hard.wav", tarfile.LNKTYPE, "./usr/a.wav"),
        link("./usr/device.wav", tarfile.CHRTYPE, ""),
        link("./usr/fifo.wav", tarfile.FIFOTYPE, ""),
    ]
    package = deb(
        tmp_path / "a_1_all.deb", {"./usr/a.wav": b"A", "../../../up.wav": b"U", "/etc/x.wav": b"E"}, hostile
    )
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    found = dict(debian.contents(package, lambda name: True))
    assert set(found.values()) == {b"A", b"U", b"E"}
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.usefixtures("reader")
@pytest.mark.parametrize("damage", ["empty", "text", "cut", "no data"])
def test_a_damaged_package_is_refused(tmp_path, damage):
    package = deb(tmp_path / "a_1_all.deb", {"./a": bytes(range(256)) * 400})
    whole = package.read_bytes()
    package.write_bytes(
        {"empty": b"", "text": b"not a package", "cut": whole[: len(whole) - 200], "no data": whole[:68]}[
            damage
        ]
    )
    with pytest.raises(OptionError, match="cannot be read"):
        dict(debian.contents(package, lambda name: True))


def test_packages_are_found_in_a_folder_the_newest_first(tmp_path):
    for version in ("1", "2"):
        deb(tmp_path / f"a_{version}_all.deb", {"./x": b"x"})
    deb(tmp_path / "a-data_9_all.deb", {"./x": b"x"})
    assert debian.fetched(["a"], tmp_path)["a"].name == "a_2_all.deb"


def test_a_package_missing_from_the_folder_is_named(tmp_path):
    with pytest.raises(OptionError, match="no package some-sounds") as error:
        debian.fetched(["some-sounds"], tmp_path)
    assert "some-sounds_*.deb" in error.value.remedy


def test_without_apt_the_way_without_it_is_told(monkeypatch, tmp_path):
    monkeypatch.setenv("OTOSCOPE_CACHE", str(tmp_path))
    monkeypatch.setattr(debian.shutil, "which", lambda name: None)
    with pytest.raises(OptionError, match="no apt-get") as error:
        debian.fetched(["some-sounds"], None)
    assert "--packages" in error.value.remedy


@pytest.mark.skipif(shutil.which("apt-get") is None, reason="there is no apt-get here")
def test_a_package_that_apt_cannot_find_is_named_and_leaves_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("OTOSCOPE_CACHE", str(tmp_path))
    with pytest.raises(OptionError, match="no-such-package-at-all cannot be fetched"):
        debian.fetched(["no-such-package-at-all"], None)
    assert not list(tmp_path.rglob("*.deb"))
    assert not list((tmp_path / "debian").iterdir())


def test_the_name_of_a_package_is_no_option_of_apt():
    """All names come from the catalogue; none begins with a dash or holds a path."""
    from otoscope.corpora.recipes.prompts import _CATALOGUE

    names = {
        name for voices in _CATALOGUE.values() for v in voices for name in (v.package, v.transcript) if name
    }
    assert all(name.replace("-", "").isalnum() and name[0].isalpha() for name in names)
