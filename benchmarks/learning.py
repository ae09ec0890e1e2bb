"""The recipes for whisper-tiny.en, from making their corpora to what the model does with the dictionaries; about an hour."""

from __future__ import annotations

from typing import Any

from benchmarks.figures import Figure
from benchmarks.measure import NOT_PREPARED, PREPARED
from benchmarks.studying import Folder
from otoscope.corpora import read_manifest, write_manifest

CLAIM = (
    "Skip transcoders by the recipes for whisper-tiny.en explain at least 0.85 of the variance of its decoder's MLPs with at "
    "most 64 features on; with dictionaries in the MLPs' place the word error rate of prompts that were kept out rises by at "
    "most 1 point (decoder) and 2 points (encoder); at least three features of the encoder change more than each of 20 "
    "random ones"
)
FIGURES = (
    Figure(
        "Decoder transcoders of whisper-tiny.en: explained variance, held out",
        "decoder/explained_variance",
        at_least=0.85,
    ),
    Figure("their L0", "decoder/l0", at_most=64),
    Figure("WER with them in place of the MLPs, change", "decoder/wer_points", at_most=1, unit="points"),
    Figure(
        "Encoder transcoders of whisper-tiny.en in place of the MLPs: WER, change",
        "encoder/wer_points",
        at_most=2,
        unit="points",
    ),
    Figure("Features of the encoder that change more than each of 20 random ones", "stand_out", at_least=3),
    Figure(
        "Training by these recipes, once harvested, the longer",
        ("decoder/training_minutes", "encoder/training_minutes"),
        at_most=40,
        unit="minutes",
    ),
)
TESTED = ("1:262", "1:835", "0:3455")
"""Features of the encoder that docs/studies/features.md names, of twelve: chosen there by a gradient or by their moments."""


def run() -> dict[str, Any]:
    if not PREPARED.exists():
        return NOT_PREPARED
    study = Folder("learning")
    corpora = _corpora(study)
    english = [
        item for item in read_manifest(PREPARED) if item.language == "en" and item.path.parent.name == "en"
    ]
    write_manifest(english, study.path / "english.jsonl")
    for part in ("decoder", "encoder"):
        recipe = f"whisper-tiny.en-{part}"
        study.otoscope(
            "features", "train", *corpora, "--recipe", recipe, "--exclude", "english.jsonl", "--out", part
        )
        study.otoscope("features", "evaluate", part, "english.jsonl", "--json", f"{part}.json")
    chosen = [word for feature in TESTED for word in ("--feature", feature)]
    study.otoscope("features", "test", "encoder", "encoder/held_out.jsonl", *chosen, "--json", "tested.json")
    return {part: _judged(study, part) for part in ("decoder", "encoder")} | _tested(study) | study.ended()


def _corpora(study: Folder) -> list[str]:
    """What the recipes say to learn from."""
    sets = ("--sets", "prompts,dialogue,letters", "--languages", "en")
    study.otoscope("corpus", "make", "prompts", *sets, "--out", "prompts")
    study.otoscope("corpus", "make", "noise", "prompts/manifest.jsonl", "--out", "noisy")
    study.once("texts.jsonl", "corpus", "make", "texts", "--out", "texts.jsonl")
    study.otoscope("corpus", "make", "spoken", "texts.jsonl", "--count", "600", "--out", "spoken")
    return ["noisy/manifest.jsonl", "spoken/manifest.jsonl"]


def _judged(study: Folder, part: str) -> dict[str, Any]:
    held_out, told = study.read(f"{part}/scores.json"), study.read(f"{part}.json")
    change = told["wer_difference"]
    begun, ended = ((study.path / part / name).stat().st_mtime for name in ("run.json", "dictionary.json"))
    return {
        "explained_variance": round(held_out["explained_variance"], 4),
        "l0": round(held_out["l0"], 2),
        "recordings": change["n"],
        "wer": round(told["wer"], 4),
        "wer_points": round(100 * change["change"], 2),
        "wer_points_low": round(100 * change["ci_low"], 2),
        "wer_points_high": round(100 * change["ci_high"], 2),
        "training_minutes": round((ended - begun) / 60, 1),
    }


def _tested(study: Folder) -> dict[str, Any]:
    """How many of the features do more than each control, at the same tokens and at the control's own."""
    rarer = {
        f"{one['layer']}:{one['feature']}": max(one["p_own"], one["p_these"])
        for one in study.read("tested.json")["tests"]
    }
    first = [name for name, p in rarer.items() if p < 1 / 20]
    return {"tested": len(rarer), "stand_out": len(first), "which": ", ".join(first)}
