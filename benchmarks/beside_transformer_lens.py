"""Language models beside TransformerLens: the same activations, lens and effects, and how long both take.

Both have the same checkpoint and the same build of torch and Transformers, each in a process of its own
(`peers/transformer_lens_lm.py`, `peers/otoscope_lm.py`), and each runs as it comes: TransformerLens with eager attention, without
which its attention hooks do not fire; otoscope with Transformers' own choice.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.figures import Figure

CLAIM = (
    "Beside TransformerLens 4.3.0 on GPT-2's architecture (12 layers of 768, random weights) and SmolLM2-135M: all residual "
    "streams, the logit lens of every layer and position, and every head patched: the same numbers, in at most 1.05 of its time"
)
RATIO, AGREE = 1.05, 1e-3
MODELS = {"gpt2": "GPT-2, random weights", "smollm2_135m": "SmolLM2-135M"}
WORKS = ("capture", "lens", "patch_heads")
SAYS = {
    "capture": "all residual streams",
    "lens": "logit lens of all layers and positions",
    "patch_heads": "every head patched",
}
FIGURES = (
    *(
        Figure(f"{name}, {SAYS[work]}: time over TransformerLens'", f"{model}/{work}/ratio_median", at_most=RATIO)
        for model, name in MODELS.items() for work in WORKS
    ),
    *(
        Figure(
            f"{name}: largest relative difference from TransformerLens'",
            tuple(f"{model}/{work}/largest_relative_difference" for work in WORKS),
            at_most=AGREE,
        )
        for model, name in MODELS.items()
    ),
)  # fmt: skip
RUNS = {"capture": 7, "lens": 5, "patch_heads": 3}
TOKENS = 32
VERSIONS = ("torch", "transformers")
TEXT = (
    "The museum was built in the nineteenth century by an architect who had studied in Florence and who wanted the light to fall "
    "from above. Visitors who came by train walked through the gardens, past the pond and the old oaks, before they reached the "
    "stairs. Its collection of clocks is among the largest of the continent, and every hour on the hour all of them"
)


def run() -> dict[str, Any]:
    from benchmarks.peers.workers import NotInstalledError, not_measured

    makers = {"gpt2": _gpt2, "smollm2_135m": _smollm}
    with tempfile.TemporaryDirectory() as folder:
        try:
            return {name: _beside(makers[name](Path(folder) / name)) for name in MODELS}
        except NotInstalledError as error:
            return not_measured(error)


def _beside(job: dict[str, Any]) -> dict[str, Any]:
    from benchmarks.peers.workers import OWN, Side, compared

    with (
        Side("transformer_lens", "transformer_lens_lm.py", job, ("transformer-lens", *VERSIONS)) as theirs,
        Side(OWN, "otoscope_lm.py", job, (OWN, *VERSIONS)) as ours,
    ):
        found = {work: compared(ours, theirs, work, _judge, RUNS[work]) for work in WORKS}
        plain = [ours.seconds("plain") for _ in range(RUNS["capture"])]
        versions = {"ours": ours.versions, "theirs": theirs.versions}
    return {**found, "plain_forward_pass_seconds": round(float(np.median(plain)), 4), "versions": versions}


def _judge(ours: Any, theirs: Any) -> dict[str, Any]:
    """Differences of each part over the largest number in it."""
    from benchmarks.peers.answers import largest_difference

    parts = [largest_difference({name: ours[name]}, {name: theirs[name]}) for name in theirs]
    assert sorted(ours) == sorted(theirs)
    return {
        "largest_relative_difference": max(p["largest_difference"] / p["largest_number"] for p in parts),
        "numbers": sum(theirs[name].size for name in theirs),
    }


def _job(folder: Path, ids: list[int]) -> dict[str, Any]:
    """One text, and the same with every fifth token another."""
    spoilt = [(token + 977) % 20_000 if i % 5 == 2 else token for i, token in enumerate(ids)]
    return {
        "folder": str(folder), "model": str(folder / "model"), "clean": ids, "spoilt": spoilt, "answer": 284, "other": 260,
    }  # fmt: skip


def _gpt2(folder: Path) -> dict[str, Any]:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    from otoscope.models.loading import load_model

    torch.manual_seed(0)
    config = GPT2Config(bos_token_id=0, eos_token_id=0, initializer_range=0.05)
    GPT2LMHeadModel(config).save_pretrained(folder / "model")
    tokenizer = load_model("smollm2-135m").tokenizer  # of the same size; there are no words in random weights
    tokenizer.save_pretrained(folder / "model")
    return _job(folder, tokenizer(TEXT)["input_ids"][:TOKENS])


def _smollm(folder: Path) -> dict[str, Any]:
    from otoscope.models.loading import load_model

    model = load_model("smollm2-135m", dtype="float32")
    model.hf.save_pretrained(folder / "model")
    model.tokenizer.save_pretrained(folder / "model")
    return _job(folder, model.tokenizer(TEXT)["input_ids"][:TOKENS])
