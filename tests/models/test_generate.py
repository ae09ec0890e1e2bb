"""Reading and editing while Hugging Face's `generate` runs: what step, position and phase it is, and what edits do there."""

from __future__ import annotations

import pytest
import torch
from tests.conftest import FAMILIES, example_inputs, tiny
from tests.models.talking import encode, sound, talking_whisper

from otoscope.activations import Edit, EditNotApplied
from otoscope.errors import EditError, PointError

TEXT = [f for f in FAMILIES if f not in ("whisper", "qwen2_audio")]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def whisper():
    return talking_whisper()


@pytest.fixture(scope="module", params=TEXT)
def text(request):
    model = tiny(request.param)
    model.hf.generation_config.eos_token_id = None
    return model


def visits(model, names, run) -> list[tuple]:
    seen = []
    with model.hooks([(names, lambda x, h: seen.append((h.name, h.phase, h.step, h.offset, x.shape[1])))]):
        run()
    return seen


def write(model, features, new: int = 4, language: str | None = "en", **kwargs) -> list[list[int]]:
    out = model.generate(
        features, language=language, task="transcribe", do_sample=False, max_new_tokens=new, **kwargs
    )
    return out.tolist()


def greedy(model, features, steps: int, *edits: Edit) -> list[int]:
    """One clip, the whole prefix anew at every step and no cache: what cached decoding must equal."""
    suppressed = model.hf.generation_config.suppress_tokens
    ids = model.prompt("en")
    start = len(ids)
    for _ in range(steps):
        with torch.no_grad(), model.editing(*edits):
            logits = model.forward(
                {"input_features": features, "decoder_input_ids": torch.tensor([ids])}
            ).logits[0, -1]
        logits[suppressed] = -torch.inf
        if len(ids) == start:
            logits[model.hf.generation_config.begin_suppress_tokens] = -torch.inf
        ids.append(int(logits.argmax()))
        if ids[-1] == model.end_token:
            break
    return ids[start:]


def upto_end(model, ids: list[int]) -> list[int]:
    return ids[: ids.index(model.end_token) + 1] if model.end_token in ids else ids


# The clock -----------------------------------------------------------------------------------------------------------


def test_whisper_runs_its_encoder_once_and_its_decoder_once_a_token(whisper):
    encoder, cross = "encoder_blocks.0.hook_resid_pre", "decoder_blocks.1.cross_attn.hook_k"
    decoder = "decoder_blocks.1.self_attn.hook_z"
    names = [encoder, decoder, cross]
    seen = visits(whisper, names, lambda: write(whisper, sound(2)))
    assert seen == [
        (encoder, "forward", 0, 0, 50),
        (decoder, "prefill", 0, 0, 4),
        (cross, "prefill", 0, 0, 50),
        (decoder, "decode", 1, 4, 1),
        (decoder, "decode", 2, 5, 1),
        (decoder, "decode", 3, 6, 1),
    ]


def test_detecting_the_language_is_a_phase_of_its_own(whisper):
    names = ["encoder_blocks.0.hook_resid_pre", "decoder_blocks.1.hook_resid_post"]
    seen = [v[1:] for v in visits(whisper, names, lambda: write(whisper, sound(2), 3, language=None))]
    assert seen == [
        ("forward", 0, 0, 50),
        ("detect_language", 0, 0, 1),
        ("forward", 0, 0, 50),
        ("prefill", 0, 0, 4),
        ("decode", 1, 4, 1),
        ("decode", 2, 5, 1),
    ]


def test_a_language_model_counts_steps_from_the_prompt_and_positions_from_its_padding(text):
    ids = example_inputs(text)["input_ids"]
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    name = "blocks.1.hook_resid_post"
    run = lambda: text.generate(ids, attention_mask=mask, max_new_tokens=4, do_sample=False)  # noqa: E731
    expected = [("prefill", 0, 0, 9), ("decode", 1, 9, 1), ("decode", 2, 10, 1), ("decode", 3, 11, 1)]
    assert [v[1:] for v in visits(text, name, run)] == expected
    assert [v[1:] for v in visits(text, name, run)] == expected  # a second run starts anew


def test_without_a_cache_every_call_is_step_0_and_sees_all_positions(text):
    ids = example_inputs(text)["input_ids"]
    run = lambda: text.generate(ids, max_new_tokens=3, do_sample=False, use_cache=False)  # noqa: E731
    seen = [v[1:] for v in visits(text, "blocks.0.hook_resid_pre", run)]
    assert seen == [("forward", 0, 0, 9), ("forward", 0, 0, 10), ("forward", 0, 0, 11)]


def test_one_token_without_a_cache_is_no_language_detection_for_a_language_model(text):
    run = lambda: text.forward(torch.tensor([[5]]))  # noqa: E731
    tokens = lambda: text.forward({"input_ids": torch.tensor([[5]])})  # noqa: E731
    assert [v[1] for v in visits(text, "embed.hook_out", tokens)] == ["forward"]
    assert [v[1] for v in visits(text, "embed.hook_out", run)] == ["forward"]


