"""From a corpus to a judged dictionary, and what is refused on the way."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from tests.conftest import tiny
from tests.models.tokenizers import word_tokenizer

from otoscope.corpora import read_texts
from otoscope.dictionaries.formats.own import load_own
from otoscope.dictionaries.neurons import NeuronBasis
from otoscope.dictionaries.places import places_of
from otoscope.dictionaries.splicing import everywhere, from_position, reconstructing, spliced, within
from otoscope.dictionaries.training.trainer import Trainer
from otoscope.errors import DictionaryError, ManifestError, OptionError, OutputError
from otoscope.runs import ActivationStore
from otoscope.runs.notes import Notes
from otoscope.studies import feature_judging
from otoscope.studies.feature_examples import collect_examples
from otoscope.studies.feature_judging import JudgeOptions, evaluate_features
from otoscope.studies.feature_recipes import read_recipe, recipe_of, shipped_recipes
from otoscope.studies.feature_training import divided, train_features, whole_shards

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def writer():
    model = tiny("llama")
    model.processor = word_tokenizer()
    return model


@pytest.fixture
def texts(tmp_path):
    """Thirty documents, each of one kind of words."""
    g = torch.Generator().manual_seed(0)
    lines = [" ".join(f"w{int(i)}" for i in torch.randint(3, 90, (24,), generator=g)) for _ in range(30)]
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(lines))
    return path


def recipe(**more):
    return recipe_of(
        {"model": "tiny", "point": "blocks.*.mlp", "kind": "skip", "width": 64, "steps": 60, "k": 8, "batch": 64,
         "lr": 1e-2, "warmup": 5, "calibration": 256, "checkpoint_every": 20, "held_out": 0.2} | more
    )  # fmt: skip


@pytest.mark.parametrize(("kind", "point"), [("skip", "blocks.*.mlp"), ("sae", "blocks.1.hook_resid_post")])
def test_a_dictionary_is_learned_judged_and_found_better_than_a_random_one(
    writer, texts, tmp_path, kind, point
):
    learned = train_features(writer, texts, recipe(kind=kind, point=point), tmp_path / "out")
    assert learned.trained_on["items"] + learned.held_out["items"] == 30
    assert learned.scores.l0 <= 8
    held = tmp_path / "out" / "held_out.jsonl"
    assert {item.text for item in read_texts(held)} < set(texts.read_text().splitlines())
    told = evaluate_features(writer, tmp_path / "out", held, JudgeOptions())
    assert {"explained_variance", "l0", "dead", "dense", "loss", "loss_spliced", "loss_recovered"} <= set(
        told
    )
    assert told["explained_variance"] == pytest.approx(learned.scores.explained_variance, abs=1e-4)
    assert told["explained_variance"] > told["controls"]["random"]["explained_variance"]
    assert ("neurons" in told["controls"]) == (kind == "skip")
    json.dumps(told, allow_nan=False)
    again = train_features(writer, texts, recipe(kind=kind, point=point), tmp_path / "out")
    assert again.scores == learned.scores


def test_a_training_that_was_stopped_goes_on_with_the_same_losses(writer, texts, tmp_path, monkeypatch):
    from otoscope.dictionaries.training import trainer

    train_features(writer, texts, recipe(), tmp_path / "whole", store=tmp_path / "vectors")
    inner, calls = trainer.Trainer._record, []

    def stopping(self, line):
        calls.append(line)
        if len(calls) == 5:
            raise KeyboardInterrupt
        inner(self, line)

    monkeypatch.setattr(trainer.Trainer, "_record", stopping)
    with pytest.raises(KeyboardInterrupt):
        train_features(writer, texts, recipe(), tmp_path / "parts", store=tmp_path / "vectors")
    monkeypatch.setattr(trainer.Trainer, "_record", inner)
    train_features(writer, texts, recipe(), tmp_path / "parts", store=tmp_path / "vectors")
    lines = [[json.loads(line)["loss"] for line in (tmp_path / name / "loss.jsonl").read_text().splitlines()]
             for name in ("whole", "parts")]  # fmt: skip
    assert lines[1] == pytest.approx(lines[0], rel=1e-6)
    assert load_own(tmp_path / "parts").layers == 3


def test_no_group_is_in_both_parts(writer, tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_text("\n".join(json.dumps({"text": f"w{i} w4", "speaker": f"s{i % 5}"}) for i in range(3, 40)))
    parts = divided(read_texts(path), recipe(group_by="speaker"), 0)
    speakers = [{item.labels["speaker"] for item in parts[name]} for name in ("train", "test")]
    assert speakers[0] & speakers[1] == set()
    assert all(speakers)


def test_splicing_the_whole_mlp_changes_nothing_and_positions_outside_stay(writer):
    places = places_of(writer, "blocks.*.mlp")
    tokens = torch.tensor([[5, 9, 11, 4, 7]])
    with torch.no_grad():
        clean = writer.forward(tokens).logits
        with spliced(writer, places, reconstructing(NeuronBasis(writer))(), everywhere):
            same = writer.forward(tokens).logits
        zero = lambda _layer, _x, y: torch.zeros_like(y)  # noqa: E731
        with spliced(writer, places, zero, from_position(3)):
            late = writer.forward(tokens).logits
        with spliced(writer, places, zero, within([2])):
            early = writer.forward(tokens).logits
    torch.testing.assert_close(same, clean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(late[:, :3], clean[:, :3])
    assert not torch.allclose(late[:, 3:], clean[:, 3:])
    assert not torch.allclose(early[:, 0], clean[:, 0])


def test_recipes_are_read_without_running_anything_and_unknown_options_are_refused(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("model: a\npoint: blocks.0.mlp\nkind: skip\nwidth: 8\nsteps: 2\nheld_out: 0.3\n")
    assert read_recipe(path).held_out == 0.3
    for text, message in (
        ("!!python/object/apply:os.system ['true']", "cannot be read"),
        ("- a\n- b", "no table"),
        ("model: a", "needs point"),
        ("model: a\npoint: blocks.0.mlp\nwidht: 3", "no option 'widht'"),
        ("model: a\npoint: b\nheld_out: 1.5", "held_out"),
        ("model: a\npoint: b\nheld_out:", "held_out"),
        ("model: a\npoint: b\nalone: yes", "alone"),
    ):
        path.write_text(text)
        with pytest.raises(OptionError, match=message):
            read_recipe(path)


@pytest.mark.parametrize("name", shipped_recipes())
def test_the_recipes_that_come_with_otoscope_are_read_by_name(name):
    assert read_recipe(name).config["steps"] > 100


def test_what_does_not_fit_is_refused(writer, texts, tmp_path):
    with pytest.raises(OptionError, match="cannot be trained at"):
        train_features(writer, texts, recipe(kind="sae"), tmp_path / "a")
    with pytest.raises(OptionError, match="no place of a layer"):
        train_features(writer, texts, recipe(point="nowhere.1.mlp"), tmp_path / "b")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DictionaryError, match="does not say where"):
        evaluate_features(writer, tmp_path / "empty", texts)


def test_a_stream_learns_while_the_model_reads_and_goes_on_where_it_was(writer, texts, tmp_path):
    learned = train_features(writer, texts, recipe(), tmp_path / "out", stream=True)
    assert learned.trained_on["vectors"] is None
    assert learned.held_out["vectors"] > 0
    assert not (tmp_path / "out-vectors" / "train").exists()
    stored = train_features(writer, texts, recipe(), tmp_path / "stored")
    assert learned.scores.explained_variance == pytest.approx(stored.scores.explained_variance, abs=0.1)

    class KilledError(Exception):
        pass

    steps, inner = [], Trainer.update

    def update(self, vectors):
        steps.append(1)
        if len(steps) == 45:
            raise KilledError
        return inner(self, vectors)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "update", update)
        with pytest.raises(KilledError):
            train_features(writer, texts, recipe(), tmp_path / "again", stream=True)
    train_features(writer, texts, recipe(), tmp_path / "again", stream=True)
    lines = [(tmp_path / name / "loss.jsonl").read_text() for name in ("out", "again")]
    assert lines[0] == lines[1]


def test_two_corpora_are_divided_by_the_first_label_that_an_item_has(writer, texts, tmp_path):
    labelled = tmp_path / "more.jsonl"
    labelled.write_text("\n".join(json.dumps({"text": f"w{i} w4 w5", "topic": i // 4}) for i in range(16)))
    corpus = [*read_texts(texts), *read_texts(labelled)]
    parts = divided(corpus, recipe(group_by="speaker,topic"), 0)
    topics = [{item.labels["topic"] for item in parts[part] if item.labels} for part in ("train", "test")]
    assert not topics[0] & topics[1]
    assert topics[1]
    learned = train_features(writer, [texts, labelled], recipe(group_by="topic"), tmp_path / "out")
    assert learned.trained_on["items"] + learned.held_out["items"] == 46


def test_a_judgement_that_was_stopped_goes_on(writer, texts, tmp_path, monkeypatch):
    monkeypatch.setenv("OTOSCOPE_CACHE", str(tmp_path / "cache"))
    train_features(writer, texts, recipe(), tmp_path / "out")
    held = tmp_path / "out" / "held_out.jsonl"
    whole = evaluate_features(writer, tmp_path / "out", held)
    assert not list((tmp_path / "cache" / "judging").iterdir())
    done, inner = [], feature_judging._read

    def read(*args):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(1)
        return inner(*args)

    monkeypatch.setattr(feature_judging, "_read", read)
    with pytest.raises(KeyboardInterrupt):
        evaluate_features(writer, tmp_path / "out", held)
    done.clear()
    again = evaluate_features(writer, tmp_path / "out", held)
    assert len(done) == 2  # five in all
    assert json.dumps(again, default=str) == json.dumps(whole, default=str)


def test_a_stream_of_nothing_ends_in_a_sentence(writer, texts, tmp_path):
    empty = tmp_path / "empty.jsonl"
    empty.write_text("\n".join([json.dumps({"text": " "})] * 6))
    with pytest.raises((ManifestError, OptionError)):
        train_features(writer, empty, recipe(), tmp_path / "out", stream=True)


def test_a_training_goes_on_with_the_same_data_alone(writer, texts, tmp_path):
    train_features(writer, texts, recipe(), tmp_path / "out", stream=True)
    with pytest.raises(OptionError, match="begun with"):
        train_features(writer, texts, recipe(), tmp_path / "out")


def test_random_features_are_not_scored_on_what_they_were_fitted_to(writer, texts, tmp_path, monkeypatch):
    monkeypatch.setattr("otoscope.dictionaries.harvesting.SHARD", 2)
    train_features(writer, texts, recipe(), tmp_path / "out")
    store = ActivationStore.read_from(tmp_path / "out-vectors" / "train")
    rows = torch.cat([v.inputs[0] for v in whole_shards(store, ["input.0"], None)])
    np.testing.assert_array_equal(rows, store.read("input.0"))  # so the first ones are the same for both


def test_names_stay_with_the_features_that_they_were_given_to(writer, texts, tmp_path):
    for name in ("a", "b"):
        train_features(writer, texts, recipe(seed=int(name == "b")), tmp_path / name)
    collect_examples(writer, tmp_path / "a", texts, tmp_path / "x")
    Notes(tmp_path / "x").write("feature 0 1", "mine")
    collect_examples(writer, tmp_path / "a", texts, tmp_path / "x")  # the same dictionary again
    with pytest.raises(OutputError, match="names of features of another dictionary"):
        collect_examples(writer, tmp_path / "b", texts, tmp_path / "x")
