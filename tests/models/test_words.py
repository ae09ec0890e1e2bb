"""Words made of tokens."""

import math
from types import SimpleNamespace

import pytest

from otoscope.models.transcribing import words_of
from otoscope.models.transcripts import Token


def written(*pieces):
    """A model whose tokens decode to these texts, and the tokens with their probabilities."""
    texts = [text for text, _ in pieces]
    model = SimpleNamespace(
        end_token=len(pieces), tokenizer=SimpleNamespace(decode=lambda ids: "".join(texts[i] for i in ids))
    )
    return model, [Token(i, text, math.log(p), 0.0, i, i + 1) for i, (text, p) in enumerate(pieces)]


def test_a_certain_full_stop_does_not_make_a_doubtful_word_certain():
    model, tokens = written((" Yeah", 0.04), (".", 0.7), (" Dash", 0.5), ("wood", 0.9), (" –", 0.2))
    words = words_of(model, tokens, "en")
    assert [word.text for word in words] == ["Yeah.", "Dashwood", "–"]
    assert [word.probability for word in words] == pytest.approx([0.04, 0.7, 0.2])
