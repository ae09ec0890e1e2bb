"""An attribution graph to be shown: which sounds, words and features supplied a written token, and how much.

All indices (nodes, tokens, segments, layers, heads, features) are 0-based; layer -1 is below the first. Times are seconds from
the start of the traced window. Weights, values and parts are in logits of a target, in activation of a feature.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from otoscope.documents.annotations import Annotations
from otoscope.documents.audio import AudioInfo
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
from otoscope.documents.features import FeatureInfo, TokenWeight

Layer = Annotated[int, Field(ge=-1)]
Mass = Annotated[float, Field(ge=0)]


class GraphStream(Part):
    """A stack of layers: the one that writes, or the one that hears."""

    name: Text
    layers: Index
    hears: bool


class GraphToken(Part):
    """A token that the writing stack was given; `start` and `end` are those of its word, where it was heard.

    `prompt`: it was given by the decoder's prompt, not written.
    """

    text: Text
    prompt: bool = False
    start: Seconds | None = None
    end: Seconds | None = None


class GraphSegment(Part):
    """A stretch of sound over which frames are pooled into one node."""

    label: Text
    start: Seconds
    end: Seconds
    kind: Literal["word", "pause", "padding", "piece"]


class Account(Part):
    """What each source supplied to a target along all paths, through features that are nodes or not; all parts sum to `value`.

    `sound` has one number a segment, `tokens` one a token; `heads` are layer, head, segment and part of what cross-attention
    brought, the largest ones.
    """

    value: float
    sound: list[float]
    tokens: list[float]
    positions: float
    biases: float
    errors: float
    heads: list[tuple[Index, Index, Index, float]] = Field(default_factory=list)


class GraphTarget(Part):
    """What is explained: the logit of a token over the mean of the vocabulary, or over that of another token.

    `position` is the token at which it is read; `written` the number of the written token that it is, where one was written.
    """

    node: Index
    text: Text
    p: Probability | None = None
    weight: Mass  # its share of the graph's influence, not normalised
    position: Index
    written: Index | None = None
    against: Text | None = None
    account: Account | None = None


class Inputs(Part):
    """What a node sums over: its edges and `rest`, signed, make `value`.

    `mass` is the sum of absolute sizes over edges and everything else (`rest_mass`), so that an edge's share of the input is
    `weight / mass`, and shares of edges and rest sum to 1 in size, however few edges are kept.
    """

    value: float
    rest: float
    rest_mass: Mass
    mass: Mass


class GraphNode(Part):
    """A node. `position` is its token, `segment` its stretch of sound, and it has one of the two or neither. `start` and
    `end` say when its sound is; of a target, when the word that it begins is said.

    `influence` is the share of the targets that reaches them through the node along all paths of the whole graph. `label` is made
    by rule; what a person calls it is an annotation. `inputs` is missing where nothing was traced into it.
    """

    id: Text
    kind: Literal["feature", "error", "token", "position", "bias", "target", "frame", "projector"]
    stream: Text
    layer: Layer
    position: Index | None = None
    segment: Index | None = None
    feature: Index | None = None
    activation: float | None = None
    start: Seconds | None = None
    end: Seconds | None = None
    label: Text
    influence: Mass
    inputs: Inputs | None = None


class Edges(Part):
    """Edges as three arrays of one length: what node supplies which node, and how much (`f32`; indices are exact to 2**24)."""

    source: Array
    target: Array
    weight: Array


class HeadPart(Part):
    """One head's part of an edge or an attention score's layer and head."""

    layer: Index
    head: Index
    cross: bool  # cross-attention, by which sound comes
    part: float


class ScorePair(Part):
    """What two sources together supplied to an attention score, by ids or names."""

    query: Text
    key: Text
    part: float


class AttentionScore(Part):
    """Why a head looked from one token at another: its score before softcap and mask, as parts of pairs of sources."""

    layer: Index
    head: Index
    query: Index
    key: Index
    score: float
    pairs: list[ScorePair]


class EdgeSplit(Part):
    """An edge by the last head on its way. Heads, `residual` (no head) and `skip` (skip paths of the dictionary) sum to the edge;
    `others` is what the heads that are not listed carry together.
    """

    source: Index
    target: Index
    heads: list[HeadPart]
    others: float
    residual: float
    skip: float
    scores: list[AttentionScore] = Field(default_factory=list)


class GraphFeature(Part):
    """What is known of a feature apart from this graph; `about` where examples were collected."""

    stream: Text
    layer: Index
    feature: Index
    promotes: list[TokenWeight] = Field(default_factory=list)
    suppresses: list[TokenWeight] = Field(default_factory=list)
    about: FeatureInfo | None = None


class LeftOut(Part):
    """What the graph does not show, so that it can say so.

    `rest` is the share of the influence that ends in features that are no nodes, `errors` in what the dictionary misses.
    """

    active_features: Index
    traced_features: Index
    shown_features: Index
    traced_edges: Index
    shown_edges: Index
    node_share: Probability
    edge_share: Probability
    rest: Probability
    errors: Probability


class CheckLine(Part):
    """Whether predictions of the graph come true when nodes are taken away in the model.

    `direct`: correlation with everything frozen; `free`: with the model reacting, and its 95 % interval; `baselines` are simpler
    guides.
    """

    what: Text
    n: Index
    direct: float | None = None
    free: float | None = None
    low: float | None = None
    high: float | None = None
    baselines: dict[Text, float | None] = Field(default_factory=dict)


class Made(Part):
    """How to make the graph again: the command, and lines of Python that leave it in `graph`."""

    command: Text
    python: Text


class GraphData(Part):
    """One graph: targets, nodes, edges, and what is known about them.

    `dictionary` is what people call that of the stack that writes, `encoder_dictionary` that of the one that hears, where it was
    opened. Their folders are what `load_dictionary` takes (`neurons` for the model's own); missing where nobody knows them.
    """

    model: Text
    dictionary: Text
    dictionary_folder: Text | None = None
    encoder_dictionary: Text | None = None
    encoder_dictionary_folder: Text | None = None
    text: Text  # the prompt or what was written
    streams: list[GraphStream]
    tokens: list[GraphToken]
    segments: list[GraphSegment] = Field(default_factory=list)
    targets: list[GraphTarget]
    nodes: list[GraphNode]
    edges: Edges
    splits: list[EdgeSplit] = Field(default_factory=list)
    features: list[GraphFeature] = Field(default_factory=list)
    left_out: LeftOut
    checks: list[CheckLine] = Field(default_factory=list)
    summary: list[Text] = Field(default_factory=list)  # in words, a line each
    made: Made
    annotations: Annotations = Field(default_factory=Annotations)

    @model_validator(mode="after")
    def _parts_agree(self) -> GraphData:
        count, names = len(self.nodes), {stream.name for stream in self.streams}
        ends = [self.edges.source, self.edges.target, self.edges.weight]
        if len({array.shape for array in ends}) != 1 or len(self.edges.weight.shape) != 1:
            raise ValueError("edges are not three arrays of one length")
        for array in ends[:2]:
            at = array.unpack()
            if at.size and (at.min() < 0 or at.max() >= count or (at != np.floor(at)).any()):
                raise ValueError("an edge names a node that does not exist")
        if len({node.id for node in self.nodes}) != count:
            raise ValueError("two nodes have the same id")
        for node in self.nodes:
            if node.stream not in names:
                raise ValueError(f"{node.id} is of a stream that is not listed")
            if (node.position or 0) >= max(len(self.tokens), 1) or (node.segment or 0) >= max(
                len(self.segments), 1
            ):
                raise ValueError(f"{node.id} is at a token or segment that does not exist")
        if not self.targets or any(
            t.node >= count or self.nodes[t.node].kind != "target" for t in self.targets
        ):
            raise ValueError("a target is no node, or there is none")
        for target in self.targets:
            if target.account and (
                len(target.account.sound) != len(self.segments)
                or len(target.account.tokens) != len(self.tokens)
            ):
                raise ValueError("an account has not one part for each segment and token")
        if any(max(split.source, split.target) >= count for split in self.splits):
            raise ValueError("a split names a node that does not exist")
        return self


class Sound(Part):
    """The sound of a graph; `waveform` is (2, bins), `mel` (mel bins, frames), lowest bin first, as the model saw it."""

    audio: AudioInfo
    waveform: Array
    mel: Array | None = None


class GraphDoc(Document):
    """One graph on a page of its own, with its sound, and another one to compare it with.

    `resources["audio"]` is the window as a WAV file, `resources["other-audio"]` that of the other graph; the rest are snippets of
    features.
    """

    kind: Literal["graph"] = "graph"
    version: Literal[1] = 1
    title: Text
    graph: GraphData
    sound: Sound | None = None
    other: GraphData | None = None
    other_sound: Sound | None = None
    settings: dict[Text, JsonScalar] = Field(default_factory=dict)
    versions: dict[Text, Text] = Field(default_factory=dict)
    notes: list[Text] = Field(default_factory=list)
    resources: dict[Text, Resource] = Field(default_factory=dict)

    def summary(self) -> str:
        """The graph in words."""
        return "\n".join([self.title, *self.graph.summary])
