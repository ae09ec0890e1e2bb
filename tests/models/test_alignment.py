from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from otoscope.models.alignment import attention_over_frames, smoothed, token_frames, warp


def brute_force(cost: np.ndarray) -> float:
    """Cheapest monotonic path from corner to corner, by the textbook recurrence, a cell at a time."""
    n, m = cost.shape
    total = np.full((n, m), np.inf)
    for i, j in itertools.product(range(n), range(m)):
        before = [total[i - a, j - b] for a, b in ((1, 1), (1, 0), (0, 1)) if i >= a and j >= b]
        total[i, j] = cost[i, j] + (min(before) if i or j else 0)
    return total[-1, -1]


@given(n=st.integers(1, 12), m=st.integers(1, 15), seed=st.integers(0, 10**6), ties=st.booleans())
@settings(deadline=None, max_examples=150)
def test_the_path_is_monotonic_whole_and_as_cheap_as_any(n, m, seed, ties):
    g = np.random.default_rng(seed)
    cost = g.integers(-2, 3, (n, m)).astype(float) if ties else g.normal(size=(n, m))
    rows, columns = warp(cost)
    assert (rows[0], columns[0], rows[-1], columns[-1]) == (0, 0, n - 1, m - 1)
    steps = set(zip(np.diff(rows).tolist(), np.diff(columns).tolist(), strict=True))
    assert steps <= {(1, 1), (1, 0), (0, 1)}
    assert cost[rows, columns].sum() == pytest.approx(brute_force(cost), abs=1e-9)


def test_a_planted_path_is_found():
    planted = [(0, 0), (0, 1), (0, 2), (1, 3), (2, 3), (3, 4), (3, 5), (3, 6), (4, 7)]
    cost = np.ones((5, 8))
    for cell in planted:
        cost[cell] = -1
    rows, columns = warp(cost)
    assert list(zip(rows.tolist(), columns.tolist(), strict=True)) == planted


def diagonal(tokens: int, frames: int, heads: int = 3, noise: float = 0.2, seed: int = 0) -> torch.Tensor:
    """Attention whose token i looks at the i-th stretch of frames."""
    g = torch.Generator().manual_seed(seed)
    scores = noise * torch.rand(heads, tokens, frames, generator=g)
    for i in range(tokens):
        scores[:, i, i * frames // tokens : (i + 1) * frames // tokens] += 5
    return scores.softmax(-1)


@pytest.mark.parametrize(("tokens", "frames"), [(1, 1), (1, 30), (5, 100), (9, 90), (12, 300)])
def test_tokens_begin_where_attention_moves_to_them(tokens, frames):
    starts = token_frames(diagonal(tokens, frames))
    assert starts.shape == (tokens,)
    assert starts[0] == 0
    assert np.abs(starts - np.arange(tokens) * frames // tokens).max() <= 1


@given(
    heads=st.integers(1, 3), tokens=st.integers(1, 9), frames=st.integers(1, 40), seed=st.integers(0, 10**6)
)
@settings(deadline=None, max_examples=100)
def test_times_never_fall_and_there_is_one_a_token_whatever_the_attention(heads, tokens, frames, seed):
    g = torch.Generator().manual_seed(seed)
    starts = token_frames(torch.randn(heads, tokens, frames, generator=g).mul(3).softmax(-1))
    assert starts.shape == (tokens,)
    assert (np.diff(starts) >= 0).all()
    assert ((starts >= 0) & (starts < frames)).all()


def test_attention_is_renormalised_over_the_frames_that_hold_sound():
    g = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 3, 4, generator=g), torch.randn(2, 10, 4, generator=g)
    attention = attention_over_frames(q, k, frames=6)
    assert attention.shape == (2, 3, 6)
    whole = torch.einsum("hqd,hkd->hqk", q, k).softmax(-1)[..., :6]
    torch.testing.assert_close(attention, whole / whole.sum(-1, keepdim=True))


def test_attention_is_smoothed_as_openai_does():
    """Standardised over tokens, padded by reflection without repeating the edge, median of seven."""
    attention = torch.rand(3, 5, 40, generator=torch.Generator().manual_seed(0))
    std, mean = torch.std_mean(attention, dim=-2, keepdim=True, unbiased=False)
    padded = torch.nn.functional.pad((attention - mean) / std, (3, 3), mode="reflect")
    expected = padded.unfold(-1, 7, 1).sort(dim=-1).values[..., 3]
    np.testing.assert_allclose(smoothed(attention), expected.numpy(), rtol=1e-5, atol=1e-6)
