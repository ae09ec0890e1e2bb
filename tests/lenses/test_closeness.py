"""Closeness: known answers for sound and meaning, and what has neither is left out."""

import math

import numpy as np
import pytest
import torch
from tests.conftest import tiny

from otoscope.errors import OptionError
from otoscope.lenses import closeness as room
from otoscope.lenses.closeness import ClosenessMeter, phoneme_error
from otoscope.lenses.logit_lens import LensReading


class Words:
    """A tokenizer over a list of words: all of one that the meter asks for."""

    def __init__(self, *words):
        self.words, self.all_special_ids = words, [len(words) - 1]

    def decode(self, ids):
        return "".join(self.words[i] for i in ids)


WORDS = (" country", "Country", " nation", " count", "...", "", "<|end|>")


@pytest.fixture
def model():
    model = tiny("llama", vocab_size=97)
    model.processor = Words(*WORDS)
    return model


def reading(*candidates):
    """A reading of one token in one layer with the given candidates."""
    ids = torch.tensor([[list(candidates)]])
    one, count = torch.ones(1, 1), torch.zeros(1, 1, dtype=torch.long)
    return LensReading(ids, torch.ones_like(ids, dtype=torch.float32), one, count, one, (0,))


@pytest.mark.parametrize(
    ("candidate", "final", "error"),
    [
        ("k a t", "k a t", 0.0),
        ("b a t", "k a t", 1 / 3),
        ("", "k a t", 1.0),
        ("k a t s i", "k a t", 2 / 3),
        ("a b c d", "x", 4.0),
    ],
)
def test_the_phoneme_error_counts_edits_over_the_written_tokens_phonemes(candidate, final, error):
    assert phoneme_error(candidate.split(), final.split()) == pytest.approx(error)


def test_a_written_token_without_phonemes_has_no_phoneme_error():
    assert math.isnan(phoneme_error(["a"], []))


def test_a_candidate_that_is_the_token_is_as_close_as_can_be(model):
    close = ClosenessMeter(model)(reading(0, 1), [0])  # " country" and "Country" sound the same
    assert close.settings["phonemes"] == "espeak-ng en"
    assert float(close.phoneme_error[0, 0]) == 0.0
    assert float(ClosenessMeter(model)(reading(0), [0]).cosine[0, 0]) == pytest.approx(1)


def test_sound_and_meaning_tell_different_neighbours_apart(model):
    meter = ClosenessMeter(model, meaning="wordllama")
    nation, count = meter(reading(2), [0]), meter(reading(3), [0])
    assert nation.cosine[0, 0] > count.cosine[0, 0] + 0.2  # a nation is a country
    assert count.phoneme_error[0, 0] < nation.phoneme_error[0, 0]  # "count" sounds more like it


def test_the_written_token_is_the_measure_and_not_the_candidate(model):
    meter = ClosenessMeter(model)
    to_country, to_nation = (float(meter(reading(a), [b]).phoneme_error[0, 0]) for a, b in ((2, 0), (0, 2)))
    assert to_country * 6 == pytest.approx(to_nation * 5)  # k ʌ n t ɹ i and n eɪ ʃ ə n


def test_candidates_without_letters_are_left_out_and_the_others_averaged(model):
    meter = ClosenessMeter(model)
    alone, mixed = meter(reading(2), [0]), meter(reading(4, 2, 5, 6), [0])
    assert alone.cosine.equal(mixed.cosine)
    assert alone.phoneme_error.equal(mixed.phoneme_error)
    both = meter(reading(0, 2), [0])
    assert float(both.cosine[0, 0]) == pytest.approx((1 + float(alone.cosine[0, 0])) / 2)


@pytest.mark.parametrize("candidates, written", [((4, 5, 6), 0), ((0, 2), 4), ((0, 2), 6)])
def test_without_letters_on_either_side_there_is_no_closeness(model, candidates, written):
    close = ClosenessMeter(model)(reading(*candidates), [written])
    assert close.cosine.isnan().all()
    assert close.phoneme_error.isnan().all()


def test_the_unembedding_stands_in_for_an_embedding_that_is_not_installed(model, monkeypatch):
    monkeypatch.setattr(room, "find_spec", lambda name: None)
    close = ClosenessMeter(model)(reading(2), [0])
    assert "unembedding" in str(close.settings["embedding"])
    weight = model.hf.lm_head.weight.detach().double()
    a, b = (weight - weight.mean(dim=0))[[0, 2]]
    assert float(close.cosine[0, 0]) == pytest.approx(float(a @ b / a.norm() / b.norm()))
    with pytest.raises(OptionError, match="not installed"):
        ClosenessMeter(model, meaning="wordllama")


def test_a_language_that_espeak_cannot_speak_has_no_phonemes(model):
    close = ClosenessMeter(model, language="yo")(reading(2), [0])
    assert close.settings["phonemes"] is None
    assert close.phoneme_error.isnan().all()
    assert not close.cosine.isnan().any()


def test_every_string_is_phonemised_once(model, monkeypatch):
    spoken = []
    real = room.espeak.phonemes
    monkeypatch.setattr(
        room.espeak, "phonemes", lambda text, *a, **k: spoken.append(text) or real(text, *a, **k)
    )
    meter = ClosenessMeter(model)
    for _ in range(3):
        meter(reading(0, 1, 2), [0])
    assert sorted(spoken) == ["Country", "country", "nation"]


def test_the_embedding_is_read_from_its_wheel_without_the_network(monkeypatch):
    import socket

    def refuse(*args, **kwargs):
        raise OSError("the network was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    room._wordllama.cache_clear()
    vector = room._wordllama_vector("country")
    assert vector.shape == (256,)
    assert np.linalg.norm(vector) > 0


def test_a_model_without_a_tokenizer_is_refused():
    with pytest.raises(OptionError, match="no tokenizer"):
        ClosenessMeter(tiny("llama"))
