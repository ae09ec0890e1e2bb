"""Searching repairs."""

from __future__ import annotations

import pytest
import torch
from tests.mending.corpora import mixed_corpus, talker

from otoscope.activations import Edit
from otoscope.errors import OptionError
from otoscope.mending.directions import (
    decoder_states,
    invented_subspace,
    mean_difference,
    probe_direction,
    projecting,
    steering,
)
from otoscope.mending.lessons import hear_items, write_heard
from otoscope.mending.repair import Repair, load_repair
from otoscope.mending.search import (
    _LOG,
    Score,
    SearchOptions,
    Trial,
    _Bench,
    pareto_front,
    pick,
    score_texts,
    search_repair,
)
from otoscope.probes.linear import LinearProbe, save_probes

pytestmark = pytest.mark.usefixtures("one_thread")

OPTIONS = SearchOptions(heads=((0, 1), (1, 2)), gates=2, trials=6, max_tokens=20)


@pytest.fixture(scope="module")
def model():
    return talker()


@pytest.fixture(scope="module")
def heard(model):
    return hear_items(model, mixed_corpus())


def trial(number, loops, invented, price):
    return Trial(number, {}, Score(loops, invented, price, 9), True)


def test_the_front_is_what_nothing_beats_and_the_budget_decides():
    trials = [
        trial(0, 1, 1, 0),
        trial(1, 0.5, 1, 0.5),
        trial(2, 0.5, 1, 0.5),
        trial(3, 0.6, 1, 0.7),
        trial(4, 0, 0, 9),
    ]
    front = pareto_front(trials)
    assert [t.number for t in front] == [0, 1, 4]
    assert pick(front) == (trials[1], True)
    assert pick([trials[4]]) == (trials[4], False)


def test_texts_are_scored_beside_those_of_the_untouched_model(heard):
    loop = "a b c d " * 9
    before = ["w1 w77 w2", "w3", "w77 w77 w77 w77", "you", "", loop]
    options = SearchOptions(heads=((0, 0),), wer_budget=0.25)
    assert score_texts(heard, before, before, options).values == (1, 1, 0)
    after = ["w1 w77", "w3", "w77 w77 w77 w77", "", "", "a b c d"]
    score = score_texts(heard, before, after, options)
    assert (score.loops, score.invented) == (0, 0)
    assert score.price == pytest.approx(1.0)  # one of four words is lost: just the budget
    lost = score_texts(heard, before, [*before[:2], "w77", *before[3:]], options)
    assert lost.price == pytest.approx(10.0)  # all of the repetitions, in tenths


def test_a_search_finds_keeps_and_goes_on(model, tmp_path):
    result = search_repair(model, mixed_corpus(), OPTIONS, tmp_path / "run")
    assert len(result.trials) == 6
    assert result.trials[0].score.values == (1, 1, 0)  # nothing at all
    assert result.within
    found = load_repair(tmp_path / "run")
    assert found.to_dict() == result.repair.to_dict()
    assert found.made["used"]["recordings"]
    more = SearchOptions(heads=OPTIONS.heads, gates=2, trials=8, max_tokens=20)
    longer = search_repair(model, mixed_corpus(), more, tmp_path / "run")
    assert [t.params for t in longer.trials[:6]] == [t.params for t in result.trials]
    assert len(longer.trials) == 8
    with pytest.raises(OptionError, match="begun with"):
        search_repair(model, mixed_corpus()[:5], more, tmp_path / "run")


def test_a_search_that_was_killed_gives_the_same_first_trials(model, tmp_path):
    whole = search_repair(model, mixed_corpus(), OPTIONS, tmp_path / "a")
    again = search_repair(model, mixed_corpus(), OPTIONS, tmp_path / "b")
    assert [t.params for t in whole.trials] == [t.params for t in again.trials]
    assert [t.score for t in whole.trials] == [t.score for t in again.trials]


def test_a_search_goes_on_as_it_would_have_whatever_was_left_half_done(model, tmp_path, monkeypatch):
    whole = search_repair(model, mixed_corpus(), OPTIONS, tmp_path / "whole")
    objective, tries = _Bench.objective, []

    def dies(self, trial):
        tries.append(trial.number)
        if len(tries) in (1, 4):  # in the first trial of all, and in the third that counts
            raise KeyboardInterrupt
        return objective(self, trial)

    monkeypatch.setattr(_Bench, "objective", dies)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            search_repair(model, mixed_corpus(), OPTIONS, tmp_path / "killed")
        with (tmp_path / "killed" / _LOG).open("a") as file:
            file.write('{"op_code": 5, "worker')  # a line that a full disk cut off
        # Optuna's own lock, left by a process that was killed while it wrote, would be waited for.
        (tmp_path / "killed" / f"{_LOG}.lock").unlink(missing_ok=True)
        (tmp_path / "killed" / f"{_LOG}.lock").symlink_to(_LOG)
    again = search_repair(model, mixed_corpus(), OPTIONS, tmp_path / "killed")
    assert [(t.params, t.score) for t in again.trials] == [(t.params, t.score) for t in whole.trials]
    assert again.trials[0].score.values == (1, 1, 0)  # nothing at all, though its first attempt was killed


