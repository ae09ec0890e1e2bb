"""Alignments match what is the same, never run backwards, and are what a patch needs."""

from __future__ import annotations

import pytest
import torch
from tests.patching.pairs import METRIC, pair

from otoscope.errors import OptionError
from otoscope.models.transcripts import Word
from otoscope.patching.activation_patching import get_act_patch_resid_pre
from otoscope.patching.aligning import aligned_cache, frame_alignment, identity_alignment, token_alignment

pytestmark = pytest.mark.usefixtures("one_thread")


def words(*timed: tuple[str, float, float]) -> list[Word]:
    return [Word(text, start, end, 1.0, i, i) for i, (text, start, end) in enumerate(timed)]


def test_equal_lengths_align_by_position_and_others_are_refused():
    assert identity_alignment(4, 4).tolist() == [0, 1, 2, 3]
    with pytest.raises(OptionError, match="4 positions, the other 5"):
        identity_alignment(4, 5)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("abcd", "abcd", [0, 1, 2, 3]),
        ("abXd", "abcd", [0, 1, 2, 3]),  # substituted
        ("abd", "abcd", [0, 1, 3]),  # b has one more
        ("abcd", "abd", [0, 1, 1, 2]),  # a has one more: the one before stands for it
        ("XYbc", "bc", [0, 0, 0, 1]),  # at the beginning: the one after
        ("bcXY", "bc", [0, 1, 1, 1]),
    ],
)
def test_tokens_align_by_the_cheapest_edit(a, b, expected):
    assert token_alignment(list(a), list(b)).tolist() == expected


def test_inputs_with_nothing_in_common_are_refused():
    with pytest.raises(OptionError, match="nothing in common"):
        token_alignment([1, 2], [3, 4])
    with pytest.raises(OptionError, match="nothing in common"):
        frame_alignment(words(("yes", 0, 1)), words(("no", 0, 1)), 50, 0.02)
    with pytest.raises(OptionError, match="nothing in common"):
        token_alignment([], [])


def test_frames_are_linear_inside_words_and_between_them():
    a = words(("one", 0.2, 0.4), ("two.", 0.6, 0.8))
    b = words(("One", 0.1, 0.5), ("two", 0.7, 0.8))
    # In hundredths of a window of 1 s; frame i is asked at its middle.
    frames = frame_alignment(a, b, 100, 0.01)
    assert frames[20].item() == 11  # 0.205 s is 1/40 into the word, which is 0.11 s there
    assert frames[30].item() == 31
    assert frames[50].item() == 60  # between 0.4..0.6 and 0.5..0.7
    assert frames[70].item() == 75
    assert frames[10].item() == 5  # from the beginning of both: 0..0.2 and 0..0.1
    assert frames[90].item() == 90  # 0.8..1 in both
    assert (frames.diff() >= 0).all()


def test_a_word_that_is_missing_lies_between_its_neighbours():
    a = words(("he", 0.0, 0.2), ("was", 0.2, 0.6), ("here", 0.6, 1.0))
    b = words(("he", 0.0, 0.2), ("here", 0.4, 0.8))
    frames = frame_alignment(a, b, 50, 0.02)
    assert frames[10:30].tolist() == [10 + (i // 2) for i in range(20)]
    assert frames[30:40].tolist() == list(range(20, 30))


def test_the_same_clip_aligns_with_itself_and_overlapping_times_do_not_run_backwards():
    same = words(("one", 0.1, 0.4), ("two", 0.3, 0.9))
    assert frame_alignment(same, same, 50, 0.02).tolist() == list(range(50))
    tangled = words(("one", 0.5, 0.4), ("two", 0.3, 2.0))
    frames = frame_alignment(same, tangled, 50, 0.02)
    assert (frames.diff() >= 0).all()
    assert frames.min() >= 0
    assert frames.max() < 50


def test_an_aligned_cache_holds_for_each_place_what_stands_for_it():
    case = pair("whisper")
    positions, frames = torch.tensor([0, 1, 1, 3, 4, 6, 6]), torch.arange(50).clamp_max(40)
    cache = aligned_cache(_without_scores(case), positions=positions, frames=frames)
    for name in ("decoder_blocks.1.hook_mlp_out", "decoder_blocks.0.cross_attn.hook_q"):
        assert torch.equal(cache[name], case.clean_cache[name][:, positions])
    for name in ("decoder_blocks.1.cross_attn.hook_k", "encoder_blocks.2.hook_resid_mid"):
        assert torch.equal(cache[name], case.clean_cache[name][:, frames])
    crossed = case.clean_cache["decoder_blocks.1.cross_attn.hook_pattern"][:, :, positions][..., frames]
    torch.testing.assert_close(
        cache["decoder_blocks.1.cross_attn.hook_pattern"], crossed / crossed.sum(-1, keepdim=True)
    )
    own = cache["decoder_blocks.1.self_attn.hook_pattern"]
    assert not own.triu(1).any()
    torch.testing.assert_close(own.sum(-1), torch.ones_like(own.sum(-1)))
    encoder = cache["encoder_blocks.1.attn.hook_pattern"]
    assert encoder.triu(1).any()
    torch.testing.assert_close(encoder.sum(-1), torch.ones_like(encoder.sum(-1)))


def _without_scores(case):
    def plain(name: str) -> bool:
        return name.startswith(("decoder_blocks", "encoder_blocks")) and "scores" not in name

    return case.model.run_with_cache(case.clean, plain)[1]


def test_a_longer_clean_run_is_patched_once_it_is_aligned():
    case = pair("gpt2")
    ids = case.corrupt["input_ids"]
    longer = torch.cat([ids[:, :4], torch.tensor([[7]]), ids[:, 4:]], dim=1)
    _, cache = case.model.run_with_cache({"input_ids": longer})
    positions = token_alignment(ids[0].tolist(), longer[0].tolist())
    assert positions.tolist() == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    fitted = aligned_cache(cache, positions=positions)
    result = get_act_patch_resid_pre(case.model, case.scene, fitted, METRIC)
    assert abs(float(result[0, 2]) - float(METRIC.score(case.scene))) < 1e-9  # the same there
    assert abs(float(result[0, 6]) - float(METRIC.score(case.scene))) > 1e-4


def test_what_cannot_be_aligned_is_refused():
    case = pair("whisper")
    with pytest.raises(OptionError, match="cannot be aligned"):
        aligned_cache(case.clean_cache, positions=torch.arange(7))
    with pytest.raises(OptionError, match="points to 8"):
        aligned_cache(_without_scores(case), positions=torch.tensor([0, 8]))
