"""A document of features: what each is about, with the sound of its strongest moments."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from otoscope.documents.base import (
    Array,
    Document,
    Index,
    JsonScalar,
    Part,
    Probability,
    Resource,
    Seconds,
    Text,
)


class FeatureMoment(Part):
    """One of the strongest moments of a feature.

    `snippet` names a resource with the sound from `snippet_start` on; `wave` is (2, bins), the least and greatest sample of each
    bin of it. Texts have none of the three, and no times.
    """

    recording: Text | None = None
    activation: float
    start: Seconds | None = None
    end: Seconds | None = None
    before: Text
    at: Text
    after: Text
    phoneme: Text | None = None
    snippet: Text | None = None
    snippet_start: Seconds | None = None
    snippet_seconds: Seconds | None = None
    wave: Array | None = None


class LabelArea(Part):
    """How well a feature's peaks tell the recordings with a value of a label from the others, beside shuffled labels."""

    label: Text
    value: Text
    auc: Probability
    shuffled: Probability
    n: Index


class TokenWeight(Part):
    """A token and how much a feature adds to its logit directly, per unit of activation."""

    text: Text
    weight: float


class Neighbour(Part):
    """Another feature of the layer that writes alike."""

    feature: Index
    cosine: float


class FeatureInfo(Part):
    """One feature.

    `label` is made from statistics; `named` is what a person called it. `density` is the share of places at which it is on;
    `histogram` counts the recordings by their greatest activation, in equal bins from 0 to `histogram_top`, without the `silent`
    ones.
    """

    layer: Index
    feature: Index
    label: Text
    named: Text | None = None
    density: Probability
    mean: float
    max: float
    histogram: list[Index]
    histogram_top: float
    silent: Index
    promotes: list[TokenWeight] = Field(default_factory=list)
    suppresses: list[TokenWeight] = Field(default_factory=list)
    areas: list[LabelArea] = Field(default_factory=list)
    neighbours: list[Neighbour] = Field(default_factory=list)
    moments: list[FeatureMoment]


class FeaturesDoc(Document):
    """Some features of a dictionary.

    `resources` holds the snippets of sound, as FLAC.
    """

    kind: Literal["features"] = "features"
    version: Literal[1] = 1
    title: Text
    model: Text
    place: Text
    dictionary: Text
    corpus: Text
    items: Index
    vectors: Index
    features_in_all: Index
    features: list[FeatureInfo]
    settings: dict[str, JsonScalar] = Field(default_factory=dict)
    versions: dict[str, Text] = Field(default_factory=dict)
    notes: list[Text] = Field(default_factory=list)
    resources: dict[str, Resource] = Field(default_factory=dict)

    def summary(self) -> str:
        """A few lines of plain text: one a feature."""
        lines = [f"  layer {f.layer} feature {f.feature}: {f.named or f.label}" for f in self.features]
        return "\n".join([self.title, *lines])
