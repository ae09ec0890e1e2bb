from __future__ import annotations

import pytest
import torch

from otoscope.planning.machine import UNMEASURED
from otoscope.planning.rehearsal import Cost, Rehearsal


def meta(*shape, dtype=torch.float32):
    return torch.empty(*shape, device="meta", dtype=dtype)


def rehearsed(work) -> Cost:
    with Rehearsal(UNMEASURED) as rehearsal:
        work()
    return rehearsal.cost


def test_a_matrix_product_takes_two_operations_a_number():
    a, b = meta(30, 40), meta(40, 50)
    cost = rehearsed(lambda: a @ b)
    assert cost.flops == 2 * 30 * 40 * 50
    assert cost.moved == 4 * (30 * 40 + 40 * 50 + 30 * 50)
    assert cost.peak == 4 * 30 * 50


def test_memory_is_what_lives_at_once_and_not_what_was_there_before():
    given = meta(1000)

    def two_of_three() -> torch.Tensor:
        x = given + 1
        x = x + 1  # the first is let go once the second is there
        return x + 1

    assert rehearsed(two_of_three).peak == 2 * 4000
    assert rehearsed(lambda: given.view(10, 100).T).peak == 0


def test_a_view_moves_nothing_and_an_expanded_tensor_only_what_it_holds():
    one = meta(1, 1000)
    assert rehearsed(lambda: one.expand(50, -1)).moved == 0
    assert rehearsed(lambda: one.expand(50, -1).sum()).moved == 4000 + 4


def test_attention_holds_no_scores():
    q = meta(1, 2, 500, 64)
    cost = rehearsed(lambda: torch.nn.functional.scaled_dot_product_attention(q, q, q))
    assert cost.flops == 4 * 2 * 500 * 500 * 64
    assert cost.peak == 4 * 2 * 500 * 64


def test_a_question_about_numbers_does_not_stop_a_rehearsal():
    assert rehearsed(lambda: bool((meta(5) == 0).all())).calls > 0


def test_costs_add_up_and_peaks_do_not():
    a, b = Cost(1, 2, 3, 4, 5), Cost(10, 20, 30, 40, 3)
    assert a + b == Cost(11, 22, 33, 44, 5)
    assert b * 2 == Cost(20, 40, 60, 80, 3)
    assert a.holding(7).peak == 12


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_half_and_double_precision_move_half_and_double(dtype):
    x, y = meta(100, 100), meta(100, 100, dtype=dtype)
    assert rehearsed(lambda: y + y).moved / rehearsed(lambda: x + x).moved == dtype.itemsize / 4
