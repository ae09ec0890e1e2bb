"""How far float16 and bfloat16 lead away from float32, and which identities still hold in them."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.figures import Figure

CLAIM = (
    "whisper-tiny.en and whisper-base in half precision: reading and no-op edits still change no bit; at least 0.9 of the tokens "
    "that follow the float32 text stay on top"
)
MODELS, HALVES = ("whisper-tiny.en", "whisper-base"), ("float16", "bfloat16")
CLIPS = ("jfk", "austen-0870", "austen-0880", "austen-0890")
SAME = 0.9
_WAYS = tuple(f"{model}, {dtype}" for model in MODELS for dtype in HALVES)
FIGURES = (
    Figure(
        "In half precision reading changes no bit",
        tuple(f"{way}/reading_changes_no_bit" for way in _WAYS),
        at_least=True,
    ),
    Figure(
        "In half precision a no-op edit changes no bit",
        tuple(f"{way}/no_op_edit_changes_no_bit" for way in _WAYS),
        at_least=True,
    ),
    Figure(
        "In half precision, share of tokens that stay on top",
        tuple(f"{way}/same_top_token" for way in _WAYS),
        at_least=SAME,
    ),
)


def run() -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name in MODELS:
        exact, texts = _passes(name, "float32", None)
        for dtype in HALVES:
            half, written = _passes(name, dtype, texts)
            same = sum(a == b for a, b in zip(texts, written, strict=True))
            out[f"{name}, {dtype}"] = {
                **_deviations(exact, half),
                **_identities(name, dtype, texts[0]),
                "same_texts": f"{same} of {len(texts)}",
            }
    return out


def _passes(
    name: str, dtype: str, texts: list[list[int]] | None
) -> tuple[list[dict[str, Any]], list[list[int]]]:
    """Of every clip what a pass over the float32 text gives in some precision, in float64; and what that precision writes."""
    import torch

    import otoscope as oto
    from otoscope.lenses.attribution import attribution_points, direct_attribution
    from otoscope.models.loading import load_model

    model = load_model(name, dtype=dtype)
    found, written = [], []
    for number, clip in enumerate(CLIPS):
        sound = oto.read(oto.sample(clip))
        text = oto.transcribe(model, sound)
        written.append(list(text.ids))
        ids = torch.tensor([[*text.prompt, *(texts[number] if texts else text.ids)]])
        points = ["*.hook_resid_post", *attribution_points(model)]
        with torch.no_grad(), model.capturing(points) as cache:
            logits = model.forward(model.inputs(sound, ids)).logits[0]
        start = len(text.prompt)
        tokens, places = ids[0, start:], slice(start - 1, ids.shape[1] - 1)
        with torch.no_grad():
            told = direct_attribution(model, cache, tokens, positions=places)
        found.append(
            {
                "logits": logits.double()[places],
                "streams": [cache[n].double()[0] for n in sorted(cache) if n.endswith("resid_post")],
                "parts": told.component,
                "error": told.error,
            }
        )
    return found, written


def _deviations(exact: list[dict[str, Any]], half: list[dict[str, Any]]) -> dict[str, Any]:
    import torch

    logits = torch.cat(
        [(b["logits"] - a["logits"]).abs().flatten() for a, b in zip(exact, half, strict=True)]
    )
    parts = torch.cat([(b["parts"] - a["parts"]).abs().flatten() for a, b in zip(exact, half, strict=True)])
    size = torch.cat([a["parts"].abs().flatten() for a in exact])
    streams = torch.cat(
        [
            (y - x).norm(dim=-1) / x.norm(dim=-1)
            for a, b in zip(exact, half, strict=True)
            for x, y in zip(a["streams"], b["streams"], strict=True)
        ]
    )
    top = [
        (a["logits"].argmax(-1) == b["logits"].argmax(-1)).double().mean().item()
        for a, b in zip(exact, half, strict=True)
    ]
    return {
        "logits_max": round(float(logits.max()), 3),
        "logits_median": round(float(logits.median()), 4),
        "streams_relative_max": round(float(streams.max()), 4),
        "streams_relative_median": round(float(streams.median()), 5),
        "attributions_max": round(float(parts.max()), 3),
        "attributions_median": round(float(parts.median()), 4),
        "attributions_median_size": round(float(size.median()), 3),
        "attributions_sum_error": round(max(b["error"] for b in half), 3),
        "same_top_token": round(statistics.mean(top), 3),
    }


def _identities(name: str, dtype: str, text: list[int]) -> dict[str, Any]:
    """Exact ones as yes or no, the others by their largest error over the largest number."""
    import torch

    import otoscope as oto
    from otoscope.activations import Edit
    from otoscope.models.loading import load_model

    model = load_model(name, dtype=dtype, attention="eager")
    sound = oto.read(oto.sample(CLIPS[0]))
    inputs = model.inputs(sound, torch.tensor([[*model.prompt(), *text]]))
    block = "decoder_blocks.1"
    names = [f"{block}.self_attn.hook_{x}" for x in ("pattern", "v", "z")]
    names += [
        f"{block}.hook_{x}" for x in ("resid_pre", "attn_out", "cross_attn_out", "mlp_out", "resid_post")
    ]
    last = f"decoder_blocks.{model.config.decoder_layers - 1}.hook_resid_post"
    with torch.no_grad():
        plain = model.forward(inputs).logits
        with model.capturing([*names, last]) as cache:
            read = model.forward(inputs).logits
        with model.editing([Edit.add(f"{block}.hook_resid_pre", torch.zeros(model.config.d_model))]):
            edited = model.forward(inputs).logits
        lens = model.unembed(cache[last])
    pattern, v, z = (cache[n].double() for n in names[:3])
    before, *added, after = (cache[n].double() for n in names[3:])
    return {
        "reading_changes_no_bit": bool(torch.equal(read, plain)),
        "no_op_edit_changes_no_bit": bool(torch.equal(edited, plain)),
        "last_lens_is_the_logits": bool(torch.equal(lens, plain)),
        "pattern_times_v_is_z": _error(torch.einsum("bhqk,bkhd->bqhd", pattern, v), z),
        "parts_of_a_layer_add_up": _error(before + sum(added), after),
    }


def _error(found: Any, wanted: Any) -> float:
    return round(float((found - wanted).abs().max() / wanted.abs().max()), 6)
