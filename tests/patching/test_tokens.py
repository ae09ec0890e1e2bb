"""One token of each recording under every component's patch, teacher-forced."""

from __future__ import annotations

import json

import pytest
import torch
from tests.conftest import tiny
from tests.patching.worlds import hearing_whisper, spans

from otoscope.activations import Edit
from otoscope.audio import white_noise
from otoscope.corpora import Item
from otoscope.errors import AudioError, EditError, ModelError, OptionError
from otoscope.patching import tokens
from otoscope.patching.references import Reference
from otoscope.patching.scene import Scene
from otoscope.patching.sweeping import SweepOptions
from otoscope.patching.tokens import in_random_direction, patch_of, sweep_tokens
from otoscope.patching.writing import writer_of

pytestmark = pytest.mark.usefixtures("one_thread")


def outputs(scene, components):
    names = sorted({component.point for component in components})
    cache = scene.read(names)
    return {name: cache[name][0] for name in names}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Sweeps without a directory of their own must not find those of earlier tests."""
    monkeypatch.setattr(tokens, "cache_dir", lambda: tmp_path / "cache")


@pytest.fixture(scope="module")
def model():
    return hearing_whisper(seed=1, dtype=torch.float64)


def options(**more):
    return SweepOptions(
        **({"stacks": ("decoder", "encoder"), "parts": ("cross_attn", "attn", "mlp"), "max_tokens": 6} | more)
    )


def logprob(model, clip, ids, index, edits=()):
    inputs = model.inputs([clip], [*model.prompt("en"), *ids])
    with torch.no_grad(), model.editing(*edits):
        logits = model.forward(inputs).logits[0, len(model.prompt("en")) - 1 + index]
    return float(logits.log_softmax(-1)[ids[index]])


@pytest.mark.parametrize("kind", ["zero", "noise", "mean"])
@pytest.mark.parametrize("alpha", [1.0, 0.5])
def test_the_change_is_that_of_a_whole_forward_under_the_edit(model, kind, alpha):
    chosen = options(reference=Reference(kind), alpha=alpha, language="en")
    found = sweep_tokens(model, spans(2), chosen, token=2, batch=5)
    writer = writer_of(model, 6, "en")
    for place, item in enumerate(spans(2)):
        clip = item.clip()
        heard = writer.hear(clip)
        (text,) = writer.write([heard], None)
        assert found.chosen[place].token == text.ids[2]
        tokens = torch.tensor([*model.prompt("en"), *text.ids])
        base = logprob(model, clip, text.ids, 2)
        theirs = {}
        if kind == "noise":
            noise = writer.hear(Reference("noise").sound(clip, place)).heard
            theirs = outputs(Scene.heard(model, noise.encoded, tokens, noise.audio), found.components)
        for i in range(0, len(found.components), 3):
            c = found.components[i]
            if kind == "mean":
                continue
            edit = patch_of(c, chosen.reference, alpha, theirs.get(c.point))
            expected = logprob(model, clip, text.ids, 2, [edit]) - base
            assert found.change[i, place] == pytest.approx(expected, abs=1e-9), c.label
    data = found.to_dict()
    json.dumps(data, allow_nan=False)
    assert data["n_items"] == data["n_outcome"] == 2
    assert all(0 < e["p_value"] <= 1 for e in data["effects"])
    assert abs(found.change).max() > 1e-3


@pytest.mark.parametrize("kind", ["zero", "noise"])
def test_the_random_direction_moves_as_far_as_the_patch(model, kind):
    heard = writer_of(model, 6, "en").hear(spans(1)[0].clip()).heard
    scene = Scene.heard(model, heard.encoded, torch.tensor([*model.prompt("en"), 5, 6, 7]), heard.audio)
    found = sweep_tokens(model, spans(1), options(), token=0).components
    own = outputs(scene, found)
    for c in found[::4]:
        a = own[c.point]
        other = torch.randn_like(a) if kind == "noise" else None
        patch = patch_of(c, Reference(kind), 0.7, other)
        control = in_random_direction(c, patch, a, 9)
        visit = type(
            "V",
            (),
            {"step": 0, "offset": 0, "rows": None, "phase": "forward", "name": c.point, "layer": c.layer},
        )()
        near, far = (e(a[None], model.points[c.point], visit) - a for e in (patch, control))
        torch.testing.assert_close(near.norm(dim=-1), far.norm(dim=-1))


def test_a_token_is_chosen_by_place_by_word_or_by_doubt(model):
    writer = writer_of(model, 6, "en")
    texts = [writer.write([writer.hear(i.clip())], None)[0] for i in spans(2)]
    doubt = sweep_tokens(model, spans(2), options(parts=("mlp",), heads=False, language="en"))
    for chosen, text in zip(doubt.chosen, texts, strict=True):
        assert text.logprobs[chosen.index] == min(text.logprobs[: len(text.ids)])
    first = texts[0].text.split()[0]
    word = sweep_tokens(
        model, spans(1), options(parts=("mlp",), heads=False, language="en"), token=first.upper()
    )
    assert word.chosen[0].index == 0


def test_recordings_that_lack_the_token_or_cannot_be_read_are_named_once(model, tmp_path):
    corpus = [*spans(1), Item("gone.wav", tmp_path / "gone.wav")]
    for kind in ("zero", "mean"):
        found = sweep_tokens(model, corpus, options(reference=Reference(kind)), token=1)
        assert [s["audio_filepath"] for s in found.skipped] == ["gone.wav"]
        assert found.n_items == 1
    with pytest.raises(OptionError, match="No recording has the token 'zebra'"):
        sweep_tokens(model, spans(1), options(), token="zebra")
    with pytest.raises(OptionError, match="No recording has the token 99"):
        sweep_tokens(model, spans(1), options(), token=99)
    with pytest.raises(AudioError, match="None of the 1"):
        sweep_tokens(model, corpus[1:], options(reference=Reference("mean")), token=1)


def test_a_sweep_goes_on_where_it_was_killed_and_ends_the_same(model, tmp_path, monkeypatch):
    chosen = options(parts=("mlp", "cross_attn"), reference=Reference("noise"))
    whole = sweep_tokens(model, spans(4), chosen, token=1, out=tmp_path / "whole", priced=None)
    _TokenSweep = tokens._TokenSweep
    changes, calls = _TokenSweep._changes, 0

    def killed(self, *args):
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return changes(self, *args)

    monkeypatch.setattr(_TokenSweep, "_changes", killed)
    with pytest.raises(KeyboardInterrupt):
        sweep_tokens(model, spans(4), chosen, token=1, out=tmp_path / "killed", priced=None)
    resumed = sweep_tokens(model, spans(4), chosen, token=1, out=tmp_path / "killed", priced=None)
    assert calls == 3 + 2  # the two that were done are not done again
    assert json.dumps(resumed.to_dict()) == json.dumps(whole.to_dict())
    with pytest.raises(OptionError, match="begun with token = 1, now it is 2"):
        sweep_tokens(model, spans(4), chosen, token=2, out=tmp_path / "killed", priced=None)


def test_winners_are_chosen_on_one_half_corrected_and_priced(model):
    found = sweep_tokens(model, spans(6), options(language="en"), token=1)
    data = found.to_dict()
    halves = [t["half"] for t in data["tokens"]]
    assert sorted(set(halves)) == ["discovery", "test"]
    assert {w["component"] for w in data["winners"]} <= {e["component"] for e in data["effects"]}
    for effect in data["effects"]:
        assert effect["discovery"]["n"] + effect["test"]["n"] == effect["n"] == 6
        both = sum(effect[half]["change"] * effect[half]["n"] for half in ("discovery", "test"))
        assert both / 6 == pytest.approx(effect["change"])
    for adjusted, p in zip(found.p_adjusted, found.p_values["discovery"], strict=True):
        assert adjusted is None or adjusted >= p
    assert "shipped recordings alone" in data["price"]["note"]
    assert len(data["price"]["edits"]) == len(data["winners"])
    assert sweep_tokens(model, spans(6), options(language="en"), token=1, priced=None).price is None


def test_memory_does_not_grow_with_the_recordings(model, monkeypatch):
    """What is heard of a recording is gone before the next but one is heard."""
    import gc
    import weakref

    from otoscope.patching.writing import WhisperWriter

    alive, most = [], 0
    hear = WhisperWriter.hear

    def watched(self, *args):
        nonlocal most
        heard = hear(self, *args)
        gc.collect()
        alive.append(weakref.ref(heard.heard))
        most = max(most, sum(ref() is not None for ref in alive))
        return heard

    monkeypatch.setattr(WhisperWriter, "hear", watched)
    sweep_tokens(model, spans(5), options(parts=("mlp",), heads=False), token=0)
    assert len(alive) == 5
    assert most <= 2


def test_what_cannot_be_swept_is_refused(model):
    with pytest.raises(ModelError, match="no Whisper model"):
        sweep_tokens(tiny("llama"), spans(1), options())
    with pytest.raises(OptionError, match="empty"):
        sweep_tokens(model, spans(1), options(), against=" ")
    with (
        pytest.raises(EditError, match="in place"),
        model.editing(Edit.zero("decoder_blocks.0.hook_mlp_out")),
    ):
        sweep_tokens(model, spans(1), options())
    long = options(reference=Reference("clip", white_noise(2.0, seed=0)))
    with pytest.raises(AudioError, match="one window holds"):
        sweep_tokens(model, spans(1), long)