def test_qwen2_audio_knows_the_step_before_its_language_model_starts():
    model = tiny("qwen2_audio")
    inputs = example_inputs(model)
    names = ["audio_encoder.blocks.0.hook_resid_pre", "embed.hook_out", "blocks.0.hook_resid_pre"]
    model.hf.generation_config.eos_token_id = None
    seen = visits(model, names, lambda: model.generate(**inputs, max_new_tokens=3, do_sample=False))
    assert [v for v in seen if v[0] == names[0]] == [(names[0], "forward", 0, 0, 50)]
    for name in names[1:]:
        assert [v[1:] for v in seen if v[0] == name] == [
            ("prefill", 0, 0, 31),
            ("decode", 1, 31, 1),
            ("decode", 2, 32, 1),
        ]


def test_visits_are_kept_one_a_step_and_join_along_positions(text):
    ids = example_inputs(text)["input_ids"]
    with text.capturing(["blocks.0.hook_resid_post", "blocks.0.attn.hook_pattern"]) as cache:
        out = text.generate(ids, max_new_tokens=4, do_sample=False)
    name = "blocks.0.hook_resid_post"
    assert [v.shape[1] for v in cache.visits(name)] == [9, 1, 1, 1]
    _, whole = text.run_with_cache({"input_ids": out[:, :-1]}, name)
    torch.testing.assert_close(cache[name], whole[name], rtol=1e-4, atol=1e-5)
    with pytest.raises(PointError, match="do not join"):
        cache["blocks.0.attn.hook_pattern"]


# Edits under generate ------------------------------------------------------------------------------------------------

WHISPER_EDITS = {
    "a head of self-attention": [Edit.zero("decoder_blocks.0.self_attn.hook_z", heads=2)],
    "cross values": [Edit.scale("decoder_blocks.1.cross_attn.hook_v", -1.0)],
    "cross keys of some frames": [Edit.zero("decoder_blocks.1.cross_attn.hook_k", positions=range(10, 40))],
    "cross scores of some frames": [
        Edit.replace("decoder_blocks.1.cross_attn.hook_attn_scores", torch.tensor(-1e9), keys=range(25))
    ],
    "self scores of the prompt": [
        Edit.replace(
            "decoder_blocks.0.self_attn.hook_attn_scores",
            torch.tensor(-1e9),
            keys=(1, 2),
            positions=range(4, 32),
        )
    ],
    "self patterns of what was written": [
        Edit.scale("decoder_blocks.0.self_attn.hook_pattern", 20, keys=(5, 6), positions=range(7, 32))
    ],
    "an encoder layer": [Edit.zero("encoder_blocks.2.hook_attn_out")],
    "the middle of the stream": [
        Edit.add("decoder_blocks.0.hook_resid_mid_cross", torch.linspace(-3, 3, 48))
    ],
    "two positions": [Edit.scale("decoder_blocks.1.hook_mlp_out", -8, positions=(3, 6))],
    "results": [Edit.zero("decoder_blocks.1.cross_attn.hook_result", heads=(0, 1, 2))],
}


@pytest.mark.filterwarnings("ignore::otoscope.activations.EditNotApplied")  # short prefixes lack the position
@pytest.mark.parametrize("edits", WHISPER_EDITS.values(), ids=WHISPER_EDITS.keys())
def test_whisper_under_edits_writes_what_a_loop_without_a_cache_writes(whisper, edits):
    features = sound(3)
    with whisper.editing(*edits):
        written = write(whisper, features, 8)
    by_hand = [greedy(whisper, features[i : i + 1], 8, *edits) for i in range(3)]
    assert [upto_end(whisper, ids) for ids in written] == by_hand
    assert written != write(whisper, features, 8), "the edit makes no difference, so this shows nothing"


