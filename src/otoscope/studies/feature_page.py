"""Features as a document: chosen ones with the sound of their strongest moments."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from otoscope.audio import SAMPLING_RATE, read
from otoscope.corpora import items_or_texts
from otoscope.documents.base import Array, Resource
from otoscope.documents.features import (
    FeatureInfo,
    FeatureMoment,
    FeaturesDoc,
    LabelArea,
    Neighbour,
    TokenWeight,
)
from otoscope.errors import AudioError
from otoscope.progress import track
from otoscope.runs.notes import Notes
from otoscope.studies.feature_examples import CONTEXT, Examples

if TYPE_CHECKING:
    from otoscope.corpora import Item

_BINS = 80
_MOMENTS = 8


def about_feature(layer: int, feature: int) -> str:
    """What a note about a feature is filed under; layer and feature are counted from 0."""
    return f"feature {layer} {feature}"


def features_doc(
    examples: Examples,
    chosen: Sequence[tuple[int, int]] | None = None,
    *,
    count: int = 24,
    moments: int = _MOMENTS,
) -> FeaturesDoc:
    """A document of some features.

    Args:
        examples: What was collected.
        chosen: Layers and features, from 0; None: those whose moments have most in common.
        count: How many, where none are chosen.
        moments: Moments of each at most.

    Raises:
        OptionError: There is no such feature.
    """
    told = (
        [examples.read(*place) for place in chosen] if chosen is not None else list(examples.strongest(count))
    )
    notes = Notes(examples.folder).read()
    recordings = recordings_of(examples)
    resources: dict[str, Resource] = {}
    features = []
    with track("Cutting sound", len(told), "features") as task:
        for feature in told:
            note = notes.get(about_feature(feature["layer"], feature["feature"]))
            features.append(
                feature_info(feature, recordings, resources, moments, note.text if note else None)
            )
            task.advance(1)
    about = examples.about
    places = about["places"]
    return FeaturesDoc(
        title=f"Features of {about['model']['name']}, {places['inputs'][0]}"
        + (f" and {len(places['inputs']) - 1} more places" if len(places["inputs"]) > 1 else ""),
        model=about["model"]["name"],
        place=", ".join(places["inputs"]),
        dictionary=str(about["dictionary"].get("name") or about["dictionary"].get("kind")),
        corpus=about["corpus"],
        items=about["items"],
        vectors=about["vectors"],
        features_in_all=about["features"],
        features=features,
        versions={name: str(version) for name, version in about["versions"].items()},
        notes=[
            "Labels are made from statistics and prove nothing; what a person called a feature stands before them.",
            "Moments are the strongest ones, one a recording: what a feature does when it does most, not what it does mostly.",
        ],
        resources=resources,
    )


def recordings_of(examples: Examples) -> list[Item]:
    """The corpus of examples; empty where it is gone."""
    from otoscope.errors import ManifestError

    try:
        return items_or_texts(examples.about["corpus"])
    except (ManifestError, AudioError):
        return []


def feature_info(
    told: Mapping[str, Any],
    recordings: Sequence[Item],
    resources: dict[str, Resource],
    moments: int,
    named: str | None,
) -> FeatureInfo:
    """One feature of a document.

    Args:
        told: Its line of the examples.
        recordings: The corpus, out of which sound is cut; empty: none is.
        resources: Takes the sound.
        moments: Moments at most.
        named: What a person called it.
    """
    peaks = told["peaks"]
    return FeatureInfo(
        layer=told["layer"],
        feature=told["feature"],
        label=told["label"],
        named=named,
        density=told["density"],
        mean=told["mean"],
        max=told["max"],
        histogram=peaks["counts"],
        histogram_top=peaks["up_to"],
        silent=peaks["silent"],
        promotes=[TokenWeight(text=t, weight=w) for t, w in told.get("promotes", [])],
        suppresses=[TokenWeight(text=t, weight=w) for t, w in told.get("suppresses", [])],
        areas=[LabelArea(**area) for area in told["enrichment"][:3]],
        neighbours=[Neighbour(feature=int(i), cosine=c) for i, c in told["neighbours"]],
        moments=[_moment(moment, recordings, resources) for moment in told["examples"][:moments]],
    )


def _moment(
    moment: Mapping[str, Any], recordings: Sequence[Item], resources: dict[str, Resource]
) -> FeatureMoment:
    name, more = moment["recording"], {}
    number = moment.get("item", len(recordings))
    if moment["start"] is not None and number < len(recordings) and recordings[number].audio_filepath == name:
        more = _snippet(recordings[number], moment, resources)
    return FeatureMoment(
        recording=Path(name).name if name else None,
        activation=moment["activation"],
        start=moment["start"],
        end=moment["end"],
        before=moment["before"],
        at=moment["at"],
        after=moment["after"],
        phoneme=moment.get("phoneme"),
        **more,
    )


def _snippet(item: Item, moment: Mapping[str, Any], resources: dict[str, Resource]) -> dict[str, Any]:
    """Sound around a moment, as FLAC; nothing where the recording cannot be read any more."""
    import soundfile

    start = max(0.0, moment["start"] - CONTEXT)
    try:
        clip = read(item.path, offset=item.offset + start, duration=moment["end"] + CONTEXT - start)
    except AudioError:
        return {}
    begin, end = item.offset + start, item.offset + moment["end"]
    name = f"{item.audio_filepath}@{begin:.3f}-{end:.3f}"
    if name not in resources:
        encoded = io.BytesIO()
        whole = np.clip(np.round(clip.samples * 32767), -32768, 32767).astype(np.int16)
        soundfile.write(encoded, whole, SAMPLING_RATE, format="FLAC", subtype="PCM_16")
        data = base64.b64encode(encoded.getvalue()).decode("ascii")
        resources[name] = Resource(media_type="audio/flac", data=data)
    return {
        "snippet": name,
        "snippet_start": round(start, 3),
        "snippet_seconds": round(clip.duration, 3),
        "wave": Array.pack(_wave(clip.samples), "u8"),
    }


def _wave(samples: np.ndarray) -> np.ndarray:
    """Least and greatest sample of each bin `(2, bins)`."""
    bins = np.array_split(samples, min(_BINS, len(samples)))
    return np.array([[float(b.min()) for b in bins], [float(b.max()) for b in bins]])
