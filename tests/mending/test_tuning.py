"""Head-only fine-tuning: what is taught is learnt, and nothing but the chosen heads' slices changes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.mending.corpora import mixed_corpus, talker

from otoscope.errors import ManifestError, OptionError, TrainingError
from otoscope.mending.applying import repaired
from otoscope.mending.breaker import Breaker
from otoscope.mending.lessons import hear_items, kind_of, lessons_of, until_loop, write_heard
from otoscope.mending.tuning import TuneOptions, learn_gates, parse_heads, tune_heads

pytestmark = pytest.mark.usefixtures("one_thread")

HEADS = ((0, 1), (1, 0), (1, 4))
SIZE = 8


@pytest.fixture(scope="module")
def model():
    return talker()


@pytest.fixture(scope="module")
def heard(model):
    return hear_items(model, mixed_corpus())


@pytest.fixture(scope="module")
def lessons(model, heard):
    """Empty texts for the sounds, and two texts for them, as this model never ends one by itself."""
    texts = [model.tokenizer.decode(d.ids) for d in write_heard(model, heard, 44)]
    again = hear_items(model, mixed_corpus(texts[:2]))
    found = lessons_of(model, again, max_tokens=44)
    return [*found, *(replace(lesson, kind="speech", target=[9, 8, 7, model.end_token]) for lesson in found)]


def test_encoder_outputs_are_those_of_the_model(model, heard):
    for row in heard[:3]:
        with torch.no_grad():
            expected = model.encode(model.features(row.item.clip()))[0]
        torch.testing.assert_close(row.encoded, expected)
    assert [kind_of(row.item) for row in heard] == ["speech", "speech", "repeat", "sound", "sound", "untold"]


def test_what_does_not_fit_is_kept_in_half_precision_or_refused(model):
    corpus = mixed_corpus()
    size = len(corpus) * 50 * 48 / 1e9
    assert hear_items(model, corpus, memory=4.1 * size)[0].encoded.dtype == torch.float32
    assert hear_items(model, corpus, memory=2.1 * size)[0].encoded.dtype == torch.float16
    with pytest.raises(OptionError, match="GB"):
        hear_items(model, corpus, memory=1.9 * size)
    with pytest.raises(ManifestError):
        hear_items(model, [])


def test_sounds_are_taught_to_be_empty_and_speech_as_it_is_written_where_that_is_right(model, lessons):
    assert [lesson.kind for lesson in lessons].count("sound") == 2
    assert all(lesson.target == [model.end_token] for lesson in lessons if lesson.kind == "sound")
    assert all(lesson.target[-1] == model.end_token for lesson in lessons)
    wrong = lessons_of(model, hear_items(model, mixed_corpus(("w50 w51", "w52"))), max_tokens=12)
    assert not [lesson for lesson in wrong if lesson.kind == "speech"]


@pytest.mark.parametrize(
    "ids, cut",
    [([1, 2, 3, *[7, 8] * 9], [1, 2, 3, 7, 8]), ([5] * 20, [5]), ([1, 2, 3, 4], [1, 2])],
)
def test_a_loop_is_taught_to_end_after_its_first_copy(ids, cut):
    assert until_loop(ids, Breaker()) == cut


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "rmsprop", "lbfgs"])
def test_nothing_but_the_slices_of_the_chosen_heads_changes(model, lessons, optimizer):
    before = {name: value.clone() for name, value in model.hf.state_dict().items()}
    grads = {name: p.requires_grad for name, p in model.hf.named_parameters()}
    repair = tune_heads(model, lessons, TuneOptions(HEADS, optimizer, 1e-3, epochs=1, batch=3))
    assert all(torch.equal(value, before[name]) for name, value in model.hf.state_dict().items())
    assert grads == {name: p.requires_grad for name, p in model.hf.named_parameters()}
    assert all(p.grad is None for p in model.hf.parameters())
    for name, value in repair.weights.items():
        layer = int(name.split(".")[3])
        axis = 1 if "out_proj" in name else 0
        chosen = {h * SIZE + i for lay, h in HEADS if lay == layer for i in range(SIZE)}
        different = (value != before[name]).nonzero()[:, axis].unique().tolist()
        assert set(different) == chosen, name
    assert {name.split(".")[3] for name in repair.weights} == {"0", "1"}
    assert not [name for name in repair.weights if "out_proj.bias" in name or "encoder_attn" in name]


def test_what_is_taught_is_learnt(model, lessons):
    every = parse_heads(",".join(f"H{i}" for i in range(6)), model)
    repair = tune_heads(model, lessons, TuneOptions(every, lr=3e-3, epochs=60))
    losses = repair.made["losses"]
    assert losses[-1] < 0.3 * losses[0]
    sounds = [lesson.heard for lesson in lessons if lesson.kind == "sound"]
    assert any(d.ids for d in write_heard(model, sounds, 12))
    with repaired(model, repair):
        assert not any(d.ids for d in write_heard(model, sounds, 12))


def test_learned_gates_are_edits_that_do_what_was_learnt_and_few_where_asked(model, lessons):
    every = parse_heads(",".join(f"H{i}" for i in range(6)), model)
    repair = learn_gates(model, lessons, TuneOptions(every, lr=0.05, epochs=30), sparsity=0)
    losses = repair.made["losses"]
    assert losses[-1] < losses[0]
    assert not repair.weights
    assert {edit.op for edit in repair.edits} == {"scale"}
    few = learn_gates(model, lessons, TuneOptions(every, lr=0.05, epochs=30), sparsity=1e3)
    assert all(abs(edit.alpha - 1) < 0.1 for edit in few.edits)
    assert not model.open_hooks
    assert all(p.requires_grad for p in model.hf.model.decoder.layers.parameters())


def test_the_same_seed_gives_the_same_weights(model, lessons):
    a, b = (tune_heads(model, lessons, TuneOptions(HEADS, epochs=2, batch=2, seed=4)) for _ in range(2))
    assert all(torch.equal(a.weights[name], b.weights[name]) for name in a.weights)


def test_a_loss_that_is_not_finite_stops_and_leaves_the_model_as_it_was(model, lessons):
    before = {name: value.clone() for name, value in model.hf.state_dict().items()}
    with pytest.raises(TrainingError, match="--lr"):
        tune_heads(model, lessons, TuneOptions(HEADS, "sgd", 1e30, epochs=5))
    assert all(torch.equal(value, before[name]) for name, value in model.hf.state_dict().items())


def test_heads_are_named_from_0_and_optimisers_by_torch(model, lessons):
    assert parse_heads("L1H3, h2", model) == ((1, 3), (0, 2), (1, 2))
    for wrong in ("L2H0", "H6", "x", ""):
        with pytest.raises(OptionError):
            parse_heads(wrong, model)
    with pytest.raises(OptionError, match="no optimiser"):
        tune_heads(model, lessons, TuneOptions(HEADS, "wishful"))
    with pytest.raises(OptionError, match="nothing to learn"):
        tune_heads(model, [], TuneOptions(HEADS))
    with pytest.raises(OptionError, match="teach nothing"):
        TuneOptions(HEADS, lr=0)
