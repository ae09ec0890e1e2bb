"""Does the grounding ratio tell what was heard from what was invented?

Tokens of clean speech beside tokens that are written where nobody speaks (silence, noises, tones, music). Their area under the
ROC curve, with intervals over recordings, beside cross-attention's mass on the recording and the token's own probability.
"""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.figures import Figure
from benchmarks.hearing_checks import recordings
from benchmarks.measure import NOT_PREPARED, PREPARED

CLAIM = (
    "The grounding ratio of tokens invented on silence and noise is lower than that of tokens of clean speech, and tells them "
    "apart better than cross-attention's mass or focus and than the token's probability"
)
SPEECH, COUNT, TOKENS, NODES, DRAWS = 60, 12, 4, 300, 1000
OTHERS = ("cross_attention_mass", "cross_attention_focus", "token_probability")
FIGURES = tuple(
    Figure(
        f"{name}: AUC of the grounding ratio, held to the best of attention's mass and focus and the token's probability",
        f"{key}/grounding_ratio/auc",
        at_least=tuple(f"{key}/{other}/auc" for other in OTHERS),
    )
    for key, name in (("whisper_tiny_en", "whisper-tiny.en"), ("whisper_base", "whisper-base"))
)


def run() -> dict[str, Any]:
    if not PREPARED.exists():
        return NOT_PREPARED
    return {
        name.replace("-", "_").replace(".", "_"): _of(name) for name in ("whisper-tiny.en", "whisper-base")
    }


def _of(name: str) -> dict[str, Any]:
    from otoscope.models.loading import load_model

    model = load_model(name, dtype="float32")
    with tempfile.TemporaryDirectory() as folder:
        rows = [row for clip in recordings(SPEECH) for row in _tokens(model, clip, 1)]
        rows += [row for clip in _nonspeech(Path(folder)) for row in _tokens(model, clip, 0)]
    scores = (
        "grounding_ratio",
        "heard_in_the_recording",
        "cross_attention_mass",
        "cross_attention_focus",
        "token_probability",
    )
    return {
        "tokens_of_speech": sum(row["spoken"] for row in rows),
        "recordings_of_speech": len({row["clip"] for row in rows if row["spoken"]}),
        "tokens_invented": sum(not row["spoken"] for row in rows),
        "recordings_without_speech": len({row["clip"] for row in rows if not row["spoken"]}),
        "grounding_ratio_median_speech": _median(rows, 1),
        "grounding_ratio_median_invented": _median(rows, 0),
        **{score: _auc(rows, score) for score in scores},
        "beside_silence": against_silence(name),
    }  # fmt: skip


def _nonspeech(folder: Path) -> list[Any]:
    from otoscope.corpora import read_manifest
    from otoscope.corpora.recipes import NonSpeech, make_corpus

    make_corpus(NonSpeech(count=COUNT), folder / "nonspeech")
    return [item.clip() for item in read_manifest(folder / "nonspeech" / "manifest.jsonl")]


def _tokens(model: Any, clip: Any, spoken: int) -> list[dict[str, Any]]:
    from otoscope.circuits.heard import listen
    from otoscope.circuits.scores import grounding
    from otoscope.circuits.speech import trace_speech
    from otoscope.circuits.speech_tracing import SpeechSettings
    from otoscope.circuits.totals import totals
    from otoscope.errors import ModelError
    from otoscope.models.transcribing import frames_of
    from otoscope.models.transcripts import DecodeOptions

    options = DecodeOptions(language="en" if model.is_multilingual else None)
    try:
        heard = listen(model, clip, options)
    except ModelError:
        return []  # nothing was written
    text = [i for i, token in enumerate(heard.transcript.ids[:60]) if token < model.end_token]
    if not text:
        return []
    chosen = sorted(random.Random(clip.source or "").sample(text, min(TOKENS, len(text))))
    graph = trace_speech(model, heard, chosen, settings=SpeechSettings(nodes=NODES))
    tracer, account, frames = graph.tracer, totals(graph.tracer), frames_of(model, heard.clip)
    rows = []
    for i, index in enumerate(chosen):
        looks = torch.stack([a.pattern[:, tracer.targets[i].pos] for a in tracer.tape.cross])
        own = looks[..., :frames].double()
        rows.append(
            {
                "clip": clip.source,
                "spoken": spoken,
                "grounding_ratio": grounding(graph, i).ratio,
                "heard_in_the_recording": float(account.sound[i][: len(account.sound[i]) - 1].sum()),
                "cross_attention_mass": float(own.sum(dim=-1).mean()),
                "cross_attention_focus": float((looks * looks.clamp_min(1e-12).log()).sum(dim=-1).mean()),
                "token_probability": heard.transcript.tokens[index].logprob,
            }
        )
    return rows


