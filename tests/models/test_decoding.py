from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.models.talking import encode, sound, talking_whisper

from otoscope.activations import Edit
from otoscope.errors import OptionError
from otoscope.models.decoding import DecoderSession, decode, detect_languages, prompts_for
from otoscope.models.transcripts import DecodeOptions

CLIPS = 6


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model():
    return talking_whisper()


@pytest.fixture(scope="module")
def encoded(model):
    return encode(model, sound(CLIPS))


def prompts(model, rows: int) -> torch.Tensor:
    return torch.tensor([model.prompt("en")] * rows)


def one_by_one(model, encoded, *edits: Edit, **kwargs) -> list:
    """Each row in a batch of its own, with its own edits on row 0."""
    out = []
    for i in range(len(encoded)):
        own = [
            replace(e, rows=None if e.rows is None else (0,)) for e in edits if e.rows is None or i in e.rows
        ]
        with model.editing(*own):
            out += decode(model, encoded[i : i + 1], prompts(model, 1), **kwargs)
    return out


def by_hand(
    model, encoded: torch.Tensor, limit: int = 32
) -> tuple[list[int], list[float], list[float], bool]:
    """Greedy, a row at a time, the whole prefix anew at every step, no cache: ids, log-probabilities, entropies, finished."""
    config, ids = model.hf.generation_config, model.prompt("en")
    start, logprobs, entropies = len(ids), [], []
    while len(ids) < limit:
        with torch.no_grad():
            out = model.hf.model.decoder(
                torch.tensor([ids]), encoder_hidden_states=encoded[None], use_cache=False
            )
            logits = model.hf.proj_out(out.last_hidden_state)[0, -1]
        logits[config.suppress_tokens] = -torch.inf
        if len(ids) == start:
            logits[config.begin_suppress_tokens] = -torch.inf
        p = logits.softmax(-1)
        token = int(p.argmax())
        logprobs.append(float(p[token].log()))
        if token == config.eos_token_id:
            return ids[start:], logprobs, entropies, True
        entropies.append(float(-(p[p > 0] * p[p > 0].log()).sum()))
        ids.append(token)
    return ids[start:], logprobs, entropies, False


def test_decoding_equals_a_greedy_loop_by_hand(model, encoded):
    rows = decode(model, encoded, prompts(model, CLIPS))
    lengths = set()
    for row, states in zip(rows, encoded, strict=True):
        ids, logprobs, entropies, finished = by_hand(model, states)
        assert (row.ids, row.finished) == (ids, finished)
        assert row.logprobs == pytest.approx(logprobs, abs=1e-4)
        assert row.entropies == pytest.approx(entropies, abs=1e-4)
        assert row.prompt == model.prompt("en")
        lengths.add((len(ids), finished))
    assert len(lengths) > 2, "rows should end at different steps"
    assert {finished for _, finished in lengths} == {True, False}


def test_decoding_equals_hugging_face_generate(model, encoded):
    out = model.generate(sound(CLIPS), language="en", task="transcribe", do_sample=False)
    end = model.end_token
    expected = [(ids[: ids.index(end)], True) if end in ids else (ids, False) for ids in out.tolist()]
    assert [(row.ids, row.finished) for row in decode(model, encoded, prompts(model, CLIPS))] == expected