LONG = torch.randn(1, 30, 32, generator=torch.Generator().manual_seed(3))
LLAMA_EDITS = {
    "a head": [Edit.zero("blocks.0.attn.hook_z", heads=1)],
    "a key-value head": [Edit.scale("blocks.1.attn.hook_v", -2, heads=1)],
    "rotated keys": [Edit.zero("blocks.1.attn.hook_rot_k", keys=(0, 3, 10))],
    "rotated queries": [Edit.scale("blocks.1.attn.hook_rot_q", -3, positions=range(5, 20))],
    "patterns": [Edit.zero("blocks.0.attn.hook_pattern", keys=(1, 9), positions=range(9, 30))],
    "one position of the stream": [Edit.zero("blocks.0.hook_resid_mid", positions=10)],
    "steering": [Edit.add("blocks.1.hook_resid_post", torch.linspace(-2, 2, 32))],
    "one row": [Edit.zero("blocks.0.hook_mlp_out", rows=1)],
    "a long reference": [Edit.replace("blocks.0.hook_attn_out", LONG)],
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::otoscope.activations.EditNotApplied")  # short prefixes lack the position
@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt2"])
@pytest.mark.parametrize("edits", LLAMA_EDITS.values(), ids=LLAMA_EDITS.keys())
def test_a_language_model_under_edits_writes_what_a_loop_without_a_cache_writes(family, edits):
    model = tiny(family)
    model.hf.generation_config.eos_token_id = None
    if any(e.point not in model.points for e in edits):
        return  # no rotation in GPT-2
    ids = example_inputs(model)["input_ids"]
    with model.editing(*edits):
        written = model.generate(ids, max_new_tokens=8, do_sample=False)
    by_hand = ids
    for _ in range(8):
        with torch.no_grad(), model.editing(*edits):
            logits = model.forward({"input_ids": by_hand}).logits[:, -1]
        by_hand = torch.cat([by_hand, logits.argmax(-1, keepdim=True)], dim=1)
    assert written.tolist() == by_hand.tolist()


def test_an_edit_at_a_step_equals_the_edit_at_its_position(text):
    ids, name = example_inputs(text)["input_ids"], "blocks.1.hook_mlp_out"
    with text.capturing("unembed.hook_out") as by_step, text.editing(Edit.scale(name, -5, steps=2)):
        text.generate(ids, max_new_tokens=5, do_sample=False)
    with text.capturing("unembed.hook_out") as by_position, text.editing(Edit.scale(name, -5, positions=10)):
        text.generate(ids, max_new_tokens=5, do_sample=False)
    with text.capturing("unembed.hook_out") as plain:
        text.generate(ids, max_new_tokens=5, do_sample=False)
    for a, b in zip(by_step.visits("unembed.hook_out"), by_position.visits("unembed.hook_out"), strict=True):
        assert torch.equal(a, b)
    pairs = zip(by_step.visits("unembed.hook_out"), plain.visits("unembed.hook_out"), strict=True)
    same = [torch.equal(a, b) for a, b in pairs]
    assert same[:3] == [True, True, False]


def test_a_no_op_edit_of_every_point_changes_no_token_under_generate(whisper):
    plain = write(whisper, sound(2), 6)
    with whisper.editing(Edit.scale(name, 1) for name in whisper.points):
        assert write(whisper, sound(2), 6) == plain


def test_an_edit_of_a_step_that_generate_never_reaches_warns(whisper):
    with pytest.warns(EditNotApplied), whisper.editing(Edit.zero("decoder_blocks.0.hook_mlp_out", steps=20)):
        write(whisper, sound(1), 3)


def test_an_encoder_edit_from_a_later_step_is_refused_because_the_encoder_runs_once(whisper):
    edit = Edit.zero("encoder_blocks.0.hook_mlp_out", steps=1)
    with pytest.raises(EditError, match="computed once"), whisper.editing(edit):
        pass


def test_an_encoder_edit_around_precomputed_states_raises(whisper):
    from transformers.modeling_outputs import BaseModelOutput

    encoded = BaseModelOutput(last_hidden_state=encode(whisper, sound(1)))
    edit = Edit.zero("encoder_blocks.0.hook_mlp_out")
    with pytest.raises(EditError, match="never took place"), whisper.editing(edit):
        write(whisper, None, 3, encoder_outputs=encoded)


def test_word_times_of_generate_are_refused_under_the_seam(whisper):
    with (
        whisper.capturing("decoder_blocks.0.cross_attn.hook_pattern"),
        pytest.raises(EditError, match="return_token_timestamps"),
    ):
        write(whisper, sound(1), 3, return_token_timestamps=True)


# The lens at the last layer ------------------------------------------------------------------------------------------


def test_the_encoder_lens_of_the_last_layer_writes_the_normal_transcript(whisper):
    from transformers.modeling_outputs import BaseModelOutput

    features = sound(2)
    with whisper.capturing("encoder_blocks.2.hook_resid_post") as cache:
        plain = write(whisper, features, 8)
    with torch.no_grad():
        states = whisper.hf.model.encoder.layer_norm(cache["encoder_blocks.2.hook_resid_post"])
    assert torch.equal(states, encode(whisper, features))
    assert write(whisper, None, 8, encoder_outputs=BaseModelOutput(last_hidden_state=states)) == plain


def test_the_audio_lens_of_the_last_tower_layer_gives_the_projectors_output():
    model = tiny("qwen2_audio")
    _, cache = model.run_with_cache(
        example_inputs(model), ["audio_encoder.blocks.2.hook_resid_post", "audio_projector.hook_out"]
    )
    with torch.no_grad():
        embeddings = model.audio_embeddings(cache["audio_encoder.blocks.2.hook_resid_post"])
    assert torch.equal(embeddings, cache["audio_projector.hook_out"])
