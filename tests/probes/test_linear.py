"""A probe finds a planted direction, in the units of the activations, and survives a save."""

from __future__ import annotations

import numpy as np
import pytest

from otoscope.errors import OptionError
from otoscope.probes.linear import fit_probe, held_out, load_probes, save_probes


def planted(n=400, d=30, seed=0):
    """Activations of very different scales in which unit 3 tells the classes apart."""
    rng = np.random.default_rng(seed)
    y = rng.integers(2, size=n)
    scale = np.geomspace(0.01, 100, d)
    x = rng.standard_normal((n, d))
    x[:, 3] += 4 * y
    return (x * scale + 5 * scale).astype(np.float32), y, scale


def test_the_direction_of_a_probe_is_the_planted_one():
    x, y, _ = planted()
    probe = fit_probe(x, y, ("a", "b"))
    standardised = probe.weight[0] * x.std(axis=0)
    assert np.argmax(np.abs(standardised)) == 3
    assert standardised[3] > 0
    assert np.mean(probe.predict(x) == y) > 0.95
    assert np.linalg.norm(probe.direction, axis=1) == pytest.approx(1)


def test_several_classes_and_numbers_are_told_too():
    rng = np.random.default_rng(1)
    y = rng.integers(3, size=600)
    x = rng.standard_normal((600, 10))
    x[np.arange(600), y] += 4
    assert np.mean(fit_probe(x, y, ("a", "b", "c")).predict(x) == y) > 0.95
    number = x[:, 5] * 7 + 100
    assert np.corrcoef(fit_probe(x, number).predict(x), number)[0, 1] > 0.99


def test_a_unit_that_never_changes_gets_no_weight():
    x, y, _ = planted()
    x[:, 7] = 3.0
    assert fit_probe(x, y, ("a", "b")).weight[0, 7] == 0


def test_held_out_scores_come_from_probes_that_never_saw_the_row():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((200, 150)), rng.integers(2, size=200)  # nothing to learn, much to memorise
    folds = [(np.arange(100, 200), np.arange(100)), (np.arange(100), np.arange(100, 200))]
    scores = held_out(x, y, folds, ("a", "b"), strength=100)
    assert 0.35 < np.mean((scores[:, 0] > 0) == y) < 0.65
    assert np.mean(fit_probe(x, y, ("a", "b"), strength=100).predict(x) == y) > 0.9


def test_probes_survive_a_save(tmp_path):
    x, y, _ = planted()
    probe = fit_probe(x, y, ("a", "b"))
    save_probes(tmp_path / "p.safetensors", {2: probe}, {"label": "gender"})
    probes, facts = load_probes(tmp_path / "p.safetensors")
    assert facts == {"label": "gender"}
    assert probes[2].classes == ("a", "b")
    np.testing.assert_array_equal(probes[2].weight, probe.weight.astype(np.float32))


def test_a_file_that_holds_no_probes_is_refused(tmp_path):
    (tmp_path / "p.safetensors").write_bytes(b"\x00" * 20)
    with pytest.raises(OptionError, match="holds no probes"):
        load_probes(tmp_path / "p.safetensors")
