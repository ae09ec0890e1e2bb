"""Small random models of every family, real recordings, and the real weights where a test asks for them."""

from __future__ import annotations

import functools
import hashlib
import os
import signal
from pathlib import Path

if (
    "PYTEST_XDIST_WORKER" in os.environ
):  # workers share the cores; before anything reads it, and for what they start
    os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import torch

# A shell without job control ignores SIGINT in what it runs in the background, and `nohup` SIGHUP; all that is started here
# would inherit it: then commands that a test interrupts would run on, and take the cores from the others.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if os.name == "posix" and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

FAMILIES = ("whisper", "qwen2_audio", "llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "gpt2")
_SHARED: dict = {}
"""Models that are loaded once, by what they were asked for: each with its state and its weights as they were then."""

SHARED_AUDIO = Path(os.environ.get("OTOSCOPE_SHARED_AUDIO", Path(__file__).parents[2] / "shared" / "audio"))


def tiny(model_type: str, **kwargs):
    from otoscope.models.families import random_model

    return random_model(model_type, **kwargs)


def example_inputs(model, batch: int = 2, seed: int = 0) -> dict:
    """Inputs of the right form for a random model: tokens, and a spectrogram where it listens."""
    g = torch.Generator().manual_seed(seed)
    kind = model.config.model_type
    if kind == "whisper":
        features = torch.randn(batch, 16, 100, generator=g).to(model.dtype)
        return {
            "input_features": features,
            "decoder_input_ids": torch.randint(3, 90, (batch, 7), generator=g),
        }
    if kind == "qwen2_audio":
        ids = torch.randint(3, 80, (batch, 31), generator=g)
        ids[:, 2:27] = 90  # 25 audio slots: 100 mel columns, 50 frames, pooled by two
        return {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "input_features": torch.randn(batch, 16, 100, generator=g).to(model.dtype),
            "feature_attention_mask": torch.ones(batch, 100, dtype=torch.long),
        }
    return {"input_ids": torch.randint(3, 90, (batch, 9), generator=g)}


def pytest_collection_modifyitems(items):
    """The files that take longest come first, so that no worker is left alone with one (`--dist loadfile` in the Makefile)."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return
    files: dict[Path, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    seconds = lambda item: 5 * ("slow" in item.keywords) + ("browser" in item.keywords)  # noqa: E731
    by_length = sorted(files.values(), key=lambda of_file: -sum(map(seconds, of_file)))
    items[:] = [item for of_file in by_length for item in of_file]


@pytest.fixture(scope="session", autouse=True)
def _each_model_is_loaded_once():
    """Commands that run in this process share the registered models that they load, with each other and with `tiny_en`.

    Whatever runs leaves a model as it was: its hooks and the like are looked at after every module, its weights at the end.
    """
    from otoscope.models import loading
    from otoscope.models.sources import REGISTRY

    kept, load = _SHARED, loading.load_model

    @functools.wraps(load)
    def loaded(name=loading.DEFAULT_MODEL, device="auto", dtype="auto", **more):
        if more or name not in REGISTRY:
            return load(name, device, dtype, **more)
        place = (name, device, dtype, os.environ.get("OTOSCOPE_CACHE"))
        if place not in kept:
            made = load(name, device, dtype)
            kept[place] = made, state_of(made), weights_of(made)
        kept[place][0].reset_hooks()
        return kept[place][0]

    loading.load_model = loaded
    yield
    loading.load_model = load
    changed = [place for place, (one, _, weights) in kept.items() if weights_of(one) != weights]
    assert not changed, f"a test changed the weights of {changed}, which others share"


@pytest.fixture(scope="module", autouse=True)
def _a_module_leaves_shared_models_as_they_were():
    yield
    for place, (one, state, _) in _SHARED.items():
        assert state_of(one) == state, (
            f"a test of this module left something behind in {place}, which others share"
        )


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory) -> Path:
    """A folder of this run of the tests that all of its workers have."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture
def ablated_once(monkeypatch, shared_folder):
    """Explanations of the same sound and text by the same model zero its components once, which is most of their work.

    For tests of what is done with an explanation; those of `explain` itself do without.
    """
    from otoscope.documents.explain import Ablation
    from otoscope.files import atomic_write
    from otoscope.studies import explain

    zero = explain.ablation_of

    def ablated(model, heard, tokens, prompt, batch, **how):
        state = state_of(model)
        if state["hooks"] or state["filters"] or state["mended"]:  # which of them is not known
            return zero(model, heard, tokens, prompt, batch, **how)
        asked = hashlib.sha256(heard.encoded.numpy().tobytes())
        asked.update(repr((weights_of(model), state, tokens.tolist(), prompt, batch, how)).encode())
        kept = shared_folder / f"ablation-{asked.hexdigest()}.json"
        if not kept.exists():
            with atomic_write(kept) as file:
                file.write(zero(model, heard, tokens, prompt, batch, **how).model_dump_json())
        return Ablation.model_validate_json(kept.read_text(encoding="utf-8"))

    monkeypatch.setattr(explain, "ablation_of", ablated)


def state_of(model) -> dict:
    """What a test may leave behind in a model: filters, hooks, gradients, training; its weights apart."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    modules = list(model.hf.modules())
    hooks = [hook for module in modules for kind in kinds for hook in getattr(module, kind).values()]
    return {
        "filters": len(model.filters),
        "mended": model.mended,
        # Transformers puts its own in at the first call, and leaves them there.
        "hooks": sum(not getattr(hook, "__module__", "").startswith("transformers.") for hook in hooks),
        "forwards": [name for name, module in model.hf.named_modules() if "forward" in vars(module)],
        "training": sum(module.training for module in modules),
        "trained": [p.requires_grad for p in model.hf.parameters()],
        "gradients": sum(p.grad is not None for p in model.hf.parameters()),
    }


def weights_of(model) -> dict[str, int]:
    """A checksum of each parameter that takes no time: the sum of its numbers, read as whole ones."""
    whole = {2: torch.int16, 4: torch.int32, 8: torch.int64}
    return {
        name: int(p.detach().contiguous().view(whole[p.element_size()]).sum())
        for name, p in model.hf.named_parameters()
        if not p.is_meta  # these have no numbers
    }


@pytest.fixture(params=FAMILIES)
def model(request):
    return tiny(request.param)


@pytest.fixture(scope="module")
def one_thread():
    """Threads only slow tiny models down, and the sums must not depend on how many there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def shared_audio() -> Path:
    if not (SHARED_AUDIO / "manifest.jsonl").exists():
        pytest.skip("the 260 prepared recordings are not here; set OTOSCOPE_SHARED_AUDIO to their folder")
    return SHARED_AUDIO


@pytest.fixture(scope="session")
def jfk() -> Path:
    return Path(__file__).parents[1] / "src" / "otoscope" / "audio" / "samples" / "jfk.flac"


@pytest.fixture(scope="session")
def austen(jfk) -> Path:
    """A sentence from an audiobook, 4 s."""
    return jfk.with_name("austen-0880.flac")


@pytest.fixture(scope="session")
def explained(tiny_en, austen):
    """`austen` explained, for tests of what is done with such a document; a test of another stage explains anew."""
    from otoscope.studies.explain import Stages, explain_clip

    return explain_clip(tiny_en, austen, stages=Stages(encoder_lens=False, controls=False, circuits=0))


@pytest.fixture(scope="session")
def tiny_en():
    """The real whisper-tiny.en."""
    from otoscope.models.loading import load_model

    return load_model("whisper-tiny.en")


@pytest.fixture(scope="session")
def base():
    """The real multilingual whisper-base."""
    from otoscope.models.loading import load_model

    return load_model("whisper-base")
