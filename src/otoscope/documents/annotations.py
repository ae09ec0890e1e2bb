"""What people write onto a graph: names, pins, groups and a note; apart from what was computed."""

from __future__ import annotations

from pydantic import Field

from otoscope.documents.base import Part, Text


class Supernode(Part):
    """Nodes that a person takes for one thing. A node is in one supernode at most."""

    label: Text
    nodes: list[Text]  # ids


class Annotations(Part):
    """What was written onto one graph; everything is filed under node ids, so it outlives another pruning.

    `places` are where a person put the boxes of the subgraph, as shares of its width and height from the upper left; boxes of
    supernodes are filed under `supernode/` and the id of their first node.
    """

    labels: dict[Text, Text] = Field(default_factory=dict)
    pins: list[Text] = Field(default_factory=list)
    supernodes: list[Supernode] = Field(default_factory=list)
    places: dict[Text, tuple[float, float]] = Field(default_factory=dict)
    note: Text = ""
