"""Curves over layers as documents: of probes, and of lenses over a corpus."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from otoscope.documents.base import JsonScalar
from otoscope.documents.curve import CurveDoc
from otoscope.figures.contents import lens_panels, probe_panel

if TYPE_CHECKING:
    from otoscope.probes.probing import ProbeCurve
    from otoscope.studies.lens_corpus import CorpusLens


def probe_doc(curve: ProbeCurve) -> CurveDoc:
    """A probed label as a document."""
    data = curve.to_dict()
    groups = "apart in training and test" if data["groups_disjoint"] else "shared by training and test"
    return CurveDoc.model_validate(
        {
            "title": f"{data['label']} in the {data['site']} of {data['model']}",
            "model": data["model"],
            "headline": _best(data),
            "about": f"One linear probe a layer on the {data['site']}, pooled by {data['pool']}; {data['n_items']} items, "
            f"{data['n_groups']} groups {groups}, {data['n_folds']} folds.",
            "cautions": data["cautions"],
            "panels": [probe_panel(data)],
            "settings": _scalars(data["options"]),
            "versions": data["versions"],
            "notes": ["Layers are counted from 0; a layer is the residual stream after its block."],
        }
    )


def _best(data: Mapping[str, Any]) -> str:
    """The best layer beside the highest of its controls."""
    panel = probe_panel(data)
    layer = data["best_layer"]
    at = {one["name"]: point for one in panel["series"] for point in one["points"] if point["x"] == layer}
    probe = at.pop("probe")
    told = f"Layer {layer} tells {data['label']} best: {probe['y']:.2f} ({probe['low']:.2f} to {probe['high']:.2f})"
    if not at:
        return f"{told}."
    control = max(at, key=lambda name: at[name]["y"])
    return f"{told}; the highest control there, {control}, {at[control]['y']:.2f}."


def corpus_lens_doc(corpus: CorpusLens) -> CurveDoc:
    """What the layers know over a corpus, as a document."""
    record = corpus.record
    return _lens_curves(
        {"": corpus.summary()}, record["model"], _scalars(record["settings"]), record["versions"]
    )


def study_docs(results: Mapping[str, Any]) -> dict[str, Any]:
    """The pages of a published experiment by file stem; none where its results are no curves and no sweeps.

    Args:
        results: What the study's `results.json` holds.
    """
    from otoscope.studies.patch_page import sweep_doc

    if results["study"] == "lens":
        return {"lens": _lens_curves(results["languages"], results["model"]["name"], {}, results["versions"])}
    if results["study"] == "probes":
        return {"probes": _findings(results)}
    swept = {name: one for name, one in results.get("sweeps", {}).items() if one["n_outcome"]}
    return {f"sweep-{i}": sweep_doc(sweep) for i, sweep in enumerate(swept.values())}


def _lens_curves(
    summaries: Mapping[str, Mapping[str, Any]],
    model: str,
    settings: Mapping[str, JsonScalar],
    versions: Mapping[str, Any],
) -> CurveDoc:
    recordings, tokens = (sum(one[name] for one in summaries.values()) for name in ("recordings", "tokens"))
    return CurveDoc.model_validate(
        {
            "title": f"What the layers of {model} know",
            "model": model,
            "headline": " ".join(_half_settled(language, one) for language, one in summaries.items()),
            "about": f"{tokens} tokens of {recordings} recordings; each layer is read as if it were the last.",
            "panels": [panel for language, one in summaries.items() for panel in lens_panels(language, one)],
            "settings": settings,
            "versions": {name: str(version) for name, version in versions.items()},
            "notes": [
                "Layers are counted from 0; a layer is the residual stream after its block.",
                "A layer may hold what the lens cannot read.",
            ],
        }
    )


def _half_settled(language: str, summary: Mapping[str, Any]) -> str:
    """From which layer on more than half of the tokens stay on top."""
    where = f"In {language}, half" if language else "Half"
    for layer in summary["layers"]:
        if layer["saturated"]["mean"] is not None and layer["saturated"]["mean"] >= 0.5:
            return f"{where} of the tokens are settled from layer {layer['layer']} of {len(summary['layers']) - 1} on."
    return f"{where} of the tokens are never settled."


def _findings(results: Mapping[str, Any]) -> CurveDoc:
    model = results["model"]["name"]
    findings = results["findings"]
    panels = [probe_panel(one) | {"title": f"{one['label']} ({one['corpus']})"} for one in findings]
    return CurveDoc.model_validate(
        {
            "title": f"What can be told from {model}",
            "model": model,
            "headline": " ".join(_best(one) for one in findings[:3]),
            "about": f"{len(findings)} labels, each probed at every layer.",
            "cautions": sorted({caution for one in findings for caution in one["cautions"]}),
            "panels": panels,
            "versions": {name: str(version) for name, version in results["versions"].items()},
            "notes": ["Layers are counted from 0; a layer is the residual stream after its block."],
        }
    )


def _scalars(settings: Mapping[str, Any]) -> dict[str, JsonScalar]:
    return {name: value for name, value in settings.items() if isinstance(value, str | int | float | bool)}
