"""Parts of a job computed elsewhere: the same results, whoever dies meanwhile."""

from __future__ import annotations

import os
import pickle
import signal
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import ray
import torch
from tests.conftest import tiny
from tests.patching.worlds import hearing_whisper, spans
from tests.runs import parts as jobs

from otoscope import load_model
from otoscope.corpora import read_texts
from otoscope.dictionaries.harvesting import SHARD, harvest_places
from otoscope.dictionaries.places import places_of
from otoscope.errors import EditError, ModelError, OptionError
from otoscope.models.transcribing import transcribe_all
from otoscope.models.transcripts import DecodeOptions
from otoscope.patching.sweeping import SweepOptions, sweep_corpus
from otoscope.probes.harvesting import Pools, harvest
from otoscope.runs import OnRay, computed, running_on
from otoscope.runs.engines import TRIES
from otoscope.studies.feature_examples import Examples, collect_examples
from otoscope.studies.kept_transcripts import kept_transcripts

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster():
    """Room for the two workers that stay, and for three of a test's own."""
    ray.init(num_cpus=5, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def workers(cluster):
    """An engine whose two workers stay from test to test."""
    with OnRay(workers=2, threads=1).keeping_workers() as engine:
        yield engine


@pytest.fixture(scope="module")
def language_model(tmp_path_factory):
    from tests.models.tokenizers import word_tokenizer

    model, folder = tiny("llama"), tmp_path_factory.mktemp("model")
    model.hf.save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    return load_model(folder)


@pytest.fixture(scope="module")
def text_file(tmp_path_factory):
    rng = np.random.default_rng(0)
    lines = [" ".join(f"w{i}" for i in rng.integers(3, 90, 12)) for _ in range(3 * SHARD + 2)]
    file = tmp_path_factory.mktemp("texts") / "texts.txt"
    file.write_text("\n".join(lines))
    return file


@pytest.fixture(scope="module")
def texts(text_file):
    return read_texts(text_file)


@pytest.fixture(scope="module")
def there(workers, language_model, texts, tmp_path_factory):
    """The activations that two workers harvest."""
    places = places_of(language_model, "blocks.*.mlp")
    with running_on(workers):
        return harvest_places(language_model, texts, places, tmp_path_factory.mktemp("there") / "s", batch=4)


def test_every_part_comes_once_here_and_on_ray(workers):
    wanted = {n: n**2 for n in range(7)}
    assert dict(computed(jobs.square, range(7))) == wanted
    with running_on(workers):
        found = list(computed(jobs.square, range(7)))
    assert len(found) == 7
    assert dict(found) == wanted


def test_a_worker_that_dies_costs_nothing_but_time(workers, tmp_path):
    with running_on(workers):
        assert dict(computed(partial(jobs.dies_once, str(tmp_path)), range(6))) == {n: n**2 for n in range(6)}
    assert (tmp_path / "died").exists()


def test_a_part_that_kills_every_worker_ends_the_job(workers):
    with running_on(workers), pytest.raises(OptionError, match="its worker died every time"):
        list(computed(jobs.dies_always, [4]))


def test_a_refusal_is_the_same_as_here(workers):
    with running_on(workers), pytest.raises(OptionError, match="Part 3 cannot be") as told:
        list(computed(jobs.refuses, [3]))
    assert told.value.remedy == "Take another."


def test_what_a_worker_cannot_load_is_told_as_it_is(workers):
    with running_on(workers), pytest.raises(ModelError, match="other weights on this machine"):
        list(computed(partial(jobs.square_with, jobs.Unloadable()), [1]))


def _processes(parts) -> set[int]:
    return set(dict(computed(jobs.own_process, parts)).values())


def _is_gone(process: int) -> bool:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        try:
            os.kill(process, 0)  # asks only whether it is there
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def test_workers_are_there_for_one_job_or_for_a_block_that_keeps_them(cluster):
    with running_on(OnRay(workers=1, threads=1)):
        (first,), (second,) = _processes([0, 1]), _processes([0, 1])
    assert len({first, second, os.getpid()}) == 3
    assert _is_gone(first)
    assert _is_gone(second)
    with OnRay(workers=1, threads=1).keeping_workers() as engine, running_on(engine):
        (kept,) = _processes([0])
        assert _processes(range(5)) == {kept}
        assert dict(computed(jobs.square, range(5))) == {
            n: n**2 for n in range(5)
        }  # the new job, not the old
        assert _processes([7]) == {kept}
    assert _is_gone(kept)


def test_kept_workers_that_died_meanwhile_cost_no_part_a_try(cluster, tmp_path):
    with OnRay(workers=TRIES, threads=1).keeping_workers() as engine, running_on(engine):
        together = partial(jobs.own_process_with_others, str(tmp_path), TRIES)
        processes = set(dict(computed(together, range(TRIES))).values())
        assert len(processes) == TRIES
        for process in processes:
            os.kill(process, signal.SIGKILL)
            assert _is_gone(process)
        assert dict(computed(jobs.square, [3])) == {3: 9}


def test_an_error_ends_those_that_are_at_work_and_leaves_those_that_are_idle(cluster, tmp_path):
    with OnRay(workers=2, threads=1).keeping_workers() as engine, running_on(engine):
        both = dict(computed(partial(jobs.own_process_with_others, str(tmp_path), 2), [0, 1]))
        assert len(set(both.values())) == 2
        with pytest.raises(OptionError, match="Part 3 cannot be"):
            list(computed(jobs.refuses, [3]))
        (left,) = _processes([0])
        assert left in both.values()
        assert sum(_is_gone(process) for process in set(both.values()) - {left}) == 1


def test_a_job_that_outlives_the_block_of_its_workers_says_so(cluster):
    with OnRay(workers=1, threads=1).keeping_workers() as engine:
        half = engine.run(jobs.square, range(4))
        next(half)
    with pytest.raises(OptionError, match="dismissed"):
        list(half)


def test_more_workers_than_fit_are_not_waited_for(cluster):
    with running_on(OnRay(workers=7, threads=64)):
        assert dict(computed(jobs.square, range(5))) == {n: n**2 for n in range(5)}


def test_a_harvest_on_two_workers_is_that_of_one_process(there, language_model, texts, tmp_path):
    places = places_of(language_model, "blocks.*.mlp")
    here = harvest_places(language_model, texts, places, tmp_path / "here", batch=4)
    assert here.names == there.names
    for name in here.names:
        np.testing.assert_allclose(there.read(name), here.read(name), atol=1e-6)
    assert there.index.equals(here.index)


class _Struck:
    """An engine whose workers are killed, each part's first when it has computed it and not yet handed it over."""

    def __init__(self, engine: OnRay, folder: Path) -> None:
        self.engine, self.folder = engine, str(folder)

    def run(self, job, parts):
        return self.engine.run(partial(jobs.killed_once, self.folder, job), parts)


def test_a_harvest_begun_here_goes_on_there_and_holds_every_part_once_though_workers_are_killed(
    workers, there, language_model, texts, tmp_path
):
    places, out = places_of(language_model, "blocks.*.mlp"), tmp_path / "begun"
    harvest_places(language_model, texts, places, out, batch=4)
    for left in out.glob("*-0000[01].*"):
        left.unlink()
    kept = {file.name: file.stat().st_mtime_ns for file in out.glob("*-0000[23].*")}
    with running_on(_Struck(workers, tmp_path)):
        struck = harvest_places(language_model, texts, places, out, batch=4)
    assert len(list(tmp_path.glob("killed-*"))) == 2
    assert kept == {file.name: file.stat().st_mtime_ns for file in out.glob("*-0000[23].*")}
    assert struck.shards == there.shards == [0, 1, 2, 3]
    assert struck.index["item"].tolist() == list(range(len(texts)))
    anew = there.index["vectors"][: 2 * SHARD].sum()  # vectors of the two shards that Ray computed both times
    for name in there.names:
        np.testing.assert_array_equal(struck.read(name)[:anew], there.read(name)[:anew])
        np.testing.assert_allclose(struck.read(name), there.read(name), atol=1e-6)
    assert not list(out.glob(".*.part"))


def test_pools_for_probes_and_examples_are_those_of_one_process(
    workers, language_model, texts, text_file, tmp_path
):
    pools = Pools((), ("mean", "last"))
    here = harvest(language_model, texts, tmp_path / "here", pools, batch=4)
    collect_examples(language_model, "neurons", text_file, tmp_path / "x", point="blocks.*.mlp", batch=4)
    with running_on(workers):
        there = harvest(language_model, texts, tmp_path / "there", pools, batch=4)
        collect_examples(language_model, "neurons", text_file, tmp_path / "y", point="blocks.*.mlp", batch=4)
    for name in here.names:
        np.testing.assert_allclose(there.read(name), here.read(name), atol=1e-6)
    ours, theirs = (list(Examples(tmp_path / name)) for name in ("x", "y"))
    assert len(ours) == len(theirs) > 0
    for a, b in zip(ours, theirs, strict=True):
        assert a["density"] == b["density"]
        assert [e["activation"] for e in b["examples"]] == pytest.approx(
            [e["activation"] for e in a["examples"]], abs=1e-4
        )
    assert not (tmp_path / "y" / "moments").exists()


def test_a_sweep_on_two_workers_is_that_of_one_process(workers, tmp_path, monkeypatch):
    model = hearing_whisper(seed=1, dtype=torch.float64)
    again = partial(hearing_whisper, seed=1, dtype=torch.float64)  # it has no files to be loaded from
    monkeypatch.setattr(type(model), "__reduce__", lambda _self: (again, ()))
    options = SweepOptions(parts=("mlp",), max_tokens=28, seed=3)

    def told(out):
        return sweep_corpus(model, spans(), options, out=out, priced=None).to_dict()

    here = told(tmp_path / "here")
    with running_on(workers):
        there = told(tmp_path / "there")
    assert here["n_outcome"] > 1
    assert there == here


def test_transcripts_that_are_kept_are_those_of_one_process(workers, tmp_path, monkeypatch):
    model = hearing_whisper(seed=1, dtype=torch.float64)
    again = partial(hearing_whisper, seed=1, dtype=torch.float64)
    monkeypatch.setattr(type(model), "__reduce__", lambda _self: (again, ()))
    options = DecodeOptions(max_positions=24)
    here = list(transcribe_all(model, spans(), options))
    with running_on(workers):
        there = kept_transcripts(model, spans(), options, tmp_path / "kept")
    assert [t.to_dict() for t in there] == [t.to_dict() for t in here]


def test_a_model_travels_as_its_name_and_not_with_edits_or_without_a_home(language_model):
    sent = pickle.dumps(language_model)
    assert len(sent) < 2000
    arrived = pickle.loads(sent)
    assert arrived.weights_digest() == language_model.weights_digest()
    with (
        language_model.hooks(fwd_hooks=[("blocks.0.hook_resid_post", lambda x, _: x)]),
        pytest.raises(EditError, match="cannot be sent"),
    ):
        pickle.dumps(language_model)
    with pytest.raises(ModelError, match="built in memory"):
        pickle.dumps(tiny("llama"))