def against_silence(name: str, count: int = 25) -> dict[str, Any]:
    """Does the ratio tell what a token loses when the recording is silenced? Rank correlations, intervals over recordings."""
    from otoscope.circuits.heard import listen
    from otoscope.circuits.hearing_runs import Change, react
    from otoscope.circuits.scores import grounding
    from otoscope.circuits.speech import trace_speech
    from otoscope.circuits.speech_tracing import SpeechSettings
    from otoscope.models.loading import load_model
    from otoscope.models.transcribing import frames_of
    from otoscope.models.transcripts import DecodeOptions

    model, rows = load_model(name, dtype="float32"), []
    options = DecodeOptions(language="en" if model.is_multilingual else None)
    for number, clip in enumerate(recordings(count + 9)[9:]):
        heard = listen(model, clip, options)
        ids = heard.transcript.ids
        chosen = sorted(random.Random(number).sample(range(len(ids)), min(TOKENS, len(ids))))
        graph = trace_speech(model, heard, chosen, settings=SpeechSettings(nodes=NODES))
        tracer, frames = graph.tracer, torch.arange(frames_of(model, heard.clip))
        change = react(tracer, [Change(sound=tracer.silenced(frames))], tracer.targets)[0]
        values = graph.values[len(graph.values) - len(chosen) :]
        for i, index in enumerate(chosen):
            lost, p = -float(change[i]) / float(values[i]), heard.transcript.tokens[index].logprob
            rows.append((number, grounding(graph, i).ratio, p, lost))
    table = np.array(rows)
    return {
        "tokens": len(table),
        "recordings": len(set(table[:, 0])),
        "grounding_ratio_and_share_lost": _rank(table, 1),
        "token_probability_and_share_lost": _rank(table, 2),
    }


def _rank(table: np.ndarray, column: int) -> dict[str, float]:
    """Spearman's correlation with the last column."""
    from scipy.stats import spearmanr

    groups, rng, drawn = np.unique(table[:, 0]), np.random.default_rng(0), []
    for _ in range(DRAWS):
        rows = np.concatenate([np.flatnonzero(table[:, 0] == g) for g in rng.choice(groups, len(groups))])
        drawn.append(spearmanr(table[rows, column], table[rows, 3])[0])
    low, high = np.quantile(drawn, (0.025, 0.975))
    own = float(spearmanr(table[:, column], table[:, 3])[0])
    return {
        "correlation": round(own, 3), "ci_low": round(float(low), 3), "ci_high": round(float(high), 3),
    }  # fmt: skip


def _median(rows: list[dict[str, Any]], spoken: int) -> float:
    return round(float(np.median([r["grounding_ratio"] for r in rows if r["spoken"] == spoken])), 3)


def _auc(rows: list[dict[str, Any]], score: str) -> dict[str, float]:
    clips = sorted({row["clip"] for row in rows})
    by_clip = {clip: [row for row in rows if row["clip"] == clip] for clip in clips}
    rng, drawn = np.random.default_rng(0), []
    for _ in range(DRAWS):
        sample = [row for i in rng.integers(0, len(clips), len(clips)) for row in by_clip[clips[i]]]
        drawn.append(_area(sample, score))
    low, high = np.nanquantile(drawn, (0.025, 0.975))
    return {
        "auc": round(_area(rows, score), 4), "ci_low": round(float(low), 4), "ci_high": round(float(high), 4),
    }  # fmt: skip


def _area(rows: list[dict[str, Any]], score: str) -> float:
    from scipy.stats import rankdata

    values, spoken = np.array([r[score] for r in rows]), np.array([bool(r["spoken"]) for r in rows])
    ones, zeros = int(spoken.sum()), int((~spoken).sum())
    if not ones or not zeros:
        return float("nan")
    return float((rankdata(values)[spoken].sum() - ones * (ones + 1) / 2) / (ones * zeros))
