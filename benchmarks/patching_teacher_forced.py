"""Layer x component x position, teacher-forced: what is shared against one hook and one whole forward a cell."""

from __future__ import annotations

from typing import Any

from benchmarks.figures import Figure

CLAIM = (
    "whisper-tiny.en on jfk, decoder: 4 layers x 4 components zeroed at each text position: at least 10 times faster than "
    "the plain loop (hook, forward, next), same logits"
)
SAMPLED = 48
FIGURES = (
    Figure(
        "416 components zeroed by position: times faster than the plain loop", "times_faster", at_least=10
    ),
    Figure("its largest difference in logits from the plain loop", "largest_logit_difference", at_most=1e-3),
)


def run() -> dict[str, Any]:
    import numpy as np
    import torch

    from benchmarks.measure import seconds
    from otoscope.audio import read
    from otoscope.audio.samples import sample
    from otoscope.models.loading import load_model
    from otoscope.patching.writing import writer_of

    model = load_model("whisper-tiny.en")
    clip, writer = read(sample("jfk")), writer_of(model)
    text = writer.write([writer.hear(clip)], None)[0]
    tokens = torch.tensor([*model.prompt(), *text.ids])
    cells = _cells(model, len(tokens))
    chosen = np.random.default_rng(0).permutation(len(cells))[:SAMPLED]
    features = model.features(clip)
    out: dict[str, Any] = {}

    def ours() -> None:
        out["ours"] = _ours(model, clip, tokens, cells)

    def plain() -> None:
        out["plain"] = [_plain(model, tokens, cells[i], input_features=features) for i in chosen]

    def sharing() -> None:
        with torch.no_grad():
            heard = (model.encode(features),)
        out["sharing"] = [_plain(model, tokens, cells[i], encoder_outputs=heard) for i in chosen]

    ours(), plain()
    spent = {"ours": [], "plain": [], "sharing": []}
    for _ in range(3):
        for name, work in (("ours", ours), ("plain", plain), ("sharing", sharing)):
            spent[name].append(seconds(work))
    scale = len(cells) / SAMPLED
    median = {
        name: float(np.median(times)) * (1 if name == "ours" else scale) for name, times in spent.items()
    }
    worst = max(
        float((out["ours"][i] - row).abs().max()) for i, row in zip(chosen, out["plain"], strict=True)
    )
    return {
        "cells": len(cells),
        "ours_seconds": round(median["ours"], 2),
        "plain_seconds": round(median["plain"], 1),
        "plain_sharing_the_encoder_seconds": round(median["sharing"], 1),
        "plain_loops_measured_on": f"{SAMPLED} cells, scaled",
        "times_faster": round(median["plain"] / median["ours"], 1),
        "times_faster_than_sharing_the_encoder": round(median["sharing"] / median["ours"], 1),
        "largest_logit_difference": worst,
    }


def _cells(model: Any, positions: int) -> list[tuple[Any, int]]:
    from otoscope.patching.components import chosen_components

    found = chosen_components(model, ("decoder",), ("self_attn", "cross_attn", "mlp", "resid"), heads=False)
    return [(component, position) for component in found for position in range(positions)]


def _ours(model: Any, clip: Any, tokens: Any, cells: list[tuple[Any, int]]) -> Any:
    """Logits at the last position `(cell, vocab)`; the encoder is included."""
    import torch

    from otoscope.activations import Edit
    from otoscope.models.hearing import listen
    from otoscope.patching.scene import Scene

    heard = listen(model, clip)
    scene = Scene.heard(model, heard.encoded, tokens, heard.audio)
    edits = [[Edit.zero(component.point, positions=(position,))] for component, position in cells]
    parts = [scene.logits(edits[i : i + 32], [len(tokens) - 1])[:, 0] for i in range(0, len(edits), 32)]
    return torch.cat(parts)


def _plain(model: Any, tokens: Any, cell: tuple[Any, int], **heard: Any) -> Any:
    """One hand-written hook, one forward of Hugging Face's model."""
    import torch

    component, position = cell
    layer = model.hf.model.decoder.layers[component.layer]
    module = {
        "self_attn": layer.self_attn,
        "cross_attn": layer.encoder_attn,
        "mlp": layer.fc2,
        "resid": layer,
    }[component.part]

    def zero(_module: Any, _args: tuple, out: Any) -> Any:
        whole = out[0] if isinstance(out, tuple) else out
        whole = whole.clone()
        whole[:, position] = 0
        return (whole, *out[1:]) if isinstance(out, tuple) else whole

    handle = module.register_forward_hook(zero)
    try:
        with torch.no_grad():
            return model.hf(decoder_input_ids=tokens[None], use_cache=False, **heard).logits[0, -1]
    finally:
        handle.remove()