def test_a_batch_writes_what_its_rows_write_alone(model, encoded):
    together, alone = (
        decode(model, encoded, prompts(model, CLIPS), align=True),
        one_by_one(model, encoded, align=True),
    )
    for a, b in zip(together, alone, strict=True):
        assert (a.ids, a.finished) == (b.ids, b.finished)
        assert a.logprobs == pytest.approx(b.logprobs, abs=1e-4)
        assert a.no_speech_prob == pytest.approx(b.no_speech_prob, abs=1e-6)
        torch.testing.assert_close(a.queries, b.queries, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(a.keys, b.keys, rtol=1e-3, atol=1e-4)


def test_rows_leave_the_batch_when_they_are_done(model, encoded):
    sizes = []
    with model.hooks([("decoder_blocks.0.hook_resid_pre", lambda x, h: sizes.append((len(x), h.rows)))]):
        rows = decode(model, encoded, prompts(model, CLIPS))
    assert sizes[0][0] == CLIPS
    assert sizes[-1][0] < CLIPS
    for size, present in sizes:
        assert size == len(present)
    for step, (_, present) in enumerate(sizes):
        unfinished = {i for i, row in enumerate(rows) if not row.finished or len(row.ids) >= step}
        assert unfinished <= set(present)


ROW_EDITS = [
    Edit.add("decoder_blocks.1.hook_resid_post", torch.linspace(-4, 4, 48), rows=(0, 5)),
    Edit.zero("decoder_blocks.0.cross_attn.hook_z", rows=2),
    Edit.scale("decoder_blocks.1.self_attn.hook_z", -4, rows=4, heads=(0, 2, 4)),
    Edit.replace("decoder_blocks.1.cross_attn.hook_attn_scores", torch.tensor(-1e9), rows=3, keys=range(20)),
    Edit.add("decoder_blocks.0.hook_mlp_out", torch.linspace(5, -5, 48), rows=(3, 5), positions=range(8, 20)),
]


def test_rows_that_go_on_take_no_new_memory_and_leave_what_was_heard_as_it_was(model, encoded):
    before = encoded.clone()
    session = DecoderSession(model, encoded)
    with torch.no_grad():
        session.step(prompts(model, CLIPS))
    parts = (session.cache.self_attention_cache, session.cache.cross_attention_cache)
    layers = [layer for part in parts for layer in part.layers]
    whole = [(layer.keys, layer.keys.clone()) for layer in layers]
    session.keep([1, 4, 5])
    session.keep([0, 2])
    assert session.rows == [1, 5]
    for layer, (keys, copy) in zip(layers, whole, strict=True):
        assert torch.equal(layer.keys, copy[[1, 5]])
        assert layer.keys.data_ptr() == keys.data_ptr()
    assert torch.equal(encoded, before)


def test_edits_stay_with_their_rows_after_others_have_left(model, encoded):
    with model.editing(*ROW_EDITS):
        together = decode(model, encoded, prompts(model, CLIPS))
    alone = one_by_one(model, encoded, *ROW_EDITS)
    assert [row.ids for row in together] == [row.ids for row in alone]
    for a, b in zip(together, alone, strict=True):
        assert a.logprobs == pytest.approx(b.logprobs, abs=1e-4)
    plain = decode(model, encoded, prompts(model, CLIPS))
    changed = [a.ids != b.ids for a, b in zip(together, plain, strict=True)]
    assert changed[1] is False
    assert sum(changed) >= 4, "most edited rows should write something else"


def test_a_reference_with_rows_is_read_at_the_original_row(model, encoded):
    reference = torch.randn(CLIPS, 32, 48, generator=torch.Generator().manual_seed(4)) * 3
    edit = Edit.mix("decoder_blocks.1.hook_resid_mid", reference, 0.7)
    with model.editing(edit):
        together = decode(model, encoded, prompts(model, CLIPS))
    for i in range(CLIPS):
        with model.editing(replace(edit, value=reference[i : i + 1])):
            (alone,) = decode(model, encoded[i : i + 1], prompts(model, 1))
        assert together[i].ids == alone.ids


@pytest.mark.parametrize("clip_of_row", [[0] * 5, [0, 0, 1, 2, 1], [3, 0, 3]])
def test_rows_that_share_a_clip_write_what_they_write_apart(model, encoded, clip_of_row):
    clips = encoded[:1] if set(clip_of_row) == {0} else encoded[:4]
    rows = len(clip_of_row)
    edit = Edit.add("decoder_blocks.1.hook_resid_post", torch.linspace(-4, 4, 48), rows=rows - 1)
    projected = []
    with model.editing(edit):
        module = model.hf.model.decoder.layers[0].encoder_attn.k_proj
        handle = module.register_forward_hook(lambda m, a, out: projected.append(len(out)))
        shared = decode(model, clips, prompts(model, rows), clip_of_row=clip_of_row, align=True)
        handle.remove()
        apart = decode(model, clips[clip_of_row], prompts(model, rows), align=True)
    assert projected == [len(clips)]  # once a clip, not once a row
    for a, b in zip(shared, apart, strict=True):
        assert (a.ids, a.finished) == (b.ids, b.finished)
        assert a.logprobs == pytest.approx(b.logprobs, abs=1e-4)
        torch.testing.assert_close(a.keys, b.keys, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("letter", ["k", "v"])
def test_rows_of_one_clip_may_still_have_their_own_cross_attention_edits(model, encoded, letter):
    edit = Edit.scale(f"decoder_blocks.1.cross_attn.hook_{letter}", -1, rows=1)
    with model.editing(edit):
        shared = decode(model, encoded[:1], prompts(model, 3), clip_of_row=[0, 0, 0])
    plain = decode(model, encoded[:1], prompts(model, 1))[0]
    with model.editing(replace(edit, rows=None)):
        edited = decode(model, encoded[:1], prompts(model, 1))[0]
    assert [row.ids for row in shared] == [plain.ids, edited.ids, plain.ids]
    assert edited.ids != plain.ids


def test_what_a_row_samples_does_not_depend_on_its_batch(model, encoded):
    options = DecodeOptions(temperature=1.5, seed=7)
    together = decode(model, encoded, prompts(model, CLIPS), options)
    order = [4, 1, 5]
    some = decode(model, encoded[order], prompts(model, 3), options, seeds=[7 + i for i in order])
    assert [row.ids for row in some] == [together[i].ids for i in order]
    again = decode(model, encoded, prompts(model, CLIPS), options)
    assert [row.ids for row in again] == [row.ids for row in together]
    other = decode(model, encoded, prompts(model, CLIPS), replace(options, seed=8))
    assert [row.ids for row in other] != [row.ids for row in together]


def test_sampling_draws_from_the_tempered_distribution(model, encoded):
    rows = 400
    options = DecodeOptions(temperature=0.7, max_positions=5)
    drawn = decode(model, encoded[:1], prompts(model, rows), options, clip_of_row=[0] * rows)
    with torch.no_grad():
        logits = DecoderSession(model, encoded[:1]).step(prompts(model, 1))[0, -1]
    logits[
        model.hf.generation_config.suppress_tokens + model.hf.generation_config.begin_suppress_tokens
    ] = -torch.inf
    p = (logits / 0.7).softmax(-1)
    counts = (
        torch.bincount(torch.tensor([(r.ids or [model.end_token])[0] for r in drawn]), minlength=99) / rows
    )
    assert (counts - p).abs().max() < 5 * (0.25 / rows) ** 0.5
    for row in drawn[:20]:
        assert row.logprobs[0] == pytest.approx(float(p[(row.ids or [model.end_token])[0]].log()), abs=1e-4)


@pytest.mark.parametrize("limit", [5, 6, 12])
def test_max_positions_counts_the_prompt(model, encoded, limit):
    full = decode(model, encoded, prompts(model, CLIPS))
    cut = decode(model, encoded, prompts(model, CLIPS), DecodeOptions(max_positions=limit))
    for a, b in zip(cut, full, strict=True):
        assert a.ids == b.ids[: limit - 4]
        assert len(a.ids) + 4 <= limit
        assert a.finished == (b.finished and len(b.ids) < limit - 4)


def test_a_prompt_that_leaves_no_position_is_refused(model, encoded):
    with pytest.raises(OptionError, match="at most 4 positions"):
        decode(model, encoded, prompts(model, CLIPS), DecodeOptions(max_positions=4))
    assert model.open_hooks == 0


def test_no_more_positions_are_written_than_the_model_has(model, encoded):
    rows = decode(model, encoded, prompts(model, CLIPS), DecodeOptions(max_positions=10**6))
    assert max(len(row.ids) + 4 for row in rows) == model.max_positions == 32


def test_suppressed_tokens_are_never_written_unless_asked(model, encoded):
    config = model.hf.generation_config
    for row in decode(model, encoded, prompts(model, CLIPS)):
        assert not set(row.ids) & set(config.suppress_tokens)
        assert row.ids[0] not in config.begin_suppress_tokens
    free = decode(model, encoded, prompts(model, CLIPS), DecodeOptions(suppress=False))
    with torch.no_grad():
        logits = DecoderSession(model, encoded).step(prompts(model, CLIPS))[:, -1]
    assert [(row.ids or [model.end_token])[0] for row in free] == logits.argmax(-1).tolist()


def test_the_probability_of_no_speech_is_read_at_the_start_token(model, encoded):
    start = torch.full((CLIPS, 1), model.start_token)
    with torch.no_grad():
        out = model.hf.model.decoder(start, encoder_hidden_states=encoded, use_cache=False).last_hidden_state
        p = model.hf.proj_out(out)[:, 0].softmax(-1)[:, model.no_timestamps_token - 1]
    rows = decode(model, encoded, prompts(model, CLIPS))
    assert [row.no_speech_prob for row in rows] == pytest.approx(p.tolist(), rel=1e-3)


def test_languages_are_detected_as_hugging_face_does(model, encoded):
    expected = model.hf.detect_language(input_features=sound(CLIPS)).tolist()
    session = DecoderSession(model, encoded)
    found = detect_languages(model, session)
    assert [model.languages[code] for code in found] == expected
    rows = prompts_for(model, found, DecodeOptions())
    assert rows[:, 1].tolist() == expected
    assert [row.ids for row in decode(model, session, rows)] == [
        row.ids for row in decode(model, encoded, rows)
    ]


def test_an_interrupt_leaves_no_hook_behind(model, encoded):
    def stop(x, hook):
        if hook.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), model.hooks([("decoder_blocks.0.hook_resid_pre", stop)]):
        decode(model, encoded, prompts(model, CLIPS), align=True)
    assert model.open_hooks == 0
    assert model._clock.rows is None
    assert decode(model, encoded, prompts(model, CLIPS))[0].ids
