"""Graphs of recognisers against interventions, on recordings that were not used while they were built.

Features of both stacks, groups of them and segments of sound are taken away in the model: with everything frozen each edge is the
change, and when the model reacts predictions are compared with what happens. Intervals are over recordings.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from benchmarks.figures import Figure
from benchmarks.measure import NOT_PREPARED, PREPARED

CLAIM = (
    "Over at least 200 interventions on held-out recordings a graph's edges are the changes they predict with everything frozen "
    "(correlation at least 0.9999); when the model reacts, silenced sound is predicted better than by every baseline (single "
    "features are not: the model's gradient tells more of them)"
)
CLIPS = {"whisper-tiny.en": 6, "whisper-base": 3}
_KEYS = ("whisper_tiny_en", "whisper_base")
FIGURES = (
    Figure("Interventions on held-out recordings", "interventions", at_least=200),
    Figure(
        "their correlation with a graph's edges, everything frozen",
        tuple(f"{key}/direct_correlation" for key in _KEYS),
        at_least=0.9999,
    ),
    Figure(
        "silenced sound, the model reacting, predicted better than by every baseline",
        tuple(f"{key}/free/sound/above_every_baseline" for key in _KEYS),
        at_least=True,
    ),
)
FEATURES, ENCODER_NODES, DRAWS = 20, 40, 1000


def run() -> dict[str, Any]:
    if not PREPARED.exists():
        return NOT_PREPARED
    found = {name.replace("-", "_").replace(".", "_"): _of(name, count) for name, count in CLIPS.items()}
    interventions = sum(f["interventions"] for f in found.values())
    return {
        **found,
        "interventions": interventions,
        "kinds_for_which_every_baseline_is_beaten": {
            name: [kind for kind, told in f["free"].items() if told["above_every_baseline"]] for name, f in found.items()
        },
    }  # fmt: skip


def recordings(count: int) -> list[Any]:
    """English prompts in an order of their own; none of them was looked at while tracing was written."""
    from otoscope.corpora import read_manifest

    items = [item for item in read_manifest(PREPARED) if item.language == "en"]
    spoken = [item for item in items if "prompts" in str(item.audio_filepath)]
    random.Random(7).shuffle(spoken)
    return [item.clip() for item in spoken[:count]]


def _of(name: str, count: int) -> dict[str, Any]:
    from otoscope.circuits.heard import listen
    from otoscope.circuits.speech import trace_speech
    from otoscope.circuits.speech_tracing import SpeechSettings
    from otoscope.models.loading import load_model
    from otoscope.models.transcripts import DecodeOptions

    model, checks = load_model(name, dtype="float32"), []
    settings = SpeechSettings(nodes=300, encoder_nodes=ENCODER_NODES)
    for number, clip in enumerate(recordings(count)):
        heard = listen(model, clip, DecodeOptions(language="en" if model.is_multilingual else None))
        token = random.Random(number).randrange(1, max(2, len(heard.transcript.tokens)))
        checks.append(
            trace_speech(model, heard, token, settings=settings).check(FEATURES, seed=number, ladder=True)
        )
    kinds = sorted({kind for check in checks for kind in check.kinds})
    direct = [check.direct for check in checks]
    return {
        "recordings": len(checks),
        "interventions": sum(len(check.features) for check in checks),
        "edges_compared": int(sum(len(d.measured) for d in direct)),
        "direct_correlation": _pearson(*_joined([(d.predicted, d.measured) for d in direct])),
        "free": {
            kind: _free([c.kinds[kind].free for c in checks if kind in c.kinds])
            | _ladder([c.kinds[kind].ladder for c in checks if kind in c.kinds])
            for kind in kinds
        },
        "mean_absolute_effect": {
            kind: {
                "named": round(float(np.mean([c.kinds[kind].top_effect for c in checks if kind in c.kinds])), 3),
                "random": round(float(np.mean([c.kinds[kind].random_effect for c in checks if kind in c.kinds])), 3),
            }
            for kind in kinds
        },
    }  # fmt: skip


def _free(found: list[Any]) -> dict[str, Any]:
    own = [(f.predicted, f.measured) for f in found]
    correlation = _pearson(*_joined(own))
    baselines = {name: _pearson(*_joined([f.baselines[name] for f in found])) for name in found[0].baselines}
    low, high = _interval(own)
    return {
        "n": int(sum(len(f.measured) for f in found)),
        "correlation": round(correlation, 3),
        "ci_low": low,
        "ci_high": high,
        "rank_correlation": round(_spearman(*_joined(own)), 3),
        **{f"baseline_{name}": round(value, 3) for name, value in baselines.items()},
        "above_every_baseline": all(correlation > value for value in baselines.values() if value == value),
    }


def _ladder(found: list[Any]) -> dict[str, float]:
    """How well what happens is told by the model with less and less of it held."""
    return {
        f"with_{name}": round(_pearson(*_joined([(f[step].predicted, f[step].measured) for f in found])), 3)
        for step, name in (("gates", "scales_reacting"), ("patterns", "scales_and_gates_reacting"))
    }


def _interval(pairs: list[tuple[np.ndarray, np.ndarray]]) -> tuple[float, float]:
    """Bootstrap over recordings."""
    rng = np.random.default_rng(0)
    drawn = [
        _pearson(*_joined([pairs[i] for i in rng.integers(0, len(pairs), len(pairs))])) for _ in range(DRAWS)
    ]
    return tuple(round(float(q), 3) for q in np.nanquantile(drawn, (0.025, 0.975)))  # type: ignore[return-value]


def _joined(pairs: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate([a for a, _ in pairs]), np.concatenate([b for _, b in pairs])


def _pearson(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1]) if a.std() and b.std() else float("nan")


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    from scipy.stats import rankdata

    return _pearson(rankdata(a), rankdata(b))