def test_a_search_that_was_stopped_in_its_baseline_writes_the_rest_of_it(model, tmp_path, monkeypatch):
    from otoscope.mending import baseline

    write, written = baseline.write_heard, []

    def dies(model, heard, *more):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(len(heard))
        return write(model, heard, *more)

    monkeypatch.setattr(baseline, "_SHARD", 2)
    monkeypatch.setattr(baseline, "write_heard", dies)
    options = SearchOptions(heads=((0, 1),), trials=1, max_tokens=8)
    with pytest.raises(KeyboardInterrupt):
        search_repair(model, mixed_corpus(), options, tmp_path / "run")
    monkeypatch.setattr(
        baseline, "write_heard", lambda *given: written.append(len(given[1])) or write(*given)
    )
    search_repair(model, mixed_corpus(), options, tmp_path / "run")
    assert written == [2, 2, 2]  # six recordings, each once


def test_trials_are_added_to_a_repair_to_start_from(model, tmp_path):
    name = "model.decoder.layers.0.fc2.bias"
    start = Repair.of(
        model, "start", edits=(Edit.zero("decoder_blocks.0.hook_attn_out"),), weights={name: torch.ones(48)}
    )
    parts = ("steer", "project", "strength")
    options = SearchOptions(heads=((0, 1),), parts=parts, trials=2, max_tokens=8)
    result = search_repair(model, mixed_corpus(), options, tmp_path / "run", start=start)
    assert result.repair.edits[0].point == "decoder_blocks.0.hook_attn_out"
    assert set(result.repair.weights) == {name}
    assert all("strength" in trial.params for trial in result.trials)


def test_what_cannot_be_searched_is_refused():
    with pytest.raises(OptionError, match="Choose of"):
        SearchOptions(heads=(), parts=("prayer",))
    with pytest.raises(OptionError, match="above 0"):
        SearchOptions(heads=(), trials=0)


def test_strength_without_weights_to_weaken_is_refused_before_anything_is_written(model, tmp_path):
    options = SearchOptions(heads=((0, 1),), parts=("strength",))
    with pytest.raises(OptionError, match="start from"):
        search_repair(model, mixed_corpus(), options, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_search_in_which_nothing_helps_makes_no_repair(model, tmp_path):
    options = SearchOptions(heads=((0, 1),), trials=1, max_tokens=8)  # the first trial is to do nothing
    result = search_repair(model, mixed_corpus(), options, tmp_path / "run")
    assert result.repair is None
    assert result.to_dict()["repair"] is None
    assert (tmp_path / "run" / "search.json").exists()
    assert not (tmp_path / "run" / "repair.json").exists()


def test_states_are_the_mean_over_the_positions_that_write(model, heard):
    decoded = write_heard(model, heard[:2], 6)
    prompt = len(decoded[0].prompt)
    states = decoder_states(model, heard[:2], [[*d.prompt, *d.ids] for d in decoded], prompt)
    for i, d in enumerate(decoded):
        feed = {
            "encoder_outputs": (heard[i].encoded[None],),
            "decoder_input_ids": torch.tensor([[*d.prompt, *d.ids]]),
        }
        _, cache = model.run_with_cache(feed, "decoder_blocks.1.hook_resid_post")
        expected = cache["resid_post", 1][0, prompt - 1 :].double().mean(dim=0)
        torch.testing.assert_close(states[1][i], expected, atol=1e-4, rtol=1e-4)


def test_a_planted_subspace_is_found_and_taken_out(model):
    draw = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(48, 2, generator=draw, dtype=torch.float64))[0].T
    empty = 0.01 * torch.randn(40, 48, generator=draw, dtype=torch.float64)
    invented = torch.randn(40, 2, generator=draw, dtype=torch.float64) @ basis + empty
    found = invented_subspace(invented, empty, 2)
    assert torch.linalg.svdvals(found @ basis.T).min() > 0.99
    assert projecting(found, 1).value.shape == (2, 48)
    difference = mean_difference(invented + 1, invented)
    torch.testing.assert_close(difference, torch.ones(48, dtype=torch.float64))
    assert torch.allclose(steering(difference, 0, 2.5).value, torch.tensor(2.5))
    with pytest.raises(OptionError, match="rank 41"):
        invented_subspace(invented, empty, 41)
    with pytest.raises(OptionError):
        mean_difference(invented, invented[:0])


def test_a_saved_probe_is_a_direction_to_steer_along(tmp_path):
    import numpy as np

    probe = LinearProbe(np.array([[3.0, 4.0]]), np.zeros(1), ("no", "yes"))
    save_probes(tmp_path / "probes", {1: probe}, {})
    torch.testing.assert_close(probe_direction(tmp_path / "probes", 1).float(), torch.tensor([0.6, 0.8]))
    torch.testing.assert_close(
        probe_direction(tmp_path / "probes", 1, "no").float(), torch.tensor([-0.6, -0.8])
    )
    with pytest.raises(OptionError, match="layer 0"):
        probe_direction(tmp_path / "probes", 0)
    with pytest.raises(OptionError, match="no class"):
        probe_direction(tmp_path / "probes", 1, "perhaps")
