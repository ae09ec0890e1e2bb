"""Every decoder head zeroed, one at a time, on clips that loop: rows of a batch against a hook and `generate` for each."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure

CLAIM = (
    "whisper-tiny.en, each of 48 decoder heads zeroed on 20 looping clips (224 tokens at most): at most 0.2 of the time "
    "of the plain loop (hook, `generate`, next), same tokens; peak memory does not grow with clips"
)
CLIPS, SAMPLED = 20, 5
FIGURES = (
    Figure("48 heads zeroed on looping clips over the plain loop of `generate`", "ratio", at_most=0.2),
    Figure("clips that loop", "clips", at_least=CLIPS),
    Figure("its tokens the same as the plain loop's", "same_tokens", at_least="compared"),
    Figure("its peak memory on 20 clips over that on 4", f"memory_ratio_{CLIPS}_over_4_clips", at_most=1.1),
)

MEMORY_JOB = """
import json, sys
import benchmarks.patching_generative as b
b.sweep_some(json.loads(sys.argv[1]), int(sys.argv[2]))
status = open("/proc/self/status").read()  # ru_maxrss would count what the starting process held
print(int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e9)
"""


def run() -> dict[str, Any]:
    from otoscope.models.loading import load_model
    from otoscope.patching.writing import first_window

    with tempfile.TemporaryDirectory() as folder:
        model = load_model("whisper-tiny.en")
        found = looping(model, CLIPS, folder)
        memory = {
            f"{clips}_clips_batch_{batch}": _peak(found[:clips], batch)
            for clips, batch in ((4, 16), (CLIPS, 16), (4, 48))
        }
        heads = _heads(model)
        measured = [
            _side_by_side(model, first_window(item), heads, number) for number, item in enumerate(found)
        ]
    ours, theirs, same = (list(column) for column in zip(*measured, strict=True))
    same = sum(same)
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    growth = memory[f"{CLIPS}_clips_batch_16"] / memory["4_clips_batch_16"]
    ratio = sum(ours) / sum(theirs)
    return {
        "clips": len(found),
        "heads": len(heads),
        "ours_seconds": round(sum(ours), 1),
        "plain_seconds": round(sum(theirs), 1),
        "plain_loop_measured_on": f"{SAMPLED} of {len(heads)} heads of every clip, scaled",
        "ratio": round(ratio, 4),
        "ratio_median": round(statistics.median(ratios), 4),
        "ratio_min": round(min(ratios), 4),
        "ratio_max": round(max(ratios), 4),
        "same_tokens": same,
        "compared": SAMPLED * len(found),
        "peak_gb": {name: round(value, 2) for name, value in memory.items()},
        f"memory_ratio_{CLIPS}_over_4_clips": round(growth, 3),
    }


def _side_by_side(model: Any, clip: Any, heads: list[Any], number: int) -> tuple[float, float, int]:
    """Seconds of both ways for all heads, and how many of the sampled texts agree; who goes first alternates."""
    from benchmarks.measure import seconds

    sampled = [(number * SAMPLED + i * 10) % len(heads) for i in range(SAMPLED)]
    batched: dict[int, list[int]] = {}
    plain: dict[int, list[int]] = {}

    def ours() -> None:
        batched.update(_ours(model, clip, heads))

    def theirs() -> None:
        features = model.features(clip)
        plain.update({i: _theirs(model, features, heads[i]) for i in sampled})

    order = (ours, theirs) if number % 2 else (theirs, ours)
    spent = {work: seconds(work) for work in order}
    agree = sum(batched[i] == plain[i] for i in sampled)
    return spent[ours], spent[theirs] * len(heads) / SAMPLED, agree


def _peak(clips: list[Any], batch: int) -> float:
    """Of a sweep in a process of its own, in GB."""
    paths = json.dumps([str(item.path) for item in clips])
    done = subprocess.run(
        [sys.executable, "-c", MEMORY_JOB, paths, str(batch)],
        check=True,
        capture_output=True,
        text=True,
        env=dict(os.environ),
    )
    return json.loads(done.stdout.splitlines()[-1])


def sweep_some(paths: list[str], batch: int) -> None:
    from otoscope.audio import read
    from otoscope.models.loading import load_model

    model = load_model("whisper-tiny.en")
    for path in paths:
        _ours(model, read(path), _heads(model), batch, tokens=60)


def looping(model: Any, count: int, folder: str) -> list[Any]:
    """Items that loop without a patch."""
    from otoscope.corpora import items
    from otoscope.corpora.recipes import Loops, make_corpus
    from otoscope.outcomes import is_loop
    from otoscope.patching.writing import first_window, writer_of
    from otoscope.progress import Silence, reporting_to

    writer, found = writer_of(model), []
    with reporting_to(Silence()):
        manifest = make_corpus(
            Loops(count=40, kinds=("reversed", "babble", "long")), Path(folder) / "loops"
        ).manifest
    kinds = [item for i in range(40) for item in items(manifest)[i::40]]  # one of each kind in turn
    for start in range(0, len(kinds), 12):
        some = kinds[start : start + 12]
        texts = writer.write([writer.hear(first_window(item)) for item in some], None)
        found += [item for item, text in zip(some, texts, strict=True) if is_loop(text.text)]
        if len(found) >= count:
            break
    return found[:count]


def _heads(model: Any) -> list[Any]:
    from otoscope.patching.components import chosen_components

    return chosen_components(model, ("decoder",), ("self_attn", "cross_attn"), heads=True)


def _ours(
    model: Any, clip: Any, heads: list[Any], batch: int = 48, tokens: int = 224
) -> dict[int, list[int]]:
    """Encoder included."""
    from otoscope.patching.changes import Change
    from otoscope.patching.writing import writer_of

    writer = writer_of(model, tokens)
    return {
        i: list(t.ids) for i, t in writer.vary(writer.hear(clip), [Change((h,)) for h in heads], batch=batch)
    }


def _theirs(model: Any, features: Any, head: Any) -> list[int]:
    """One head zeroed by a hand-written hook, and Hugging Face's `generate`, encoder included."""
    import torch

    layer = model.hf.model.decoder.layers[head.layer]
    attention = layer.self_attn if head.part == "self_attn" else layer.encoder_attn
    width = attention.head_dim

    def zero(_module: Any, args: tuple) -> tuple:
        z = args[0].clone()
        z[..., head.head * width : (head.head + 1) * width] = 0
        return (z,)

    handle = attention.out_proj.register_forward_pre_hook(zero)
    try:
        ids = torch.tensor([model.prompt()])
        with torch.no_grad():
            out = model.hf.generate(
                features, decoder_input_ids=ids, max_new_tokens=224, return_timestamps=False
            )
    finally:
        handle.remove()
    written = out[0].tolist()
    written = written[ids.shape[1] :] if written[: ids.shape[1]] == ids[0].tolist() else written
    return [t for t in written if t != model.end_token]
